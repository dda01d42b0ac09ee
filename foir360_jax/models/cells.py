"""Cells of a feature map on the sphere, flattened: directions, solid angles, coverage by masks.

A map [h, w], w = 2 h, flattened to P = h w cells, row by row. Angles between cells are measured on
the sphere.
"""

import einops
import jax
import jax.numpy as jnp

from foir360_jax.batch import Array
from foir360_jax.sphere import mean_direction, pixel_areas, pixel_directions


def flat_directions(height: int) -> jax.Array:
  """Unit vectors of the cells of a map of this height, `[P, 3]`."""
  return jnp.asarray(pixel_directions(height).reshape(-1, 3))


def flat_weights(height: int) -> jax.Array:
  """Solid angles of the cells, in units of a cell on the horizon, `[P]`: about cos(latitude)."""
  areas = pixel_areas(height).reshape(-1)
  return jnp.asarray(areas / areas.max())


def map_height(cells: int) -> int:
  """Height of the map [h, 2 h] with this number of cells."""
  height = round((cells / 2) ** 0.5)
  if 2 * height * height != cells:
    raise ValueError(f"{cells} cells are not a map of shape [h, 2 h]")
  return height


def cosines(vectors: jax.Array, directions: jax.Array) -> jax.Array:
  """Dot products of `[B, N, 3]` with `[P, 3]` or `[B, P, 3]` -> `[B, N, P]`, in full float32.

  Neighbouring cells differ by 1e-3 in their cosine: the reduced precision in which a GPU multiplies
  matrices by default would move them.
  """
  pattern = "bnx,px->bnp" if directions.ndim == 2 else "bnx,bpx->bnp"
  return jnp.einsum(pattern, vectors, directions, precision="highest")


def centroids(masks: jax.Array) -> jax.Array:
  """Solid-angle weighted mean directions of `masks [B, N, P]`, unit vectors `[B, N, 3]`.

  Where that vanishes (an empty mask, the whole sphere, a ring around the horizon) it is straight
  ahead, (1, 0, 0); see `sphere.mean_direction`.
  """
  height = map_height(masks.shape[-1])
  weighted = masks * flat_weights(height)
  total = jnp.einsum("bnp,px->bnx", weighted, flat_directions(height), precision="highest")
  return mean_direction(total, weighted.sum(-1))


def pool_cells(maps: jax.Array, factor: int) -> jax.Array:
  """Means of blocks of `factor` x `factor` cells: `[..., P factor^2]` -> `[..., P]`."""
  height = map_height(maps.shape[-1]) // factor
  pattern = "... (h i w j) -> ... (h w)"
  return einops.reduce(maps, pattern, "mean", h=height, i=factor, w=2 * height, j=factor)


def cell_masks(packed: Array, stride: int) -> jax.Array:
  """Bit-packed masks `[B, N, H, W / 8]` -> covered share of each coarser cell, `[B, N, P]`."""
  bits = jnp.unpackbits(packed, axis=-1)
  covered = einops.reduce(bits, "b n (h i) (w j) -> b n (h w)", "sum", i=stride, j=stride)
  return covered.astype(jnp.float32) / stride**2
