"""Alignment of feature maps: where their cells lie in the picture, and resampling by that.

Places are in pixels along one axis of the picture: pixel n covers [n, n + 1], its centre is
n + 0.5. Everything is linear and separable, so a map is resampled by one matrix an axis.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def cell_centres(length: int, stride: int) -> np.ndarray:
  """Centres of the cells of a map that convolutions of stride 2 made, with TensorFlow's padding.

  On an even length such a convolution pads one pixel more behind than in front, so its first
  window is centred on the second pixel; on an odd length it is centred on the first. Over five
  halvings that adds up to half a cell: maps laid upon each other as if cells tiled the picture
  would be shifted by up to 12 pixels.

  Args:
    length: rows or columns of the picture.
    stride: of the map, a power of 2.

  Returns:
    [length / stride, rounded up] places.

  >>> cell_centres(32, 8)
  array([ 7.5, 15.5, 23.5, 31.5])
  """
  first, step = 0.5, 1
  while step < stride:
    if length % 2 == 0:
      first += step
    length = -(-length // 2)
    step *= 2
  return first + step * np.arange(length)


def tile_centres(length: int, size: int) -> np.ndarray:
  """Centres of the tiles of `size` pixels that cover a length; the last one may reach beyond it.

  >>> tile_centres(20, 8)
  array([ 4., 12., 20.])
  """
  return size * (np.arange(-(-length // size)) + 0.5)


def interpolation_matrix(centres: np.ndarray, places: np.ndarray) -> np.ndarray:
  """Linear interpolation, constant beyond the outermost centres.

  Args:
    centres: [n] places of the given values, evenly spaced.
    places: [m] places of the wanted values.

  Returns:
    [m, n] float32, rows sum to 1.

  >>> interpolation_matrix(np.array([1.0, 3.0]), np.array([0.0, 1.5]))
  array([[1.  , 0.  ],
         [0.75, 0.25]], dtype=float32)
  """
  step = centres[1] - centres[0] if len(centres) > 1 else 1.0
  cells = np.clip((places - centres[0]) / step, 0, len(centres) - 1)
  weights = np.maximum(1 - np.abs(cells[:, None] - np.arange(len(centres))), 0)
  return weights.astype(np.float32)


def blur_matrix(length: int, sigma: jax.Array | float) -> jax.Array:
  """Gaussian blur of `length` cells whose weights are normalised anew near the ends.

  So a constant stays constant, and nothing from beyond the ends is made up.

  Args:
    length: number of cells.
    sigma: in cells, > 0; gradients pass through it.

  Returns:
    [length, length] float32, rows sum to 1.
  """
  cells = np.arange(length, dtype=np.float32)
  return jax.nn.softmax(-0.5 * ((cells[:, None] - cells) / sigma) ** 2, axis=-1)


def apply_along_axes(rows: ArrayLike, columns: ArrayLike, maps: jax.Array) -> jax.Array:
  """Applies a matrix along each axis: `[m, h]`, `[n, w]`, `[B, h, w, ...]` -> `[B, m, n, ...]`."""
  return jnp.einsum("mh,nw,bhw...->bmn...", rows, columns, maps)
