"""Colours change as their formulas say, in one pass over the pixels."""

import numpy as np
import pytest

from foir360_jax.data import change_colours, colour_matrix, reorder_channels

NEUTRAL = {"brightness": 0.0, "contrast": 1.0, "saturation": 1.0, "hue_rad": 0.0}
LUMINANCE = np.array([0.299, 0.587, 0.114])


def changed(image, **changes):
  return change_colours(image, colour_matrix(**(NEUTRAL | changes)))


@pytest.fixture
def image():
  return np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)


@pytest.fixture
def muted(image):
  """No colour of it is clipped by small changes."""
  return image // 8 + 112


def test_no_change_is_none(image):
  np.testing.assert_array_equal(changed(image), image)


@pytest.mark.parametrize("seed", range(5))
def test_any_matrix_is_applied_rounded_and_clipped(image, seed):
  rng = np.random.default_rng(seed)
  matrix = colour_matrix(
    brightness=rng.uniform(-1, 1),
    contrast=rng.uniform(0, 2),
    saturation=rng.uniform(0, 2),
    hue_rad=rng.uniform(-np.pi, np.pi),
  )
  expected = np.clip(image @ matrix[:, :3].T + matrix[:, 3], 0, 255)
  error = abs(change_colours(image, matrix) - expected)
  assert error.max() <= 1.01 and error.mean() < 0.3  # fixed point: up to one level


def test_brightness_is_added_and_clipped(image):
  np.testing.assert_array_equal(changed(image, brightness=0.2), np.minimum(image + 51.0, 255))
  np.testing.assert_array_equal(changed(image, brightness=-1.0), 0 * image)


def test_contrast_scales_the_distance_from_mid_grey(image):
  expected = 127.5 + 0.5 * (image - 127.5)
  assert abs(changed(image, contrast=0.5) - expected).max() <= 1.01
  assert set(changed(image, contrast=0.0).ravel()) <= {127, 128}


def test_saturation_scales_the_distance_from_grey(image):
  luminance = image @ LUMINANCE
  assert abs(changed(image, saturation=0.0) - luminance[..., None]).max() <= 1.01
  expected = luminance[..., None] + 0.5 * (image - luminance[..., None])
  assert abs(changed(image, saturation=0.5) - expected).max() <= 1.01


def test_hue_and_saturation_leave_luminance_and_greys(muted):
  for hue_rad in (1.0, 2.0, np.pi):
    turned = changed(muted, hue_rad=hue_rad, saturation=1.2)
    assert abs((turned @ LUMINANCE) - (muted @ LUMINANCE)).max() <= 1.01
  grey = np.repeat(muted[..., :1], 3, axis=-1)
  assert abs(changed(grey, hue_rad=2.0).astype(int) - grey).max() <= 1


def test_three_thirds_of_a_turn_of_the_hue_are_one(muted):
  result = muted
  for _ in range(3):
    result = changed(result, hue_rad=2 * np.pi / 3)
  assert abs(result.astype(int) - muted).max() <= 5 and abs(result.astype(int) - muted).mean() < 1.5


def test_reordering_channels_is_undone_by_the_inverse_order(image):
  order = np.array([2, 0, 1])
  reordered = reorder_channels(image, order)
  np.testing.assert_array_equal(reordered[..., 0], image[..., 2])
  np.testing.assert_array_equal(reorder_channels(reordered, np.argsort(order)), image)
