"""What training asks of the queries: masks, categories, and which of them are objects.

All predictions count alike, those from the places alone and those after every layer, each with its
own assignment of queries to objects. Terms are sums over the predictions, counts as well, so a term
is a mean over them.

Axes: L predictions, B scenes, N objects, Q found queries, D channels of kernels, n points.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foir360_jax.losses import dice_loss, mask_cross_entropy
from foir360_jax.models.mask_head import mask_logits
from foir360_jax.models.matching import assign, matching_cost
from foir360_jax.models.points import Measured
from foir360_jax.models.query_decoder import Queries
from foir360_jax.types import Terms


class Match(NamedTuple):
  """After the last layer: the found query of each object, `[B, N]`, and the IoU of both masks."""

  query: jax.Array
  iou: jax.Array


def segmentation_terms(
  queries: Queries, measured: Measured, where: jax.Array, category: jax.Array
) -> tuple[Terms, Match]:
  """The terms `object`, `mask_dice`, `mask_entropy`, `category` and `recall`.

  Args:
    queries: one taught query for each of N objects, then the found ones.
    measured: where masks are compared.
    where: `[B, N]`.
    category: `[B, N]`, -1 where unknown.

  Returns:
    the terms, and the match after the last layer; its IoU is 0 in the padding.
  """
  # An object that is nowhere among the points says nothing here: it must not be taught as empty.
  where = where & (measured.masks.max(-1) > 0)
  num_taught = where.shape[1]
  taught, found = (
    Queries(queries.tokens, *(x[:, :, part] for x in queries[1:]))
    for part in (slice(num_taught), slice(num_taught, None))
  )
  num_predictions, batch_size, num_found = found.object_logits.shape
  num_objects = num_predictions * where.sum()
  matched = _match(found, measured, where)

  layers = jnp.arange(num_predictions)[:, None, None]
  rows = jnp.arange(batch_size)[:, None]
  real = jnp.broadcast_to(where, matched.shape)
  is_object = (
    jnp.zeros(found.object_logits.shape).at[layers, rows, matched].max(real.astype(jnp.float32))
  )
  entropy = jax.nn.softplus(found.object_logits) - found.object_logits * is_object
  terms = {"object": (entropy.sum(), num_objects)}

  def of_objects(of_taught, of_found):  # [L, B, 2 N, ...]
    chosen = jnp.take_along_axis(of_found, matched[..., None], axis=2)
    return jnp.concatenate([of_taught, chosen], axis=2)

  logits = mask_logits(of_objects(taught.kernels, found.kernels), measured.pixels)
  twice = jnp.concatenate([where, where], axis=1)
  masks = jnp.broadcast_to(jnp.concatenate([measured.masks, measured.masks], axis=1), logits.shape)
  for name, loss in (("mask_dice", dice_loss), ("mask_entropy", mask_cross_entropy)):
    total = loss(logits, masks, pixel_weights=measured.weights, where=twice, reduce_fn=jnp.sum)
    terms[name] = (total, 2 * num_objects)
  category_logits = of_objects(taught.category_logits, found.category_logits)
  known = jnp.concatenate([jnp.where(where, category, -1)] * 2, axis=1)
  terms["category"] = category_term(
    category_logits, jnp.broadcast_to(known, category_logits.shape[:-1])
  )
  iou = _overlap(logits[-1, :, num_taught:], measured, where)
  terms["recall"] = ((iou >= 0.5).sum(), where.sum())
  return terms, Match(matched[-1], iou)


def _match(found: Queries, measured: Measured, where: jax.Array) -> jax.Array:
  """The found query of each object, `[L, B, N]`: all predictions and scenes in one call."""
  kernels, object_logits = jax.lax.stop_gradient((found.kernels, found.object_logits))
  with jax.named_scope("matching"):
    logits = mask_logits(kernels, jax.lax.stop_gradient(measured.pixels))
    cost = matching_cost(logits, object_logits, measured.masks, where, measured.weights)
    matched = assign(cost.reshape(-1, *cost.shape[2:]))
  return matched.reshape(*cost.shape[:3])


def _overlap(logits: jax.Array, measured: Measured, where: jax.Array) -> jax.Array:
  """IoU `[B, N]` of found and true masks, by solid angle."""
  found, true = logits > 0, measured.masks >= 0.5
  both = (measured.weights * (found & true)).sum(-1)
  either = (measured.weights * (found | true)).sum(-1)
  return jnp.where(where, both / jnp.maximum(either, 1e-6), 0.0)


def category_term(logits: jax.Array, category: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy of `logits [..., K]` where `category [...]` is known, which is 0 or more."""
  known = category >= 0
  log_likelihood = jnp.take_along_axis(
    jax.nn.log_softmax(logits), jnp.maximum(category, 0)[..., None], axis=-1
  )[..., 0]
  return -jnp.where(known, log_likelihood, 0).sum(), known.sum()
