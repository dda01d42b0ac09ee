"""Studies of the segmentation of photographs: collages, figures, and what is kept on disk."""

import json
import sys

import cv2
import numpy as np
import pytest

from foir360_jax.scenes import RunLengths
from foir360_jax.segment.merge import Candidates
from foir360_jax.segment.packed_overlap import PackedMasks
from foir360_jax.segment.segmenter import Segmenter
from foir360_jax.segment.study.baseline import suppress, unpack
from foir360_jax.segment.study.candidates import CandidateStore, of_views
from foir360_jax.segment.study.collages import (
  coordinates,
  make_collage,
  make_collages,
  read_pictures,
  write_collages,
)
from foir360_jax.segment.study.group_values import GROUPS, views_of
from foir360_jax.segment.study.measure import compare, measure_frame, summarise, table
from foir360_jax.segment.study.truth import read_frames
from foir360_jax.sphere import pixel_areas, pixel_directions, solid_angle

HEIGHT = 96
RED, GREEN = (230, 30, 30), (30, 200, 30)


class Colours:
  """A segmenter that finds what is red and what is green, and counts its pictures."""

  name = "colours"
  categories = ("red", "green")

  def __init__(self):
    self.pictures = 0

  def __call__(self, picture, confidence):
    self.pictures += 1
    for category, colour in enumerate((RED, GREEN)):
      like = (abs(picture.astype(int) - colour) < 60).all(axis=-1)
      number, parts = cv2.connectedComponents(like.astype(np.uint8))
      for part in range(1, number):
        mask = parts == part
        if mask.sum() > 20:
          border = mask[[0, -1]].any() or mask[:, [0, -1]].any()
          yield 0.9 - 0.4 * category, category, mask, border


@pytest.fixture
def pictures(tmp_path):
  """Pictures of a red disc and a green square on grey, one of them with a crowd."""
  annotations = {}
  for index in range(6):
    height, width = (120, 160) if index % 2 else (160, 120)
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(y - 50, x - 40) < 18
    square = (abs(y - 95) < 14) & (abs(x - 90) < 14)
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[disc], pixels[square] = RED, GREEN
    cv2.imwrite(str(tmp_path / f"p{index}.jpg"), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    annotations[f"p{index}"] = {
      "split": "test" if index == 5 else "train",
      "size": [width, height],
      "objects": [
        {"category": name, "iscrowd": crowd, "segmentation": RunLengths.from_mask(m).to_coco()}
        for name, crowd, m in (("red", 0, disc), ("green", int(index == 0), square))
      ],
    }
  (tmp_path / "ann.json").write_text(json.dumps(annotations))
  return tmp_path


def test_masks_of_collages_lie_on_what_they_are_masks_of(pictures):
  chosen = read_pictures(pictures, "train")
  assert [picture.file.stem for picture in chosen] == ["p0", "p1", "p2", "p3", "p4"]
  compared = 0
  for collage in make_collages(chosen, 4, HEIGHT, seed=3):
    assert collage.panorama.shape == (HEIGHT, 2 * HEIGHT, 3)
    assert collage.panorama.dtype == np.uint8
    assert not (collage.masks.sum(axis=0) > 1).any()  # nothing lies over another
    for mask, category in zip(collage.masks, collage.categories, strict=True):
      colour = RED if category == "red" else GREEN
      inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0
      assert (abs(collage.panorama[inside].astype(int) - colour) < 60).all()
      compared += inside.any()
    for category, colour in (("red", RED), ("green", GREEN)):
      masks = collage.masks[np.array(collage.categories) == category]
      found = (abs(collage.panorama.astype(int) - colour) < 30).all(axis=-1)
      around = cv2.dilate(masks.any(axis=0).astype(np.uint8), np.ones((3, 3))) > 0
      assert not (found & ~around).any()  # all of it is in a mask
  assert compared >= 8


def test_collages_depend_on_their_seed_and_place_alone(pictures):
  chosen = read_pictures(pictures, "train")
  first, second = (list(make_collages(chosen, number, HEIGHT, seed=1)) for number in (3, 2))
  for a, b in zip(first[:2], second, strict=True):
    np.testing.assert_array_equal(a.panorama, b.panorama)
    np.testing.assert_array_equal(a.masks, b.masks)
  assert (first[0].panorama != first[1].panorama).any()


@pytest.mark.parametrize(("lon_rad", "lat_rad"), [(0.4, 0.1), (np.pi, -0.3), (-1.0, 1.5)])
def test_pictures_lie_on_their_tangent_plane(lon_rad, lat_rad):
  """The slow way round: from each pixel of the picture to the pixel of the sphere it falls on."""
  height, size, fov_deg = 64, (90, 120), 70
  row, column = coordinates(lon_rad, lat_rad, fov_deg, size, height)
  ahead = np.array(
    [np.cos(lat_rad) * np.cos(lon_rad), np.cos(lat_rad) * np.sin(lon_rad), np.sin(lat_rad)]
  )
  east = np.array([-np.sin(lon_rad), np.cos(lon_rad), 0.0])
  north = np.cross(ahead, east)
  focal = 60 / np.tan(np.radians(35))
  seen = np.isfinite(row)
  x, y = column[seen] - 59.5, 44.5 - row[seen]
  rays = ahead * focal + x[:, None] * east + y[:, None] * north
  rays /= np.linalg.norm(rays, axis=1, keepdims=True)
  np.testing.assert_allclose(rays, pixel_directions(height)[seen], atol=1e-5)
  share = pixel_areas(height)[seen].sum() / (
    4
    * np.arctan(
      np.tan(np.radians(35))
      * 0.75
      * np.tan(np.radians(35))
      / np.sqrt(1 + np.tan(np.radians(35)) ** 2 * (1 + 0.75**2))
    )
  )
  assert abs(share - 1) < 0.03  # the solid angle of a rectangle


def test_collages_are_read_as_they_were_written_without_crowds(pictures, tmp_path):
  collages = list(make_collages(read_pictures(pictures, "train"), 2, HEIGHT, seed=0))
  number = write_collages(tmp_path / "out", iter(collages))
  frames = list(read_frames(tmp_path / "out"))
  assert number == sum(len(frame.masks) for frame in frames) > 4
  for collage, frame in zip(collages, frames, strict=True):
    np.testing.assert_array_equal(frame.panorama, collage.panorama)
    np.testing.assert_array_equal(frame.masks, collage.masks[~collage.is_crowd])
  assert any(collage.is_crowd.any() for collage in collages)


def test_objects_smaller_than_eight_pixels_are_crowds(pictures):
  collage = make_collage(np.random.default_rng(0), read_pictures(pictures, "train"), 48)
  across = 2 * np.sqrt(solid_angle(collage.masks) / np.pi) * 48 / np.pi
  assert collage.is_crowd[across < 7.9].all() and (across < 7.9).any()


def test_id_maps_give_an_object_an_id_and_frames_of_a_video_go_together(tmp_path):
  folder = tmp_path / "erp"
  folder.mkdir()
  records = []
  kinds = {
    "pavs_a": "human instance masks",
    "pavs_b": "human object-level binary mask; ids are connected components",
    "pavs_seq_ski_0": "human object-level mask; RGB NOT clean (grey only)",
    "pavs_seq_ski_1": "human object-level mask; RGB NOT clean (grey only)",
  }
  for number, (name, annotation) in enumerate(kinds.items(), 1):
    ids = np.zeros((32, 64), np.uint8)
    for index in range(number):
      ids[4 * index : 4 * index + 2, 5:60] = 10 + index
    cv2.imwrite(str(folder / f"{name}_ids.png"), ids)
    cv2.imwrite(str(folder / f"{name}.png"), np.zeros((32, 64, 3), np.uint8))
    records.append({"id": name, "annotation": annotation, "n_objects": number})
  (tmp_path / "manifest.json").write_text(json.dumps({"erp_annotated": records}))
  frames = list(read_frames(folder))
  assert [len(frame.masks) for frame in frames] == [1, 2, 3, 4]
  assert [frame.group for frame in frames] == ["instances", "components", "grey", "grey"]
  assert frames[2].video == frames[3].video != frames[1].video
  records[0]["n_objects"] = 2
  (tmp_path / "manifest.json").write_text(json.dumps({"erp_annotated": records}))
  with pytest.raises(ValueError, match="pavs_a_ids.png: 1 objects, not 2"):
    list(read_frames(folder))


def test_the_annotated_video_frames_have_as_many_objects_as_was_reported(shared):
  counts = {}
  for frame in read_frames(shared / "data/erp"):
    counts.setdefault(frame.group, []).append(len(frame.masks))
  assert {group: (len(found), sum(found)) for group, found in counts.items()} == {
    "instances": (12, 38),
    "components": (6, 13),
    "grey": (21, 61),
  }


def measured(truth, masks, best=(8,)):
  return measure_frame(compare(truth, masks), best)


def squares(*corners, height=HEIGHT, side=10):
  masks = np.zeros((len(corners), height, 2 * height), bool)
  for mask, (row, column) in zip(masks, corners, strict=True):
    mask[row : row + side, column : column + side] = True
  return masks


def test_figures_of_a_frame_count_what_they_say():
  truth = squares((40, 20), (40, 60), (40, 100))
  moved = squares((40, 23))  # IoU .54 with the first object
  part = squares((40, 60), side=4)  # inside the second, .16 of it
  crumb = squares((40, 60), side=2)  # inside, too, and nothing to speak of
  masks = np.concatenate([part, truth[:1], moved, truth[2:], crumb])
  figures = measured(truth, masks, best=(1, 2))
  np.testing.assert_array_equal(figures.found, [[True, False, True]] * 2)
  np.testing.assert_array_equal(figures.masks_of, [2, 1, 1])
  np.testing.assert_array_equal(figures.found_by_best[:, 0], [[False] * 3, [True, False, False]])
  assert figures.masks == 5 and figures.nadir_first == (False, False)
  assert figures.size.tolist() == [2, 2, 2]


def test_one_mask_finds_one_object():
  truth = np.concatenate([squares((40, 20)), squares((40, 21))])
  assert measured(truth, truth[:1]).found.sum(axis=1).tolist() == [1, 1]
  assert measured(truth, truth[::-1]).found.all()


def test_a_mask_of_the_nadir_is_told_by_score_and_by_size():
  nadir = np.zeros((1, HEIGHT, 2 * HEIGHT), bool)
  nadir[:, -12:] = True
  small = squares((40, 20))
  assert measured(small, np.concatenate([small, nadir])).nadir_first == (False, True)
  assert measured(small, np.concatenate([nadir, small])).nadir_first == (True, True)
  assert measured(small, small[:0]).nadir_first is None


def test_summaries_pool_objects_and_draw_whole_videos():
  rng = np.random.default_rng()
  frames, found, objects = [], 0, 0
  for _ in range(6):
    number = rng.integers(1, 5)
    truth = squares(*((40, 12 * index) for index in range(number)))
    hits = rng.random(number) < 0.6
    frames.append(measured(truth, truth[hits]))
    found, objects = found + hits.sum(), objects + number
  groups = ["a"] * 3 + ["b"] * 3
  summary = summarise(frames, groups, ["v"] * 3 + ["w", "x", "y"])
  assert summary["objects"] == objects
  assert summary["recall"][0]["mean"] == pytest.approx(found / objects)
  assert summary["masks_a_frame"]["mean"] == pytest.approx(found / 6)
  low, high = summary["recall"][0]["interval_95"]
  assert low <= found / objects <= high
  lines = table([("row", summary)], "title").splitlines()
  assert len({line.count("|") for line in lines}) == 1 and "| a | b |" in lines[0]


def test_suppression_is_that_of_the_plain_loop():
  rng = np.random.default_rng()
  masks = squares(*rng.integers(0, 80, (25, 2)), side=12)
  scores = rng.random(25).astype(np.float32)
  touches = rng.random(25) < 0.4
  packed = np.packbits(masks.reshape(25, -1), axis=1)
  np.testing.assert_array_equal(unpack(packed, HEIGHT), masks)
  candidates = Candidates(packed, scores, ("",) * 25, touches, np.zeros(25, np.int32))
  kept, _ = suppress(candidates, PackedMasks(packed, HEIGHT).overlaps())
  areas = pixel_areas(HEIGHT).astype(np.float64)
  expected = []
  for index in np.argsort(-(scores * np.where(touches, 0.6, 1))):
    for other in expected:
      both = areas[masks[index] & masks[other]].sum()
      if both > 0.5 * areas[masks[index] | masks[other]].sum():
        break
      if touches[index] and both > 0.75 * areas[masks[index]].sum():
        break
    else:
      expected.append(index)
  assert kept.tolist() == expected


def test_the_segmenter_looks_at_each_view_once(pictures, tmp_path):
  (collage,) = make_collages(read_pictures(pictures, "train"), 1, HEIGHT, seed=0)
  views = views_of(("120h", "flat"), HEIGHT)
  instance = Colours()
  store = CandidateStore(lambda: Segmenter(instance, "colours"), 0.3, tmp_path / "cache")
  some = store.find("one", collage.panorama, views[:3])
  assert instance.pictures == 3
  everything = store.find("one", collage.panorama, views)
  assert instance.pictures == 5 and len(store.seconds) == 2
  again = CandidateStore(lambda: Segmenter(instance, "colours"), 0.3, tmp_path / "cache").find(
    "one", collage.panorama, views
  )
  assert instance.pictures == 5
  for kept, found in zip(again, everything, strict=True):
    np.testing.assert_array_equal(kept, found)
  chosen, indices = of_views(everything, views, views[:3], 0.3)
  np.testing.assert_array_equal(everything.scores[indices], chosen.scores)
  for kept, found in zip(some, chosen, strict=True):
    np.testing.assert_array_equal(kept, found)
  assert (of_views(everything, views, views, 0.6)[0].scores >= 0.6).all()
  with pytest.raises(ValueError, match=r"one.npz: candidates of another picture"):
    store.find("one", collage.panorama[::-1], views)


def test_the_commands_print_a_row_for_each_way(pictures, tmp_path, monkeypatch, capsys):
  from foir360_jax.segment.study import collages, frames, group_values

  def run(module, *words):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    module.main()
    return capsys.readouterr().out

  run(collages, pictures, "--out", tmp_path / "c", "--number", 1, "--height", HEIGHT)
  monkeypatch.setitem(sys.modules, "colours", sys.modules[__name__])
  common = [tmp_path / "c", "--segmenter=colours:Colours", "--cache", tmp_path / "cache"]
  common += ["--ways", "baseline", "candidates", "merge", "--confidence", 0.3]
  common += ["--out", tmp_path / "out.json", "--overlays", tmp_path / "overlays"]
  printed = run(frames, *common, "--views", "fast")
  report = json.loads((tmp_path / "out.json").read_text())
  assert printed.strip() == report["table"] and "baseline, fast" in printed
  assert report["rows"][0]["recall"][0]["mean"] > 0.8
  assert report["rows"][0]["masks_an_object"]["mean"] < 1.3
  assert report["rows"][1]["masks_an_object"]["mean"] > 3
  assert report["rows"][2]["recall"][0]["mean"] > 0.8
  assert report["rows"][2]["masks_an_object"]["mean"] < 1.1
  assert (tmp_path / "overlays/collage_000_merge_fast_0.3.png").is_file()
  monkeypatch.setattr(group_values, "GROUPS", ("90h", "flat"))
  printed = run(group_values, *common, "--sets", "flat")
  assert "90h+flat (7 views)" in printed and "baseline, flat (1 views)" in printed


def test_groups_of_views_have_names_and_places_of_their_own():
  views = views_of(GROUPS, 512)
  assert len({view.name for view in views}) == len(views)
  with pytest.raises(ValueError, match="'70h' is no group"):
    views_of(("70h",), 512)
