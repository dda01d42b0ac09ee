"""Queries at places -> a mask, an object logit and a category for each.

A query starts from the features at its place, looks at the scene around it (cross-attention that
fades with the angular distance) and at the other queries of its group, and then draws its mask: the
logit at a cell is one dot product, whose terms are listed in `MaskHead`.
"""

from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.cells import cosines, flat_directions
from foir360_jax.models.layers import Attention, FeedForward, Mlp

_AFFINITY_CHANNELS = 16
_CAP_LOG_GAIN = 4.0  # the initial cap ends at acos(1 - exp(-4)), 11 degrees from the place
_NUM_HEADS = 4


class Queries(NamedTuple):
  """What the decoder says of each query; `Q` queries, `P` cells.

  Attributes:
    tokens: `[B, Q, C]`.
    mask_logits: `[B, Q, P]`.
    object_logits: `[B, Q]`: is there an object that no better query has?
    category_logits: `[B, Q, K]`.
  """

  tokens: jax.Array
  mask_logits: jax.Array
  object_logits: jax.Array
  category_logits: jax.Array


class MaskHead(nnx.Module):
  """Mask logits from a query's token and place.

  logit(cell) = e . F(cell) + e0                              what the query looks for
              + g (cos(angle to the place) - 1) + 1           a spherical cap, g = exp(4 + e1)
              + a foreground(cell)                            is the cell on any object?
              + 1 - 0.3 |E(cell) - E(place)|^2                does it look like the place itself?

  Foreground and E are channels of F. From the first step on the cap and the likeness give a usable
  disc; without them random masks cost the first hundreds of steps. All terms are one matrix product
  over stacked channels.
  """

  def __init__(self, channels: int, mask_channels: int, *, rngs: nnx.Rngs):
    self.features = nnx.Linear(channels, mask_channels, rngs=rngs)
    self.embed = Mlp((channels, channels, mask_channels + 2), last_scale=0.1, rngs=rngs)
    # Typed: a weak type would not survive a checkpoint, and a resumed run would compile anew.
    self.foreground_gain = nnx.Param(jnp.array(0.5, jnp.float32))

  def pixel_features(self, fine: jax.Array) -> jax.Array:
    """`[B, h, w, C]` -> `[B, P, M]`; channel 0 is the foreground logit."""
    return einops.rearrange(self.features(fine), "b h w c -> b (h w) c")

  def __call__(
    self, tokens: jax.Array, places: jax.Array, pixels: jax.Array, directions: jax.Array
  ):
    """`tokens [B, Q, C]`, `places [B, Q]`, `pixels [B, P, M]` -> logits `[B, Q, P]`."""
    offset, log_gain, sought = jnp.split(self.embed(tokens), [1, 2], axis=-1)
    sought = sought * (2 / jnp.sqrt(pixels.shape[-1]))
    gain = jnp.exp(jnp.clip(log_gain + _CAP_LOG_GAIN, 0, 7))
    likeness = pixels[..., 1 : 1 + _AFFINITY_CHANNELS]
    seed = jnp.take_along_axis(likeness, places[..., None], axis=1)

    weights = sought.at[..., 1 : 1 + _AFFINITY_CHANNELS].add(0.6 * seed)
    weights = weights.at[..., 0].add(self.foreground_gain[...])
    cell_constant = -0.3 * (likeness**2).sum(-1, keepdims=True)
    query_constant = offset + 2 - gain - 0.3 * (seed**2).sum(-1, keepdims=True)

    batch_size, num_cells = pixels.shape[:2]
    stacked = jnp.concatenate(
      [pixels, jnp.broadcast_to(directions, (batch_size, num_cells, 3)), cell_constant], axis=-1
    )
    coefficients = jnp.concatenate(
      [weights, gain * directions[places], jnp.ones_like(offset)], axis=-1
    )
    # The cap's term is a small difference of large numbers: see `cosines`.
    return jnp.einsum("bqc,bpc->bqp", coefficients, stacked, precision="highest") + query_constant


class DecoderLayer(nnx.Module):
  """Cross-attention to the scene near the place, self-attention in the group, feed-forward."""

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    self.scene = Attention(channels, channels, num_heads=_NUM_HEADS, rngs=rngs)
    self.others = Attention(channels, num_heads=_NUM_HEADS, rngs=rngs)
    self.feed_forward = FeedForward(channels, rngs=rngs)
    # Heads that look 60, 30, 15 and 8 degrees far to begin with.
    self.scene_log_gain = nnx.Param(jnp.log(jnp.array([2.0, 8.0, 30.0, 100.0])))
    self.others_log_gain = nnx.Param(jnp.log(jnp.array([0.5, 2.0, 8.0, 30.0])))

  def __call__(self, tokens, memory, scene_cosine, others_cosine, allowed):
    """`tokens [B, Q, C]`, `memory [B, M, C]`, cosines `[B, Q, M]`, `[B, Q, Q]` -> `[B, Q, C]`."""
    tokens = self.scene(tokens, memory=memory, bias=_fading(self.scene_log_gain[...], scene_cosine))
    bias = jnp.where(allowed, _fading(self.others_log_gain[...], others_cosine), -1e9)
    return self.feed_forward(self.others(tokens, bias=bias))


def _fading(log_gain: jax.Array, cosine: jax.Array) -> jax.Array:
  """Attention bias [B, heads, N, M] that falls with the angle: gain_head (cos(angle) - 1)."""
  return jnp.exp(log_gain)[:, None, None] * (cosine - 1)[:, None]


class QueryDecoder(nnx.Module):
  """Turns places into objects.

  Args:
    channels: of the fine map, the memory and the tokens.
    mask_channels: of the map from which masks are made.
    num_layers: rounds of refinement.
    num_categories: number of categories.
    rngs: source of the initial kernels.
  """

  def __init__(self, channels, mask_channels, num_layers, num_categories, *, rngs: nnx.Rngs):
    self.start = Mlp((channels + 2, 2 * channels, channels), rngs=rngs)
    self.layers = nnx.List(DecoderLayer(channels, rngs=rngs) for _ in range(num_layers))
    self.norm = nnx.LayerNorm(channels, rngs=rngs)
    self.mask_head = MaskHead(channels, mask_channels, rngs=rngs)
    self.object_head = Mlp((channels, channels, 1), last_scale=0.1, rngs=rngs)
    self.category_head = nnx.Linear(channels, num_categories, rngs=rngs)

  def __call__(self, fine, memory, pixels, heat, places, where, group) -> Queries:
    """Decodes `Q` queries.

    Args:
      fine: `[B, h, w, C]`.
      memory: `[B, h', w', C]`.
      pixels: `[B, P, M]` of the mask head.
      heat: `[B, h, w]` object logits, the start of the object logit.
      places: `[B, Q]` cells.
      where: `[B, Q]`; nothing looks at a query that is only padding.
      group: `[Q]` int; queries see only those of their own group (taught queries must not whisper).
    """
    directions = flat_directions(fine.shape[1])
    at_place = directions[places]
    flat = einops.rearrange(fine, "b h w c -> b (h w) c")
    seed = jnp.take_along_axis(flat, places[..., None], axis=1)
    sine = at_place[..., 2:]
    tokens = self.start(jnp.concatenate([seed, sine, jnp.abs(sine)], axis=-1))

    scene_cosine = cosines(at_place, flat_directions(memory.shape[1]))
    others_cosine = cosines(at_place, at_place)
    scene = einops.rearrange(memory, "b h w c -> b (h w) c")
    allowed = ((group[:, None] == group[None]) & where[:, None])[:, None]  # one for all heads
    for layer in self.layers:
      tokens = layer(tokens, scene, scene_cosine, others_cosine, allowed)
    tokens = self.norm(tokens)

    heat_there = jnp.take_along_axis(heat.reshape(heat.shape[0], -1), places, axis=1)
    return Queries(
      tokens=tokens,
      mask_logits=self.mask_head(tokens, places, pixels, directions),
      object_logits=self.object_head(tokens)[..., 0] + jax.lax.stop_gradient(heat_there),
      category_logits=self.category_head(tokens),
    )
