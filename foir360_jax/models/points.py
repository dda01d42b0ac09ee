"""Points on the sphere at which masks are compared, in place of all cells of the fine map.

Axes: B examples, N objects, n points, P cells of the fine map [h, w], D channels.
"""

from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp

from foir360_jax.models.cells import flat_weights
from foir360_jax.models.chance import POINTS, stream
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
    return Measured(einops.rearrange(pixels, "b h w d -> b (h w) d"), masks, flat_weights(height))
  directions = jax.vmap(lambda one: _directions(one, count))(seed)
  row, column = pixels_from_directions(directions, height)
  read = jax.vmap(sample)
  maps = einops.rearrange(masks, "b n (h w) -> b h w n", h=height)
  sphere = 4 * height**2 / jnp.pi  # its cells, each as large as one on the horizon
  return Measured(
    read(pixels, row, column),
    einops.rearrange(read(maps, row, column), "b p n -> b n p"),
    jnp.full(count, sphere / count),
  )


def _directions(seed: jax.Array, count: int) -> jax.Array:
  """Unit vectors `[count, 3]`, uniform on the sphere."""
  drawn = jax.random.normal(stream(seed, POINTS), (count, 3))
  return drawn * jax.lax.rsqrt((drawn**2).sum(-1, keepdims=True))
