"""Sorting: the order of the objects of a list. Axes: [..., N]."""

import jax
import jax.numpy as jnp


def descending_order(values: jax.Array, where: jax.Array) -> jax.Array:
  """Indices that sort lists from the highest value to the lowest, padding last.

  Equal values, and the padding, keep the order of the list. On the CPU, XLA sorts single integers
  four times as fast as keys with their indices; so 32-bit keys are sorted twice, each time half a
  key joined with the index, first by the lower halves, then by the upper ones (a radix sort).

  Args:
    values: [..., N].
    where: [..., N] bool, False for padding.

  Returns:
    [..., N] int32.

  >>> descending_order(jnp.array([1.0, 5.0, 9.0, 5.0]), jnp.array([1, 1, 0, 1], bool)).tolist()
  [1, 3, 0, 2]
  """
  if values.dtype != jnp.float32 or values.shape[-1] > 2**16:
    return jnp.lexsort((jnp.where(where, -values, 0), ~where), axis=-1).astype(jnp.int32)
  bits = jax.lax.bitcast_convert_type(0.0 - values, jnp.uint32)  # 0.0 - makes one zero of two
  # Integers in the order of the floats: the negative ones fall with their bits.
  keys = jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(2**31))
  keys = jnp.where(where, keys, jnp.uint32(2**32 - 1))
  by_lower = _order_of_halves(keys & 0xFFFF)
  by_upper = _order_of_halves(jnp.take_along_axis(keys >> 16, by_lower, axis=-1))
  return jnp.take_along_axis(by_lower, by_upper, axis=-1)


def ranks_by_score(scores: jax.Array, where: jax.Array) -> jax.Array:
  """Ranks from 1 for the highest score, without ties: equal scores in the order of the list.

  Args:
    scores: [..., N].
    where: [..., N] bool, False for padding, which ranks last.

  Returns:
    [..., N], floats of the scores' type.

  >>> ranks_by_score(jnp.array([0.5, 2.0, 1.0]), jnp.ones(3, bool)).tolist()
  [3.0, 1.0, 2.0]
  """
  order = descending_order(scores, where)
  ranks = jnp.broadcast_to(jnp.arange(1, order.shape[-1] + 1, dtype=scores.dtype), order.shape)
  return jnp.put_along_axis(jnp.zeros_like(ranks), order, ranks, axis=-1, inplace=False)


def _order_of_halves(halves: jax.Array) -> jax.Array:
  """Indices that sort numbers of 16 bits, equal ones by their index."""
  index = jax.lax.broadcasted_iota(jnp.uint32, halves.shape, halves.ndim - 1)
  return (jnp.sort(halves << 16 | index, axis=-1) & 0xFFFF).astype(jnp.int32)
