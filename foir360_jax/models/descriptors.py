"""What an object looks like and what surrounds it, gathered through its mask.

Everything here is pooled with solid-angle weights over cells of the fine map (P = h w):

- inside: learned features, and of the colours the mean, the deviation and the mean difference
  between neighbouring pixels (busy or calm?), over the mask;
- surroundings: the same over spherical caps of several radii around the object, the object left
  out;
- shape: the mask and the picture seen in the object's own tangent plane, scaled to its size.
"""

from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.models.cells import centroids, cosines, flat_directions, flat_weights, map_height
from foir360_jax.models.layers import Mlp, mean_pool
from foir360_jax.sphere import pixels_from_directions, sample

_CAP_RADII_DEG = (15.0, 30.0, 60.0)
_CROP_SIZE = 10
_CROP_RADII = 1.9  # half the crop's side, in radii of a disc of the object's solid angle
_FEWEST_CELLS = 0.3  # keeps the size of an empty mask finite


class Appearance(NamedTuple):
  """What is pooled over: `features [B, h, w, C]` and the picture `image [B, H, W, 3]` in [0, 1]."""

  features: jax.Array
  image: jax.Array


class Descriptors(nnx.Module):
  """Masks -> one token per object.

  Args:
    feature_channels: channels of the learned features.
    channels: of the tokens.
    surround: whether to look outside the masks at all (to measure what that is worth).
    rngs: source of the initial kernels.
  """

  def __init__(self, feature_channels, channels, *, surround: bool, rngs: nnx.Rngs):
    pooled = feature_channels + 9
    views = 1 + 2 * len(_CAP_RADII_DEG) if surround else 1
    self.crop = Mlp((_CROP_SIZE**2 * 4, 2 * channels, channels), rngs=rngs)
    self.join = Mlp((views * pooled + 4 + channels, 2 * channels, channels), rngs=rngs)
    self.surround = surround

  def __call__(self, appearance: Appearance, masks: jax.Array) -> jax.Array:
    """`masks [B, N, P]` in [0, 1] -> `[B, N, C]`. No gradient flows into the masks."""
    masks = jax.lax.stop_gradient(masks)
    statistics = _statistics_map(appearance)
    flat = einops.rearrange(statistics, "b h w c -> b (h w) c")
    height = map_height(masks.shape[-1])
    weighted = masks * flat_weights(height)
    area = weighted.sum(-1, keepdims=True)
    inside = _with_deviation(jnp.einsum("bnp,bpc->bnc", weighted, flat) / (area + 1e-3))
    direction = centroids(masks)
    sine = direction[..., 2:]
    size = jnp.log(area * (np.pi / height) ** 2 + _FEWEST_CELLS * (np.pi / height) ** 2)

    parts = [inside, size + 3, size**2 / 9, sine, jnp.abs(sine)]
    if self.surround:
      for outside in _pool_caps(statistics, masks, direction):
        parts += [outside, jnp.abs(inside - outside)]
    radius = jnp.sqrt(area[..., 0] / np.pi) * (np.pi / height)
    crops = _tangent_crops(appearance.image, masks, direction, radius, self.surround)
    parts.append(self.crop(crops))
    return self.join(jnp.concatenate(parts, axis=-1))


def _statistics_map(appearance: Appearance) -> jax.Array:
  """`[B, h, w, C + 9]`: features, differences of neighbours, colours, squared colours."""
  colours = 4 * (appearance.image - 0.5)
  east = jnp.abs(jnp.roll(colours, -1, axis=2) - colours)
  south = jnp.abs(jnp.diff(colours, axis=1, append=colours[:, -1:]))
  factor = colours.shape[1] // appearance.features.shape[1]
  moments = mean_pool(jnp.concatenate([2 * (east + south), colours, colours**2], axis=-1), factor)
  return jnp.concatenate([appearance.features, moments], axis=-1)


def _with_deviation(pooled: jax.Array) -> jax.Array:
  """Replaces the pooled squares (last three channels) by deviations."""
  rest, mean, square = jnp.split(pooled, [pooled.shape[-1] - 6, pooled.shape[-1] - 3], axis=-1)
  deviation = jnp.sqrt(jnp.maximum(square - mean**2, 0) + 1e-4)
  return jnp.concatenate([rest, mean, 2 * deviation], axis=-1)


def _pool_caps(statistics: jax.Array, masks: jax.Array, direction: jax.Array) -> list[jax.Array]:
  """Means over caps around `direction [B, N, 3]` without the object, on a coarser map."""
  coarse = mean_pool(statistics, 2)
  height = coarse.shape[1]
  flat = einops.rearrange(coarse, "b h w c -> b (h w) c")
  maps = einops.rearrange(masks, "b n (h w) -> (b n) h w 1", h=2 * height)
  covered = einops.rearrange(mean_pool(maps, 2), "(b n) h w 1 -> b n (h w)", b=masks.shape[0])
  free = (1 - covered) * flat_weights(height)
  cosine = cosines(direction, flat_directions(height))
  pooled = []
  for radius_deg in _CAP_RADII_DEG:
    cap = free * (cosine > np.cos(np.deg2rad(radius_deg)))
    pooled.append(
      _with_deviation(jnp.einsum("bnp,bpc->bnc", cap, flat) / (cap.sum(-1, keepdims=True) + 1e-3))
    )
  return pooled


def _tangent_crops(image, masks, direction, radius, surround) -> jax.Array:
  """The mask and the picture around each object as `[B, N, crop pixels * 4]`.

  The crop is a grid on the tangent plane at `direction`, north up, whose side is `2 _CROP_RADII`
  radii. Without `surround` the picture is grey outside the mask.
  """
  axis = jnp.linspace(-_CROP_RADII, _CROP_RADII, _CROP_SIZE)
  right, up = jnp.meshgrid(axis, -axis)
  east = jnp.stack([-direction[..., 1], direction[..., 0], jnp.zeros_like(radius)], axis=-1)
  level = (east**2).sum(-1, keepdims=True)
  # At a pole no direction is east: any will do.
  east = jnp.where(level > 1e-6, east * jax.lax.rsqrt(jnp.maximum(level, 1e-6)), jnp.eye(3)[1])
  north = jnp.cross(direction, east)
  extent = jnp.tan(jnp.clip(radius, 0.01, 0.6))[..., None, None]
  points = (
    direction[..., None, :]
    + extent * right.reshape(-1, 1) * east[..., None, :]
    + extent * up.reshape(-1, 1) * north[..., None, :]
  )
  points = points * jax.lax.rsqrt((points**2).sum(-1, keepdims=True) + 1e-9)

  row, column = pixels_from_directions(points, image.shape[1])
  per_picture = jax.vmap(lambda picture, r, c: sample(picture, r, c, method="bilinear"))
  colours = per_picture(image, row, column) * 2 - 1
  height = map_height(masks.shape[-1])
  row, column = pixels_from_directions(points, height)
  maps = einops.rearrange(masks, "b n (h w) -> b n h w 1", h=height)
  covered = jax.vmap(per_picture)(maps, row, column)
  if not surround:
    colours = colours * covered
  crops = jnp.concatenate([colours, 2 * covered - 1], axis=-1)
  return jax.lax.stop_gradient(einops.rearrange(crops, "b n s c -> b n (s c)"))
