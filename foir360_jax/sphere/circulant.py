"""Sparse matrices that commute with shifts in longitude, for sampling along rows.

Sits below `taps` and the convolutions. Operands are [B, R, W, L, C]: rows R, columns W, and L lanes
that stand for whatever else tells sources in a pixel apart (taps of a kernel, the columns under a
stride). The transpose of such a matrix is its list of entries with the sides swapped and the shifts
negated, so products with it and their gradients are both gathers with static tables.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Band(NamedTuple):
  """Rows of a product that need about equally many terms: [Q, r, L'] tables of its Q-th terms.

  Attributes:
    rows: [r] rows of the result.
    counts: [L'] how many terms each lane needs; the others have weight 0.
    start: the first element of the source row and lane, among the operand's R * W * L.
    shift: columns eastward, in [0, W).
    weight: float64.
  """

  rows: np.ndarray
  counts: np.ndarray
  start: np.ndarray
  shift: np.ndarray
  weight: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class CirculantMatrix:
  """A sparse matrix that commutes with shifts in longitude: [B, R, W, L, C] -> [B, R', W, L', C].

  Sites are row * lanes + lane. Entry e adds weight[e] * x[source[e], (c + shift[e]) mod W] to
  destination[e] at every column c.
  """

  destination: np.ndarray  # [E] sites of the result
  source: np.ndarray  # [E] sites of the operand
  shift: np.ndarray  # [E] columns eastward
  weight: np.ndarray  # [E]
  columns: int  # W
  out_shape: tuple[int, int]  # R', L'
  in_shape: tuple[int, int]  # R, L

  @functools.cached_property
  def transpose(self) -> "CirculantMatrix":
    """The matrix of the gradient."""
    return dataclasses.replace(
      self,
      destination=self.source,
      source=self.destination,
      shift=-self.shift,
      out_shape=self.in_shape,
      in_shape=self.out_shape,
    )

  @functools.cached_property
  def bands(self) -> list[Band]:
    """All rows: one band, or two where the rows around the poles need more terms than others."""
    rows = self.out_shape[0]
    everything = np.arange(rows)
    unusual = np.flatnonzero((self._counts > self._usual_counts).any(axis=1))
    cap_rows = np.minimum(unusual, rows - 1 - unusual).max(initial=-1) + 1
    cap_rows = -(-cap_rows // 4) * 4  # so that the other rows still divide into blocks
    if not cap_rows or 4 * cap_rows > rows:
      return [self._band(everything)]
    in_caps = (everything < cap_rows) | (everything >= rows - cap_rows)
    return [self._band(everything[~in_caps]), self._band(everything[in_caps])]

  @functools.cached_property
  def lane_halves(self) -> list[list[np.ndarray]]:
    """The lanes in two halves (one if there is one lane), and each half in groups.

    Lanes of a group need equally many terms on most rows and are gathered together. A half has at
    least two groups where it has two lanes: XLA's CPU backend computes a block made of one piece
    element by element instead of channels at a time, which takes ten times as long.
    """
    usual = self._usual_counts
    lanes = np.argsort(usual, kind="stable")
    halves = [half for half in np.array_split(lanes, 2) if len(half)]
    return [self._group(half, usual[half]) for half in halves]

  @staticmethod
  def _group(lanes: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    groups = [lanes[counts == count] for count in np.unique(counts)]
    return np.array_split(lanes, 2) if len(groups) == 1 < len(lanes) else groups

  @functools.cached_property
  def _counts(self) -> np.ndarray:
    """Entries of each row and lane of the result, [R', L']."""
    sites = self.out_shape[0] * self.out_shape[1]
    return np.bincount(self.destination, minlength=sites).reshape(self.out_shape)

  @property
  def _usual_counts(self) -> np.ndarray:
    """Entries of each lane far from the poles, [L']."""
    rows = self.out_shape[0]
    return self._counts[rows // 4 : rows - rows // 4].max(axis=0)

  def _band(self, rows: np.ndarray) -> Band:
    lanes, all_counts = self.in_shape[1], self._counts
    order = np.argsort(self.destination, kind="stable")
    first = (np.cumsum(all_counts) - all_counts.ravel()).reshape(all_counts.shape)[rows]
    term = np.arange(all_counts[rows].max())[:, None, None]
    exists = term < all_counts[rows]
    entry = order[np.where(exists, first + term, 0)]
    source = self.source[entry]
    return Band(
      rows=rows,
      counts=all_counts[rows].max(axis=0),
      start=(source // lanes * self.columns * lanes + source % lanes).astype(np.int32),
      shift=(self.shift[entry] % self.columns).astype(np.int32),
      weight=np.where(exists, self.weight[entry], 0.0),
    )


def scan_rows(
  function: Callable[..., tuple[Any, jax.Array]],
  matrix: CirculantMatrix,
  x: jax.Array,
  *others: jax.Array,
  lane_groups: Sequence[np.ndarray],
) -> tuple[Any, jax.Array]:
  """Applies `function` to the product of matrix and x, a block of rows at a time.

  The loop is what makes this fast on a CPU. Its blocks stay in the cache, and it keeps the compiler
  from fusing whatever computes x into the gathers, which would compute every element of x again for
  each tap that reads it (the barrier does the same on a GPU).

  Args:
    function: `function(parts, *others) -> (terms, rows [B, r, ...])`. The parts are the product's
      lanes, group by group, [B, r, W, lanes of the group, C] in at least float32; the others are
      cut to the block's rows.
    matrix: from R to R' rows.
    x: [B, R, W, L, C].
    *others: [B, R', ...].
    lane_groups: the lanes of each part.

  Returns:
    The sum of the terms (a pytree) over all blocks, and the rows joined, [B, R', ...].
  """
  batch_size, _, columns, lanes, channels = x.shape
  elements = jax.lax.optimization_barrier(x).reshape(batch_size, -1, channels)
  dtype = jnp.promote_types(x.dtype, jnp.float32)

  def gather(start: jax.Array, shift: jax.Array, weight: jax.Array) -> jax.Array:
    # Indices are computed on the spot: as constants they would outweigh the program.
    column = jax.lax.iota(jnp.int32, columns)[:, None]
    shifted = jax.lax.rem(column + shift[:, None], jnp.int32(columns))
    picked = jnp.take(elements, start[:, None] + shifted * lanes, axis=1, mode="clip")
    return picked.astype(dtype) * weight.astype(dtype)[:, None, :, None]

  @jax.jit  # so that it is traced once a band, though its result's shape is asked for first
  def apply(block):
    first_row, tables = block
    parts = [functools.reduce(jnp.add, (gather(*term) for term in group)) for group in tables]
    num_rows = parts[0].shape[1]
    cut = [jax.lax.dynamic_slice_in_dim(y, first_row, num_rows, axis=1) for y in others]
    return function(parts, *cut)

  def step(carry, block):
    total, joined = carry
    terms, rows = apply(block)
    # In place: stacked blocks would have to be transposed afterwards.
    joined = jax.lax.dynamic_update_slice_in_dim(joined, rows, block[0], axis=1)
    return (jax.tree.map(jnp.add, total, terms), joined), None

  carry = None
  for band in matrix.bands:
    row_bytes = batch_size * columns * matrix.out_shape[1] * channels * dtype.itemsize
    blocks = _cut(band, lane_groups, _num_blocks(len(band.rows), row_bytes))
    if carry is None:
      terms, rows = jax.eval_shape(apply, jax.tree.map(lambda table: table[0], blocks))
      shape = (batch_size, matrix.out_shape[0], *rows.shape[2:])
      # zeros_like: under shard_map they vary over the same axes as what is added to them.
      carry = jax.tree.map(jnp.zeros_like, terms), jnp.zeros_like(rows, shape=shape)
    carry, _ = jax.lax.scan(step, carry, blocks)
  assert carry is not None  # there is a band
  return carry


def _cut(band: Band, groups: Sequence[np.ndarray], num_blocks: int):
  """First rows, [blocks], and the terms of each group: start, shift, weight [blocks, r, lanes]."""
  tables = [
    [
      tuple(
        table[term][:, group].reshape(num_blocks, -1, len(group))
        for table in (band.start, band.shift, band.weight)
      )
      for term in range(band.counts[group].max())
    ]
    for group in groups
  ]
  return band.rows.reshape(num_blocks, -1)[:, 0].astype(np.int32), tables


def _num_blocks(rows: int, row_bytes: int) -> int:
  """The least number of blocks that are small enough; at least two, or there would be no loop."""
  limit = 2**22 if jax.default_backend() == "cpu" else 2**28  # a CPU's cache; a GPU's memory
  divisors = [n for n in range(2, rows + 1) if rows % n == 0]
  return next((n for n in divisors if rows // n * row_bytes <= limit), rows)
