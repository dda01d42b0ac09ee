"""Masks of the size of a picture, beside the resampling of whole maps."""

import numpy as np
import pytest

from foir360_jax.inference.full_size_masks import full_size_masks
from foir360_jax.models.mask_head import picture_masks

SEAM, NORTH, SOUTH, FULL, EMPTY, SPECKS, HALF_TURN = range(7)


def draw_logits(rng, height):
  """Logits `[7, P]` of masks wherever they may be; no two cells are alike."""
  logits = -rng.uniform(0.1, 1, (7, height, 2 * height))
  logits[SEAM, 3:-3, -2:] *= -1
  logits[SEAM, 4:-4, :3] *= -1
  logits[NORTH, :2] *= -1
  logits[SOUTH, -1, 2:7] *= -1
  logits[FULL] *= -1
  logits[SPECKS][rng.random(logits[SPECKS].shape) < 0.05] *= -3
  logits[HALF_TURN, 0, [0, height]] *= -1  # over the pole from each other
  return logits.astype(np.float32).reshape(7, -1)


# Larger by whole and by broken factors, of the same size, smaller.
@pytest.mark.parametrize("sizes", [(16, 128), (16, 61), (24, 25), (16, 16), (48, 16), (32, 21)])
def test_masks_are_those_of_whole_maps(sizes):
  old_height, height = sizes
  logits = draw_logits(np.random.default_rng(), old_height)
  masks = full_size_masks(logits, height)
  assert masks.dtype == bool and masks.shape == (7, height, 2 * height)
  np.testing.assert_array_equal(masks, picture_masks(logits[None], height)[0])
  assert masks[FULL].all() and not masks[EMPTY].any()


def test_logits_that_cancel_exactly_are_no_mask():
  """Of small whole numbers no sum is rounded, and many are 0 between two cells."""
  rng = np.random.default_rng()
  logits = rng.integers(-2, 3, (5, 12 * 24)).astype(np.float32)
  for height in (12, 24, 48):
    np.testing.assert_array_equal(
      full_size_masks(logits, height), picture_masks(logits[None], height)[0]
    )


def test_no_masks_are_no_masks():
  assert full_size_masks(np.zeros((0, 128), np.float32), 32).shape == (0, 32, 64)
