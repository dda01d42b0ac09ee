"""What training asks of the queries: masks, categories, and which of them are objects.

Predictions are made from the places alone and after every layer, each with its own assignment of
queries to objects. The last one, which is used, counts as much as all before it together, and its
masks are compared at more places: a term is the mean over objects of the last prediction, plus that
of the mean prediction before. Both sums are divided by the objects of the last one; one that is hit
by none of the fewer points before adds nothing there.

Axes: L predictions, B scenes, N objects, Q found queries, D channels of kernels, n places.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foir360_jax.batch import Terms
from foir360_jax.losses import dice_loss, mask_cross_entropy
from foir360_jax.models.mask_head import mask_logits
from foir360_jax.models.query_decoder import Queries
from foir360_jax.objective.matching import assign, matching_cost
from foir360_jax.objective.points import Measured


class Match(NamedTuple):
  """After the last layer.

  Attributes:
    query: `[B, N]`, the found query of each object.
    iou: `[B, N]` of the masks of both.
    unknown: `[B, Q]`, found queries of which it is not known whether they are objects.
  """

  query: jax.Array
  iou: jax.Array
  unknown: jax.Array


class _Predictions(NamedTuple):
  """Some of the predictions, and where their masks are compared.

  Attributes:
    taught: one query for each of N objects.
    found: Q queries.
    measured: the places.
    where: `[B, N]`, objects. One that is nowhere among the places says nothing: it must not be
      taught as empty.
    unknown: `[B, Q]`, queries that come from such an object: they must not be taught as none.
  """

  taught: Queries
  found: Queries
  measured: Measured
  where: jax.Array
  unknown: jax.Array


def segmentation_terms(
  queries: Queries,
  measured: Measured,
  coarsely: Measured,
  where: jax.Array,
  category: jax.Array,
  origin: jax.Array,
) -> tuple[Terms, Match]:
  """The terms `object`, `mask_dice`, `mask_entropy`, `category` and `recall`.

  Args:
    queries: one taught query for each of N objects, then the found ones.
    measured: where the masks of the last prediction are compared.
    coarsely: where those before it are.
    where: `[B, N]`.
    category: `[B, N]`, -1 where unknown.
    origin: `[B, N, Q]` bool, whether a found query comes from a place on an object.

  Returns:
    the terms, and the match after the last layer; its IoU is 0 in the padding.
  """
  parts = [_part(queries, slice(-1, None), measured, where, origin)]
  if len(queries.object_logits) > 1:
    parts.insert(0, _part(queries, slice(-1), coarsely, where, origin))
  matched = _match(parts)

  terms = _terms(parts[-1], matched[-1], category)
  for part, query in zip(parts[:-1], matched[:-1], strict=True):
    for name, (total, _) in _terms(part, query, category).items():
      terms[name] = (terms[name][0] + total / len(query), terms[name][1])
  last, query = parts[-1], matched[-1][0]
  kernels = jnp.take_along_axis(last.found.kernels[0], query[..., None], axis=1)
  iou = _overlap(mask_logits(kernels, measured.pixels), measured, last.where)
  terms["recall"] = ((iou >= 0.5).sum(), last.where.sum())
  return terms, Match(query, iou, last.unknown)


def _part(queries: Queries, which: slice, measured: Measured, where, origin) -> _Predictions:
  taught, found = (
    Queries(queries.tokens, *(x[which, :, group] for x in queries[1:]))
    for group in (slice(where.shape[1]), slice(where.shape[1], None))
  )
  seen = measured.masks.max(-1) > 0
  unknown = (origin & (where & ~seen)[..., None]).any(1)
  return _Predictions(taught, found, measured, where & seen, unknown)


def _match(parts: list[_Predictions]) -> list[jax.Array]:
  """The found query of each object, `[L, B, N]`: all predictions and scenes in one call."""
  with jax.named_scope("matching"):
    costs = []
    for _, found, measured, where, _ in jax.lax.stop_gradient(parts):
      logits = mask_logits(found.kernels, measured.pixels)
      costs.append(
        matching_cost(logits, found.object_logits, measured.masks, where, measured.weights)
      )
    cost = jnp.concatenate(costs)
    matched = assign(cost.reshape(-1, *cost.shape[2:])).reshape(cost.shape[:3])
  return jnp.split(matched, [len(costs[0])]) if len(costs) > 1 else [matched]


def _terms(part: _Predictions, matched: jax.Array, category: jax.Array) -> Terms:
  """The terms of some predictions, whose objects have the found queries `matched [L, B, N]`."""
  taught, found, measured, where, unknown = part
  num_predictions, batch_size = matched.shape[:2]
  num_objects = num_predictions * where.sum()
  layers = jnp.arange(num_predictions)[:, None, None]
  rows = jnp.arange(batch_size)[:, None]
  real = jnp.broadcast_to(where, matched.shape)
  is_object = (
    jnp.zeros(found.object_logits.shape).at[layers, rows, matched].max(real.astype(jnp.float32))
  )
  entropy = jax.nn.softplus(found.object_logits) - found.object_logits * is_object
  asked = (is_object > 0) | ~unknown
  terms = {"object": (jnp.where(asked, entropy, 0.0).sum(), num_objects)}

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
  return terms


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
