"""Overlap of masks. Axes: masks [n, H, W], an overlap matrix [n, m] (true objects, predictions)."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from foir360_jax.metrics.accumulate import Score

# Bounds the memory, and keeps float32 counts exact (they are up to 2**24).
_PIXELS_PER_BLOCK = 2**20


def mask_iou(
  masks_a: ArrayLike, masks_b: ArrayLike, pixel_weights: ArrayLike | None = None
) -> np.ndarray:
  """Intersection over union of each mask of one set with each of another.

  Args:
    masks_a: [n, H, W]; a pixel belongs to the mask where the value is above 0.5. May be empty ([]).
    masks_b: [m, H, W], likewise.
    pixel_weights: Broadcastable to [H, W], for instance cos(latitude) or solid angles. None counts
      pixels, as the published metrics do.

  Returns:
    [n, m] float64 in [0, 1]. Without weights it is the quotient of the exact counts, correctly
    rounded, so that comparing it with 0.5 or 0.1 is exact. Two empty masks have 0.

  Raises:
    ValueError: if the masks are not [n, H, W] and [m, H, W] of one picture size.

  >>> mask_iou([[[1, 1, 0, 0]]], [[[0, 1, 1, 0]], [[1, 1, 0, 0]]]).round(3)
  array([[0.333, 1.   ]])
  """
  masks_a, masks_b = np.asarray(masks_a), np.asarray(masks_b)
  if not (len(masks_a) and len(masks_b)):
    return np.zeros((len(masks_a), len(masks_b)))
  if masks_a.ndim != 3 or masks_a.shape[1:] != masks_b.shape[1:]:
    raise ValueError(
      f"masks must be [n, H, W] and [m, H, W] of one size, not {masks_a.shape} and {masks_b.shape}"
    )
  dtype = np.float32 if pixel_weights is None else np.float64
  weights = np.broadcast_to(1 if pixel_weights is None else pixel_weights, masks_a.shape[1:])
  weights = weights.ravel().astype(dtype)
  pixels_a, pixels_b = masks_a.reshape(len(masks_a), -1), masks_b.reshape(len(masks_b), -1)
  both = np.zeros((len(masks_a), len(masks_b)))
  area_a, area_b = np.zeros((len(masks_a), 1)), np.zeros(len(masks_b))
  for start in range(0, weights.size, _PIXELS_PER_BLOCK):
    block = slice(start, start + _PIXELS_PER_BLOCK)
    a = (pixels_a[:, block] > 0.5).astype(dtype) * weights[block]
    b = (pixels_b[:, block] > 0.5).astype(dtype)
    both += a @ b.T
    area_a += a.sum(axis=1, keepdims=True)
    area_b += b @ weights[block]
  union = area_a + area_b - both
  return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def recall_at_iou(iou: ArrayLike, iou_threshold: float = 0.5) -> Score:
  """Share of the true objects that are found: overlapped by a prediction of their own.

  A prediction finds one object at most; the matching is the one that finds the most objects.

  Args:
    iou: [n, m], as from `mask_iou(true_masks, predicted_masks)`.
    iou_threshold: Smallest overlap of a found object.

  Returns:
    The recall in [0, 1]; skipped if there are no true objects.

  >>> recall_at_iou([[0.8, 0.0], [0.6, 0.0]])
  Score(value=0.5, status='used')
  """
  found = np.asarray(iou) >= iou_threshold
  if not len(found):
    return Score(float("nan"), "skipped")
  matched = found[linear_sum_assignment(found, maximize=True)]
  return Score(float(matched.sum() / len(found)), "used")
