"""The equirectangular pixel grid: directions and solid angles of pixels.

Everything else in this package builds on these conventions. A panorama has H rows and W = 2 H
columns; row 0 is north-most, column 0 starts at longitude -pi and columns grow to the east. Pixel
(row r, column c) has its centre at (r + 0.5, c + 0.5) pixel pitches from the top left corner; as a
coordinate the centre of row r is simply r. Directions are unit vectors [..., 3]: x = cos(lat)
cos(lon), y = cos(lat) sin(lon), z = sin(lat).

NumPy arrays in, NumPy arrays out; JAX arrays in, JAX arrays out.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np


def array_module(*values) -> types.ModuleType:
  """Returns jax.numpy if any value is a JAX array (or traced), else numpy."""
  return jnp if any(isinstance(value, jax.Array) for value in values) else np


@functools.lru_cache(maxsize=8)  # a large panorama's tables are hundreds of megabytes
def pixel_directions(height: int) -> np.ndarray:
  """Returns the direction of each pixel's centre, [H, 2 H, 3] float32, read-only.

  >>> north_west, *_ = pixel_directions(2)[0]
  >>> [round(float(v), 3) for v in north_west]
  [-0.5, -0.5, 0.707]
  """
  _check_height(height)
  pixel_rad = np.pi / height
  lat_rad = np.pi / 2 - (np.arange(height)[:, None] + 0.5) * pixel_rad
  lon_rad = (np.arange(2 * height) + 0.5) * pixel_rad - np.pi
  return _frozen(directions_from_angles(lon_rad, lat_rad))


@functools.lru_cache(maxsize=8)  # a large panorama's tables are hundreds of megabytes
def pixel_areas(height: int) -> np.ndarray:
  """Returns each pixel's solid angle in steradians, [H, 2 H] float32, read-only; sums to 4 pi.

  A pixel between the parallels a and b covers (sin a - sin b) 2 pi / W.
  """
  _check_height(height)
  edges = np.cos(np.arange(height + 1) * np.pi / height)  # sine of the latitude of the rows' edges
  areas = (edges[:-1] - edges[1:]) * np.pi / height
  return _frozen(np.broadcast_to(areas[:, None], (height, 2 * height)))


def directions_from_angles(lon_rad, lat_rad):
  """Returns unit vectors [..., 3] of longitudes and latitudes, which broadcast."""
  xp = array_module(lon_rad, lat_rad)
  lon_rad, lat_rad = xp.broadcast_arrays(xp.asarray(lon_rad), xp.asarray(lat_rad))
  cos_lat = xp.cos(lat_rad)
  return xp.stack([cos_lat * xp.cos(lon_rad), cos_lat * xp.sin(lon_rad), xp.sin(lat_rad)], axis=-1)


def angles_from_directions(directions):
  """Returns (longitude in [-pi, pi), latitude) in radians of vectors [..., 3] of any length > 0.

  >>> lon_rad, lat_rad = angles_from_directions(np.array([-2.0, 0.0, 0.0]))
  >>> round(float(lon_rad), 4), round(float(lat_rad), 4)
  (-3.1416, 0.0)
  """
  xp = array_module(directions)
  x, y, z = (directions[..., axis] for axis in range(3))
  lon_rad = xp.arctan2(y, x)
  lon_rad = xp.where(lon_rad >= np.pi, -lon_rad, lon_rad)
  return lon_rad, xp.arctan2(z, xp.hypot(x, y))


def mean_direction(total, weight):
  """Returns the unit vectors [..., 3] of weighted sums of directions, of masks for example.

  What is left where directions cancel is rounding, and points anywhere. So a sum shorter than 1e-4
  of its weight (of nothing, of the whole sphere, of a ring around the horizon) has no direction and
  counts as straight ahead, (1, 0, 0); and one whose horizontal part is that short (of a cap around
  a pole) points exactly to the pole, at longitude 0.

  Args:
    total: [..., 3], the sums.
    weight: [...], the sums of the weights, which are not negative.

  >>> mean_direction(np.array([[3.0, 0.0, 4.0], [1e-9, 0.0, -2.0], [1e-9, 0.0, 0.0]]), np.ones(3))
  array([[ 0.6,  0. ,  0.8],
         [ 0. ,  0. , -1. ],
         [ 1. ,  0. ,  0. ]])
  """
  xp = array_module(total, weight)
  x, y, z = (total[..., axis] for axis in range(3))
  least = 1e-4 * weight
  is_pole = xp.hypot(x, y) <= least
  x, y = xp.where(is_pole, 0.0, x), xp.where(is_pole, 0.0, y)
  vanishes = is_pole & (abs(z) <= least)
  x, z = xp.where(vanishes, 1.0, x), xp.where(vanishes, 0.0, z)
  return xp.stack([x, y, z], axis=-1) / xp.sqrt(x**2 + y**2 + z**2)[..., None]


def pixels_from_directions(directions, height: int):
  """Returns fractional (row, column) of vectors [..., 3]; pixel (r, c) has its centre at (r, c).

  Rows lie in [-0.5, H - 0.5], columns in [-0.5, 2 H - 0.5).
  """
  _check_height(height)
  lon_rad, lat_rad = angles_from_directions(directions)
  pixels_per_rad = height / np.pi
  return (np.pi / 2 - lat_rad) * pixels_per_rad - 0.5, (lon_rad + np.pi) * pixels_per_rad - 0.5


def _check_height(height: int) -> None:
  if height < 1:
    raise ValueError(f"a panorama needs a height of at least 1 row, not {height}")


def _frozen(table: np.ndarray) -> np.ndarray:
  """The table in float32; read-only, because every caller gets the same cached array."""
  table = np.array(table, np.float32)
  table.setflags(write=False)
  return table
