"""Query decoder: from queries at peaks to a mask, an objectness logit and a category for each.

A query starts from the features at its place and predicts. Each layer then lets it look at one
scale of the scene, coarse to fine and round again, but only where its mask so far says that the
object is (anywhere, if it says so nowhere); at the other queries of its group; and predict anew.

Source: Cheng et al., Mask2Former, CVPR 2022 (masked attention, round robin over scales, shared
heads after every layer). Its queries are learnt and have no place; ours come from peaks on the
sphere, and what lies where is told by directions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.cells import flat_directions, flat_weights
from foir360_jax.models.layers import Attention, FeedForward, Mlp, mean_pool
from foir360_jax.models.mask_head import MaskHead, mask_logits
from foir360_jax.models.sphere_attention import BLOCKED, PositionBias

_SCENE_GAINS = (2.0, 8.0, 30.0, 100.0)  # of the heads: 60, 30, 15 and 8 degrees far
_OTHERS_GAINS = (0.5, 2.0, 8.0, 30.0)


class Queries(NamedTuple):
  """What the decoder says of `Q` queries, first from their places, then after each of `L` layers.

  Attributes:
    tokens: `[B, Q, C]` after the last layer.
    kernels: `[L + 1, B, Q, D]`, of masks; see `mask_head`.
    object_logits: `[L + 1, B, Q]`: objectness logit. Below 0 means "no
      object".
    category_logits: `[L + 1, B, Q, K]`.
  """

  tokens: jax.Array
  kernels: jax.Array
  object_logits: jax.Array
  category_logits: jax.Array


class DecoderLayer(nnx.Module):
  """Masked attention to the scene, attention in the group, feed-forward."""

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    self.scene = Attention(channels, channels, num_heads=len(_SCENE_GAINS), rngs=rngs)
    self.scene_position = PositionBias(_SCENE_GAINS)
    self.others = Attention(channels, num_heads=len(_OTHERS_GAINS), rngs=rngs)
    self.others_position = PositionBias(_OTHERS_GAINS)
    self.feed_forward = FeedForward(channels, rngs=rngs)

  def __call__(self, tokens, memory, seen, directions, allowed) -> jax.Array:
    """One layer.

    Args:
      tokens: `[B, Q, C]`.
      memory: `[B, h', w', C]`, one scale.
      seen: `[B, Q, M]` bool: the cells that a query may look at, at least one.
      directions: `[B, Q, 3]` of the places.
      allowed: `[B, 1, Q, Q]` bool: the queries that it may look at.

    Returns:
      `[B, Q, C]`.
    """
    height = memory.shape[1]
    bias = self.scene_position(directions, flat_directions(height), flat_weights(height))
    bias = jnp.where(seen[:, None], bias, BLOCKED)
    flat = einops.rearrange(memory, "b h w c -> b (h w) c")
    tokens = self.scene(tokens, memory=flat, bias=bias)
    bias = self.others_position(directions, directions)
    tokens = self.others(tokens, bias=jnp.where(allowed, bias, BLOCKED))
    return self.feed_forward(tokens)


class QueryDecoder(nnx.Module):
  """Turns places into objects.

  Args:
    channels: of the fine map, the memories and the tokens.
    mask_channels: of the map from which masks are made.
    mask_detail: pixels of that map along each side of a cell of the fine map.
    num_layers: rounds of looking and predicting anew; 0 to predict from the places alone.
    num_categories: number of categories.
    remat: whether the backward pass computes each layer again, instead of keeping what is in it.
    rngs: source of the initial kernels.
  """

  def __init__(
    self,
    channels,
    mask_channels,
    mask_detail,
    num_layers,
    num_categories,
    *,
    remat: bool,
    rngs: nnx.Rngs,
  ):
    self.start = Mlp((channels + 2, 2 * channels, channels), rngs=rngs)
    self.layers = nnx.List(DecoderLayer(channels, rngs=rngs) for _ in range(num_layers))
    self.norm = nnx.LayerNorm(channels, rngs=rngs)
    self.mask_head = MaskHead(channels, mask_channels, mask_detail, rngs=rngs)
    self.object_head = Mlp((channels, channels, 1), last_scale=0.1, rngs=rngs)
    self.category_head = nnx.Linear(channels, num_categories, rngs=rngs)
    self.remat = remat

  def __call__(
    self,
    fine: jax.Array,
    memories: Sequence[jax.Array],
    pixels: jax.Array,
    heat: jax.Array,
    places: jax.Array,
    where: jax.Array,
    group: jax.Array,
  ) -> Queries:
    """Decodes `Q` queries.

    Args:
      fine: `[B, h, w, C]`.
      memories: the scene at several scales, `[B, h', w', C]` each, in the order of looking.
      pixels: `[B, k h, k w, D]` of the mask head.
      heat: `[B, h, w]` object logits, the start of the object logit.
      places: `[B, Q]` cells.
      where: `[B, Q]`; nothing looks at a query that is only padding.
      group: `[Q]` int; queries see only their own group (ground-truth queries must not leak).
    """
    directions = flat_directions(fine.shape[1])[places]
    sine = directions[..., 2:]
    at_place = _at(mean_pool(pixels, pixels.shape[1] // fine.shape[1]), places)
    heat_there = jax.lax.stop_gradient(_at(heat[..., None], places))[..., 0]
    tokens = self.start(jnp.concatenate([_at(fine, places), sine, jnp.abs(sine)], axis=-1))
    allowed = ((group[:, None] == group[None]) & where[:, None])[:, None]  # one for all heads

    coarser = [_coarser(pixels, memory.shape[1]) for memory in memories]
    predictions = [self._predict(tokens, at_place, heat_there)]
    for index, layer in enumerate(self.layers):
      scale = index % len(memories)
      seen = _seen(predictions[-1][0], coarser[scale])
      apply = nnx.remat(DecoderLayer.__call__) if self.remat else DecoderLayer.__call__
      tokens = apply(layer, tokens, memories[scale], seen, directions, allowed)
      predictions.append(self._predict(tokens, at_place, heat_there))
    return Queries(self.norm(tokens), *(jnp.stack(x) for x in zip(*predictions, strict=True)))

  def _predict(self, tokens, at_place, heat_there) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Kernels, object logits and category logits; the heads are the same after all layers."""
    tokens = self.norm(tokens)
    return (
      self.mask_head(tokens, at_place),
      self.object_head(tokens)[..., 0] + heat_there,
      self.category_head(tokens),
    )


def _at(maps: jax.Array, places: jax.Array) -> jax.Array:
  """`maps [B, h, w, C]` at `places [B, Q]` -> `[B, Q, C]`."""
  flat = einops.rearrange(maps, "b h w c -> b (h w) c")
  return jnp.take_along_axis(flat, places[..., None], axis=1)


def _coarser(pixels: jax.Array, height: int) -> jax.Array:
  """`[B, h, w, D]` -> `[B, P', D]` on a map of `height` rows; the cells of a block count alike."""
  pooled = mean_pool(jax.lax.stop_gradient(pixels), pixels.shape[1] // height)
  return einops.rearrange(pooled, "b h w d -> b (h w) d")


def _seen(kernels: jax.Array, pixels: jax.Array) -> jax.Array:
  """`[B, Q, P']` bool: where the masks are so far; everywhere, for masks that are nowhere."""
  inside = mask_logits(jax.lax.stop_gradient(kernels), pixels) > 0
  return inside | ~inside.any(-1, keepdims=True)
