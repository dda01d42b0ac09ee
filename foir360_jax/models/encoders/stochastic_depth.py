"""Stochastic depth: in training, each example drops some residual branches.

Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016, with rates that rise linearly
over the blocks and factors that keep the expectation.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.models.random_streams import STOCHASTIC_DEPTH, stream


def linear_rates(last: float, blocks: int) -> np.ndarray:
  """The rates [blocks] of being left out, from 0 for the first block to `last`.

  Raises:
    ValueError: `last` is not in [0, 1).
  """
  if not 0 <= last < 1:
    raise ValueError(f"drop_path must be in [0, 1), not {last}")
  return np.linspace(0, last, blocks)


def branch_factors(
  seed: jax.Array, rates: Sequence[float] | np.ndarray, branches: int
) -> jax.Array:
  """What the branches of the blocks are multiplied by: 0 or 1 / (1 - rate).

  Args:
    seed: [B] uint32, each example's own.
    rates: [blocks].
    branches: of each block, left out independently.

  Returns:
    [blocks, branches, B], float32; its expectation is 1.
  """

  def draw(one: jax.Array) -> jax.Array:
    key = stream(one, STOCHASTIC_DEPTH)
    return jax.random.uniform(key, (len(rates), branches))

  left_out = jnp.asarray(rates, jnp.float32)[:, None, None]
  return (jax.vmap(draw, out_axes=2)(seed) >= left_out) / (1 - left_out)
