"""Masks that other programs wrote, in every layout and at every size that is read."""

import dataclasses
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from foir360_jax.segment import SegmenterError, load_segmenter

SIZE = (24, 32)


@dataclasses.dataclass(frozen=True)
class View:
  name: str
  size: tuple[int, int]


VIEWS = (View("fov090_lat+00_lon+000", SIZE), View("fov090_lat+40_lon-150", SIZE))
PLANNED = (*VIEWS, View("flat", (16, 32)), View("flat_lon180", (16, 32)))


def rectangle(size, top, left, bottom, right):
  mask = np.zeros(size, bool)
  mask[top:bottom, left:right] = True
  return mask


def compressed(mask):
  encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
  return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def uncompressed(mask):
  flat = mask.ravel(order="F").astype(int)
  ends = np.append(np.flatnonzero(np.diff(flat)) + 1, flat.size)
  runs = np.diff(ends, prepend=0).tolist()
  return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def polygon(mask):
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
  return [[int(v) for v in (left, top, right, top, right, bottom, left, bottom)]]


def nested(mask):
  return mask.astype(int).tolist()


def write(folder, name, data):
  path = folder / f"{name}.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(data))


def ask(folder, image="room", planned=PLANNED, confidence=0.0):
  """{view: what was found in it}, asked as for an ordinary segmenter."""
  segmenter = load_segmenter(f"masks:{folder}")
  views = segmenter.views_of(image, planned)
  return {
    view.name: segmenter(
      np.zeros((1, *view.size, 3), np.uint8), confidence, image=image, views=[view]
    )[0]
    for view in views
  }


@pytest.mark.parametrize("form", [compressed, uncompressed, polygon, nested])
@pytest.mark.parametrize("seed", range(2))
def test_every_form_of_a_mask_is_read_to_the_pixel(tmp_path, form, seed):
  rng = np.random.default_rng(seed)
  masks = []
  for _ in range(3):
    if form is polygon:
      top, left = rng.integers(0, 10, 2)
      masks.append(rectangle(SIZE, top, left, top + 5, left + 7))
    else:
      masks.append(rng.random(SIZE) > 0.5)
  write(tmp_path / "room", VIEWS[0].name, [{"segmentation": form(mask)} for mask in masks])
  found = ask(tmp_path)
  assert list(found) == [VIEWS[0].name]
  np.testing.assert_array_equal(found[VIEWS[0].name].masks, masks)


def test_scores_and_categories_are_those_of_coco_or_sam(tmp_path):
  mask = compressed(rectangle(SIZE, 5, 5, 15, 15))
  coco = {
    "images": [{"id": 7, "height": SIZE[0], "width": SIZE[1], "file_name": "any.png"}],
    "categories": [{"id": 3, "name": "chair"}],
    "annotations": [
      {"image_id": 7, "category_id": 3, "score": 0.75, "segmentation": mask},
      {"image_id": 7, "category_id": 9, "segmentation": mask},
      {"image_id": 7, "category_id": 3, "iscrowd": 1, "segmentation": mask},
    ],
  }
  sam = [
    {"segmentation": mask, "predicted_iou": 1.02, "stability_score": 0.97, "bbox": [5, 5, 9, 9]},
    {"segmentation": mask, "predicted_iou": 0.5, "stability_score": 0.99, "area": 100},
  ]
  write(tmp_path / "room", VIEWS[0].name, coco)
  write(tmp_path / "room", VIEWS[1].name, sam)
  found = ask(tmp_path)
  assert found[VIEWS[0].name].scores.tolist() == [0.75, 1.0]
  assert found[VIEWS[0].name].categories == ("chair", "class 9")
  assert found[VIEWS[1].name].scores.tolist() == [1.0, 0.5]
  assert found[VIEWS[1].name].categories == ("", "")
  assert len(ask(tmp_path, confidence=0.6)[VIEWS[1].name]) == 1


def test_the_panorama_is_read_at_the_size_on_which_its_masks_are(tmp_path):
  mask = rectangle((64, 128), 20, 100, 40, 128)
  write(tmp_path, "room", [{"segmentation": compressed(mask)}])
  segmenter = load_segmenter(f"masks:{tmp_path}")
  (flat,) = segmenter.views_of("room", PLANNED)
  assert flat == View("flat", (64, 128))
  found = ask(tmp_path)["flat"]
  np.testing.assert_array_equal(found.masks[0], mask)
  assert found.touches_border.tolist() == [True]  # by the seam


def test_on_the_panorama_a_mask_that_goes_on_beyond_the_seam_is_whole_and_poles_cut_nothing(
  tmp_path,
):
  size = (16, 32)
  across = rectangle(size, 4, 0, 8, 3) | rectangle(size, 4, 28, 8, 32)
  pole = rectangle(size, 0, 10, 3, 20)
  apart = rectangle(size, 4, 0, 8, 3) | rectangle(size, 10, 28, 14, 32)
  write(tmp_path, "room", [{"segmentation": nested(mask)} for mask in (across, pole, apart)])
  assert ask(tmp_path)["flat"].touches_border.tolist() == [False, False, True]


@pytest.mark.parametrize("factor", [2, 3, 0.5])
def test_masks_on_a_view_scaled_as_a_whole_come_back_to_it(tmp_path, factor):
  mask = rectangle(SIZE, 4, 8, 16, 20)
  size = tuple(int(side * factor) for side in SIZE)
  scaled = rectangle(size, *(int(factor * edge) for edge in (4, 8, 16, 20)))
  write(tmp_path / "room", VIEWS[0].name, [{"segmentation": compressed(scaled)}])
  np.testing.assert_array_equal(ask(tmp_path)[VIEWS[0].name].masks[0], mask)


def test_views_without_a_file_are_left_out_and_a_panorama_without_any_is_one_line(tmp_path):
  mask = {"segmentation": compressed(rectangle(SIZE, 5, 5, 15, 15))}
  write(tmp_path / "room", VIEWS[1].name, [mask])
  write(tmp_path / "hall", "fov120_lat+00_lon+000", [mask])
  assert list(ask(tmp_path)) == [VIEWS[1].name]
  with pytest.raises(SegmenterError, match="attic: no masks in .*attic.json, or .*VIEW.json"):
    ask(tmp_path, "attic")
  with pytest.raises(SegmenterError, match="fov120.*no view of hall has this name.*fov090"):
    ask(tmp_path, "hall")


@pytest.mark.parametrize(
  ("data", "words"),
  [
    ({"objects": []}, "holds no masks"),
    ([{"bbox": [0, 0, 1, 1]}], r"annotations\[0\]: must be an object with segmentation"),
    ([{"segmentation": compressed(np.ones((30, 30), bool))}], "30 x 30 pixels for a view of 32 x"),
    ([{"segmentation": {"size": list(SIZE), "counts": [3, 4]}}], "not a run-length encoding"),
    ([{"segmentation": [[0, 0, 90, 0, 90, 5]]}], "leaves the picture"),
    ([{"segmentation": [[[0, 0], [9, 0], [9, 5]]]}], "must be a list x1, y1"),
    ([{"segmentation": nested(np.ones(SIZE)), "score": "high"}], "score must be of kind number"),
    (
      [{"image_id": number, "segmentation": compressed(np.ones(SIZE, bool))} for number in (1, 2)],
      "masks of 2 pictures",
    ),
  ],
)
def test_a_file_that_is_none_gets_one_line_that_names_it(tmp_path, data, words):
  write(tmp_path / "room", VIEWS[0].name, data)
  with pytest.raises(SegmenterError, match=words) as caught:
    ask(tmp_path)
  assert VIEWS[0].name in str(caught.value) and "\n" not in str(caught.value)


def test_who_wrote_them_is_kept(tmp_path):
  write(tmp_path, "segmenter", {"name": "SAM", "version": "2.1", "settings": {"points": 32}})
  about = load_segmenter(f"masks:{tmp_path}").describe()
  assert about["name"] == "masks" and about["version"] == "2.1"
  assert about["settings"]["written_by"]["settings"] == {"points": 32}
  assert about["settings"]["folder"] == str(tmp_path)
