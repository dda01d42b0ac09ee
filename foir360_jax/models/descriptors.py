"""Descriptors of objects: features pooled over the mask and over its context.

Everything here is pooled with solid-angle weights. Masks may have k x k pixels in each cell of the
fine map (P = h w cells), as small objects are little more than an edge on cells:

- inside: learned features over the cells of a mask; of the colours the mean, the deviation and the
  mean difference from the four neighbours (busy or calm?) over its pixels, which at an edge sees
  one pixel beyond it on every side;
- surroundings: the same over spherical caps of several radii around the object, the object left
  out;
- looks: the mask and the picture seen in the object's own tangent plane, scaled to its size.
"""

from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.models.cells import (
  centroids,
  cosines,
  flat_directions,
  flat_weights,
  map_height,
  pool_cells,
)
from foir360_jax.models.layers import Mlp, mean_pool
from foir360_jax.models.object_views import ObjectViews, tangent_views
from foir360_jax.sphere import pad_sphere

_CAP_RADII_DEG = (15.0, 30.0, 60.0)
_FEWEST_PIXELS = 0.3  # keeps the size of an empty mask finite


class Appearance(NamedTuple):
  """What is pooled over: `features [B, h, w, C]` and the picture `image [B, H, W, 3]` in [0, 1]."""

  features: jax.Array
  image: jax.Array


class Descriptors(nnx.Module):
  """Masks -> one token per object.

  Args:
    feature_channels: channels of the learned features.
    channels: of the tokens.
    context: whether to look outside the masks at all (to measure what that is worth).
    rngs: source of the initial kernels.
  """

  def __init__(self, feature_channels, channels, *, context: bool, rngs: nnx.Rngs):
    pooled = feature_channels + 9
    views = 1 + 2 * len(_CAP_RADII_DEG) if context else 1
    self.look = ObjectViews(channels, rngs=rngs)
    self.join = Mlp((views * pooled + 4 + channels, 2 * channels, channels), rngs=rngs)
    self.context = context

  def __call__(self, appearance: Appearance, masks: jax.Array) -> jax.Array:
    """`masks [B, N, k^2 P]` in [0, 1] -> `[B, N, C]`. No gradient flows into the masks.

    Raises:
      ValueError: the pixels of the masks are no parts of a cell, or no whole pixels of the picture.
    """
    masks = jax.lax.stop_gradient(masks)
    features, image = appearance
    height = map_height(masks.shape[-1])
    detail, rest = divmod(height, features.shape[1])
    if rest or image.shape[1] % height:
      raise ValueError(
        f"masks have {height} rows: with a picture of {image.shape[1]} and a fine map of"
        f" {features.shape[1]} give a multiple of the latter that divides the former"
      )
    moments = _colour_moments(image, height)
    cells = pool_cells(masks, detail)
    inside = _with_deviation(
      jnp.concatenate([_pool(cells, features), _pool(masks, moments)], axis=-1)
    )
    direction = centroids(masks)
    sine = direction[..., 2:]
    area = (masks * flat_weights(height)).sum(-1, keepdims=True)
    size = jnp.log((area + _FEWEST_PIXELS) * (np.pi / height) ** 2)

    parts = [inside, size + 3, size**2 / 9, sine, jnp.abs(sine)]
    if self.context:
      statistics = jnp.concatenate([features, mean_pool(moments, detail)], axis=-1)
      for outside in _pool_caps(statistics, cells, direction):
        parts += [outside, jnp.abs(inside - outside)]
    radius = jnp.sqrt(area[..., 0] / np.pi) * (np.pi / height)
    views = tangent_views(image, masks, direction, radius, context=self.context)
    parts.append(self.look(views))
    return self.join(jnp.concatenate(parts, axis=-1))


def _colour_moments(image: jax.Array, height: int) -> jax.Array:
  """`[B, height, 2 height, 9]`: differences from the four neighbours, colours, squared colours."""
  colours = 4 * (image - 0.5)
  padded = pad_sphere(colours, 1)
  along = jnp.abs(jnp.diff(padded[:, 1:-1], axis=2))  # the row, [B, H, W + 1, 3]
  across = jnp.abs(jnp.diff(padded[:, :, 1:-1], axis=1))  # the rows, [B, H + 1, W, 3]
  differences = along[:, :, :-1] + along[:, :, 1:] + across[:, :-1] + across[:, 1:]
  moments = jnp.concatenate([differences, colours, colours**2], axis=-1)
  return mean_pool(moments, image.shape[1] // height)


def _pool(masks: jax.Array, maps: jax.Array) -> jax.Array:
  """Means `[B, N, C]` of `maps [B, h, w, C]` over `masks [B, N, h w]`; 0 of an empty mask."""
  weighted = masks * flat_weights(maps.shape[1])
  total = jnp.einsum("bnp,bpc->bnc", weighted, einops.rearrange(maps, "b h w c -> b (h w) c"))
  # Any mask that is not empty weighs more than the floor: by a pole, too, where cells are small.
  return total / jnp.maximum(weighted.sum(-1, keepdims=True), 1e-6)


def _with_deviation(pooled: jax.Array) -> jax.Array:
  """Replaces the pooled squares (last three channels) by deviations."""
  rest, mean, square = jnp.split(pooled, [pooled.shape[-1] - 6, pooled.shape[-1] - 3], axis=-1)
  deviation = jnp.sqrt(jnp.maximum(square - mean**2, 0) + 1e-4)
  return jnp.concatenate([rest, mean, 2 * deviation], axis=-1)


def _pool_caps(statistics: jax.Array, masks: jax.Array, direction: jax.Array) -> list[jax.Array]:
  """Means over caps around `direction [B, N, 3]` without the object, on a coarser map."""
  coarse = mean_pool(statistics, 2)
  free = 1 - pool_cells(masks, 2)
  cosine = cosines(direction, flat_directions(coarse.shape[1]))
  caps = (cosine > np.cos(np.deg2rad(radius_deg)) for radius_deg in _CAP_RADII_DEG)
  return [_with_deviation(_pool(free * cap, coarse)) for cap in caps]
