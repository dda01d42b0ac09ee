"""Augmentation is exact: it equals NumPy on the unpacked masks, and each step can be undone."""

import numpy as np
import pytest

from foir360_jax.data import (
  augment,
  flip_longitude,
  pack_masks,
  reorder_channels,
  roll_columns,
  unpack_masks,
)

ALL_ON = {"yaw": True, "mirror": True, "permute_colours": True}
ALL_OFF = dict.fromkeys(ALL_ON, False)


def make_example(rng, num_objects=4):
  return {
    "image": rng.integers(0, 256, (8, 32, 3), np.uint8),
    "masks": pack_masks(rng.random((num_objects, 8, 32)) < 0.5),
    "relevance": rng.random(num_objects).astype(np.float32),
  }


def assert_equal(example, expected):
  assert example.keys() == expected.keys()
  for key, value in expected.items():
    np.testing.assert_array_equal(example[key], value, err_msg=key)
    assert example[key].dtype == value.dtype


@pytest.mark.parametrize("num_objects", [0, 4])
@pytest.mark.parametrize("columns", [*range(-1, 33), -100, 1000])
def test_rolling_moves_image_and_masks_by_the_same_columns(num_objects, columns):
  example = make_example(np.random.default_rng(columns + 100), num_objects)
  rolled = roll_columns(example, columns)
  np.testing.assert_array_equal(rolled["image"], np.roll(example["image"], columns, axis=1))
  masks = unpack_masks(example["masks"], 32)
  np.testing.assert_array_equal(unpack_masks(rolled["masks"], 32), np.roll(masks, columns, axis=2))
  assert_equal(roll_columns(rolled, -columns), example)


@pytest.mark.parametrize("num_objects", [0, 4])
def test_flipping_reverses_the_columns_and_flipping_again_undoes_it(num_objects):
  example = make_example(np.random.default_rng(0), num_objects)
  flipped = flip_longitude(example)
  np.testing.assert_array_equal(flipped["image"], example["image"][:, ::-1])
  masks = unpack_masks(example["masks"], 32)
  np.testing.assert_array_equal(unpack_masks(flipped["masks"], 32), masks[..., ::-1])
  assert_equal(flip_longitude(flipped), example)


def test_flipping_turns_an_eastward_roll_into_a_westward_one():
  example = make_example(np.random.default_rng(1))
  assert_equal(
    flip_longitude(roll_columns(example, 11)), roll_columns(flip_longitude(example), -11)
  )


def test_reordering_channels_is_undone_by_the_inverse_order():
  example, order = make_example(np.random.default_rng(2)), np.array([2, 0, 1])
  reordered = reorder_channels(example, order)
  np.testing.assert_array_equal(reordered["image"][..., 0], example["image"][..., 2])
  assert_equal(reorder_channels(reordered, np.argsort(order)), example)


@pytest.mark.parametrize("seed", range(20))
def test_masks_follow_the_image_labels_stay_and_the_input_is_not_changed(seed):
  example = make_example(np.random.default_rng(seed))
  marked = 255 * unpack_masks(example["masks"][1], 32).astype(np.uint8)
  example["image"] = np.repeat(marked[..., None], 3, axis=-1)  # the image shows object 1
  before = {key: value.copy() for key, value in example.items()}
  augmented = augment(example, np.random.default_rng(seed), **ALL_ON)
  shown = augmented["image"][..., seed % 3] == 255
  np.testing.assert_array_equal(unpack_masks(augmented["masks"][1], 32), shown)
  assert augmented["relevance"] is example["relevance"]
  assert_equal(example, before)


def test_with_all_switched_off_nothing_happens():
  example = make_example(np.random.default_rng(3))
  assert augment(example, np.random.default_rng(0), **ALL_OFF) is example


def test_every_roll_mirror_and_order_occurs():
  columns = np.arange(32, dtype=np.uint8)
  example = make_example(np.random.default_rng(4))
  example["image"] = np.broadcast_to(columns[:, None], (8, 32, 3)) + np.array([0, 32, 64], np.uint8)
  seen = {"yaw": set(), "mirror": set(), "permute_colours": set()}
  for seed in range(500):
    for flag, results in seen.items():
      rng = np.random.default_rng(seed)
      results.add(augment(example, rng, **(ALL_OFF | {flag: True}))["image"].tobytes())
  assert {flag: len(results) for flag, results in seen.items()} == {
    "yaw": 32,
    "mirror": 2,
    "permute_colours": 6,
  }


@pytest.mark.parametrize("seed", range(10))
def test_switching_one_off_leaves_the_draws_of_the_others(seed):
  example = make_example(np.random.default_rng(5))
  one_by_one = example
  for flag in ("yaw", "mirror", "permute_colours"):
    one_by_one = augment(one_by_one, np.random.default_rng(seed), **(ALL_OFF | {flag: True}))
  assert_equal(one_by_one, augment(example, np.random.default_rng(seed), **ALL_ON))
