"""Segmentation terms of the queries: masks, categories and objectness.

Predictions are made from the places alone and after every layer, each with its own assignment of
queries to objects. The last one, which is used, counts as much as all before it together, and its
masks are compared at more places: a term is the mean over objects of the last prediction, plus that
of the mean prediction before. Both sums are divided by the objects of the last one; one that is hit
by none of the fewer points before adds nothing there.

Axes: L predictions, B scenes, N objects, Q predicted queries, D channels of kernels, n places.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foir360_jax.batch import Terms
from foir360_jax.losses import dice_loss, mask_cross_entropy
from foir360_jax.models.mask_head import mask_logits
from foir360_jax.models.query_decoder import Queries
from foir360_jax.objective.matching import assign, matching_cost
from foir360_jax.objective.points import MaskSamples


class Match(NamedTuple):
  """After the last layer.

  Attributes:
    query: `[B, N]`, the predicted query that is matched to each object.
    iou: `[B, N]` of the masks of both.
    unknown: `[B, Q]`, predicted queries of which it is not known whether they are objects.
  """

  query: jax.Array
  iou: jax.Array
  unknown: jax.Array


class _Predictions(NamedTuple):
  """Some of the predictions, and the samples at which their masks are compared.

  Attributes:
    ground_truth: one query for each of N objects.
    predicted: Q queries.
    samples: of the ground-truth masks.
    where: `[B, N]`, objects; those without a sample point are ignored.
    unknown: `[B, Q]`, queries that start on an ignored object: no objectness target.
  """

  ground_truth: Queries
  predicted: Queries
  samples: MaskSamples
  where: jax.Array
  unknown: jax.Array


def segmentation_terms(
  queries: Queries,
  samples: MaskSamples,
  coarse_samples: MaskSamples,
  where: jax.Array,
  category: jax.Array,
  origin: jax.Array,
) -> tuple[Terms, Match]:
  """The terms `object`, `mask_dice`, `mask_entropy`, `category` and `recall`.

  Args:
    queries: one ground-truth query for each of N objects, then the predicted ones.
    samples: at which the masks of the last prediction are compared.
    coarse_samples: at which those before it are.
    where: `[B, N]`.
    category: `[B, N]`, -1 where unknown.
    origin: `[B, N, Q]` bool, whether a predicted query starts on an object.

  Returns:
    the terms, and the match after the last layer; its IoU is 0 in the padding.
  """
  parts = [_part(queries, slice(-1, None), samples, where, origin)]
  if len(queries.object_logits) > 1:
    parts.insert(0, _part(queries, slice(-1), coarse_samples, where, origin))
  matched = _match(parts)

  terms = _terms(parts[-1], matched[-1], category)
  for part, query in zip(parts[:-1], matched[:-1], strict=True):
    for name, (total, _) in _terms(part, query, category).items():
      terms[name] = (terms[name][0] + total / len(query), terms[name][1])
  last, query = parts[-1], matched[-1][0]
  kernels = jnp.take_along_axis(last.predicted.kernels[0], query[..., None], axis=1)
  iou = _overlap(mask_logits(kernels, samples.pixels), samples, last.where)
  terms["recall"] = ((iou >= 0.5).sum(), last.where.sum())
  return terms, Match(query, iou, last.unknown)


def _part(queries: Queries, which: slice, samples: MaskSamples, where, origin) -> _Predictions:
  ground_truth, predicted = (
    Queries(queries.tokens, *(x[which, :, group] for x in queries[1:]))
    for group in (slice(where.shape[1]), slice(where.shape[1], None))
  )
  seen = samples.masks.max(-1) > 0
  unknown = (origin & (where & ~seen)[..., None]).any(1)
  return _Predictions(ground_truth, predicted, samples, where & seen, unknown)


def _match(parts: list[_Predictions]) -> list[jax.Array]:
  """The predicted query of each object, `[L, B, N]`: all predictions and scenes in one call."""
  with jax.named_scope("matching"):
    costs = []
    for _, predicted, samples, where, _ in jax.lax.stop_gradient(parts):
      logits = mask_logits(predicted.kernels, samples.pixels)
      costs.append(
        matching_cost(logits, predicted.object_logits, samples.masks, where, samples.weights)
      )
    cost = jnp.concatenate(costs)
    matched = assign(cost.reshape(-1, *cost.shape[2:])).reshape(cost.shape[:3])
  return jnp.split(matched, [len(costs[0])]) if len(costs) > 1 else [matched]


def _terms(part: _Predictions, matched: jax.Array, category: jax.Array) -> Terms:
  """The terms of some predictions, whose objects have the predicted queries `matched [L, B, N]`."""
  ground_truth, predicted, samples, where, unknown = part
  num_predictions, batch_size = matched.shape[:2]
  num_objects = num_predictions * where.sum()
  layers = jnp.arange(num_predictions)[:, None, None]
  rows = jnp.arange(batch_size)[:, None]
  real = jnp.broadcast_to(where, matched.shape)
  is_object = (
    jnp.zeros(predicted.object_logits.shape).at[layers, rows, matched].max(real.astype(jnp.float32))
  )
  entropy = jax.nn.softplus(predicted.object_logits) - predicted.object_logits * is_object
  asked = (is_object > 0) | ~unknown
  terms = {"object": (jnp.where(asked, entropy, 0.0).sum(), num_objects)}

  def of_objects(of_ground_truth, of_predicted):  # [L, B, 2 N, ...]
    chosen = jnp.take_along_axis(of_predicted, matched[..., None], axis=2)
    return jnp.concatenate([of_ground_truth, chosen], axis=2)

  logits = mask_logits(of_objects(ground_truth.kernels, predicted.kernels), samples.pixels)
  twice = jnp.concatenate([where, where], axis=1)
  masks = jnp.broadcast_to(jnp.concatenate([samples.masks, samples.masks], axis=1), logits.shape)
  for name, loss in (("mask_dice", dice_loss), ("mask_entropy", mask_cross_entropy)):
    total = loss(logits, masks, pixel_weights=samples.weights, where=twice, reduce_fn=jnp.sum)
    terms[name] = (total, 2 * num_objects)
  category_logits = of_objects(ground_truth.category_logits, predicted.category_logits)
  known = jnp.concatenate([jnp.where(where, category, -1)] * 2, axis=1)
  terms["category"] = category_term(
    category_logits, jnp.broadcast_to(known, category_logits.shape[:-1])
  )
  return terms


def _overlap(logits: jax.Array, samples: MaskSamples, where: jax.Array) -> jax.Array:
  """IoU `[B, N]` of predicted and ground-truth masks, by solid angle."""
  predicted, ground_truth = logits > 0, samples.masks >= 0.5
  both = (samples.weights * (predicted & ground_truth)).sum(-1)
  either = (samples.weights * (predicted | ground_truth)).sum(-1)
  return jnp.where(where, both / jnp.maximum(either, 1e-6), 0.0)


def category_term(logits: jax.Array, category: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy of `logits [..., K]` where `category [...]` is known, which is 0 or more."""
  known = category >= 0
  log_likelihood = jnp.take_along_axis(
    jax.nn.log_softmax(logits), jnp.maximum(category, 0)[..., None], axis=-1
  )[..., 0]
  return -jnp.where(known, log_likelihood, 0).sum(), known.sum()
