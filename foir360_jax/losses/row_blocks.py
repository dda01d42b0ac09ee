"""Pairwise computation in blocks of rows: [..., N, N] is never in memory as a whole.

Axes of a tile: [..., rows, N]. The rows are a block of the objects, the columns are all of them.
A block fits into the cache of a processor, which is what makes the pass fast on the CPU; an
accelerator takes larger ones, because there each block costs the start of its kernels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

_TILE_ELEMENTS = {"cpu": 2**17}  # half a MiB of float32
_TILE_ELEMENTS_ELSEWHERE = 2**22


def scan_row_blocks(
  function: Callable[..., tuple[Any, Any]], rows: Sequence[jax.Array], fill: Sequence[ArrayLike]
) -> tuple[Any, Any]:
  """Applies a function to blocks of rows, one after the other.

  Args:
    function: takes the arrays of a block, [..., rows, 1]; returns what it sums over the rows, a
      pytree of [..., N] or None, and what it finds for each of the rows, a pytree of [..., rows] or
      None.
    rows: arrays [..., N].
    fill: for each array, what fills it up to a whole number of blocks; such rows must add nothing.

  Returns:
    The sums over all rows and the results of all rows, pytrees of [..., N].
  """
  *batch, num_rows = rows[0].shape
  blocks = num_blocks(rows[0].shape)
  split = [_split(array, blocks, value) for array, value in zip(rows, fill, strict=True)]

  def step(sums, block):
    new, found = function(*(array[..., None] for array in block))
    return jax.tree.map(jnp.add, sums, new), found

  # Zeros like the rows, so that under shard_map they vary over the devices as the rows do.
  sums, _ = jax.eval_shape(function, *(array[0, ..., None] for array in split))
  sums = jax.tree.map(lambda sum_: jnp.zeros_like(rows[0], sum_.dtype), sums)
  sums, found = jax.lax.scan(step, sums, split)

  def join(array):
    return jnp.moveaxis(array, 0, -2).reshape(*batch, -1)[..., :num_rows]

  return sums, jax.tree.map(join, found)


def num_blocks(shape: Sequence[int]) -> int:
  """The number of blocks into which the rows of lists [..., N] are split, at least 1."""
  most = _TILE_ELEMENTS.get(jax.default_backend(), _TILE_ELEMENTS_ELSEWHERE)
  most_rows = max(1, most // max(1, int(np.prod(shape))))
  return max(1, -(-shape[-1] // most_rows))


def _split(array: jax.Array, blocks: int, fill: ArrayLike) -> jax.Array:
  """[..., N] -> [blocks, ..., rows], filled up at the end of the last block."""
  *batch, num_rows = array.shape
  rows = max(1, -(-num_rows // blocks))
  padding = [(0, 0)] * len(batch) + [(0, rows * blocks - num_rows)]
  array = jnp.pad(array, padding, constant_values=fill)
  return jnp.moveaxis(array.reshape(*batch, blocks, rows), -2, 0)
