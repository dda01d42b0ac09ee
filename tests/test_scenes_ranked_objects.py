import json

import cv2
import jsonschema
import numpy as np
import pytest

from foir360_jax.files.placement import Pose
from foir360_jax.scenes import RANK_FILE_SCHEMA, RankedObjects, read_rank_file
from foir360_jax.sphere import regions

HEIGHT, WIDTH = 32, 64


def random_masks(rng, num_objects):
  masks = np.zeros([num_objects, HEIGHT, WIDTH], bool)
  for mask in masks:
    top, left = rng.integers(0, HEIGHT - 6), rng.integers(0, WIDTH)
    mask[top : top + rng.integers(1, 6), (left + np.arange(rng.integers(1, 20))) % WIDTH] = True
  return masks


def panorama(rng):
  return rng.integers(0, 256, [HEIGHT, WIDTH, 3], dtype=np.uint8)


def test_objects_are_sorted_and_keep_their_mask_category_and_id():
  rng = np.random.default_rng()
  masks, importance = random_masks(rng, 9), rng.permutation(9) / 9
  names = [f"thing {index}" for index in range(9)]
  ranked = RankedObjects.from_masks(panorama(rng), masks, importance, names, ids=range(20, 29))
  assert len(ranked) == 9
  assert ranked.ranks.tolist() == list(range(1, 10))
  assert np.all(np.diff(ranked.importance) < 0)
  for index in range(9):
    source = ranked.ids[index] - 20
    np.testing.assert_array_equal(ranked.masks[index], masks[source])
    assert ranked.categories[index] == names[source]
    assert ranked.importance[index] == np.float32(importance[source])
    np.testing.assert_allclose(ranked.area_sr[index], regions.solid_angle(masks[source]), rtol=1e-5)
    np.testing.assert_array_equal(ranked.bbox_px[index], regions.bounding_box_px(masks[source]))
    np.testing.assert_allclose(
      ranked.bfov_deg[index], regions.bounding_fov_deg(masks[source]), rtol=1e-5
    )


@pytest.mark.parametrize("field", ["detection_confidence", "agreement"])
def test_optional_fields_go_along_with_their_object(field):
  rng = np.random.default_rng()
  importance, values = rng.permutation(9) / 9, rng.random(9)
  arguments = panorama(rng), random_masks(rng, 9), importance
  found = getattr(RankedObjects.from_masks(*arguments, **{field: values}), field)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, values[np.argsort(-importance)].astype(np.float32))
  assert getattr(RankedObjects.from_masks(*arguments), field) is None


def test_a_pose_gives_bearings_and_is_kept_in_the_file(tmp_path):
  masks = np.zeros([2, 32, 64], bool)
  masks[0, 14:18, 46:50], masks[1, 14:18, 30:34] = True, True  # 90 degrees to the right; ahead
  picture = np.zeros([32, 64, 3], np.uint8)
  ranked = RankedObjects.from_masks(picture, masks, [0.9, 0.1], pose=Pose(heading_deg=300.0))
  assert ranked.bearings_deg == pytest.approx(np.array([[30, 0], [300, 0]]), abs=0.1)
  ranked.save_json(tmp_path / "a.json")
  content = json.loads((tmp_path / "a.json").read_text())
  jsonschema.validate(content, RANK_FILE_SCHEMA)
  assert content["pose_deg"] == [300, 0, 0]
  assert content["objects"][0]["bearing_deg"] == pytest.approx([30, 0], abs=0.1)
  again = read_rank_file(tmp_path / "a.json")
  assert again.pose == ranked.pose and again.to_dict() == ranked.to_dict()
  assert RankedObjects.from_masks(picture, masks, [0.9, 0.1]).bearings_deg is None


def test_ties_share_a_rank_and_keep_their_order():
  rng = np.random.default_rng()
  ranked = RankedObjects.from_masks(
    panorama(rng), random_masks(rng, 5), [0.2, 0.9, 0.5, 0.9, 0.5], list("abcde")
  )
  assert ranked.ranks.tolist() == [1, 1, 2, 2, 3]
  assert "".join(ranked.categories) == "bdcea"


def test_an_object_cut_by_the_seam_is_one_object_with_a_box_past_the_border():
  masks = np.zeros([1, HEIGHT, WIDTH], bool)
  masks[0, 10:14, [62, 63, 0, 1, 2]] = True
  masks = masks.reshape(1, HEIGHT, WIDTH)
  ranked = RankedObjects.from_masks(panorama(np.random.default_rng()), masks, [1.0])
  assert ranked.bbox_px.tolist() == [[62, 10, 5, 4]]


def test_no_objects_work_everywhere(tmp_path):
  picture = panorama(np.random.default_rng())
  ranked = RankedObjects.from_masks(picture, np.zeros([0, HEIGHT, WIDTH], bool), [])
  assert len(ranked) == 0
  assert ranked.bbox_px.shape == ranked.bfov_deg.shape == (0, 4)
  assert ranked.ranks.shape == ranked.area_sr.shape == ranked.ids.shape == (0,)
  ranked.save_json(tmp_path / "a.json")
  ranked.save_overlay(tmp_path / "a.png")
  assert json.loads((tmp_path / "a.json").read_text())["objects"] == []
  assert cv2.imread(str(tmp_path / "a.png")).shape[1] == 1024


def test_labels_without_a_panorama_refuse_to_be_drawn(tmp_path):
  rng = np.random.default_rng()
  ranked = RankedObjects.from_masks(panorama(rng), random_masks(rng, 2), [0.2, 0.1])
  ranked.save_json(tmp_path / "a.json")
  with pytest.raises(ValueError, match="no panorama to draw on"):
    read_rank_file(tmp_path / "a.json").save_overlay(tmp_path / "a.png")
  assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"panorama": np.zeros([HEIGHT, WIDTH, 3], np.float32)}, "must be uint8"),
    ({"panorama": np.zeros([HEIGHT, WIDTH], np.uint8)}, "must be uint8"),
    ({"panorama": np.zeros([HEIGHT, HEIGHT, 3], np.uint8)}, "twice as wide"),
    ({"masks": np.ones([2, HEIGHT, WIDTH])}, "masks must be bool"),
    ({"masks": np.ones([2, WIDTH, HEIGHT], bool)}, "masks must be bool"),
    ({"masks": np.zeros([2, HEIGHT, WIDTH], bool)}, r"masks \[0, 1\] have no pixel"),
    ({"importance": [0.5]}, "importance needs one value"),
    ({"importance": [0.5, 1.5]}, "must lie in"),
    ({"importance": [0.5, np.nan]}, "must lie in"),
    ({"categories": ["a"]}, "categories needs one value"),
    ({"ids": [1, 1]}, "all different"),
    ({"ids": [-1, 1]}, "0 or more"),
    ({"ids": [2**63, 1]}, "below 2"),
    ({"ids": [10**20, 1]}, "below 2"),
    ({"ids": [0.5, 1]}, "whole numbers"),
    ({"agreement": [0.5]}, "agreement needs a value in .0, 1. for each of the 2"),
    ({"detection_confidence": [0.5, 1.5]}, "detection_confidence needs a value"),
    ({"detection_confidence": [-0.1, 1.0]}, "detection_confidence needs a value"),
    ({"agreement": [0.5, np.nan]}, "agreement needs a value"),
  ],
)
def test_arguments_that_do_not_fit_are_named(change, message):
  arguments = {
    "panorama": np.zeros([HEIGHT, WIDTH, 3], np.uint8),
    "masks": np.ones([2, HEIGHT, WIDTH], bool),
    "importance": [0.5, 0.25],
    "categories": None,
  }
  with pytest.raises(ValueError, match=message) as error:
    RankedObjects.from_masks(**arguments | change)
  assert "\n" not in str(error.value)
