"""Overlap of masks. Axes: masks [n, H, W], an overlap matrix [n, m] (true objects, predictions)."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from foir360_jax.metrics.accumulate import SKIPPED, Score
from foir360_jax.metrics.crops import CroppedMasks, Masks, crop_masks


def mask_iou(masks_a: Masks, masks_b: Masks, pixel_weights: ArrayLike | None = None) -> np.ndarray:
  """Intersection over union of each mask of one set with each of another.

  Args:
    masks_a: [n, H, W]; a pixel belongs to the mask where the value is above 0.5. May be empty ([]),
      or cropped (see `crop_masks`).
    masks_b: [m, H, W], likewise.
    pixel_weights: Broadcastable to [H, W], for instance solid angles (`sphere.pixel_areas`): the
      share of the sphere instead of the share of the picture. None counts pixels, as the published
      metrics do.

  Returns:
    [n, m] float64 in [0, 1]. Without weights it is the quotient of the exact counts, correctly
    rounded, so that comparing it with 0.5 or 0.1 is exact. Two empty masks have 0.

  Raises:
    ValueError: if the masks are not [n, H, W] and [m, H, W] of one picture size.

  >>> mask_iou([[[1, 1, 0, 0]]], [[[0, 1, 1, 0]], [[1, 1, 0, 0]]]).round(3)
  array([[0.333, 1.   ]])
  """
  a, b = crop_masks(masks_a), crop_masks(masks_b)
  both = np.zeros((len(a), len(b)))
  if not both.size:
    return both
  assert a.size and b.size  # any mask tells the size
  if a.size != b.size:
    raise ValueError(
      "masks must be [n, H, W] and [m, H, W] of one size, "
      f"not {(len(a), *a.size)} and {(len(b), *b.size)}"
    )
  weights = None if pixel_weights is None else _weights(pixel_weights, a.size)
  low = np.maximum(a.boxes[:, None, ::2], b.boxes[:, ::2])
  high = np.minimum(a.boxes[:, None, 1::2], b.boxes[:, 1::2])
  for i, j in np.argwhere((low < high).all(axis=-1)):
    (top, left), (bottom, right) = low[i, j], high[i, j]
    window = slice(top, bottom), slice(left, right)
    both[i, j] = _measure(a.cut(i, window) & b.cut(j, window), weights, window)
  area_a, area_b = (_areas(masks, weights) for masks in (a, b))
  union = area_a[:, None] + area_b - both
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
  found = found_at_iou(iou, iou_threshold)
  return Score(float(found.sum() / len(found)), "used") if len(found) else SKIPPED


def f1_at_iou(iou: ArrayLike, iou_threshold: float = 0.5) -> Score:
  """Harmonic mean of recall and precision: 2 found / (n + m), the arguments as of `recall_at_iou`.

  Unlike SA-SOR it punishes each missed object as much as each false one, however unimportant.

  Returns:
    F1 in [0, 1]; skipped if there are neither true objects nor predictions.

  >>> f1_at_iou([[0.8, 0.0, 0.0], [0.6, 0.0, 0.0]])
  Score(value=0.4, status='used')
  """
  iou = np.asarray(iou)
  found = found_at_iou(iou, iou_threshold).sum()
  return Score(float(2 * found / sum(iou.shape)), "used") if sum(iou.shape) else SKIPPED


def found_at_iou(iou: ArrayLike, iou_threshold: float = 0.5) -> np.ndarray:
  """Which of the true objects are found, bool [n]; the arguments are those of `recall_at_iou`.

  >>> found_at_iou([[0.8, 0.0], [0.1, 0.4], [0.0, 0.7]])
  array([ True, False,  True])
  """
  overlaps = np.asarray(iou) >= iou_threshold
  found = np.zeros(len(overlaps), bool)
  if len(overlaps):
    objects, predictions = linear_sum_assignment(overlaps, maximize=True)
    found[objects] = overlaps[objects, predictions]
  return found


def _weights(pixel_weights: ArrayLike, size: tuple[int, int]) -> np.ndarray:
  """[H, W], or [H, 1] where the columns are alike, as those of solid angles are."""
  weights = np.broadcast_to(np.asarray(pixel_weights, float), size)
  return weights[:, :1].copy() if (weights == weights[:, :1]).all() else weights


def _measure(pixels: np.ndarray, weights: np.ndarray | None, window: tuple[slice, slice]) -> float:
  """Sum of the weights of the pixels [h, w] that lie in a window of the picture."""
  if weights is None:
    return int(np.count_nonzero(pixels))
  if weights.shape[1] > 1:
    return weights[window][pixels].sum()
  row_counts = np.bitwise_count(np.packbits(pixels, axis=1)).sum(axis=1, dtype=np.int64)
  return row_counts @ weights[window[0], 0]


def _areas(masks: CroppedMasks, weights: np.ndarray | None) -> np.ndarray:
  if weights is None:
    return masks.areas
  windows = map(masks.window, range(len(masks)))
  return np.array([_measure(masks.crops[i], weights, window) for i, window in enumerate(windows)])
