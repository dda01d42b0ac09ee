"""Size, latitude and contrast of masks: what the baselines rank by.

Axes: B pictures [H, W = 2 H], N masks, P = H W pixels.
"""

from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp

from foir360_jax.models.cells import flat_directions, flat_weights, pool_cells
from foir360_jax.models.layers import mean_pool
from foir360_jax.sphere import pad_sphere

_FEWEST_ROWS = 64  # contrast is measured on cells, at least this number of rows of them
_RING = 32  # the ring around a mask is 1 / 32 of the height wide


class MaskMeasures(NamedTuple):
  """Of each mask, `[B, N]`; higher = more important.

  Attributes:
    log_area: log of the solid angle, in units of a pixel on the horizon.
    horizon: minus the distance of the mean latitude from the horizon, in radians.
    contrast: distance between the mean colour on the mask and that of a ring around it, RGB in
      [0, 1]; 0 where there is no mask or no ring.
  """

  log_area: jax.Array
  horizon: jax.Array
  contrast: jax.Array


def measure_masks(masks: jax.Array, image: jax.Array) -> MaskMeasures:
  """Measures `masks [B, N, P]`, in [0, 1] or bool, on `image [B, H, W, 3]` uint8."""
  height = image.shape[1]
  masks = masks.astype(jnp.float32)
  weighted = masks * flat_weights(height)
  area = weighted.sum(-1)
  latitude = jnp.arcsin(jnp.clip(flat_directions(height)[:, 2], -1, 1))
  mean_latitude = (weighted * latitude).sum(-1) / jnp.maximum(area, 1e-6)
  return MaskMeasures(jnp.log(area + 1e-3), -jnp.abs(mean_latitude), _contrast(masks, image))


def _contrast(masks: jax.Array, image: jax.Array) -> jax.Array:
  factor = 1
  while image.shape[1] % (2 * factor) == 0 and image.shape[1] // (2 * factor) >= _FEWEST_ROWS:
    factor *= 2
  colours = mean_pool(image.astype(jnp.float32) / 255, factor)
  rows = colours.shape[1]
  inside = einops.rearrange(pool_cells(masks, factor), "b n (h w) -> b h w n", h=rows)
  size = max(1, rows // _RING)
  window = (1, 2 * size + 1, 2 * size + 1, 1)
  near = jax.lax.reduce_window(
    pad_sphere(inside, size), 0.0, jax.lax.max, window, (1, 1, 1, 1), "VALID"
  )
  ring = near * (1 - inside)
  difference = jnp.linalg.norm(_mean_colour(inside, colours) - _mean_colour(ring, colours), axis=-1)
  there = (inside.sum((1, 2)) > 0) & (ring.sum((1, 2)) > 0)
  return jnp.where(there, difference, 0.0)


def _mean_colour(share: jax.Array, colours: jax.Array) -> jax.Array:
  """`[B, N, 3]` of `share [B, h, w, N]`, cells weighed by solid angle."""
  rows = colours.shape[1]
  weighted = share * flat_weights(rows).reshape(rows, 2 * rows, 1)
  total = jnp.einsum("bhwn,bhwc->bnc", weighted, colours)
  return total / jnp.maximum(weighted.sum((1, 2)), 1e-6)[..., None]
