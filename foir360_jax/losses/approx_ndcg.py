"""ApproxNDCG: NDCG with ranks that are smooth functions of the scores. Axes: [..., N]."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from foir360_jax.losses.gains import (
  ArrayFn,
  exponential_gain,
  logarithmic_discount,
  normalised_gains,
)
from foir360_jax.losses.masking import ReduceFn, mask_lists, reduce_lists
from foir360_jax.losses.one_pass import differentiable
from foir360_jax.losses.row_blocks import scan_row_blocks


def approx_ndcg_loss(
  scores: ArrayLike,
  labels: ArrayLike,
  *,
  temperature: float = 1.0,
  topn: int | None = None,
  gain_fn: ArrayFn = exponential_gain,
  discount_fn: ArrayFn = logarithmic_discount,
  where: ArrayLike | None = None,
  weights: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Minus NDCG, with each rank replaced by a sum of sigmoids (ApproxNDCG).

      loss = - sum_i gain_i discount(rank_i) / ideal,     in [-1, 0] with weights of 1
      rank_i = 1 + sum_{j != i} sigmoid((scores_j - scores_i) / temperature)

  where ideal is the highest DCG of the list; a list without any gain costs 0. With `topn`, each
  term is multiplied by sigmoid((boundary - rank_i) / temperature), the boundary being half-way
  between the ranks of the objects at topn and topn + 1, and constant (as in rax). rax also lets
  `weights` into the ideal; here they weigh the terms only.
  Source: Qin et al., A general approximation framework for direct optimization of information
  retrieval measures, Information Retrieval 2010.

  Args:
    scores: [..., N].
    labels: [..., N], grades; the loss cannot be differentiated by them.
    temperature: Positive; the lower, the closer to NDCG, and the more of the gradient vanishes.
    topn: How many ranks count; None = all.
    gain_fn: Labels -> gains, elementwise.
    discount_fn: Ranks from 1 -> discounts, elementwise and differentiable.
    where: Broadcastable to [..., N] bool.
    weights: Broadcastable to [..., N].
    reduce_fn: Reduction over lists, or None.

  Returns:
    A scalar, or one loss a list, [...].

  Raises:
    ValueError: if the shapes of scores and labels differ, or `topn` is less than 1, or the
      temperature is not positive.

  >>> round(float(approx_ndcg_loss(jnp.array([2.0, 1.0]), jnp.array([0.0, 1.0]))), 4)
  -0.6899
  """
  if temperature <= 0:
    raise ValueError(f"temperature must be positive, not {temperature}")
  lists = mask_lists(scores, labels, where, weights)
  gains = normalised_gains(lists, topn, gain_fn, discount_fn)

  def minus_ndcg(ranks, weights, gains, where):
    ranks = jnp.where(where, ranks, 1.0)
    discounts = discount_fn(ranks)
    if topn is not None and topn < ranks.shape[-1]:
      # A shorter list has no rank topn + 1: its boundary is inf, and nothing is cut off.
      ordered = jnp.sort(jnp.where(where, ranks, jnp.inf), axis=-1)
      boundary = jax.lax.stop_gradient(ordered[..., topn - 1 : topn + 1].mean(-1, keepdims=True))
      discounts *= jax.nn.sigmoid((boundary - ranks) / temperature)
    return -jnp.sum(weights * gains * discounts, axis=-1)

  @differentiable
  def losses(scores, weights, gains, where):
    lowest = jnp.finfo(scores.dtype).min  # as in the padding: beaten by every real score

    def tanh_of_half(rows):  # sigmoid(x) = (1 + tanh(x / 2)) / 2
      return jnp.tanh((rows - scores[..., None, :]) * (0.5 / temperature))

    def count(rows):
      return jnp.sum(1 + tanh_of_half(rows), axis=-2), None

    doubled, _ = scan_row_blocks(count, [scores], [lowest])
    # The sum counts the object itself as one half.
    values, pull = jax.vjp(
      lambda ranks, weights: minus_ndcg(ranks, weights, gains, where), 0.5 + doubled / 2, weights
    )
    by_rank, by_weight = pull(jnp.ones_like(values))

    def attract(rows, row_by_rank):
      slopes = 1 - jnp.square(tanh_of_half(rows))
      return jnp.sum(slopes * (row_by_rank - by_rank[..., None, :]), axis=-2), None

    by_score, _ = scan_row_blocks(attract, [scores, by_rank], [lowest, 0.0])
    by_score = jnp.where(where, by_score / (4 * temperature), 0.0)
    return values, [by_score, by_weight, None, None]

  return reduce_lists(losses(lists.scores, lists.weights, gains, lists.where), lists, reduce_fn)
