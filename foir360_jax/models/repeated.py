"""Blocks in sequence: equal ones in a scan, with rematerialisation in the backward pass.

Sits below the encoders. A loop makes a program smaller. Its parameters are stacked within the
program, so that the model, its checkpoints and its imports know nothing of it. Whether it pays
depends on the blocks: on a CPU, those of `sphere_small` compile a tenth faster and run as before;
planar convolutions and attention run more slowly in a loop and do not even compile faster.

Outside a loop, XLA for CPUs merges what is to be computed again with the first time and so undoes
most of it: there the argument `remat` costs time and saves nothing. It is for GPUs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

_PERIODS = (1, 2)  # numbers of blocks that a turn of the loop may have


class _Block(NamedTuple):
  """A block taken apart; `more` are its further arguments, none or one."""

  graphdef: nnx.GraphDef
  state: nnx.State
  more: tuple[Any, ...]

  def is_like(self, other: "_Block") -> bool:
    """Whether the two differ in nothing but the values of their arrays."""
    return self.graphdef == other.graphdef and _types(self[1:]) == _types(other[1:])


def apply_blocks(
  blocks: Sequence[nnx.Module],
  x: jax.Array,
  inputs: Sequence[Any] | None = None,
  *,
  remat: bool,
  scan: bool = False,
) -> jax.Array:
  """Applies blocks in their order: `block(x)`, or `block(x, input)` with one of `inputs` for each.

  Results and gradients are those of the plain loop, to rounding.

  Args:
    blocks: must not change their own variables.
    x: what the first block takes.
    inputs: a pytree of arrays for each block.
    remat: the backward pass keeps nothing of a block but what went in, and computes the rest again.
    scan: consecutive blocks that are alike, or pairs of blocks that are, become one `jax.lax.scan`
      if they keep the shape and type of x.

  Raises:
    ValueError: there are not as many inputs as blocks.
  """
  inputs = [()] * len(blocks) if inputs is None else [(each,) for each in inputs]
  parts = [_Block(*nnx.split(block), more) for block, more in zip(blocks, inputs, strict=True)]
  start = 0
  while start < len(parts):
    period, count = _repetition(parts[start:]) if scan else (1, 1)
    run = parts[start : start + period * count]
    if count > 1 and _keeps_type(run[:period], x):
      x = _scan(run, period, x, remat)
    else:
      x = _loop(run, x, remat)
    start += len(run)
  return x


def _repetition(blocks: Sequence[_Block]) -> tuple[int, int]:
  """The period, and how often it repeats, that covers the most blocks from the first one on."""
  found = []
  for period in _PERIODS:
    last = period
    while last < len(blocks) and blocks[last].is_like(blocks[last - period]):
      last += 1
    found.append((period, last // period))
  repeated = [(period, count) for period, count in found if count > 1]
  return max(repeated, key=lambda run: run[0] * run[1], default=(1, 1))


def _scan(blocks: Sequence[_Block], period: int, x: jax.Array, remat: bool) -> jax.Array:
  turns = [[block[1:] for block in blocks[i::period]] for i in range(period)]
  stacked = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *turn) for turn in turns]

  def turn(x, arrays):
    each = zip(blocks[:period], arrays, strict=True)
    return _loop([_Block(block.graphdef, *of_turn) for block, of_turn in each], x, remat), None

  return jax.lax.scan(turn, x, stacked)[0]


def _loop(blocks: Sequence[_Block], x: jax.Array, remat: bool) -> jax.Array:
  for graphdef, state, more in blocks:

    def apply(state, x, *more, graphdef=graphdef):
      return nnx.merge(graphdef, state)(x, *more)

    x = (jax.checkpoint(apply) if remat else apply)(state, x, *more)
  return x


def _keeps_type(blocks: Sequence[_Block], x: jax.Array) -> bool:
  out = jax.eval_shape(lambda x: _loop(blocks, x, remat=False), x)
  return _types(out) == _types(x)


def _types(tree: Any) -> tuple[Any, ...]:
  leaves, structure = jax.tree.flatten(tree)
  return structure, *((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
