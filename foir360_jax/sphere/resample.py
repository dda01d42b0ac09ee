"""Resampling of panoramas [..., H, W, C], W = 2 H: at points, and to other sizes.

Longitude wraps. A row beyond a pole lies on the far side of it: row -1 is row 0, half a turn on.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from foir360_jax.sphere import grid

Method = Literal["bilinear", "nearest"]


def sample(
  panorama: ArrayLike, row: ArrayLike, column: ArrayLike, *, method: Method = "bilinear"
) -> jax.Array:
  """Reads a panorama at fractional pixel coordinates; pixel (r, c) has its centre at (r, c).

  Args:
    panorama: [..., H, 2 H, C].
    row: [*S] in [-H, 2 H); rows outside [0, H - 1] lie beyond a pole.
    column: [*S], any value; `row` and `column` broadcast.
    method: "bilinear", or "nearest" for labels and masks.

  Returns:
    [..., *S, C]; "nearest" keeps the type, "bilinear" makes integers float32.

  Raises:
    ValueError: the panorama is not 2:1 or the method is unknown.

  >>> columns = jnp.broadcast_to(jnp.arange(4.0)[:, None], (2, 4, 1))
  >>> sample(columns, 0.0, 3.5)  # between the last column and the first
  Array([1.5], dtype=float32)
  """
  panorama_height(panorama)
  panorama = jnp.asarray(panorama)
  xp = grid.array_module(row, column)  # coordinates known beforehand are worked out beforehand
  row, column = xp.broadcast_arrays(xp.asarray(row), xp.asarray(column))
  if method == "nearest":
    return _pick(panorama, xp.floor(row + 0.5), xp.floor(column + 0.5))
  if method != "bilinear":
    raise ValueError(f"method must be 'bilinear' or 'nearest', not {method!r}")
  panorama = _as_float(panorama)
  north, west = xp.floor(row), xp.floor(column)
  south_weight = jnp.asarray(row - north, panorama.dtype)[..., None]
  east_weight = jnp.asarray(column - west, panorama.dtype)[..., None]

  def along_row(row):
    pixels = _pick(panorama, row, west), _pick(panorama, row, west + 1)
    return (1 - east_weight) * pixels[0] + east_weight * pixels[1]

  return (1 - south_weight) * along_row(north) + south_weight * along_row(north + 1)


def resize_panorama(panorama: ArrayLike, height: int) -> jax.Array:
  """Resamples a panorama to `height` x 2 `height` pixels.

  A smaller panorama is the mean over the area of the picture that each new pixel covers (all rows
  count alike, as in planar pooling); any factor will do. A larger one is bilinear. Both are two
  small constant matrices, one for rows and one for columns, so gradients are matrix products too.

  Args:
    panorama: [..., H, 2 H, C].
    height: rows of the result.

  Returns:
    [..., height, 2 * height, C]; integers become float32.

  Raises:
    ValueError: the panorama is not 2:1 or `height` is not positive.

  >>> resize_panorama(jnp.arange(8.0).reshape(2, 4, 1), 1)[..., 0]
  Array([[2.5, 4.5]], dtype=float32)
  """
  old_height = panorama_height(panorama)
  if height < 1:
    raise ValueError(f"resize_panorama needs a height of at least 1 row, not {height}")
  panorama = _as_float(jnp.asarray(panorama))
  if height == old_height:
    return panorama
  rows, columns = resize_matrices(old_height, height)
  if height > old_height:
    panorama = jnp.concatenate(
      [
        jnp.roll(panorama[..., :1, :, :], old_height, axis=-2),
        panorama,
        jnp.roll(panorama[..., -1:, :, :], old_height, axis=-2),
      ],
      axis=-3,
    )
  product = functools.partial(jnp.einsum, precision="highest")
  narrow = product("wv,...rvc->...rwc", jnp.asarray(columns, panorama.dtype), panorama)
  return product("hr,...rwc->...hwc", jnp.asarray(rows, panorama.dtype), narrow)


def resize_matrices(old_height: int, height: int) -> tuple[np.ndarray, np.ndarray]:
  """The weights of `resize_panorama`, 0 or more: each row of a matrix is a new row or column.

  Args:
    old_height: h, rows of the panorama.
    height: H, rows of the result; not h.

  Returns:
    rows `[H, h]`, or `[H, h + 2]` where it grows: of the panorama with one more row beyond each
    pole; columns `[2 H, 2 h]`, which wrap.
  """
  if height < old_height:
    return _mean_matrix(old_height, height), _mean_matrix(2 * old_height, 2 * height)
  columns = _linear_matrix(2 * old_height, 2 * height)
  columns[:, -2] += columns[:, 0]  # the column before the first is the last
  columns[:, 1] += columns[:, -1]
  return _linear_matrix(old_height, height), columns[:, 1:-1]


def panorama_height(panorama: ArrayLike) -> int:
  """Returns H of a panorama [..., H, 2 H, C]; raises ValueError for any other shape."""
  shape = np.shape(panorama)
  if len(shape) < 3 or shape[-2] != 2 * shape[-3] or shape[-3] == 0:
    lacks_channels = len(shape) >= 2 and shape[-1] == 2 * shape[-2] > 0
    cure = "add the channels, x[..., None]" if lacks_channels else "resize it to 2:1, channels last"
    raise ValueError(f"a panorama is [..., H, 2 H, C], not {shape}: {cure}")
  return shape[-3]


def _as_float(panorama: jax.Array) -> jax.Array:
  floating = jnp.issubdtype(panorama.dtype, jnp.floating)
  return panorama if floating else panorama.astype(jnp.float32)


def _pick(panorama: jax.Array, row, column) -> jax.Array:
  """The pixels [..., *S, C] at whole coordinates [*S], with wrap and pole crossing."""
  *leading, height, width, channels = panorama.shape
  xp = grid.array_module(row, column)
  row, column = row.astype(np.int32), column.astype(np.int32)
  beyond_pole = (row < 0) | (row >= height)
  row = xp.where(row < 0, -1 - row, xp.where(row >= height, 2 * height - 1 - row, row))
  column = (column + xp.where(beyond_pole, height, 0)) % width
  pixels = panorama.reshape(*leading, height * width, channels)
  return jnp.take(pixels, row * width + column, axis=-2, mode="clip")


def _mean_matrix(size: int, new_size: int) -> np.ndarray:
  """[new_size, size]: the mean over the interval that each new pixel covers, whole or in parts."""
  scale = size / new_size
  start = np.arange(new_size)[:, None] * scale
  pixel = np.arange(size)
  overlap = np.minimum(start + scale, pixel + 1) - np.maximum(start, pixel)
  return np.maximum(overlap, 0) / scale


def _linear_matrix(size: int, new_size: int) -> np.ndarray:
  """[new_size, size + 2]: linear interpolation between pixels -1, 0, ... size."""
  position = (np.arange(new_size)[:, None] + 0.5) * size / new_size - 0.5
  return np.maximum(0, 1 - abs(position - np.arange(-1, size + 1)))
