"""Augmentation draws from every case, moves image and masks together, and leaves the labels."""

import dataclasses
import importlib

import cv2
import numpy as np
import pytest

from foir360_jax.data import Augmentation, augment, change_colours, colour_matrix, rotate
from foir360_jax.scenes import pack_masks, unpack_masks

MODULE = importlib.import_module("foir360_jax.data.augment")  # its name is also the function's
ALL_ON = {
  "yaw": True,
  "mirror": True,
  "permute_colours": True,
  "rotation_deg": 30.0,
  "brightness": 0.2,
  "contrast": 0.3,
  "saturation": 0.4,
  "hue_deg": 50.0,
}
EXACT = {"yaw": True, "mirror": True, "permute_colours": True}


def make_example(rng, num_objects=4):
  return {
    "image": rng.integers(0, 256, (16, 32, 3), np.uint8),
    "masks": pack_masks(rng.random((num_objects, 16, 32)) < 0.5),
    "relevance": rng.random(num_objects).astype(np.float32),
  }


def assert_equal(example, expected):
  assert example.keys() == expected.keys()
  for key, value in expected.items():
    np.testing.assert_array_equal(example[key], value, err_msg=key)
    assert example[key].dtype == value.dtype


def apply(example, seed, flags):
  return augment(example, np.random.default_rng(seed), Augmentation(**flags))


@pytest.mark.parametrize("seed", range(20))
def test_masks_follow_the_image_labels_stay_and_the_input_is_not_changed(seed):
  example = make_example(np.random.default_rng(seed))
  marked = 255 * unpack_masks(example["masks"][1], 32).astype(np.uint8)
  example["image"] = np.repeat(marked[..., None], 3, axis=-1)  # the image shows object 1
  before = {key: value.copy() for key, value in example.items()}
  augmented = apply(example, seed, EXACT)
  shown = augmented["image"][..., seed % 3] == 255
  np.testing.assert_array_equal(unpack_masks(augmented["masks"][1], 32), shown)
  augmented = apply(example, seed, ALL_ON)
  assert augmented["relevance"] is example["relevance"]
  assert_equal(example, before)


@pytest.mark.parametrize("seed", range(5))
def test_masks_follow_the_image_through_a_rotation(seed):
  example = make_example(np.random.default_rng(seed), num_objects=1)
  disc = cv2.circle(np.zeros((64, 128), np.uint8), (20 * seed, 30), 12, 255, -1)
  example |= {"image": np.repeat(disc[..., None], 3, axis=-1), "masks": pack_masks(disc[None] > 0)}
  rotated = apply(example, seed, {"rotation_deg": 60.0, "yaw": True, "mirror": True})
  mask = unpack_masks(rotated["masks"][0], 128)
  image = rotated["image"][..., 0]
  # Where all four neighbours are alike, both kinds of sampling agree.
  assert mask[image == 255].all() and not mask[image == 0].any()
  assert (mask != unpack_masks(example["masks"][0], 128)).any()


def test_with_all_switched_off_nothing_happens():
  example = make_example(np.random.default_rng(3))
  assert apply(example, 0, {}) is example


def test_every_roll_mirror_and_order_occurs():
  columns = np.arange(32, dtype=np.uint8)
  example = make_example(np.random.default_rng(4))
  shades = np.broadcast_to(columns[:, None], (16, 32, 3))
  example["image"] = shades + np.array([0, 32, 64], np.uint8)
  seen = {flag: set() for flag in EXACT}
  for seed in range(500):
    for flag, results in seen.items():
      results.add(apply(example, seed, {flag: True})["image"].tobytes())
  assert {flag: len(results) for flag, results in seen.items()} == {
    "yaw": 32,
    "mirror": 2,
    "permute_colours": 6,
  }


def test_rotations_turn_about_all_axes_by_up_to_the_given_angle(monkeypatch):
  turns = []
  monkeypatch.setattr(MODULE, "rotate", lambda example, turn: turns.append(turn) or example)
  example = make_example(np.random.default_rng(5))
  for seed in range(400):
    apply(example, seed, {"rotation_deg": 40.0})
  vectors = np.stack([cv2.Rodrigues(turn)[0][:, 0] for turn in turns])
  angles_deg = np.rad2deg(np.linalg.norm(vectors, axis=1))
  assert angles_deg.max() < 40 and np.quantile(angles_deg, [0.25, 0.75]) == pytest.approx(
    [10, 30], abs=3
  )
  axes = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  assert abs(axes.mean(0)).max() < 0.1 and (axes**2).mean(0) == pytest.approx([1 / 3] * 3, abs=0.06)


@pytest.mark.parametrize(
  "name, neutral, reach",
  [("brightness", 0, 0.5), ("contrast", 1, 0.5), ("saturation", 1, 0.5), ("hue_deg", 0, 90)],
)
def test_colours_change_by_up_to_the_given_amount_in_both_directions(
  monkeypatch, name, neutral, reach
):
  seen = []

  def record(**changes):
    seen.append(changes)
    return colour_matrix(**changes)

  monkeypatch.setattr(MODULE, "colour_matrix", record)
  example = make_example(np.random.default_rng(6))
  for seed in range(300):
    apply(example, seed, {name: reach})
  drawn = {key: np.array([changes[key] for changes in seen]) for key in seen[0]}
  drawn["hue_deg"] = np.rad2deg(drawn.pop("hue_rad"))
  values = drawn.pop(name) - neutral
  assert -reach <= values.min() < -0.9 * reach and 0.9 * reach < values.max() <= reach
  for key, others in drawn.items():
    assert (others == (key in ("contrast", "saturation"))).all(), key


@pytest.mark.parametrize("seed", range(10))
def test_switching_one_off_leaves_the_draws_of_the_others(seed):
  example = make_example(np.random.default_rng(5))
  one_by_one = example
  colours = {name: ALL_ON[name] for name in ("brightness", "contrast", "saturation", "hue_deg")}
  for flags in (
    {"rotation_deg": 30.0},
    {"yaw": True},
    {"mirror": True},
    colours,
    {"permute_colours": True},
  ):
    one_by_one = apply(one_by_one, seed, flags)
  assert_equal(one_by_one, apply(example, seed, ALL_ON))


def test_the_seed_alone_decides():
  example = make_example(np.random.default_rng(7))
  assert_equal(apply(example, 3, ALL_ON), apply(example, 3, ALL_ON))
  assert (apply(example, 4, ALL_ON)["image"] != apply(example, 3, ALL_ON)["image"]).any()


def test_amounts_of_zero_leave_an_example_as_it_is():
  example = make_example(np.random.default_rng(8))
  assert_equal(rotate(example, np.eye(3)), example)
  matrix = colour_matrix(brightness=0, contrast=1, saturation=1, hue_rad=0)
  np.testing.assert_array_equal(change_colours(example["image"], matrix), example["image"])


@pytest.mark.parametrize(
  "name", ["rotation_deg", "brightness", "contrast", "saturation", "hue_deg"]
)
@pytest.mark.parametrize("value", [-0.1, 181.0, float("nan")])
def test_amounts_out_of_range_are_refused_by_name(name, value):
  with pytest.raises(ValueError, match=rf"config.data.augment.{name} must be in \[0, 1.*{value}"):
    Augmentation(**{name: value})


def test_all_is_off_unless_said_otherwise():
  assert not any(dataclasses.asdict(Augmentation()).values())
