"""Where masks are compared: all cells of the fine map, or points drawn on the sphere.

Predictions before the last one may be compared at a quarter of the places: they are soon followed
by better ones, and there are several of them.

Axes: B examples, N objects, n points or cells, P cells of the fine map [h, w], D channels.
"""

from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp

from foir360_jax.models.cells import flat_weights
from foir360_jax.models.chance import POINTS, stream
from foir360_jax.models.layers import mean_pool
from foir360_jax.sphere import pixels_from_directions, sample


class Measured(NamedTuple):
  """Where masks are compared.

  Attributes:
    pixels: `[B, n, D]` of the mask head.
    masks: `[B, N, n]` in [0, 1], the true ones.
    weights: `[n]`, the solid angle that each point stands for, in units of a cell on the horizon.
  """

  pixels: jax.Array
  masks: jax.Array
  weights: jax.Array


def measure(pixels: jax.Array, masks: jax.Array, seed: jax.Array, count: int) -> Measured:
  """Reads pixels and masks at points drawn uniformly on the sphere, other ones for each example.

  Every point stands for the same solid angle, so that sums over points have the same expectation as
  over all cells. An object that no point hits has an empty mask here. Source:
  Kirillov et al., PointRend, CVPR 2020, whose points are uniform in the picture.

  Args:
    pixels: `[B, h, w, D]`.
    masks: `[B, N, P]`.
    seed: `[B]`, of each example's points.
    count: number of points; 0 for all cells instead.
  """
  height = pixels.shape[1]
  if not count:
    return Measured(_flat(pixels), masks, flat_weights(height))
  directions = jax.vmap(lambda one: _directions(one, count))(seed)
  row, column = pixels_from_directions(directions, height)
  read = jax.vmap(sample)
  maps = _maps(masks, height)
  sphere = 4 * height**2 / jnp.pi  # its cells, each as large as one on the horizon
  return Measured(
    read(pixels, row, column),
    einops.rearrange(read(maps, row, column), "b p n -> b n p"),
    jnp.full(count, sphere / count),
  )


def measure_coarsely(pixels: jax.Array, masks: jax.Array, seed: jax.Array, count: int) -> Measured:
  """The same at a quarter of the places, each of which stands for four times the solid angle.

  Blocks of 2 x 2 cells take the mean of their pixels, which gives the mean of their logits, and of
  their masks, so that no object is lost; of points the first quarter is taken.
  """
  height = pixels.shape[1]
  if count:
    return measure(pixels, masks, seed, -(-count // 4))
  maps = mean_pool(_maps(masks, height), 2)
  weights = einops.reduce(
    flat_weights(height), "(h i w j) -> (h w)", "sum", h=height // 2, i=2, w=height, j=2
  )
  return Measured(
    _flat(mean_pool(pixels, 2)), einops.rearrange(maps, "b h w n -> b n (h w)"), weights
  )


def _flat(maps: jax.Array) -> jax.Array:
  return einops.rearrange(maps, "b h w d -> b (h w) d")


def _maps(masks: jax.Array, height: int) -> jax.Array:
  return einops.rearrange(masks, "b n (h w) -> b h w n", h=height)


def _directions(seed: jax.Array, count: int) -> jax.Array:
  """Unit vectors `[count, 3]`, uniform on the sphere."""
  drawn = jax.random.normal(stream(seed, POINTS), (count, 3))
  return drawn * jax.lax.rsqrt((drawn**2).sum(-1, keepdims=True))
