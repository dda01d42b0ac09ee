"""Ranking losses over pairs of objects. Axes: [..., N], the objects of a list last.

The arguments mean the same as in `softmax.py`. The loss of a list is the sum over its pairs, so
`jnp.mean` is the mean over lists (rax takes it over pairs; sums over everything agree). Only the
order of the labels counts, equal labels make no pair, and no loss can be differentiated by them.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from foir360_jax.losses.gains import (
  ArrayFn,
  exponential_gain,
  logarithmic_discount,
  normalised_gains,
)
from foir360_jax.losses.masking import (
  PaddedLists,
  ReduceFn,
  mask_lists,
  reduce_lists,
  weighted_sum,
)
from foir360_jax.losses.one_pass import differentiable
from foir360_jax.losses.order import ranks_by_score
from foir360_jax.losses.row_blocks import scan_row_blocks

PairCost = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""How far an object lags behind a less important one -> the cost and its slope; 0, 0 for -inf."""


def pairwise_logistic_loss(
  scores: ArrayLike,
  labels: ArrayLike,
  *,
  where: ArrayLike | None = None,
  weights: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Logistic loss of every pair of objects whose order is known (RankNet).

      loss = sum_{i, j: labels_i > labels_j} log(1 + exp(scores_j - scores_i))

  Source: Burges et al., Learning to rank using gradient descent, ICML 2005.

  Args:
    scores: [..., N].
    labels: [..., N]; only their order counts; equal labels make no pair.
    where: Broadcastable to [..., N] bool.
    weights: Broadcastable to [..., N]: a pair weighs as much as its more important object.
    reduce_fn: Reduction over lists, or None.

  Returns:
    A scalar, or one loss a list, [...].

  Raises:
    ValueError: if the shapes of scores and labels differ.

  >>> round(float(pairwise_logistic_loss(jnp.array([2.0, 1.0]), jnp.array([0.0, 1.0]))), 4)
  1.3133
  """
  lists = mask_lists(scores, labels, where, weights)
  return reduce_lists(_sum_over_pairs(_logistic, lists), lists, reduce_fn)


def pairwise_hinge_loss(
  scores: ArrayLike,
  labels: ArrayLike,
  *,
  margin: float = 1.0,
  where: ArrayLike | None = None,
  weights: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Hinge loss of every pair of objects whose order is known (Ranking SVM).

      loss = sum_{i, j: labels_i > labels_j} max(0, margin + scores_j - scores_i)

  Source: Joachims, Optimizing search engines using clickthrough data, KDD 2002.

  Args:
    scores: [..., N].
    labels: [..., N]; only their order counts; equal labels make no pair.
    margin: By how much the score of the more important object should be higher.
    where: Broadcastable to [..., N] bool.
    weights: Broadcastable to [..., N]: a pair weighs as much as its more important object.
    reduce_fn: Reduction over lists, or None.

  Returns:
    A scalar, or one loss a list, [...].

  Raises:
    ValueError: if the shapes of scores and labels differ.

  >>> float(pairwise_hinge_loss(jnp.array([2.0, 1.5]), jnp.array([0.0, 1.0])))
  1.5
  """

  def hinge(lag):
    costs = jnp.maximum(margin + lag, 0.0)
    # 1 for every normal float above 0: a comparison would keep XLA's CPU backend from fusing.
    slopes = jnp.minimum(costs * jnp.finfo(lag.dtype).max, 1.0)
    return costs, jax.lax.stop_gradient(slopes)  # they are constant but for the kink

  lists = mask_lists(scores, labels, where, weights)
  return reduce_lists(_sum_over_pairs(hinge, lists), lists, reduce_fn)


def lambdarank_loss(
  scores: ArrayLike,
  labels: ArrayLike,
  *,
  topn: int | None = None,
  gain_fn: ArrayFn = exponential_gain,
  discount_fn: ArrayFn = logarithmic_discount,
  where: ArrayLike | None = None,
  weights: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Logistic loss of every pair, weighted by how much NDCG changes if the two swap (LambdaRank).

      loss = sum_{i, j: labels_i > labels_j} |(gain_i - gain_j) (discount_i - discount_j)| / ideal
                                             * log(1 + exp(scores_j - scores_i))

  where the discounts are those of the ranks by score, and ideal is the highest DCG of the list. The
  weights of the pairs count as constant. rax multiplies them by the length of the padded list; here
  the length of the padding does not matter. rax also multiplies the gains by `weights`; here they
  weigh the pairs only.
  Source: Burges et al., Learning to rank with nonsmooth cost functions, NIPS 2006.

  Args:
    scores: [..., N].
    labels: [..., N], grades.
    topn: How many ranks count, those beyond have a discount of 0; None = all.
    gain_fn: Labels -> gains, elementwise.
    discount_fn: Ranks from 1 -> discounts, elementwise.
    where: Broadcastable to [..., N] bool.
    weights: Broadcastable to [..., N]: a pair weighs as much as its more important object.
    reduce_fn: Reduction over lists, or None.

  Returns:
    A scalar, or one loss a list, [...].

  Raises:
    ValueError: if the shapes of scores and labels differ, or `topn` is less than 1.

  >>> round(float(lambdarank_loss(jnp.array([2.0, 1.0]), jnp.array([0.0, 1.0]))), 4)
  0.4847
  """
  lists = mask_lists(scores, labels, where, weights)
  gains = normalised_gains(lists, topn, gain_fn, discount_fn)
  ranks = ranks_by_score(jax.lax.stop_gradient(lists.scores), lists.where)
  discounts = discount_fn(ranks)
  if topn is not None:
    discounts = jnp.where(ranks <= topn, discounts, 0.0)
  return reduce_lists(_sum_over_pairs(_logistic, lists, gains, discounts), lists, reduce_fn)


def _logistic(lag: jax.Array) -> tuple[jax.Array, jax.Array]:
  # The primitive's derivative is 0 for -inf; that of its formula, with exp(inf), is NaN.
  return jnp.maximum(lag, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(lag))), jax.lax.logistic(lag)


def _sum_over_pairs(cost: PairCost, lists: PaddedLists, *factors: jax.Array) -> jax.Array:
  """The cost of all pairs of each list, [...].

  Args:
    cost: of one pair.
    lists: see `masking`.
    *factors: [..., N]; a pair's cost is multiplied by the distance of its objects in each of them.
  """

  @differentiable
  def losses(scores, weights, labels, *factors):
    def tile(row_scores, row_labels, *row_factors):
      # In a column the more important object of a pair. No pair is with NaN, hence with padding.
      is_pair = labels[..., None, :] > row_labels
      # The compiler makes better loops if the lag is masked than if the cost is.
      costs, slopes = cost(jnp.where(is_pair, row_scores - scores[..., None, :], -jnp.inf))
      if factors:
        steps = (r - c[..., None, :] for r, c in zip(row_factors, factors, strict=True))
        change = jnp.abs(math.prod(steps))
        largest = jnp.finfo(costs.dtype).max  # of a change of 0 not inf, which would bring NaN
        costs, slopes = jnp.minimum(costs, largest) * change, slopes * change
      slopes *= weights[..., None, :]
      return (jnp.sum(costs, axis=-2), jnp.sum(slopes, axis=-2)), jnp.sum(slopes, axis=-1)

    rows, constants = (scores, labels, *factors), [None] * (1 + len(factors))
    (terms, down), up = scan_row_blocks(tile, rows, [0.0, jnp.nan, *(0.0 for _ in factors)])
    return weighted_sum(weights, terms), [up - down, terms, *constants]

  labels = jnp.where(lists.where, lists.labels, jnp.nan)
  return losses(lists.scores, lists.weights, labels, *factors)
