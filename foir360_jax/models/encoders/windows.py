"""Attention windows on the sphere: plain, shifted across the seam, and pitched over the poles.

Axes: maps [B, H, W, C] with W = 2 H; windows [B, R, K, n, C], R rows of K windows of n = w x w
tokens each, row by row.

Source: Ling et al., PanoSwin, CVPR 2023. Where its public code slips, what the paper means is built
here: the half that is turned over keeps its columns (the code turns these over, too, and so pairs
longitudes up to 169 degrees wrong); and a window is pitched about the axis of its own meridian, not
about one axis for all, so that turning the panorama turns the result.
"""

import einops
import numpy as np

from foir360_jax.sphere import pixel_directions, pixels_from_directions
from foir360_jax.sphere.grid import array_module, directions_from_angles


def shift(x, size: int):
  """Moves windows across the seams: [B, H, W, C] -> [B, 2 H, W / 2, C].

  The panorama is rolled east by `size`; its eastern half is turned over and put on top of the
  western one, so that rows which meet at a pole are neighbours; then all is rolled down by `size`.
  Plain windows of this picture have real neighbours everywhere, so that nothing need be masked.
  """
  xp = array_module(x)
  west, east = xp.split(xp.roll(x, size, axis=2), 2, axis=2)
  return xp.roll(xp.concatenate([east[:, ::-1], west], axis=1), size, axis=1)


def unshift(x, size: int):
  """The inverse of `shift`."""
  xp = array_module(x)
  east, west = xp.split(xp.roll(x, -size, axis=1), 2, axis=1)
  return xp.roll(xp.concatenate([west, east[:, ::-1]], axis=2), -size, axis=2)


def partition(x, window: int):
  """[B, H, W, C] -> [B, R, K, n, C]; both lengths are multiples of `window`."""
  return einops.rearrange(x, "b (r i) (k j) c -> b r k (i j) c", i=window, j=window)


def merge(windows, window: int):
  """The inverse of `partition`."""
  return einops.rearrange(windows, "b r k (i j) c -> b (r i) (k j) c", i=window, j=window)


def fitting_window(height: int, window: int) -> int:
  """The largest size up to `window` that divides a map of `height` rows, by halving.

  >>> fitting_window(128, 8), fitting_window(4, 8), fitting_window(12, 8)
  (8, 4, 4)
  """
  while height % window:
    window //= 2
  return window


def token_directions(height: int, window: int, *, shifted: bool) -> np.ndarray:
  """Directions [R, n, 3] of the tokens of the first window of each row."""
  directions = pixel_directions(height)[None]
  if shifted:
    directions = shift(directions, window // 2)
  return partition(directions, window)[0, :, 0]


def pitched_directions(height: int, window: int) -> np.ndarray:
  """Directions [R, n, 3] of what the first window of each row sees when it is pitched.

  The window's centre is turned by 90 degrees along its meridian, towards the horizon where it was
  near a pole; a window of the grid about that place is turned back. So what the grid distorts most
  is seen undistorted, and the other way round.
  """
  pitch_rad = np.pi / height  # of the grid
  middle = (window - 1) / 2
  steps = (np.arange(window) - middle) * pitch_rad
  lon_rad = (middle + 0.5) * pitch_rad - np.pi
  centre_lat = np.pi / 2 - (np.arange(0, height, window) + middle + 0.5) * pitch_rad
  turn = np.where(centre_lat >= 0, -np.pi / 2, np.pi / 2)
  lat_rad = (centre_lat + turn)[:, None, None] - steps[:, None]
  directions = directions_from_angles(lon_rad + steps, lat_rad)
  # Back along the meridian at `lon_rad`: a rotation in the plane of that meridian and the axis.
  east = np.array([-np.sin(lon_rad), np.cos(lon_rad), 0.0])
  out = np.array([np.cos(lon_rad), np.sin(lon_rad), 0.0])
  x, y, z = directions @ out, directions @ east, directions[..., 2]
  cosine, sine = np.cos(-turn)[:, None, None], np.sin(-turn)[:, None, None]
  x, z = cosine * x - sine * z, sine * x + cosine * z
  turned = x[..., None] * out + y[..., None] * east
  turned[..., 2] += z
  return einops.rearrange(turned, "r i j c -> r (i j) c").astype(np.float32)


def window_positions(directions: np.ndarray, height: int, window: int):
  """Fractional rows [R, 1, n] and columns [R, K, n] at which all windows of a map see `directions`.

  Args:
    directions: [R, n, 3] of the first window of each row.
    height: rows of the map.
    window: columns from one window to the next.
  """
  row, column = pixels_from_directions(directions, height)
  starts = np.arange(0, 2 * height, window)[:, None]
  return row[:, None], column[:, None] + starts


def great_circle(directions: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Angles in radians [R, n, m] between directions [R, n, 3] and others [R, m, 3]; float32."""
  first, second = (np.asarray(x, np.float64) for x in (directions, others))
  chord = np.linalg.norm(first[:, :, None] - second[:, None], axis=-1)
  return (2 * np.arcsin(np.clip(chord / 2, 0, 1))).astype(np.float32)


def relative_index(window: int, largest: int) -> np.ndarray:
  """Places [n, n] of pairs of tokens in a table of `table_size(largest)`.

  By the difference of columns and the distance of rows: where two halves meet at a pole, which of
  them is on top depends on the longitude, so the sign of the latter must not count.
  """
  rows, columns = np.divmod(np.arange(window * window), window)
  above = abs(rows[:, None] - rows)
  beside = columns - columns[:, None]
  return above * (2 * largest - 1) + beside + largest - 1


def table_size(largest: int) -> int:
  """Entries of a table of `relative_index`: distances of rows times differences of columns."""
  return largest * (2 * largest - 1)
