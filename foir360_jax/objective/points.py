"""Samples at which masks are compared: a pixel of each cell, or points drawn on the sphere.

Predictions before the last one may be compared at a quarter of the places: they are soon followed
by better ones, and there are several of them.

Axes: B examples, N objects, n points or cells, P cells of the fine map [h, w], k x k pixels in a
cell, D channels.
"""

from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp

from foir360_jax.models.cells import flat_weights, pool_cells
from foir360_jax.models.layers import mean_pool
from foir360_jax.models.random_streams import POINTS, stream
from foir360_jax.sphere import pixels_from_directions, sample


class MaskSamples(NamedTuple):
  """Pixels and masks at the places where masks are compared.

  Attributes:
    pixels: `[B, n, D]` of the mask head.
    masks: `[B, N, n]` in [0, 1], the ground truth.
    weights: `[n]`, the solid angle that each point stands for, in units of a cell on the horizon.
  """

  pixels: jax.Array
  masks: jax.Array
  weights: jax.Array


def sample_masks(
  pixels: jax.Array, masks: jax.Array, seed: jax.Array, count: int, detail: int = 1
) -> MaskSamples:
  """Reads pixels and masks at places of the sphere.

  Points are drawn uniformly, other ones for each example, and every one stands for the same solid
  angle, so that sums over points have the same expectation as over all pixels. An object that no
  point hits has an empty mask here. Source: Kirillov et al., PointRend, CVPR 2020, whose points are
  uniform in the picture.

  Cells give one of their pixels each: the same one of every cell, so that this is a picture as
  coarse as the cells, but drawn anew for each example. It costs what coarse masks cost and trains
  fine ones.

  Args:
    pixels: `[B, k h, k w, D]` with k = detail.
    masks: `[B, N, k^2 P]`.
    seed: `[B]`, of each example's points.
    count: number of points; 0 for the cells instead.
    detail: number of pixels along each side of a cell.
  """
  height = pixels.shape[1]
  if not count:
    return _one_of_each_cell(pixels, masks, seed, detail)
  directions = jax.vmap(lambda one: _directions(one, count))(seed)
  row, column = pixels_from_directions(directions, height)
  read = jax.vmap(sample)
  maps = _maps(masks, height)
  sphere = 4 * (height // detail) ** 2 / jnp.pi  # its cells, each as large as one on the horizon
  return MaskSamples(
    read(pixels, row, column),
    einops.rearrange(read(maps, row, column), "b p n -> b n p"),
    jnp.full(count, sphere / count),
  )


def sample_masks_coarsely(
  pixels: jax.Array, masks: jax.Array, seed: jax.Array, count: int, detail: int = 1
) -> MaskSamples:
  """The same at a quarter of the places, each of which stands for four times the solid angle.

  Blocks of 2 x 2 cells take the mean of their pixels, which gives the mean of their logits, and of
  their masks, so that no object is lost; of points the first quarter is taken.
  """
  if count:
    return sample_masks(pixels, masks, seed, -(-count // 4), detail)
  height = pixels.shape[1] // detail
  weights = 4 * pool_cells(flat_weights(height), 2)
  return MaskSamples(_flat(mean_pool(pixels, 2 * detail)), pool_cells(masks, 2 * detail), weights)


def _one_of_each_cell(pixels, masks, seed, detail) -> MaskSamples:
  height = pixels.shape[1] // detail
  parts = einops.rearrange(pixels, "b (h i) (w j) d -> b (i j) (h w) d", i=detail, j=detail)
  pattern = "b n (h i w j) -> b (i j) n (h w)"
  of_masks = einops.rearrange(masks, pattern, h=height, i=detail, w=2 * height, j=detail)
  chosen = jax.vmap(lambda one: jax.random.randint(stream(one, POINTS), (), 0, detail**2))(seed)
  rows = jnp.arange(len(chosen))
  return MaskSamples(parts[rows, chosen], of_masks[rows, chosen], flat_weights(height))


def _flat(maps: jax.Array) -> jax.Array:
  return einops.rearrange(maps, "b h w d -> b (h w) d")


def _maps(masks: jax.Array, height: int) -> jax.Array:
  return einops.rearrange(masks, "b n (h w) -> b h w n", h=height)


def _directions(seed: jax.Array, count: int) -> jax.Array:
  """Unit vectors `[count, 3]`, uniform on the sphere."""
  drawn = jax.random.normal(stream(seed, POINTS), (count, 3))
  return drawn * jax.lax.rsqrt((drawn**2).sum(-1, keepdims=True))
