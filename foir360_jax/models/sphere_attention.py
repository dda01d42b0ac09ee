"""Attention bias by the angle between tokens on the sphere, without seam or poles."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.cells import cosines

BLOCKED = -1e9
"""Bias of what may not be looked at; finite, so that a row of nothing else stays finite."""


class PositionBias(nnx.Module):
  """Bias of each head by the directions of queries q and keys k.

      bias = gain (q . k - 1) + rise k_z + log(solid angle of k)

  The first term fades with the great-circle distance, the second prefers what is above (or below),
  and by the third a sum over the cells of a map is an integral over the sphere, in which the many
  cells near the poles do not count for more. Turning the panorama changes nothing.

  Args:
    gains: of the heads to begin with, > 0; a head with gain g looks about 80 / sqrt(g) degrees far.
  """

  def __init__(self, gains: Sequence[float]):
    self.log_gain = nnx.Param(jnp.log(jnp.array(gains, jnp.float32)))
    self.rise = nnx.Param(jnp.zeros(len(gains), jnp.float32))

  def __call__(
    self, queries: jax.Array, keys: jax.Array, weights: jax.Array | None = None
  ) -> jax.Array:
    """Bias [B, heads, Q, M].

    Args:
      queries: unit vectors [B, Q, 3].
      keys: unit vectors [M, 3] or [B, M, 3].
      weights: solid angles [M] in any unit; None where keys are objects, which count alike.
    """
    gain, rise = jnp.exp(self.log_gain[...]), self.rise[...]
    bias = gain[:, None, None] * (cosines(queries, keys) - 1)[:, None]
    per_key = rise[:, None] * keys[..., None, :, 2]  # [(B,) heads, M]
    if weights is not None:
      per_key = per_key + jnp.log(weights)
    return bias + per_key[..., None, :]
