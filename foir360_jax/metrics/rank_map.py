"""Painted rank maps and their mean absolute error. Axes: maps [H, W], grey levels 0 to 255.

A rank map holds one grey level a pixel: 0 = no object, brighter = more important. It is how the
first papers of the field exchange results, so what an overlap or a palette does to it is part of
their metrics. The MAE depends on the palette: compare figures of one palette only.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from foir360_jax.metrics.correlation import minimum_ranks
from foir360_jax.metrics.crops import Masks, crop_masks

Palette = Literal["uniform", "psr"]


def paint_rank_map(
  masks: Masks,
  relevance: ArrayLike,
  *,
  palette: Palette = "uniform",
  size: tuple[int, int] | None = None,
) -> np.ndarray:
  """Paints masks [n, H, W] in grey levels by their relevance [n], higher = more important.

  - "uniform": floor(255 r / n) with r from 1 (least important, see `minimum_ranks`) to n. Painted
    from the least to the most important, so that the more important object covers the other. No
    object is painted 0: with more than 255 objects neighbours share a level.
  - "psr": 255, 229, 204, 178, 153 for the five most important objects (ties share a level), the
    others are not painted: the levels of ASSR. Painted from the largest to the smallest, as PSR
    does (Sun et al., Partitioned saliency ranking with dense pyramid transformers, ACM MM 2023).

  Args:
    masks: [n, H, W] or cropped, see `crop_masks`.
    relevance: [n].
    palette: "uniform" or "psr".
    size: (H, W) of the map; needed only where there is no mask to tell.

  Returns:
    [H, W] uint8.

  Raises:
    ValueError: if the lengths differ, a relevance is NaN, the palette is unknown, or the size is.

  >>> paint_rank_map([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], [1, 2])
  array([[127, 255, 255,   0]], dtype=uint8)
  """
  masks, relevance = crop_masks(masks), np.asarray(relevance, float)
  if relevance.shape != (len(masks),):
    raise ValueError(f"relevance {relevance.shape} must be [{len(masks)}], one for each mask")
  if np.isnan(relevance).any():
    raise ValueError("NaN in relevance: pass real objects only, no padding")
  if (size := masks.size or size) is None:
    raise ValueError("no mask tells the size of the map: pass size=(height, width)")
  if palette == "uniform":
    levels = np.maximum(255 * minimum_ranks(relevance) // max(len(masks), 1), 1)
    order = np.argsort(relevance, kind="stable")
  elif palette == "psr":
    place = np.unique(-relevance, return_inverse=True)[1]  # 0 = most important
    levels = np.where(place < 5, 51 * (10 - place) // 2, 0)  # halves are cut off: 229.5, 178.5
    order = np.argsort(-masks.areas, kind="stable")
  else:
    raise ValueError(f"palette must be uniform or psr, not {palette!r}")
  rank_map, levels = np.zeros(size, np.uint8), levels.astype(np.uint8)
  for index in order[levels[order] > 0]:
    np.copyto(rank_map[masks.window(index)], levels[index], where=masks.crops[index])
  return rank_map


def rank_map_mae(
  gt_map: ArrayLike, pred_map: ArrayLike, *, pixel_weights: ArrayLike | None = None
) -> float:
  """Mean of |true level - predicted level| / 255 over all pixels.

  Args:
    gt_map: [H, W], grey levels 0 to 255.
    pred_map: [H, W], in the same palette.
    pixel_weights: Broadcastable to [H, W]; with solid angles (`sphere.pixel_areas`) the error is
      that of the sphere, and not mostly that of the poles. None: every pixel counts the same, as in
      the papers.

  Returns:
    The error in [0, 1].

  Raises:
    ValueError: if the maps differ in size, or a level is outside 0 to 255.

  >>> rank_map_mae([[255, 0]], [[0, 0]])
  0.5
  """
  gt_map, pred_map = _levels(gt_map, pred_map)
  difference = np.maximum(gt_map, pred_map) - np.minimum(gt_map, pred_map)  # fits unsigned levels
  return _mean(difference, pixel_weights) / 255


def binary_mae(
  gt_map: ArrayLike, pred_map: ArrayLike, *, pixel_weights: ArrayLike | None = None
) -> float:
  """Share of the pixels that only one of the maps paints, with whatever level above 0.

  Of SeqRank's MAE, too: there the maps are the unions of all masks.

  Args:
    gt_map: [H, W], grey levels 0 to 255.
    pred_map: [H, W].
    pixel_weights: As in `rank_map_mae`.

  Returns:
    The share in [0, 1].

  Raises:
    ValueError: if the maps differ in size, or a level is outside 0 to 255.

  >>> binary_mae([[255, 9, 0, 0]], [[9, 0, 0, 0]])
  0.25
  """
  gt_map, pred_map = _levels(gt_map, pred_map)
  return _mean((gt_map > 0) != (pred_map > 0), pixel_weights)


def _levels(*given: ArrayLike) -> list[np.ndarray]:
  maps = list(map(np.asarray, given))
  if maps[0].ndim != 2 or maps[0].shape != maps[1].shape:
    raise ValueError(f"maps must be [H, W] of one size, not {maps[0].shape} and {maps[1].shape}")
  if not all(m.dtype == np.uint8 or ((m >= 0) & (m <= 255)).all() for m in maps):
    raise ValueError("a rank map holds grey levels from 0 to 255")
  return [m if m.dtype == np.uint8 else m.astype(float) for m in maps]


def _mean(values: np.ndarray, weights: ArrayLike | None) -> float:
  if weights is None:
    return float(values.mean())
  weights = np.broadcast_to(np.asarray(weights, float), values.shape)
  return float(np.vdot(values, weights) / weights.sum())
