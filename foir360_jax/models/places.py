"""Where objects are: a heat map on the sphere, its peaks, and the map that training asks for.

A query comes from a place: a cell of the fine map, given by its index among the P cells. Distances
are angles on the sphere, so an object is as wide near a pole as on the horizon.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.losses.segmentation import PEAK
from foir360_jax.models.cells import centroids, cosines, flat_directions, flat_weights, map_height
from foir360_jax.models.layers import Mlp, pad_sphere

_RARE = -3.0  # initial logit: most cells hold no object


class Objectness(nnx.Module):
  """Logit of "an object is centred here" for each cell."""

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    self.head = Mlp((channels, channels, 1), last_scale=0.1, rngs=rngs)

  def __call__(self, fine: jax.Array) -> jax.Array:
    """`[B, h, w, C]` -> `[B, h, w]`."""
    return self.head(fine)[..., 0] + _RARE


def find_peaks(heat: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """The highest peaks of `heat [B, h, w]`, around the seam and across the poles.

  A peak is a cell that none of its four neighbours exceeds. (With eight, 6 % of the objects of
  synthetic360 had none after an hour of training: those that nearly touch hid each other. Of two
  peaks on one object the query decoder takes one back, but it cannot make up for a place that it
  was not given.)

  Returns:
    indices of cells `[B, count]` and their logits `[B, count]`; where there are fewer peaks, cells
    with the lowest possible logit fill the list.
  """
  padded = pad_sphere(heat[..., None], 1)[..., 0]
  beside = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
  peaks = jnp.where(heat >= functools.reduce(jnp.maximum, beside), heat, -1e4)
  logits, index = jax.lax.top_k(peaks.reshape(heat.shape[0], -1), count)
  return index, logits


def object_centres(masks: jax.Array) -> jax.Array:
  """The cell of each mask that lies nearest the mask's centroid on the sphere.

  Args:
    masks: `[B, N, P]` in [0, 1].

  Returns:
    `[B, N]` indices of cells; for an empty mask 0.
  """
  cosine = cosines(centroids(masks), flat_directions(map_height(masks.shape[-1])))
  inside = masks >= 0.5 * jnp.maximum(masks.max(-1, keepdims=True), 1e-6)
  return jnp.argmax(jnp.where(inside, cosine, -2.0), axis=-1)


def heat_target(masks: jax.Array, centres: jax.Array, where: jax.Array) -> jax.Array:
  """What the heat map should be: 1 at every centre, falling off with the object's own size.

  Args:
    masks: `[B, N, P]`.
    centres: `[B, N]` cells.
    where: `[B, N]`.

  Returns:
    `[B, P]` in [0, 1]; exp((cos(distance) - 1) / width^2) with width 0.35 of the object's radius,
    at least 0.4 cells. Beside the centre it is less than what counts as a peak, also near a pole,
    where cells are narrower than any object.
  """
  height = map_height(masks.shape[-1])
  directions = flat_directions(height)
  cell = jnp.pi / height
  area = (masks * flat_weights(height)).sum(-1) * cell**2
  width = jnp.maximum(0.35 * jnp.sqrt(area / jnp.pi), 0.4 * cell)
  cosine = cosines(directions[centres], directions)
  bumps = jnp.exp((cosine - 1) / width[..., None] ** 2)
  at_centre = jnp.arange(masks.shape[-1]) == centres[..., None]  # rounding would leave 1 - 1e-7
  bumps = jnp.where(at_centre, 1.0, jnp.minimum(bumps, PEAK))
  return jnp.where(where[..., None], bumps, 0.0).max(1)
