"""Turns and mirrors equal NumPy on the unpacked masks, or the sphere's slow rotation."""

import numpy as np
import pytest

from foir360_jax import sphere
from foir360_jax.data import flip_longitude, roll_columns, rotate
from foir360_jax.scenes import pack_masks, unpack_masks


def make_example(rng, num_objects=4, height=16, density=0.5):
  return {
    "image": rng.integers(0, 256, (height, 2 * height, 3), np.uint8),
    "masks": pack_masks(rng.random((num_objects, height, 2 * height)) < density),
    "relevance": rng.random(num_objects).astype(np.float32),
  }


def assert_equal(example, expected):
  assert example.keys() == expected.keys()
  for key, value in expected.items():
    np.testing.assert_array_equal(example[key], value, err_msg=key)
    assert example[key].dtype == value.dtype


def random_rotation(rng):
  return sphere.rotation_matrix(*rng.uniform(-np.pi, np.pi, 3))


def source_pixels(height, rotation):
  """Where each pixel comes from, in float64: fractional rows and columns."""
  directions = sphere.pixel_directions(height).astype(np.float64)
  return sphere.pixels_from_directions(directions @ rotation, height)


@pytest.mark.parametrize("num_objects", [0, 4])
@pytest.mark.parametrize("height", [4, 8, 12, 16, 32])  # rows of 1, 2, 3, 4 and 8 bytes
def test_rolling_moves_image_and_masks_by_the_same_columns(num_objects, height):
  width = 2 * height
  example = make_example(np.random.default_rng(height), num_objects, height)
  masks = unpack_masks(example["masks"], width)
  for columns in (*range(-1, width + 1), -100, 1000):
    rolled = roll_columns(example, columns)
    np.testing.assert_array_equal(rolled["image"], np.roll(example["image"], columns, axis=1))
    expected = np.roll(masks, columns, axis=2)
    np.testing.assert_array_equal(unpack_masks(rolled["masks"], width), expected)
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


def test_masks_need_not_be_contiguous_in_memory():
  example = make_example(np.random.default_rng(2))
  strided = example | {"masks": example["masks"][::-1]}
  for function in (lambda e: roll_columns(e, 5), flip_longitude, lambda e: rotate(e, np.eye(3))):
    expected = function(strided | {"masks": strided["masks"].copy()})
    assert_equal(function(strided), expected)


@pytest.mark.parametrize("seed", range(6))
def test_a_rotated_image_is_the_spheres_rotation_rounded(seed):
  rng = np.random.default_rng(seed)
  example, rotation = make_example(rng, height=32), random_rotation(rng)
  expected = np.asarray(sphere.rotate_panorama(example["image"], rotation))
  error = abs(rotate(example, rotation)["image"] - expected)
  assert error.max() < 0.6  # at the seam and the poles as everywhere


@pytest.mark.parametrize("num_objects", [0, 1, 7, 8, 9, 20])
def test_rotated_masks_take_the_nearest_pixel(num_objects):
  rng = np.random.default_rng(num_objects)
  example, rotation = make_example(rng, num_objects, height=32), random_rotation(rng)
  rotated = unpack_masks(rotate(example, rotation)["masks"], 64)
  row, column = source_pixels(32, rotation)
  nearest = np.rint(row).astype(int).clip(0, 31), np.rint(column).astype(int) % 64
  # A pixel halfway between two may go to either.
  clear = np.maximum(abs(row - np.rint(row)), abs(column - np.rint(column))) < 0.499
  assert clear.mean() > 0.9
  expected = unpack_masks(example["masks"], 64)[:, *nearest]
  np.testing.assert_array_equal(rotated[:, clear], expected[:, clear])


def test_the_identity_changes_nothing():
  for height in (4, 12, 64):
    example = make_example(np.random.default_rng(height), height=height)
    assert_equal(rotate(example, np.eye(3)), example)


@pytest.mark.parametrize("columns", [1, 16, 31])
def test_a_rotation_about_the_vertical_by_whole_columns_is_a_roll(columns):
  example = make_example(np.random.default_rng(columns))
  rotation = sphere.rotation_matrix(columns * 2 * np.pi / 32, 0.0, 0.0)
  assert_equal(rotate(example, rotation), roll_columns(example, columns))


def test_half_a_turn_about_the_line_of_sight_reverses_rows_and_columns():
  example = make_example(np.random.default_rng(9))
  rotated = rotate(example, sphere.rotation_matrix(0.0, 0.0, np.pi))
  np.testing.assert_array_equal(rotated["image"], example["image"][::-1, ::-1])
  masks = unpack_masks(example["masks"], 32)
  np.testing.assert_array_equal(unpack_masks(rotated["masks"], 32), masks[:, ::-1, ::-1])


def test_what_lay_at_the_zenith_lies_ahead_after_a_quarter_turn():
  example = make_example(np.random.default_rng(10), num_objects=1, height=64)
  cap = sphere.pixel_directions(64)[..., 2] > np.cos(0.3)
  rotated = rotate(
    example | {"masks": pack_masks(cap[None])}, sphere.rotation_matrix(0, -np.pi / 2, 0)
  )
  ahead = sphere.pixel_directions(64)[..., 0] > np.cos(0.3)
  mask = unpack_masks(rotated["masks"][0], 128)
  assert (mask != ahead).sum() <= 0.1 * ahead.sum()  # the caps' rims
  assert sphere.solid_angle(mask) == pytest.approx(sphere.solid_angle(cap), rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_no_object_is_lost_and_none_appears(seed):
  rng = np.random.default_rng(seed)
  masks = np.zeros((12, 32, 64), bool)
  pixels = rng.integers([0, 0], [32, 64], (10, 2))
  pixels[:6, 0] = [0, 0, 1, 31, 31, 30]  # near a pole a pixel is a sliver
  masks[np.arange(10), *pixels.T] = True  # the last two objects are empty
  rotation = random_rotation(rng)
  example = make_example(rng, height=32) | {"masks": pack_masks(masks)}
  rotated = unpack_masks(rotate(example, rotation)["masks"], 64)
  np.testing.assert_array_equal(rotated.any(axis=(1, 2)), np.arange(12) < 10)
  directions = sphere.pixel_directions(32)
  for mask, pixel in zip(rotated[:10], pixels, strict=True):
    # At most half a pixel's diagonal from where the old one was, and as much to the new one.
    cosines = directions[mask] @ (rotation @ directions[*pixel])
    assert (cosines > np.cos(2**0.5 * np.pi / 32)).all()
