"""Mask head: logits as dot products of a kernel for each query with a map of pixel features.

The map may be finer than the fine map of the model: every cell of that gives `detail` x `detail`
pixels (sub-pixel convolution: Shi et al., CVPR 2016), so that small objects have outlines without a
finer and much more costly pyramid. Where exactly an edge runs is seen in the picture itself, so
each pixel is given its colours, too, and what a small convolution finds there.

A mask's logit at any place of the sphere is `kernel . pixel`, so it may be had on the whole map, on
a coarser one (the mean of the pixels gives the mean of the logits) or at single points, at the cost
of what is asked for.

Axes: B examples, Q queries, D = M + 5 stacked channels, k = detail.
"""

import einops
import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.batch import Array
from foir360_jax.models.cells import map_height
from foir360_jax.models.layers import Mlp, WrapConv, mean_pool
from foir360_jax.sphere import pixel_directions, resize_panorama

AFFINITY_CHANNELS = 16
_EDGE_CHANNELS = 16
_CAP_LOG_GAIN = 4.0  # the initial cap ends at acos(1 - exp(-4)), 11 degrees from the place


class MaskHead(nnx.Module):
  """Kernels from a query's token and from the pixel at its place.

  logit(cell) = e . F(cell) + e0                              what the query looks for
              + g (cos(angle to the place) - 1) + 1           a spherical cap, g = exp(4 + e1)
              + a foreground(cell)                            is the cell on any object?
              + 1 - 0.3 |E(cell) - E(place)|^2                does it look like the place itself?

  F is made of the features and of what the picture shows; foreground and E are channels of it. From
  the first step on the cap and the likeness give a usable disc; without them random masks cost the
  first hundreds of steps.
  """

  def __init__(self, channels: int, mask_channels: int, detail: int = 1, *, rngs: nnx.Rngs):
    self.features = nnx.Linear(channels, detail**2 * mask_channels, rngs=rngs)
    self.edges = WrapConv(3, _EDGE_CHANNELS, rngs=rngs)
    # Small at first: what is an object is learnt from the features.
    self.sharpen = nnx.Linear(
      3 + _EDGE_CHANNELS,
      mask_channels,
      use_bias=False,
      kernel_init=nnx.initializers.variance_scaling(0.01, "fan_in", "normal"),
      rngs=rngs,
    )
    self.embed = Mlp((channels, channels, mask_channels + 2), last_scale=0.1, rngs=rngs)
    # Typed: a weak type would not survive a checkpoint, and a resumed run would compile anew.
    self.foreground_gain = nnx.Param(jnp.array(0.5, jnp.float32))
    self.mask_channels = mask_channels
    self.detail = detail

  def pixels(self, fine: jax.Array, image: jax.Array) -> jax.Array:
    """`[B, k h, k w, D]`: F, direction, -0.3 |E|^2, 1. Channel 0 of F is the foreground logit.

    Args:
      fine: `[B, h, w, C]`.
      image: `[B, H, W, 3]` in [0, 1]; H a multiple of k h.
    """
    pattern = "b h w (i j m) -> b (h i) (w j) m"
    features = einops.rearrange(self.features(fine), pattern, i=self.detail, j=self.detail)
    colours = 4 * (mean_pool(image, image.shape[1] // features.shape[1]) - 0.5)
    seen = jnp.concatenate([colours, nnx.relu(self.edges(colours))], axis=-1)
    features = features + self.sharpen(seen)
    likeness = features[..., 1 : 1 + AFFINITY_CHANNELS]
    directions = jnp.broadcast_to(pixel_directions(features.shape[1]), (*features.shape[:3], 3))
    constant = -0.3 * (likeness**2).sum(-1, keepdims=True)
    return jnp.concatenate([features, directions, constant, jnp.ones_like(constant)], axis=-1)

  def __call__(self, tokens: jax.Array, at_place: jax.Array) -> jax.Array:
    """`tokens [B, Q, C]` and the pixels at their places `[B, Q, D]` -> kernels `[B, Q, D]`."""
    offset, log_gain, sought = jnp.split(self.embed(tokens), [1, 2], axis=-1)
    sought = sought * (2 / jnp.sqrt(self.mask_channels))
    gain = jnp.exp(jnp.clip(log_gain + _CAP_LOG_GAIN, 0, 7))
    likeness = at_place[..., 1 : 1 + AFFINITY_CHANNELS]
    direction = at_place[..., self.mask_channels : self.mask_channels + 3]

    weights = sought.at[..., 1 : 1 + AFFINITY_CHANNELS].add(0.6 * likeness)
    weights = weights.at[..., 0].add(self.foreground_gain[...])
    constant = offset + 2 - gain - 0.3 * (likeness**2).sum(-1, keepdims=True)
    return jnp.concatenate([weights, gain * direction, jnp.ones_like(offset), constant], axis=-1)


def mask_logits(kernels: jax.Array, pixels: jax.Array) -> jax.Array:
  """`kernels [*L, B, Q, D]`, `pixels [B, P, D]` -> logits `[*L, B, Q, P]`, in full float32.

  The cap is a small difference of large numbers: see `cells.cosines`.
  """
  return jnp.einsum("...bqd,bpd->...bqp", kernels, pixels, precision="highest")


def picture_masks(mask_logits: Array, height: int) -> jax.Array:
  """Mask logits on any map `[B, Q, P]` -> bool masks `[B, Q, height, 2 height]`."""
  maps = einops.rearrange(
    mask_logits, "b q (h w) -> b q h w 1", h=map_height(mask_logits.shape[-1])
  )
  return resize_panorama(maps, height)[..., 0] > 0
