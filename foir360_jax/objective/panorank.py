"""The objective of PanoRank: named terms as sums and counts, which the step makes a loss of.

Two groups of queries are decoded together and cannot see each other:

- ground-truth queries: one an object, at its centre or at a random cell near it (the denoising
  queries of DN-DETR: Li et al., CVPR 2022). They learn masks from the first step on, because they
  need not be matched.
- predicted queries: at the peaks of the heat map, as at inference. Each object is matched to one by
  a Hungarian assignment; the others learn to be no object.

The order is learnt on the ground-truth masks and on the predicted ones; or, where the model does
not detect, on the ground-truth masks alone.
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
from foir360_jax.models.layers import mean_pool
from foir360_jax.models.panorank import EncodedScene, PanoRank
from foir360_jax.models.places import find_peaks
from foir360_jax.models.query_decoder import Queries
from foir360_jax.models.random_streams import GROUND_TRUTH_QUERIES, stream
from foir360_jax.objective.heat_map import heat_target, object_centres
from foir360_jax.objective.points import sample_masks, sample_masks_coarsely
from foir360_jax.objective.ranking import (
  RankingLists,
  add_predicted,
  ground_truth_lists,
  ranking_terms,
)
from foir360_jax.objective.segmentation import segmentation_terms

_JITTER = 0.5  # a ground-truth query lies this far from the centre, in radii of the object


class PanoRankObjective:
  """Callable `(model, batch) -> {name: (sum, count)}`; see `foir360_jax.batch` for the batch.

  Terms: `heat`, `foreground`; of both groups of queries `mask_dice`, `mask_entropy`, `category`; of
  the predicted ones `object`; of the rank decoder `rank_ground_truth` and `rank_predicted` (the
  ranking loss of the scores of either masks), `recurrent` (negative log likelihood of the best
  picks under the REM) and `rank_category`; and, only to watch, `recall`, the share of objects whose
  matched mask has an IoU of 0.5.

  Args:
    ranking_loss: of `losses.build_mean_ranking_loss`.
    points: number of points on the sphere at which masks are compared, those of predictions before
      the last one at a quarter of it; 0 for a pixel in every cell (and blocks of 2 x 2 cells).
    scheduled_sampling: share of the REM's steps that continue from its own pick at the end of the
      run; it rises linearly from 0.
    conditioning_rate: share of the ground-truth masks on whose categories a model with
      `condition_on_categories` is conditioned.
    detects: whether the model learns to detect objects, too; if not, the terms are
      `rank_ground_truth`, `recurrent` and `rank_category`, and a step takes less than half the
      time.
  """

  def __init__(
    self,
    ranking_loss: Callable[..., jax.Array],
    *,
    points: int,
    scheduled_sampling: float,
    conditioning_rate: float,
    detects: bool = True,
  ):
    self.ranking_loss = ranking_loss
    self.detects = detects
    self.points = points
    self.scheduled_sampling = scheduled_sampling
    self.conditioning_rate = conditioning_rate

  def __call__(self, model: PanoRank, batch: Batch) -> Terms:
    """Returns the sums and counts over `batch`."""
    scene = model.encode(batch["image"], batch["seed"])
    detailed = cell_masks(batch["masks"], model.pixel_stride)
    where = batch["where"] & (detailed.max(-1) > 0)
    lists = ground_truth_lists(where, batch["relevance"], batch["category"])
    if not self.detects:
      return self._ranking_terms(model, scene, detailed, lists, batch)
    terms, predicted, confidence, match = self._detection_terms(
      model, scene, detailed, where, batch
    )
    lists = add_predicted(lists, match, confidence)
    return terms | self._ranking_terms(model, scene, detailed, lists, batch, predicted)

  def _detection_terms(self, model: PanoRank, scene: EncodedScene, detailed, where, batch: Batch):
    """The terms of queries; the predicted masks, their detection confidence, the match."""
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

    peaks = find_peaks(jax.lax.stop_gradient(scene.heat), model.num_queries)[0]
    queries = self._decode(model, scene, masks, centres, peaks, where, batch["seed"])
    samples, coarse_samples = (
      look(scene.pixels, detailed, batch["seed"], self.points, model.mask_detail)
      for look in (sample_masks, sample_masks_coarsely)
    )
    origin = jnp.take_along_axis(masks, peaks[:, None], axis=2) > 0
    of_queries, match = segmentation_terms(
      queries, samples, coarse_samples, where, batch["category"], origin
    )

    predicted = slice(where.shape[1], None)
    kernels, objects = jax.lax.stop_gradient(
      (queries.kernels[-1, :, predicted], queries.object_logits[-1, :, predicted])
    )
    candidates = jax.lax.stop_gradient(model.candidates(scene, kernels, objects))
    return terms | of_queries, candidates.covered, candidates.confidence, match

  def _ranking_terms(
    self, model: PanoRank, scene: EncodedScene, masks, lists: RankingLists, batch, predicted=None
  ) -> Terms:
    """The terms of the order of the ground-truth masks, and of the predicted ones if given."""
    with jax.named_scope("rank_decoder"):
      decoder = model.rank_decoder
      if predicted is None:
        tokens = decoder.describe(scene.appearance, masks)
      else:
        both = decoder.describe(scene.appearance, jnp.concatenate([masks, predicted], axis=1))
        ground_truth, predicted = jnp.split(both, [masks.shape[1]], axis=1)
        missing = predicted.shape[1] - ground_truth.shape[1]
        ground_truth = jnp.pad(ground_truth, ((0, 0), (0, missing), (0, 0)))
        tokens = jnp.concatenate([ground_truth, predicted])
      return ranking_terms(
        decoder,
        tokens,
        lists,
        ranking_loss=self.ranking_loss,
        num_objects=masks.shape[1],
        seed=batch["seed"],
        scheduled_sampling=self.scheduled_sampling * batch["progress"]
        if self.scheduled_sampling
        else None,
        conditioning_rate=self.conditioning_rate if model.condition_on_categories else 0.0,
      )

  def _decode(
    self, model: PanoRank, scene: EncodedScene, masks, centres, peaks, where, seed
  ) -> Queries:
    """Decodes the ground-truth queries, then the predicted ones at the cells `peaks [B, Q]`."""
    cells = _ground_truth_cells(masks, centres, seed)
    count = cells.shape[1]
    return model.decode(
      scene,
      jnp.concatenate([cells, peaks], axis=1),
      jnp.concatenate([where, jnp.ones(peaks.shape, bool)], axis=1),
      (jnp.arange(count + peaks.shape[1]) >= count).astype(jnp.int32),
    )


def _ground_truth_cells(masks: jax.Array, centres: jax.Array, seed: jax.Array) -> jax.Array:
  """For each object its centre or, every other time, a cell of it beside the centre."""
  height = map_height(masks.shape[-1])
  directions = flat_directions(height)
  num_objects = centres.shape[1]

  def chance(one):
    step, coin = jax.random.split(stream(one, GROUND_TRUTH_QUERIES))
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
