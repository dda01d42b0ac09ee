"""Padding of panoramas: around the seam and across the poles.

Takes NumPy and JAX arrays, returns the type that it gets. Axes: [..., H, W, C], W = 2 H.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Maps = TypeVar("Maps", np.ndarray, jax.Array)


def pad_longitude(x: Maps, size: int) -> Maps:
  """Pads `[..., W, C]` by `size` columns on each side: those beyond the seam.

  >>> pad_longitude(np.arange(4).reshape(1, 4, 1), 1)[0, :, 0].tolist()
  [3, 0, 1, 2, 3, 0]
  """
  margins = [(0, 0)] * (x.ndim - 2) + [(size, size), (0, 0)]
  return _namespace(x).pad(x, margins, mode="wrap")


def pad_sphere(x: Maps, size: int) -> Maps:
  """Pads `[..., H, W, C]` by `size` pixels on each side: across the poles, then around the seam.

  Beyond a pole lies its outermost row, half a turn on, then the row next to that one, and so on.

  Args:
    x: maps of full panoramas.
    size: pixels, at most H.

  >>> pad_sphere(np.arange(8).reshape(2, 4, 1), 1)[0, :, 0].tolist()
  [1, 2, 3, 0, 1, 2]
  """
  half_turn = x.shape[-2] // 2
  array = _namespace(x)
  north = array.roll(x[..., :size, :, :][..., ::-1, :, :], half_turn, axis=-2)
  south = array.roll(x[..., x.shape[-3] - size :, :, :][..., ::-1, :, :], half_turn, axis=-2)
  return pad_longitude(array.concatenate([north, x, south], axis=-3), size)


def _namespace(x):
  return np if isinstance(x, np.ndarray) else jnp
