"""The target of the objectness heat map: 1 at the centre of each object, less around it.

Axes: B examples, N objects, P cells of the fine map. Distances are angles on the sphere, so an
object is as wide near a pole as on the horizon.
"""

import jax
import jax.numpy as jnp

from foir360_jax.losses.segmentation import PEAK
from foir360_jax.models.cells import centroids, cosines, flat_directions, flat_weights, map_height


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
