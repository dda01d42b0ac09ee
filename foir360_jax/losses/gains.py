"""Discounted cumulative gain: gains, discounts and the ideal DCG.

Used by LambdaRank and ApproxNDCG. Axes: [..., N].
Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from foir360_jax.losses.masking import PaddedLists
from foir360_jax.losses.order import descending_order

ArrayFn = Callable[[jax.Array], jax.Array]


def exponential_gain(labels: jax.Array) -> jax.Array:
  """2^label - 1, for small grades: float32 has none of its values from a label of 128 on."""
  return jnp.exp2(labels) - 1


def logarithmic_discount(ranks: jax.Array) -> jax.Array:
  """1 / log2(rank + 1) for ranks from 1."""
  return 1 / jnp.log2(ranks + 1)


def normalised_gains(
  lists: PaddedLists, topn: int | None, gain_fn: ArrayFn, discount_fn: ArrayFn
) -> jax.Array:
  """The gain of each object as a share of the highest DCG that its list can have.

  Args:
    lists: see `masking`.
    topn: how many ranks count; None = all.
    gain_fn: labels -> gains, elementwise.
    discount_fn: ranks from 1 -> discounts, elementwise.

  Returns:
    [..., N], 0 in the padding and in lists without any gain; constant, as the labels are. Gains
    too large to be added up (in float32 beyond some 1e38 / N) count as the largest that are not.

  Raises:
    ValueError: if `topn` is less than 1.
  """
  if topn is not None and topn < 1:
    raise ValueError(f"topn must be at least 1, not {topn}; None counts every rank")
  gains = jnp.where(lists.where, gain_fn(jax.lax.stop_gradient(lists.labels)), 0.0)
  largest = jnp.finfo(gains.dtype).max / (2 * max(gains.shape[-1], 1))
  gains = jnp.clip(gains, -largest, largest)
  best = jnp.take_along_axis(gains, descending_order(gains, lists.where), axis=-1)[..., :topn]
  discounts = discount_fn(jnp.arange(1, best.shape[-1] + 1, dtype=gains.dtype))
  ideal = jnp.sum(best * discounts, axis=-1, keepdims=True)
  return gains / jnp.where(ideal == 0, 1.0, ideal)
