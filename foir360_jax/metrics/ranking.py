"""Ranks, and SA-SOR (segmentation-aware salient object ranking) by the rules of its two families.

Axes: n true objects, m predictions, iou [n, m]. Relevance and scores are higher = more important; a
rank is an int, 1 = most important, except in the correlations, where 1 = least (`minimum_ranks`).

Published SA-SOR figures come from two programs that differ in nearly everything:

| rule | matching | overlap | missed object | false positives | 1 object | nothing found |
|---|---|---|---|---|---|---|
| "irsr" | each its best, then the best claim | >= 0.5 | rank 0 | rank only if m > n | skipped | 0 |
| "seqrank" | Hungarian | > 0.5 | rank 0 | always rank | counted as 0 | counted as 0 |

Sources: Liu et al., Instance-level relative saliency ranking with graph reasoning, TPAMI 2021
("irsr"; also QAGNet, DSGNN, and PSR with a threshold of 0.1); Guan & Lau, SeqRank, AAAI 2024.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from foir360_jax.metrics.accumulate import SKIPPED, Score
from foir360_jax.metrics.correlation import minimum_ranks, pearson
from foir360_jax.metrics.crops import CroppedMasks, Masks, crop_masks
from foir360_jax.metrics.segmentation import mask_iou

Rule = Literal["irsr", "seqrank"]


def relevance_from_ranks(ranks: ArrayLike) -> np.ndarray:
  """Turns ranks [n] (1 = most important) into relevance n - rank + 1, n times the importance.

  Raises:
    ValueError: if a rank is below 1.

  >>> relevance_from_ranks([1, 3, 2])
  array([3., 1., 2.], dtype=float32)
  """
  ranks = np.asarray(ranks)
  if ranks.size and ranks.min() < 1:
    raise ValueError(f"ranks start at 1 (the most important), not at {ranks.min()}")
  return (ranks.size - ranks + 1).astype(np.float32)


def ranks_from_relevance(relevance: ArrayLike) -> np.ndarray:
  """Turns relevance [n] into dense ranks: 1 = most important, ties share one and leave no gap.

  >>> ranks_from_relevance([0.9, 0.9, 0.4])
  array([1, 1, 2])
  """
  relevance = np.asarray(relevance)
  return 1 + np.unique(-relevance.astype(np.float64), return_inverse=True)[1]


def sa_sor(
  gt_masks: Masks,
  gt_relevance: ArrayLike,
  pred_masks: Masks,
  pred_scores: ArrayLike,
  *,
  iou_threshold: float = 0.5,
  rule: Rule = "irsr",
) -> Score:
  """SA-SOR of one image: how well the order of the predictions that match true objects is theirs.

  The Pearson correlation of the true ranks with the ranks of the matched predictions; a missed
  object has rank 0, below the lowest, so missing the least important one costs nothing.

  Args:
    gt_masks: [n, H, W], a pixel belongs to the mask where the value is above 0.5.
    gt_relevance: [n], higher = more important.
    pred_masks: [m, H, W].
    pred_scores: [m], higher = more important.
    iou_threshold: Smallest overlap of a match; by the rule "seqrank" the overlap must exceed it.
    rule: "irsr" or "seqrank", see the table above.

  Returns:
    The correlation in [-1, 1] and its status.

  Raises:
    ValueError: if the lengths do not agree, a value is NaN, or the rule is unknown.

  >>> masks = np.eye(3).reshape(3, 1, 3)
  >>> sa_sor(masks, [3, 2, 1], masks, [0.9, 0.5, 0.6])
  Score(value=0.5, status='used')
  """
  gt_masks, pred_masks = crop_masks(gt_masks), crop_masks(pred_masks)
  iou = mask_iou(gt_masks, pred_masks)
  if rule == "irsr":
    iou = match_empty_masks(iou, gt_masks, pred_masks)
  return sa_sor_from_iou(iou, gt_relevance, pred_scores, iou_threshold=iou_threshold, rule=rule)


def sa_sor_from_iou(
  iou: ArrayLike,
  gt_relevance: ArrayLike,
  pred_scores: ArrayLike,
  *,
  iou_threshold: float = 0.5,
  rule: Rule = "irsr",
) -> Score:
  """SA-SOR from the overlaps, when the masks were compared elsewhere; see `sa_sor`.

  Where the published programs leave a choice to the sorting of equal overlaps, the higher score (of
  two predictions) or relevance (of two objects) comes first, then the position in the list.

  Args:
    iou: [n, m] overlap of each true object with each prediction.
    gt_relevance: [n].
    pred_scores: [m].
    iou_threshold: As in `sa_sor`.
    rule: As in `sa_sor`.

  Returns:
    The correlation in [-1, 1] and its status.

  Raises:
    ValueError: if the lengths do not agree, a value is NaN, or the rule is unknown.

  >>> sa_sor_from_iou([[0.7, 0.1], [0.2, 0.6]], [1, 2], [0.3, 0.8])
  Score(value=1.0, status='used')
  """
  if rule not in _RULES:
    raise ValueError(f"rule must be one of {', '.join(_RULES)}, not {rule!r}")
  return _RULES[rule](*sort_by_importance(iou, gt_relevance, pred_scores), iou_threshold)


def sort_by_importance(
  iou: ArrayLike, gt_relevance: ArrayLike, pred_scores: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Checks and sorts `iou` [n, m], `gt_relevance` [n] and `pred_scores` [m], the highest first.

  Raises:
    ValueError: if the lengths do not agree or a value is NaN.
  """
  relevance, scores = np.asarray(gt_relevance, float), np.asarray(pred_scores, float)
  num_objects, num_predictions = relevance.size, scores.size
  iou = np.asarray(iou, float)
  if iou.size == num_objects * num_predictions == 0:
    iou = iou.reshape(num_objects, num_predictions)
  if iou.shape != (num_objects, num_predictions):
    raise ValueError(
      f"iou {iou.shape} must be [{num_objects} relevances, {num_predictions} scores]"
    )
  if np.isnan(relevance).any() or np.isnan(scores).any() or np.isnan(iou).any():
    raise ValueError("NaN in iou, gt_relevance or pred_scores: pass real objects only, no padding")

  objects, predictions = (np.argsort(-values, kind="stable") for values in (relevance, scores))
  return iou[np.ix_(objects, predictions)], relevance[objects], scores[predictions]


def match_empty_masks(
  iou: np.ndarray, gt_masks: CroppedMasks, pred_masks: CroppedMasks
) -> np.ndarray:
  """Gives two empty masks the overlap 1, by which they match.

  The published program of the rule "irsr" divides 0 by 0 and takes the NaN for a match.
  """
  both_empty = (gt_masks.areas == 0)[:, None] & (pred_masks.areas == 0)
  return np.where(both_empty, 1.0, iou)


def rank_correlation(gt_relevance: ArrayLike, scores: ArrayLike) -> Score:
  """SA-SOR (rule "irsr") of scores for the true masks: each object is matched with itself.

  Args:
    gt_relevance: [n], higher = more important.
    scores: [n].

  Returns:
    The Pearson correlation of the `minimum_ranks`; 0 if all scores are equal, skipped if there are
    less than two objects or all are equally relevant.

  >>> rank_correlation([3, 2, 1], [0.9, 0.1, 0.5])
  Score(value=0.5, status='used')
  """
  return sa_sor_from_iou(np.eye(np.size(gt_relevance)), gt_relevance, scores)


def _irsr(iou: np.ndarray, relevance: np.ndarray, scores: np.ndarray, threshold: float) -> Score:
  """Rule "irsr", for objects and predictions sorted by falling relevance and score."""
  num_objects, num_predictions = iou.shape
  if num_objects < 2:
    return SKIPPED
  ranks = np.zeros(num_objects)
  if num_predictions:
    wanted, overlap = iou.argmax(axis=1), iou.max(axis=1)
    # Of the objects that want a prediction the best overlap has it; the others get no other one.
    best_first = np.argsort(-overlap, kind="stable")
    predictions, first = np.unique(wanted[best_first], return_index=True)
    objects = best_first[first]
    is_match = overlap[objects] >= threshold
    objects, predictions = objects[is_match], predictions[is_match]
    # False positives take ranks only where predictions outnumber objects: the rule has a jump.
    pool = np.arange(num_predictions) if num_objects < num_predictions else predictions
    pool_ranks = np.zeros(num_predictions)
    pool_ranks[pool] = minimum_ranks(scores[pool])
    ranks[objects] = pool_ranks[predictions]
  if np.ptp(ranks) == 0:
    return Score(0.0, "used")
  if np.ptp(relevance) == 0:
    return SKIPPED
  return Score(pearson(minimum_ranks(relevance), ranks), "used")


def _seqrank(iou: np.ndarray, relevance: np.ndarray, scores: np.ndarray, threshold: float) -> Score:
  """Rule "seqrank", for objects and predictions sorted by falling relevance and score.

  Ranks are positions in these lists, so equal values are ranked too.
  """
  num_objects, num_predictions = iou.shape
  if not num_objects:
    return Score(float("nan"), "undefined")
  objects, predictions = linear_sum_assignment(iou, maximize=True)
  is_match = iou[objects, predictions] > threshold
  ranks = np.zeros(num_objects)
  ranks[objects[is_match]] = num_predictions - predictions[is_match]
  if np.ptp(ranks) == 0:
    return Score(0.0, "counted_zero")
  return Score(pearson(np.arange(num_objects, 0, -1), ranks), "used")


_RULES = {"irsr": _irsr, "seqrank": _seqrank}
