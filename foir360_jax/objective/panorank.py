"""What training asks of PanoRank: named sums and counts, of which the step makes the loss.

Two groups of queries are decoded together and cannot see each other:

- taught: one query a true object, at its centre or at a random cell near it. It learns masks from
  the first step on, because it need not be found or matched.
- found: queries at the peaks of the heat map, as in use. Each object takes its own by a Hungarian
  assignment; the rest learn to say "no object".

The order is learnt on the true masks and on the found ones; or, where the model need not find
anything, on the true ones alone.
"""

from collections.abc import Callable

import einops
import jax
import jax.numpy as jnp

from foir360_jax.batch import Batch, Terms
from foir360_jax.losses import focal_heatmap_loss
from foir360_jax.models.cells import (
  cell_masks,
  cosines,
  flat_directions,
  flat_weights,
  map_height,
  pool_cells,
)
from foir360_jax.models.chance import TAUGHT_PLACES, stream
from foir360_jax.models.layers import mean_pool
from foir360_jax.models.panorank import PanoRank, Scene
from foir360_jax.models.places import find_peaks
from foir360_jax.models.query_decoder import Queries
from foir360_jax.objective.heat_map import heat_target, object_centres
from foir360_jax.objective.points import measure, measure_coarsely
from foir360_jax.objective.ranking import Lists, add_found, ranking_terms, true_lists
from foir360_jax.objective.segmentation import segmentation_terms

_JITTER = 0.5  # a taught place lies this far from the centre, in radii of the object


class PanoRankObjective:
  """Callable `(model, batch) -> {name: (sum, count)}`; see `foir360_jax.batch` for the batch.

  Terms: `heat`, `foreground`; of the taught and the found queries `mask_dice`, `mask_entropy`,
  `category`; of the found ones `object`; of the rank decoder `rank_true`, `rank_found` (the ranking
  loss of the scores), `recurrent` (negative log likelihood of the best picks under the REM) and
  `rank_category`; and, only to watch, `recall`, the share of objects whose found mask has an IoU of
  0.5.

  Args:
    ranking_loss: of `losses.build_mean_ranking_loss`.
    points: number of points on the sphere at which masks are compared, those of predictions before
      the last one at a quarter of it; 0 for a pixel in every cell (and blocks of 2 x 2 cells).
    own_picks: at the end of the run, the share of the REM's steps in training that go on from its
      own pick; it rises linearly from 0.
    told_share: share of the true masks whose categories a model with `told_categories` is told.
    finds: whether the model learns to find objects, too; if not, the terms are `rank_true`,
      `recurrent` and `rank_category`, and a step takes less than half the time.
  """

  def __init__(
    self,
    ranking_loss: Callable[..., jax.Array],
    *,
    points: int,
    own_picks: float,
    told_share: float,
    finds: bool = True,
  ):
    self.ranking_loss = ranking_loss
    self.finds = finds
    self.points = points
    self.own_picks = own_picks
    self.told_share = told_share

  def __call__(self, model: PanoRank, batch: Batch) -> Terms:
    """Returns the sums and counts over `batch`."""
    scene = model.encode(batch["image"], batch["seed"])
    detailed = cell_masks(batch["masks"], model.pixel_stride)
    where = batch["where"] & (detailed.max(-1) > 0)
    lists = true_lists(where, batch["relevance"], batch["category"])
    if not self.finds:
      return self._order(model, scene, detailed, lists, batch)
    terms, found, confidence, match = self._find(model, scene, detailed, where, batch)
    lists = add_found(lists, match, confidence)
    return terms | self._order(model, scene, detailed, lists, batch, found)

  def _find(self, model: PanoRank, scene: Scene, detailed, where, batch: Batch):
    """The terms of queries; what the found masks cover, their confidence, the match."""
    masks = pool_cells(detailed, model.mask_detail)
    weights = flat_weights(scene.fine.shape[1])
    centres = object_centres(masks)
    terms = {}
    target = heat_target(masks, centres, where)
    heat = einops.rearrange(scene.heat, "b h w -> b (h w)")
    terms["heat"] = (focal_heatmap_loss(heat, target, reduce_fn=jnp.sum), where.sum())
    covered = jnp.where(where[..., None], masks, 0.0).max(1)
    foreground = mean_pool(scene.pixels[..., :1], model.mask_detail)
    foreground = einops.rearrange(foreground, "b h w 1 -> b (h w)")
    entropy = jax.nn.softplus(foreground) - foreground * covered
    terms["foreground"] = ((weights * entropy).sum(), weights.sum() * heat.shape[0])

    places = find_peaks(jax.lax.stop_gradient(scene.heat), model.num_queries)[0]
    queries = self._decode(model, scene, masks, centres, places, where, batch["seed"])
    measured = (
      look(scene.pixels, detailed, batch["seed"], self.points, model.mask_detail)
      for look in (measure, measure_coarsely)
    )
    origin = jnp.take_along_axis(masks, places[:, None], axis=2) > 0
    of_queries, match = segmentation_terms(queries, *measured, where, batch["category"], origin)

    found = slice(where.shape[1], None)
    kernels, objects = jax.lax.stop_gradient(
      (queries.kernels[-1, :, found], queries.object_logits[-1, :, found])
    )
    candidates = jax.lax.stop_gradient(model.candidates(scene, kernels, objects))
    return terms | of_queries, candidates.covered, candidates.confidence, match

  def _order(self, model: PanoRank, scene: Scene, masks, lists: Lists, batch, found=None) -> Terms:
    """The terms of the order of the true masks, and of the found ones if there are any."""
    with jax.named_scope("rank_decoder"):
      decoder = model.rank_decoder
      if found is None:
        tokens = decoder.describe(scene.appearance, masks)
      else:
        both = decoder.describe(scene.appearance, jnp.concatenate([masks, found], axis=1))
        true, found = jnp.split(both, [masks.shape[1]], axis=1)
        true = jnp.pad(true, ((0, 0), (0, found.shape[1] - true.shape[1]), (0, 0)))
        tokens = jnp.concatenate([true, found])
      return ranking_terms(
        decoder,
        tokens,
        lists,
        ranking_loss=self.ranking_loss,
        num_objects=masks.shape[1],
        seed=batch["seed"],
        own_picks=self.own_picks * batch["progress"] if self.own_picks else None,
        told_share=self.told_share if model.told_categories else 0.0,
      )

  def _decode(self, model: PanoRank, scene: Scene, masks, centres, found, where, seed) -> Queries:
    """Decodes the taught queries, then those at the places `found [B, Q]`."""
    taught = _taught_places(masks, centres, seed)
    num_taught = taught.shape[1]
    return model.decode(
      scene,
      jnp.concatenate([taught, found], axis=1),
      jnp.concatenate([where, jnp.ones(found.shape, bool)], axis=1),
      (jnp.arange(num_taught + found.shape[1]) >= num_taught).astype(jnp.int32),
    )


def _taught_places(masks: jax.Array, centres: jax.Array, seed: jax.Array) -> jax.Array:
  """For each object its centre or, every other time, a cell of it beside the centre."""
  height = map_height(masks.shape[-1])
  directions = flat_directions(height)
  num_objects = centres.shape[1]

  def chance(one):
    step, coin = jax.random.split(stream(one, TAUGHT_PLACES))
    return jax.random.normal(step, (num_objects, 3)), jax.random.bernoulli(
      coin, 0.5, (num_objects,)
    )

  step, coin = jax.vmap(chance)(seed)
  area = (masks * flat_weights(height)).sum(-1, keepdims=True)
  radius = jnp.sqrt(area / jnp.pi) * jnp.pi / height
  aim = directions[centres] + _JITTER * radius * step
  cosine = cosines(aim, directions)
  beside = jnp.argmax(jnp.where(masks >= 0.5, cosine, -9.0), axis=-1)
  has_cells = masks.max(-1) >= 0.5
  return jnp.where(coin & has_cells, beside, centres)
