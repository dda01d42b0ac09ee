"""Padding, weights and reduction: what every loss begins and ends with.

A ranking loss is `mask_lists`, then one loss a list, then `reduce_lists`. The end of a mask loss is
`safe_reduce` alone. Axes: lists [..., N], the objects of a list last, any leading axes.

What lies in the padding never matters, be it inf or NaN: it is overwritten *before* the arithmetic,
because a mask on the result alone lets NaN into the gradient (0 * inf). A NaN among the real inputs
is never hidden: it reaches the loss, where the training loop sees it. Of finite inputs no loss and
no first derivative is NaN: where the cost of an object is beyond the largest float, it is inf, or
counts as that float.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

ReduceFn = Callable[..., jax.Array]
"""As jnp.mean and jnp.sum: takes an array and `where`, returns the reduced array."""


class PaddedLists(NamedTuple):
  """Padded lists that are safe to compute with, all arrays [..., N].

  Attributes:
    scores: the lowest finite float in the padding (-inf would bring NaN gradients).
    labels: 0 in the padding.
    plain_weights: 0 in the padding.
    where: bool, True for real objects.
  """

  scores: jax.Array
  labels: jax.Array
  plain_weights: jax.Array
  where: jax.Array

  @property
  def weights(self) -> jax.Array:
    """The weights, NaN where the score or the label is.

    Losses that only compare labels multiply the terms of an object by these, so that NaN shows.
    """
    is_nan = jnp.isnan(self.scores) | jnp.isnan(self.labels)
    return jnp.where(is_nan, jnp.nan, self.plain_weights)


def at_least_float32(array: ArrayLike) -> jax.Array:
  """Returns the array as floats of at least 32 bits: sums of bfloat16 are too coarse for a loss."""
  array = jnp.asarray(array)
  return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def mask_lists(
  scores: ArrayLike,
  labels: ArrayLike,
  where: ArrayLike | None = None,
  weights: ArrayLike | None = None,
) -> PaddedLists:
  """Makes padded lists safe to compute with.

  Args:
    scores: [..., N], any finite values.
    labels: [..., N], higher = more important.
    where: bool, broadcastable to [..., N], True for real objects; None = all are.
    weights: broadcastable to [..., N]: an object's weight, or with shape [..., 1] a list's; None =
      all are 1.

  Raises:
    ValueError: if the shapes of scores and labels differ.
  """
  scores, labels = at_least_float32(scores), at_least_float32(labels)
  if scores.shape != labels.shape:
    raise ValueError(
      f"scores {scores.shape} and labels {labels.shape} must have the same shape [..., N]"
    )
  weights = at_least_float32(1.0 if weights is None else weights)
  dtype = jnp.result_type(scores, labels, weights)
  scores, labels, weights = (array.astype(dtype) for array in (scores, labels, weights))
  where = jnp.broadcast_to(True if where is None else jnp.asarray(where, bool), scores.shape)
  return PaddedLists(
    scores=jnp.where(where, scores, jnp.finfo(dtype).min),
    labels=jnp.where(where, labels, 0.0),
    plain_weights=jnp.where(where, weights, 0.0),
    where=where,
  )


def weighted_sum(weights: jax.Array, terms: jax.Array) -> jax.Array:
  """Sums weight times term over the objects of each list, [...].

  A term beyond the largest float counts nothing where its weight is 0, instead of 0 * inf.

  >>> float(weighted_sum(jnp.array([2.0, 0.0]), jnp.array([3.0, jnp.inf])))
  6.0
  """
  left_out = (weights == 0) & jnp.isinf(terms)
  return jnp.sum(weights * jnp.where(left_out, 0.0, terms), axis=-1)


def reduce_lists(losses: jax.Array, lists: PaddedLists, reduce_fn: ReduceFn | None) -> jax.Array:
  """Reduces one loss a list, [...], over the lists that have any object; see `safe_reduce`."""
  # XLA's `any` is slow on the CPU, and would be done twice.
  has_objects = jnp.max(lists.where.astype(jnp.uint8), axis=-1) > 0
  return safe_reduce(losses, has_objects, reduce_fn)


def safe_reduce(
  values: jax.Array, where: ArrayLike | None = None, reduce_fn: ReduceFn | None = jnp.mean
) -> jax.Array:
  """Reduces the real ones among the values; the mean of none is 0, with a gradient of 0.

  A NaN in a real value is not hidden.

  Args:
    values: [...], padding included.
    where: Bool, broadcastable to [...], True for real values; None = all are.
    reduce_fn: For example jnp.mean or jnp.sum; None returns the values, 0 in the padding, so that
      their sum and `where`'s may be added up over devices and divided once.

  Returns:
    A scalar, or [...] if `reduce_fn` is None.

  >>> float(safe_reduce(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])))
  2.0
  >>> float(safe_reduce(jnp.array([jnp.nan]), jnp.array([False])))
  0.0
  """
  where = jnp.broadcast_to(True if where is None else jnp.asarray(where, bool), values.shape)
  values = jnp.where(where, values, 0.0)
  if reduce_fn is None:
    return values
  # With nothing real, reduce the zeros: 0 / n rather than 0 / 0, also in the gradient.
  return reduce_fn(values, where=where | ~jnp.any(where))
