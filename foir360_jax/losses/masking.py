"""How every loss treats padding, weights and reduction: the beginning and the end they share.

A ranking loss is `mask_lists`, then one term an object, then `reduce_terms`. The end of a mask loss
is `safe_reduce` alone. Axes: lists [..., N], the objects of a list last, any leading axes.

What lies in the padding never matters, be it inf or NaN: it is overwritten *before* the arithmetic,
because a mask on the result alone lets NaN into the gradient (0 * inf). A NaN among the real inputs
is never hidden: it reaches the loss, where the training loop sees it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

ReduceFn = Callable[..., jax.Array]
"""As jnp.mean and jnp.sum: takes an array and `where`, returns the reduced array."""


def at_least_float32(array: ArrayLike) -> jax.Array:
  """Returns the array as floats of at least 32 bits: sums of bfloat16 are too coarse for a loss."""
  array = jnp.asarray(array)
  return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def mask_lists(
  scores: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Makes padded lists safe to compute with.

  Args:
    scores: [..., N], any finite value.
    labels: [..., N], higher = more important.
    where: bool, broadcastable to [..., N], True for real objects; None = all are.

  Returns:
    Scores whose padding is the lowest finite float (-inf would bring NaN gradients), labels whose
    padding is 0, and `where`, all [..., N].

  Raises:
    ValueError: if the shapes of scores and labels differ.
  """
  scores, labels = at_least_float32(scores), at_least_float32(labels)
  if scores.shape != labels.shape:
    raise ValueError(
      f"scores {scores.shape} and labels {labels.shape} must have the same shape [..., N]"
    )
  where = jnp.broadcast_to(True if where is None else jnp.asarray(where, bool), scores.shape)
  # Labels are often only compared, and a comparison swallows NaN: hand it to the scores.
  scores = jnp.where(jnp.isnan(labels), jnp.nan, scores)
  scores = jnp.where(where, scores, jnp.finfo(scores.dtype).min)
  return scores, jnp.where(where, labels, 0.0), where


def reduce_terms(
  terms: jax.Array, *, where: jax.Array, weights: ArrayLike | None, reduce_fn: ReduceFn | None
) -> jax.Array:
  """Adds the weighted terms of each list, then reduces over the lists that have any object.

  Args:
    terms: [..., N], one term an object.
    where: [..., N] bool.
    weights: Broadcastable to [..., N]: an object's weight, or with shape [..., 1] a list's.
    reduce_fn: See `safe_reduce`.
  """
  if weights is not None:
    terms = terms * jnp.where(where, at_least_float32(weights), 0.0)
  return safe_reduce(jnp.sum(terms, axis=-1, where=where), jnp.any(where, axis=-1), reduce_fn)


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
