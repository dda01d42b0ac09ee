"""Sparse matrices that commute with shifts in longitude: what sampling along rows of the sphere is.

Sits below `convolution`. Operands are [B, R, W, L, C]: rows R, columns W, and L lanes that stand
for whatever else tells sources in a pixel apart (taps of a kernel, the columns under a stride). The
transpose of such a matrix is its list of entries with the sides swapped and the shifts negated, so
products with it and their gradients are both gathers with static tables.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: it is a static argument
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
  def gathers(self) -> list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """For each result lane its terms: first source element, shift and weight of each row, [R'].

    A row with fewer entries than the longest has terms of weight 0.
    """
    sites, lanes = self.out_shape[0] * self.out_shape[1], self.in_shape[1]
    counts = np.bincount(self.destination, minlength=sites)
    order = np.argsort(self.destination, kind="stable")
    site = self.destination[order]
    term = np.arange(len(order)) - (np.cumsum(counts) - counts)[site]

    def fill(values: np.ndarray, dtype) -> np.ndarray:
      filled = np.zeros((counts.max(), sites), dtype)
      filled[term, site] = values[order]
      return filled.reshape(-1, *self.out_shape)

    start = fill(self.source // lanes * self.columns * lanes + self.source % lanes, np.int32)
    shift = fill(self.shift % self.columns, np.int32)
    weight = fill(self.weight, np.float32)
    return [
      [
        (start[i, :, lane], shift[i, :, lane], weight[i, :, lane])
        for i in np.flatnonzero(weight[:, :, lane].any(axis=1))
      ]
      for lane in range(self.out_shape[1])
    ]


def map_rows(function, matrix: CirculantMatrix, x: jax.Array, *others: jax.Array):
  """Applies `function` to the product of matrix and x, a block of rows at a time.

  The loop is what makes this fast on a CPU. Its blocks stay in the cache, and it keeps the compiler
  from fusing whatever computes x into the gathers, which would compute every element of x again for
  each tap that reads it (the barrier does the same on a GPU).

  Args:
    function: takes a block [B, r, W, L', C] of the product, and of each of `others`.
    matrix: from R to R' rows.
    x: [B, R, W, L, C].
    *others: [B, R', ...].

  Returns:
    What `function` returned, stacked along a new first axis; see `join_blocks`.
  """
  batch_size, _, columns, lanes, channels = x.shape
  rows, out_lanes = matrix.out_shape
  num_blocks = _num_blocks(rows, batch_size * columns * out_lanes * channels * x.dtype.itemsize)
  elements = jax.lax.optimization_barrier(x).reshape(batch_size, -1, channels)

  def term(start: jax.Array, shift: jax.Array, weight: jax.Array) -> jax.Array:
    # Indices are computed on the spot: as constants they would outweigh the program.
    shifted = jax.lax.rem(jax.lax.iota(jnp.int32, columns) + shift[:, None], jnp.int32(columns))
    picked = jnp.take(elements, start[:, None] + shifted * lanes, axis=1, mode="clip")
    return picked * weight.astype(x.dtype)[:, None, None]

  def block(gathers_and_others):
    gathers, others = gathers_and_others
    product = jnp.stack([sum(term(*t) for t in terms) for terms in gathers], axis=3)
    return function(product, *others)

  gathers = jax.tree.map(lambda table: table.reshape(num_blocks, -1), matrix.gathers)
  others = [jnp.moveaxis(y.reshape(batch_size, num_blocks, -1, *y.shape[2:]), 1, 0) for y in others]
  return jax.lax.map(block, (gathers, others))


def _num_blocks(rows: int, row_bytes: int) -> int:
  """The least number of blocks that are small enough; at least two, or there would be no loop."""
  limit = 2**22 if jax.default_backend() == "cpu" else 2**28  # a CPU's cache; a GPU's memory
  divisors = [n for n in range(2, rows + 1) if rows % n == 0]
  return next((n for n in divisors if rows // n * row_bytes <= limit), rows)


def join_blocks(blocks: jax.Array) -> jax.Array:
  """[blocks, B, r, ...] -> [B, blocks * r, ...]."""
  num_blocks, batch_size, rows, *rest = blocks.shape
  return jnp.moveaxis(blocks, 0, 1).reshape(batch_size, num_blocks * rows, *rest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def multiply(matrix: CirculantMatrix, x: jax.Array) -> jax.Array:
  """The product [B, R', W, L', C] of a matrix with x [B, R, W, L, C]."""
  return join_blocks(map_rows(lambda product: product, matrix, x))


multiply.defvjp(
  lambda matrix, x: (multiply(matrix, x), None),
  lambda matrix, _, cotangent: (multiply(matrix.transpose, cotangent),),
)
