"""SOR (salient object ranking): Spearman's rho over the objects that were found, by three rules.

Axes: n true objects, m predictions, maps [H, W]. Objects that were not found are left out, so SOR
alone rewards a ranker that predicts little: report the images used, and SA-SOR or recall beside it.

| rule | found | predicted value | 1 object left | none left |
|---|---|---|---|---|
| "assr" | more than `coverage` of its pixels painted | most frequent level | 1 | skipped |
| "ijcv" | any pixel painted | mean level over its pixels | skipped | skipped |
| from masks | IoU above the threshold | place of the prediction in the list | 1 | counted as 0 |

Sources: Siris et al., Inferring attention shift ranks of objects for image saliency, CVPR 2020
("assr", coverage 0.5; also PPA, OCOR and QAGNet; PSR and FOIR-360 take 0.98); Siris et al.,
Inferring attention shifts for salient instance ranking, IJCV 2023 ("ijcv"); Guan & Lau, SeqRank,
AAAI 2024 (from masks).
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from foir360_jax.metrics.accumulate import SKIPPED, Score
from foir360_jax.metrics.correlation import average_ranks, pearson
from foir360_jax.metrics.crops import Masks, crop_masks
from foir360_jax.metrics.ranking import sort_by_importance
from foir360_jax.metrics.segmentation import mask_iou

MapRule = Literal["assr", "ijcv"]


def sor(
  gt_masks: Masks,
  gt_relevance: ArrayLike,
  pred_map: ArrayLike,
  *,
  coverage: float = 0.5,
  rule: MapRule = "assr",
) -> Score:
  """SOR of one image from a painted rank map.

  Args:
    gt_masks: [n, H, W] or cropped, see `crop_masks`.
    gt_relevance: [n], higher = more important; objects of 0 are left out (add 1 to 0-based ranks).
    pred_map: [H, W] integer grey levels, 0 = no object, at most 255; see `paint_rank_map`.
    coverage: Share of an object's pixels that must be exceeded for it to be found, for "assr".
    rule: "assr" or "ijcv", see the table above.

  Returns:
    Spearman's rho in [-1, 1]; the SOR of papers is (mean rho + 1) / 2. Skipped if nothing is found,
    or all that is found has one relevance or one value. By "ijcv" also if one object is found, or
    if a true mask is empty (there the published program divides by 0).

  Raises:
    ValueError: if shapes do not agree, a relevance is negative or NaN, the map holds anything but
      levels, or the rule is unknown.

  >>> sor(np.eye(3).reshape(3, 1, 3), [3, 2, 1], np.array([[255, 85, 170]]))
  Score(value=0.5, status='used')
  """
  gt_masks = crop_masks(gt_masks)
  return sor_from_levels(
    count_levels(gt_masks, pred_map), gt_masks.areas, gt_relevance, coverage=coverage, rule=rule
  )


def count_levels(masks: Masks, rank_map: ArrayLike) -> np.ndarray:
  """Counts how many pixels of each mask [n, H, W] have each level of a map [H, W].

  Returns:
    [n, 256] int.

  Raises:
    ValueError: if the map is not of the masks' size or holds anything but levels from 0 to 255.
  """
  masks, rank_map = crop_masks(masks), np.asarray(rank_map)
  if len(masks) and rank_map.shape != masks.size:
    raise ValueError(f"the rank map {rank_map.shape} must have the masks' size {masks.size}")
  if rank_map.dtype != np.uint8:
    if rank_map.dtype.kind not in "iub" or ((rank_map < 0) | (rank_map > 255)).any():
      raise ValueError("a rank map holds integer levels from 0 to 255: paint it by paint_rank_map")
    rank_map = rank_map.astype(np.uint8)
  counts = np.zeros((len(masks), 256), int)
  for index, crop in enumerate(masks.crops):
    counts[index] = np.bincount(rank_map[masks.window(index)][crop], minlength=256)
  return counts


def sor_from_levels(
  counts: np.ndarray,
  areas: np.ndarray,
  gt_relevance: ArrayLike,
  *,
  coverage: float = 0.5,
  rule: MapRule = "assr",
) -> Score:
  """`sor` from the pixels of each object by level, [n, 256] (`count_levels`), and its area [n]."""
  relevance = np.asarray(gt_relevance, float)
  if relevance.shape != areas.shape:
    raise ValueError(f"gt_relevance {relevance.shape} must be [{areas.size}], one for each mask")
  if not (relevance >= 0).all():
    raise ValueError("gt_relevance must be 0 (left out) or higher, without NaN")
  if rule == "assr":
    painted = counts[:, 1:]
    is_found = painted.sum(axis=1) > np.floor(areas * coverage)
    values = np.where(is_found, 1 + painted.argmax(axis=1), 0)
  elif rule == "ijcv":
    sums = counts @ np.arange(256)
    values = np.divide(sums, areas, out=np.full(areas.size, np.nan), where=areas > 0)
  else:
    raise ValueError(f"rule must be assr or ijcv, not {rule!r}")
  is_left = (relevance > 0) & (values != 0)
  relevance, values = relevance[is_left], values[is_left]
  if rule == "assr" and values.size == 1:
    return Score(1.0, "used")
  if np.isnan(values).any() or not (_varies(relevance) and _varies(values)):
    return SKIPPED
  return Score(pearson(average_ranks(relevance), average_ranks(values)), "used")


def sor_from_masks(
  gt_masks: Masks,
  gt_relevance: ArrayLike,
  pred_masks: Masks,
  pred_scores: ArrayLike,
  *,
  iou_threshold: float = 0.5,
) -> Score:
  """SOR of one image from masks, by the rule of SeqRank.

  Each object takes the first prediction, by falling score, that overlaps it by more than the
  threshold; several may take the same. Ranks are places in the lists by falling relevance and
  score, so equal values are ranked too, and predictions that match nothing shift the others.

  Args:
    gt_masks: [n, H, W] or cropped, see `crop_masks`.
    gt_relevance: [n], higher = more important.
    pred_masks: [m, H, W] or cropped.
    pred_scores: [m], higher = more important.
    iou_threshold: The overlap that a match must exceed.

  Returns:
    (rho + 1) / 2 in [0, 1], as this rule counts images where it finds nothing as 0; 1 if one object
    is found; undefined without true objects.

  Raises:
    ValueError: if the lengths do not agree or a value is NaN.

  >>> masks = np.eye(3).reshape(3, 1, 3)
  >>> sor_from_masks(masks, [3, 2, 1], masks, [0.9, 0.5, 0.6])
  Score(value=0.75, status='used')
  """
  iou = mask_iou(gt_masks, pred_masks)
  return sor_from_iou(iou, gt_relevance, pred_scores, iou_threshold=iou_threshold)


def sor_from_iou(
  iou: ArrayLike,
  gt_relevance: ArrayLike,
  pred_scores: ArrayLike,
  *,
  iou_threshold: float = 0.5,
) -> Score:
  """`sor_from_masks` from the overlaps [n, m], when the masks were compared elsewhere.

  >>> sor_from_iou([[0.7, 0.1], [0.2, 0.6]], [1, 2], [0.8, 0.3])
  Score(value=0.0, status='used')
  """
  iou, _, _ = sort_by_importance(iou, gt_relevance, pred_scores)
  num_objects, num_predictions = iou.shape
  if not num_objects:
    return Score(float("nan"), "undefined")
  is_match = iou > iou_threshold
  found = np.flatnonzero(is_match.any(axis=1))
  if found.size == 1:
    return Score(1.0, "used")
  places = num_predictions - is_match[found].argmax(axis=1) if found.size else found
  if not _varies(places):
    return Score(0.0, "counted_zero")
  rho = pearson(average_ranks(num_objects - found), average_ranks(places))
  return Score((rho + 1) / 2, "used")


def _varies(values: np.ndarray) -> bool:
  return values.size > 1 and np.ptp(values) > 0
