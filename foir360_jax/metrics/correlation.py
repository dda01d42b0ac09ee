"""Rank correlations, NDCG and pairwise agreement of scores with an order.

No masks here: object i has the relevance `gt_relevance[i]` and the score `scores[i]`, both higher =
more important, and only NDCG reads more of the relevance than its order. Axes: n objects.

All of them skip an image with nothing to order: fewer than two objects, or all equally relevant.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from foir360_jax.metrics.accumulate import SKIPPED, Score


def minimum_ranks(values: ArrayLike) -> np.ndarray:
  """Ranks values [n] upwards from 1 = lowest; ties share the lowest rank: 1 + #{j: v_j < v_i}.

  >>> minimum_ranks([0.9, 0.4, 0.9, 0.1])
  array([3, 2, 3, 1])
  """
  return 1 + np.searchsorted(np.sort(values), values)


def average_ranks(values: ArrayLike) -> np.ndarray:
  """Ranks values [n] upwards from 1 = lowest; ties share the mean of the ranks that they take.

  >>> average_ranks([0.9, 0.4, 0.9, 0.1])
  array([3.5, 2. , 3.5, 1. ])
  """
  ordered = np.sort(values)
  last = np.searchsorted(ordered, values, side="right")
  return (minimum_ranks(values) + last) / 2


def spearman(gt_relevance: ArrayLike, scores: ArrayLike) -> Score:
  """Spearman's rho: the Pearson correlation of the average ranks.

  Source: Spearman, The proof and measurement of association between two things, 1904; ties as in
  Kendall, Rank correlation methods, 1948, section 3.

  Args:
    gt_relevance: [n], higher = more important.
    scores: [n].

  Returns:
    rho in [-1, 1]; 0, "counted_zero", if all scores are equal.

  Raises:
    ValueError: if the lengths differ or a value is NaN.

  >>> spearman([3, 2, 1], [0.9, 0.1, 0.5])
  Score(value=0.5, status='used')
  """
  relevance, scores = _lists(gt_relevance, scores)
  if _nothing_to_order(relevance):
    return SKIPPED
  if np.ptp(minimum_ranks(scores)) == 0:
    return Score(0.0, "counted_zero")
  return Score(pearson(average_ranks(relevance), average_ranks(scores)), "used")


def kendall_tau_b(gt_relevance: ArrayLike, scores: ArrayLike) -> Score:
  """Kendall's tau-b: (C - D) / sqrt((P - T) (P - U)).

  Of the P = n (n - 1) / 2 pairs C are in the right order and D in the wrong one; T are tied in
  relevance, U in the scores. Source: Kendall, The treatment of ties in ranking problems, 1945.

  Args:
    gt_relevance: [n], higher = more important.
    scores: [n].

  Returns:
    tau-b in [-1, 1]; 0, "counted_zero", if all scores are equal.

  Raises:
    ValueError: if the lengths differ or a value is NaN.

  >>> round(kendall_tau_b([4, 3, 2, 1], [0.9, 0.1, 0.5, 0.1]).value, 4)
  0.5477
  """
  relevance, scores = _lists(gt_relevance, scores)
  if _nothing_to_order(relevance):
    return SKIPPED
  a, b = _pair_signs(relevance), _pair_signs(scores)
  if not b.any():
    return Score(0.0, "counted_zero")
  agreement = (a * b).sum() / np.sqrt(np.abs(a).sum() * np.abs(b).sum())
  return Score(float(agreement), "used")


def pairwise_agreement(gt_relevance: ArrayLike, scores: ArrayLike) -> Score:
  """Share of the pairs of objects of different relevance that the scores put in the right order.

  A pair with equal scores counts one half, so scores without any information have 0.5. Pairs that
  are tied in relevance are not counted. For two relevance levels it is the area under the ROC.

  Args:
    gt_relevance: [n], higher = more important.
    scores: [n].

  Returns:
    The share in [0, 1].

  Raises:
    ValueError: if the lengths differ or a value is NaN.

  >>> round(pairwise_agreement([3, 2, 1], [0.9, 0.5, 0.5]).value, 4)
  0.8333
  """
  relevance, scores = _lists(gt_relevance, scores)
  if _nothing_to_order(relevance):
    return SKIPPED
  a, b = _pair_signs(relevance), _pair_signs(scores)
  return Score(float(1 + (a * b).sum() / np.abs(a).sum()) / 2, "used")


def ndcg(
  gt_relevance: ArrayLike,
  scores: ArrayLike,
  *,
  topn: int | None = None,
  gain_fn: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Score:
  """Normalised discounted cumulative gain: sum of gain / log2(1 + rank), over its highest value.

  Objects with equal scores share the mean of their gains, which is the expected NDCG when ties are
  broken at random. Sources: Järvelin & Kekäläinen, Cumulated gain-based evaluation of IR
  techniques, TOIS 2002; McSherry & Najork, Computing information retrieval performance measures
  efficiently in the presence of tied scores, ECIR 2008.

  Args:
    gt_relevance: [n], higher = more important.
    scores: [n].
    topn: How many ranks count; None = all.
    gain_fn: relevance -> gains >= 0. The default takes the relevance itself: the gain 2^relevance -
      1 of web search is for a few grades, of 40 ranked objects it would count the first ones only.

  Returns:
    NDCG in [0, 1]; skipped if there is no gain at all, too.

  Raises:
    ValueError: if the lengths differ, a value is NaN, a gain negative or `topn` less than 1.

  >>> round(ndcg([3, 2, 1], [0.9, 0.1, 0.5]).value, 4)
  0.9725
  """
  relevance, scores = _lists(gt_relevance, scores)
  if topn is not None and topn < 1:
    raise ValueError(f"topn must be at least 1, not {topn}; None counts every rank")
  gains = np.asarray(gain_fn(relevance), float)
  if (gains < 0).any():
    raise ValueError(f"gains must not be negative, but one is {gains.min()}; pass a gain_fn")
  if _nothing_to_order(relevance) or not gains.any():
    return SKIPPED
  ranks = np.arange(1, gains.size + 1)
  discounts = np.where(ranks <= (topn or gains.size), 1 / np.log2(1 + ranks), 0)
  _, group = np.unique(-scores, return_inverse=True)  # groups of equal scores, the highest first
  first = np.cumsum(np.bincount(group)) - np.bincount(group)
  mean_gain = np.bincount(group, gains) / np.bincount(group)
  achieved = mean_gain @ np.add.reduceat(discounts, first)
  return Score(float(achieved / (-np.sort(-gains) @ discounts)), "used")


def pearson(a: np.ndarray, b: np.ndarray) -> float:
  """Correlation of two lists [n], neither of them constant."""
  a, b = a - a.mean(), b - b.mean()
  return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _lists(gt_relevance: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
  relevance, scores = np.asarray(gt_relevance, float), np.asarray(scores, float)
  if relevance.ndim != 1 or relevance.shape != scores.shape:
    raise ValueError(f"relevance {relevance.shape} and scores {scores.shape} must both be [n]")
  if np.isnan(relevance).any() or np.isnan(scores).any():
    raise ValueError("NaN in gt_relevance or scores: pass real objects only, no padding")
  return relevance, scores


def _nothing_to_order(relevance: np.ndarray) -> bool:
  return relevance.size < 2 or (relevance == relevance[0]).all()


def _pair_signs(values: np.ndarray) -> np.ndarray:
  """[n, n]: 1 where v_i > v_j, -1 where it is less, 0 in ties."""
  greater = values[:, None] > values
  return greater.astype(int) - greater.T
