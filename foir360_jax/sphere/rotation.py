"""Rotations of the sphere and of the panoramas on it. Axes: panoramas [..., H, W, C], W = 2 H."""

import jax
import numpy as np
from jax.typing import ArrayLike

from foir360_jax.sphere import grid, resample


def rotation_matrix(yaw_rad, pitch_rad, roll_rad):
  """Returns the matrix [..., 3, 3] that rotates by roll, then by pitch, then by yaw.

  It is Rz(yaw) Ry(-pitch) Rx(roll), right-handed, and takes straight ahead (longitude 0, latitude
  0) to longitude `yaw_rad`, latitude `pitch_rad`. So yaw moves content to the east, pitch moves
  what is ahead up, and roll turns what is ahead about the line of sight, east towards north
  (counter-clockwise in the picture). Use it as `matrix @ direction`; its transpose is its inverse.
  NumPy in, NumPy out; JAX in, JAX out.

  >>> ahead = np.array([1.0, 0.0, 0.0])
  >>> np.round(rotation_matrix(0.0, np.pi / 2, 0.0) @ ahead, 6)  # the zenith
  array([0., 0., 1.])
  """
  xp = grid.array_module(yaw_rad, pitch_rad, roll_rad)
  angles = xp.broadcast_arrays(*(xp.asarray(angle) for angle in (yaw_rad, pitch_rad, roll_rad)))
  (cy, cp, cr), (sy, sp, sr) = ([f(angle) for angle in angles] for f in (xp.cos, xp.sin))
  rows = [
    [cy * cp, -sy * cr - cy * sp * sr, sy * sr - cy * sp * cr],
    [sy * cp, cy * cr - sy * sp * sr, -cy * sr - sy * sp * cr],
    [sp, cp * sr, cp * cr],
  ]
  return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def bearings_deg(
  lon_deg: ArrayLike,
  lat_deg: ArrayLike,
  *,
  heading_deg: float,
  pitch_deg: float,
  roll_deg: float,
) -> np.ndarray:
  """Returns where directions of a panorama point in the world, by the pose of its camera.

  Args:
    lon_deg: [...] longitudes in the panorama.
    lat_deg: [...] latitudes in it.
    heading_deg: compass heading of the middle of the panorama, clockwise from north, as GPano
      (https://developers.google.com/streetview/spherical-metadata) has it; as the next two.
    pitch_deg: of the same above the horizon.
    roll_deg: of the camera, clockwise: as it grows, the horizon turns counter-clockwise.

  Returns:
    [..., 2] float64: compass bearings in [0, 360), clockwise from north, and elevations above the
    horizon in [-90, 90].

  >>> level = dict(pitch_deg=0, roll_deg=0)
  >>> bearings_deg([0, 90, -170], 10, heading_deg=300, **level).round(6).tolist()
  [[300.0, 10.0], [30.0, 10.0], [130.0, 10.0]]
  """
  directions = grid.directions_from_angles(np.radians(lon_deg), np.radians(lat_deg))
  pose = rotation_matrix(*np.radians([heading_deg, pitch_deg, -float(roll_deg)]))
  east, north, up = np.moveaxis(directions @ pose.T, -1, 0)[[1, 0, 2]]
  bearing = np.degrees(np.arctan2(east, north)) % 360
  elevation = np.degrees(np.arcsin(np.clip(up, -1, 1)))
  return np.stack([np.where(bearing < 360, bearing, 0.0), elevation], axis=-1)


def rotate_panorama(
  panorama: ArrayLike, rotation: np.ndarray | jax.Array, *, method: resample.Method = "bilinear"
) -> jax.Array:
  """Rotates a panorama: the content of direction d moves to direction `rotation @ d`.

  Args:
    panorama: [..., H, 2 H, C].
    rotation: [3, 3], orthonormal; see `rotation_matrix`.
    method: "bilinear", or "nearest" for labels and masks.

  Returns:
    [..., H, 2 H, C]; "nearest" keeps the type, "bilinear" makes integers float32.

  Raises:
    ValueError: the panorama is not 2:1, the rotation not [3, 3], or the method is unknown.
  """
  height = resample.panorama_height(panorama)
  if np.shape(rotation) != (3, 3):
    raise ValueError(f"rotation must be a [3, 3] matrix, not {np.shape(rotation)}")
  directions = grid.pixel_directions(height)
  # Row vectors times R are column vectors times its inverse: where each pixel's content came from.
  # Written out, because a matrix product may be rounded to fewer bits on an accelerator.
  source = sum(directions[..., axis, None] * rotation[axis] for axis in range(3))
  row, column = grid.pixels_from_directions(source, height)
  return resample.sample(panorama, row, column, method=method)
