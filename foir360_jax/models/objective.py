"""What training asks of PanoRank: named sums and counts, of which the step makes the loss.

Two groups of queries are decoded together and cannot see each other:

- taught: one query a true object, at its centre or at a random cell near it. It learns masks from
  the first step on, because it need not be found or matched.
- found: queries at the peaks of the heat map, as in use. Each object takes its own by a Hungarian
  assignment; the rest learn to say "no object".

The order is learnt on the true masks and on the found ones.
"""

from collections.abc import Callable

import einops
import jax
import jax.numpy as jnp

from foir360_jax.losses import dice_loss, focal_heatmap_loss, mask_cross_entropy
from foir360_jax.models.cells import (
  cell_masks,
  cosines,
  flat_directions,
  flat_weights,
  map_height,
)
from foir360_jax.models.matching import assign, matching_cost
from foir360_jax.models.panorank import PanoRank, Scene
from foir360_jax.models.places import find_peaks, heat_target, object_centres
from foir360_jax.types import Batch

Terms = dict[str, tuple[jax.Array, jax.Array]]
_JITTER = 0.5  # a taught place lies this far from the centre, in radii of the object


class Objective:
  """Callable `(model, batch) -> {name: (sum, count)}`; see `foir360_jax.types` for the batch.

  Terms: `heat`, `foreground`; of the taught and the found queries `mask_dice`, `mask_entropy`,
  `category`; of the found ones `object`; of the rank decoder `rank_true`, `rank_found` (the ranking
  loss of the scores), `recurrent` (negative log likelihood of the true picks under the REM) and
  `rank_category`; and, only to watch, `recall`, the share of objects whose found mask has an IoU of
  0.5.

  Args:
    ranking_loss: one of `foir360_jax.losses`.
  """

  def __init__(self, ranking_loss: Callable[..., jax.Array]):
    self.ranking_loss = ranking_loss

  def __call__(self, model: PanoRank, batch: Batch) -> Terms:
    """Returns the sums and counts over `batch`."""
    scene = model.encode(batch["image"])
    masks = cell_masks(batch["masks"], model.mask_stride)
    where = batch["where"] & (masks.max(-1) > 0)
    weights = flat_weights(scene.fine.shape[1])
    num_objects = where.sum()
    centres = object_centres(masks)

    terms = {}
    target = heat_target(masks, centres, where)
    heat = einops.rearrange(scene.heat, "b h w -> b (h w)")
    terms["heat"] = (focal_heatmap_loss(heat, target, reduce_fn=jnp.sum), num_objects)
    covered = jnp.where(where[..., None], masks, 0.0).max(1)
    foreground = scene.pixels[..., 0]
    entropy = jax.nn.softplus(foreground) - foreground * covered
    terms["foreground"] = ((weights * entropy).sum(), weights.sum() * heat.shape[0])

    places, _ = find_peaks(jax.lax.stop_gradient(scene.heat), model.num_queries)
    taught = _taught_places(masks, centres, batch["seed"])
    num_taught = taught.shape[1]
    queries = model.decode(
      scene,
      jnp.concatenate([taught, places], axis=1),
      jnp.concatenate([where, jnp.ones(places.shape, bool)], axis=1),
      (jnp.arange(num_taught + places.shape[1]) >= num_taught).astype(jnp.int32),
    )
    with jax.named_scope("matching"):
      found_masks = queries.mask_logits[:, num_taught:]
      object_logits = queries.object_logits[:, num_taught:]
      matched = assign(matching_cost(found_masks, object_logits, masks, where, weights))
    rows = jnp.arange(matched.shape[0])[:, None]
    is_object = jnp.zeros(object_logits.shape).at[rows, matched].max(where.astype(jnp.float32))
    entropy = jax.nn.softplus(object_logits) - object_logits * is_object
    terms["object"] = (entropy.sum(), num_objects)

    found_masks = jnp.take_along_axis(found_masks, matched[..., None], axis=1)
    logits = jnp.concatenate([queries.mask_logits[:, :num_taught], found_masks])
    twice = jnp.concatenate([where, where])
    for name, loss in (("mask_dice", dice_loss), ("mask_entropy", mask_cross_entropy)):
      total = loss(
        logits,
        jnp.concatenate([masks, masks]),
        pixel_weights=weights,
        where=twice,
        reduce_fn=jnp.sum,
      )
      terms[name] = (total, 2 * num_objects)
    found_categories = queries.category_logits[:, num_taught:]
    category_logits = jnp.concatenate(
      [
        queries.category_logits[:, :num_taught],
        jnp.take_along_axis(found_categories, matched[..., None], axis=1),
      ]
    )
    terms["category"] = _category_term(category_logits, batch["category"], twice)
    terms["recall"] = _recall(found_masks, masks, where, weights)
    return terms | self._rank_terms(model, scene, masks, jax.nn.sigmoid(found_masks), batch, where)

  def _rank_terms(self, model, scene: Scene, true_masks, found_masks, batch, where) -> Terms:
    """Ranks the true and the found masks in one pass: pooled side by side, compared apart."""
    with jax.named_scope("rank_decoder"):
      decoder = model.rank_decoder
      tokens = decoder.describe(
        scene.appearance, jnp.concatenate([true_masks, found_masks], axis=1)
      )
      both = jnp.concatenate([where, where])
      ranking = decoder.compare(einops.rearrange(tokens, "b (g n) c -> (g b) n c", g=2), both)
    relevance = jnp.concatenate([batch["relevance"], batch["relevance"]])

    lists = jnp.maximum(both.sum(-1), 1)
    losses = self.ranking_loss(ranking.scores, relevance, where=both, reduce_fn=None) / lists
    true, found = jnp.split(losses, 2)
    num_lists = where.any(-1).sum()
    order = jnp.lexsort((-relevance, ~both), axis=-1)
    steps = decoder.recurrent.forced(ranking, both, order)
    # Objects stand in the order of their picks, so the right pick of step t is object t.
    log_likelihood = jnp.diagonal(jax.nn.log_softmax(steps), axis1=-2, axis2=-1)
    real = jnp.take_along_axis(both, order, axis=-1)
    recurrent = -jnp.where(real, log_likelihood, 0).sum(-1) / lists
    return {
      "rank_true": (true.sum(), num_lists),
      "rank_found": (found.sum(), num_lists),
      "recurrent": (recurrent.sum(), 2 * num_lists),
      "rank_category": _category_term(ranking.category_logits, batch["category"], both),
    }


def _taught_places(masks: jax.Array, centres: jax.Array, seed: jax.Array) -> jax.Array:
  """For each object its centre or, every other time, a cell of it beside the centre."""
  height = map_height(masks.shape[-1])
  directions = flat_directions(height)
  num_objects = centres.shape[1]

  def chance(one):
    step, coin = jax.random.split(jax.random.key(one))
    return jax.random.normal(step, (num_objects, 3)), jax.random.bernoulli(
      coin, 0.5, (num_objects,)
    )

  step, coin = jax.vmap(chance)(seed)
  radius = jnp.sqrt(masks.sum(-1, keepdims=True) / jnp.pi) * jnp.pi / height
  aim = directions[centres] + _JITTER * radius * step
  cosine = cosines(aim, directions)
  beside = jnp.argmax(jnp.where(masks >= 0.5, cosine, -9.0), axis=-1)
  has_cells = masks.max(-1) >= 0.5
  return jnp.where(coin & has_cells, beside, centres)


def _category_term(logits, category, where) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy where the category is known; `logits` may hold the batch several times."""
  category = jnp.tile(category, (logits.shape[0] // category.shape[0], 1))
  known = where & (category >= 0)
  log_likelihood = jnp.take_along_axis(
    jax.nn.log_softmax(logits), jnp.maximum(category, 0)[..., None], axis=-1
  )[..., 0]
  return -jnp.where(known, log_likelihood, 0).sum(), known.sum()


def _recall(logits, masks, where, weights) -> tuple[jax.Array, jax.Array]:
  found, true = logits > 0, masks >= 0.5
  both = (weights * (found & true)).sum(-1)
  either = (weights * (found | true)).sum(-1)
  return (where & (both >= 0.5 * jnp.maximum(either, 1e-6))).sum(), where.sum()
