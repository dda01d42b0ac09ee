"""Step 2 of the weak labels: erases an object from a view and fills in what it hid.

Axes: pictures [h, w, 3], holes [h, w] bool, row 0 at the top; `jax.vmap` for several views. Nothing
wraps: a view of the whole panorama carries its neighbours across the seam in its margins. A fill
changes pixels of the hole alone, all others stay bit for bit. Nothing known to fill from, and the
hole is mean grey.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.batch import Array

Fill = Callable[[Array, jax.Array], jax.Array]
"""(picture [h, w, 3], hole [h, w] bool) -> picture [h, w, 3] float32."""

GREY = 127.5
_RING_PX = 8  # width of the ring whose mean colour `mean` takes
_SWEEPS = 8  # Jacobi iterations of `harmonic` at each level of the pyramid
_SLOWEST = 0.1  # the least eigenvalue of 1 - (mean of the neighbours) that they are tuned for


def grow(hole: Array, pixels: int) -> jax.Array:
  """Widens a hole [..., h, w] by `pixels` in each direction, diagonals included.

  >>> grow(jnp.array([[False, False, True, False]]), 1)[0].tolist()
  [False, True, True, True]
  """
  hole = jnp.asarray(hole, bool)
  if pixels < 0:
    raise ValueError(f"a hole grows by 0 pixels or more, not {pixels}")

  def grow_by_one(_, hole):  # a loop, because XLA would join the steps and do all of them anew
    for axis in (hole.ndim - 2, hole.ndim - 1):
      hole |= _shift(hole, 1, axis) | _shift(hole, -1, axis)
    return hole

  return jax.lax.fori_loop(0, pixels, grow_by_one, hole)


def erase(image: Array, gone: Array, kept: Array, *, fill: Fill, grow_px: int) -> jax.Array:
  """Takes objects out of a picture.

  Args:
    image: [h, w, 3] in [0, 255].
    gone: [h, w] bool, pixels of the objects to take out.
    kept: [h, w] bool, pixels of other objects: never part of the hole.
    fill: one of `FILLS`.
    grow_px: how far the hole reaches beyond the objects, for soft edges and shadows.

  Returns:
    [h, w, 3] float32.
  """
  return fill(image, grow(gone, grow_px) & ~jnp.asarray(kept, bool))


def fill_pull_push(image: Array, hole: jax.Array) -> jax.Array:
  """Fills each part of the hole with means over areas that grow with the distance to its edge.

  Pull: a pyramid of 2 x 2 means, weighted by the share of each pixel that is known; a coarse pixel
  is known as soon as one of its four is. Push: from the top down, unknown pixels are interpolated
  (bilinearly) from the level above. Source: Gortler et al., The lumigraph, SIGGRAPH 1996; known
  pixels are not blended with the level above.

  Args:
    image: [h, w, 3].
    hole: [h, w] bool.
  """
  image = jnp.asarray(image, jnp.float32)
  return _into_hole(image, hole, _push(_pull(image, hole), relax=False))


def fill_harmonic(image: Array, hole: jax.Array) -> jax.Array:
  """Fills the hole with a smooth membrane fixed at its edge: the solution of Laplace's equation.

  Each pixel of the hole is the mean of its neighbours in the picture. Solved coarse to fine: on
  every level of the pyramid of `fill_pull_push`, eight Jacobi iterations (with Chebyshev's steps)
  start from the level above. Off by 0.2 to 2 percent of the picture's contrast (root mean square),
  more in wide holes than in narrow ones.

  Args:
    image: [h, w, 3].
    hole: [h, w] bool.
  """
  image = jnp.asarray(image, jnp.float32)
  return _into_hole(image, hole, _push(_pull(image, hole), relax=True))


def fill_mean(image: Array, hole: jax.Array) -> jax.Array:
  """Fills the hole with one colour: the mean of the pixels within 8 px of it.

  Args:
    image: [h, w, 3].
    hole: [h, w] bool.
  """
  image, hole = jnp.asarray(image, jnp.float32), jnp.asarray(hole, bool)
  ring = (grow(hole, _RING_PX) & ~hole)[..., None]
  count = ring.sum((0, 1))
  mean = jnp.where(ring, image, 0.0).sum((0, 1)) / jnp.maximum(count, 1)
  return _into_hole(image, hole, jnp.where(count > 0, mean, GREY))


FILLS: dict[str, Fill] = {
  "pull_push": fill_pull_push,
  "harmonic": fill_harmonic,
  "mean": fill_mean,
}


class _Level(NamedTuple):
  """A picture of the pyramid, channels first."""

  values: jax.Array  # [3, h, w]; GREY where unknown
  weight: jax.Array  # [h, w], share of its pixels that are known


def _pull(image: jax.Array, hole: jax.Array) -> list[_Level]:
  """The pyramid, finest first; the last has one pixel."""
  weight = 1.0 - jnp.asarray(hole, jnp.float32)
  levels = [_Level(jnp.where(weight > 0, jnp.moveaxis(image, -1, 0), GREY), weight)]
  while max(levels[-1].weight.shape) > 1:
    values, weight = levels[-1]
    total = _halve(weight * values)
    weight = _halve(weight)
    mean = total / jnp.where(weight > 0, weight, 1.0)
    levels.append(_Level(jnp.where(weight > 0, mean, GREY), weight / 4))
  return levels


def _push(levels: list[_Level], relax: bool) -> jax.Array:
  """The finest picture [h, w, 3] with its unknown pixels filled in."""
  filled = levels[-1].values
  for values, weight in reversed(levels[:-1]):
    height, width = weight.shape
    filled = _double(filled)[:, :height, :width]
    filled = jnp.where(weight > 0, values, filled)
    if relax:
      filled = _relax(filled, weight == 0)
  return jnp.moveaxis(filled, 0, -1)


def _relax(values: jax.Array, unknown: jax.Array) -> jax.Array:
  """Moves unknown pixels towards the mean of their neighbours, with Chebyshev's step lengths."""

  def sweep(values, length):
    padded = jnp.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")  # no flow through the border
    across = padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    mean = (padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + across) / 4
    return jnp.where(unknown, values + length * (mean - values), values), None

  return jax.lax.scan(sweep, values, _chebyshev_lengths(_SWEEPS, _SLOWEST))[0]


def _chebyshev_lengths(count: int, slowest: float) -> np.ndarray:
  """Steps that damp all errors of eigenvalues `slowest` ... 2 at once as far as `count` can."""
  angles = (np.arange(count) + 0.5) * np.pi / count
  lengths = 1 / ((2 + slowest) / 2 - (2 - slowest) / 2 * np.cos(angles))
  order = np.argsort(abs(np.arange(count) - (count - 1) / 2), kind="stable")
  return lengths[order].astype(np.float32)


def _halve(array: jax.Array) -> jax.Array:
  """Sums of 2 x 2 pixels of [..., h, w]; beyond an odd edge is 0."""
  around = [(0, 0)] * (array.ndim - 2) + [(0, size % 2) for size in array.shape[-2:]]
  window = (1,) * (array.ndim - 2) + (2, 2)
  return jax.lax.reduce_window(array, 0.0, jax.lax.add, window, window, around)


def _double(array: jax.Array) -> jax.Array:
  """Twice as many pixels [..., h, w] each way, interpolated linearly between centres."""
  *leading, height, width = array.shape
  position = np.clip((np.arange(2 * width) + 0.5) / 2 - 0.5, 0, width - 1)
  weights = np.maximum(0, 1 - abs(position - np.arange(width)[:, None]))
  # A product, because XLA's CPU backend would fuse slices of all levels and do them many times.
  array = jnp.matmul(array, weights.astype(np.float32), precision="highest")
  north = jnp.concatenate([array[..., :1, :], array[..., :-1, :]], axis=-2)
  south = jnp.concatenate([array[..., 1:, :], array[..., -1:, :]], axis=-2)
  both = jnp.stack([0.75 * array + 0.25 * north, 0.75 * array + 0.25 * south], axis=-2)
  return both.reshape(*leading, 2 * height, 2 * width)


def _shift(hole: jax.Array, by: int, axis: int) -> jax.Array:
  """The hole moved by 1 or -1 pixels along an axis; nothing comes in from outside."""
  padding = [(0, 0, 0)] * hole.ndim
  padding[axis] = (by, -by, 0)
  return jax.lax.pad(hole, jnp.zeros((), hole.dtype), padding)


def _into_hole(image: jax.Array, hole: jax.Array, filled: jax.Array) -> jax.Array:
  return jnp.where(jnp.asarray(hole, bool)[..., None], filled, image)
