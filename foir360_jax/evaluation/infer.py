"""The compiled passes of evaluation: from a batch to scores and overlaps.

Axes: B examples, N true objects, Q candidates of the model, T confidence thresholds, P cells of the
fine map.
"""

from collections.abc import Mapping
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.evaluation.measures import MaskMeasures, measure_masks
from foir360_jax.models import PanoRank
from foir360_jax.models.cells import cell_masks
from foir360_jax.models.mask_head import picture_masks


class GroundTruthScores(NamedTuple):
  """Of the ground-truth masks: `importance [B, N]`, and `head_scores [B, N]` without the REM."""

  importance: jax.Array
  head_scores: jax.Array


class PredictedMasks(NamedTuple):
  """The masks that the model predicts.

  Attributes:
    iou: `[B, N, Q]` overlap with the ground-truth masks, pixel by pixel at the size of the batch's
      pictures.
    confidence: `[B, Q]` of the detections, 0 for duplicates.
    importance: `[B, T, Q]`, ranked among the candidates above each threshold.
    stop_margin: `[B, T, Q]`, see `models.Order`.
    measures: `[B, Q]` each.
  """

  iou: jax.Array
  confidence: jax.Array
  importance: jax.Array
  stop_margin: jax.Array
  measures: MaskMeasures


class GroundTruthMeasures(NamedTuple):
  """Of the ground-truth masks: `measures` and `on_seam` (bool), `[B, N]` each."""

  measures: MaskMeasures
  on_seam: jax.Array


def infer(
  graphdef: nnx.GraphDef,
  state: nnx.State,
  batch: Mapping[str, jax.Array],
  thresholds: jax.Array,
  *,
  yaw_augmentation: int,
  detects: bool = True,
) -> tuple[GroundTruthScores, PredictedMasks | None]:
  """One pass over a batch; jit it with `graphdef` static.

  Args:
    graphdef: of the model.
    state: its parameters.
    batch: of `build_evaluation_batches`.
    thresholds: `[T]` in [0, 1).
    yaw_augmentation: see `PanoRank.encode`.
    detects: False for a model that ranks provided masks only: it predicts none, and nothing of the
      segmentation is computed.
  """
  model: PanoRank = nnx.merge(graphdef, state)
  scene = model.encode(batch["image"], yaw_augmentation=yaw_augmentation)
  masks = cell_masks(batch["masks"], model.pixel_stride)
  order = model.order(model.describe(scene, masks), batch["where"], batch["category"])
  ground_truth = GroundTruthScores(order.importance, order.head_scores)
  if not detects:
    return ground_truth, None

  segmentation = model.segment(scene)
  tokens = model.describe(scene, segmentation.covered)
  keep = segmentation.confidence[:, None] > thresholds[:, None]
  order = jax.vmap(model.order, in_axes=(None, 1, None, None), out_axes=1)(
    tokens, keep, None, segmentation.confidence
  )

  height = batch["image"].shape[1]
  full = picture_masks(segmentation.mask_logits, height)
  predicted = PredictedMasks(
    iou=_overlap(batch["masks"], full),
    confidence=segmentation.confidence,
    importance=order.importance,
    stop_margin=order.stop_margin,
    measures=measure_masks(einops.rearrange(full, "b q h w -> b q (h w)"), batch["image"]),
  )
  return ground_truth, predicted


def measure_ground_truth(packed: jax.Array, image: jax.Array) -> GroundTruthMeasures:
  """Measures bit-packed masks `[B, N, H, W / 8]` on `image [B, H, W, 3]`."""
  first, last = jnp.unpackbits(packed[..., [0, -1]], axis=-1)[..., jnp.array([0, 15])].any(2).T
  return GroundTruthMeasures(measure_masks(cell_masks(packed, 1), image), (first & last).T)


def _overlap(packed: jax.Array, predicted: jax.Array) -> jax.Array:
  """IoU `[B, N, Q]` of bit-packed ground-truth and bool masks, in pixels as published rules do."""
  truth = einops.rearrange(jnp.unpackbits(packed, axis=-1), "b n h w -> b n (h w)")
  truth = truth.astype(jnp.float32)
  predicted = einops.rearrange(predicted, "b q h w -> b q (h w)").astype(jnp.float32)
  both = jnp.einsum("bnp,bqp->bnq", truth, predicted)
  either = truth.sum(-1)[..., None] + predicted.sum(-1)[:, None] - both
  return both / jnp.maximum(either, 1.0)
