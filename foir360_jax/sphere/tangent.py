"""Perspective views: the gnomonic projection onto a tangent plane.

Views are [..., h, w, C] with north up; panoramas [..., H, W, C], W = 2 H. Straight lines of the
world are straight in a view, which is why detectors and human raters see views rather than
panoramas.
"""

import jax
import numpy as np
from jax.typing import ArrayLike

from foir360_jax.sphere import grid, resample


def view_directions(lon_rad, lat_rad, fov_deg, size: int | tuple[int, int]):
  """Returns the unit vectors that the pixel centres of a view look along.

  The view's plane touches the sphere at (lon, lat). Pixels are square on it, and their outer edges
  span `fov_deg` from left to right.

  Args:
    lon_rad: [*S] longitude of the centre of the view; several views at once if it is an array.
    lat_rad: [*S] its latitude.
    fov_deg: horizontal field of view, in (0, 180); a scalar.
    size: pixels of the view: (h, w), or one number for a square.

  Returns:
    [*S, h, w, 3]; NumPy if all arguments are, else JAX.

  Raises:
    ValueError: `size` or a known `fov_deg` is out of range.

  >>> view_directions(0.0, 0.0, 90.0, 1)
  array([[[1., 0., 0.]]])
  """
  height, width = (size, size) if isinstance(size, int) else size
  if height < 1 or width < 1:
    raise ValueError(f"a view needs at least 1x1 pixels, not {height}x{width}")
  if not isinstance(fov_deg, jax.Array) and not 0 < fov_deg < 180:
    raise ValueError(f"fov_deg must be between 0 and 180 degrees (both excluded), not {fov_deg}")
  xp = grid.array_module(lon_rad, lat_rad, fov_deg)
  lon_rad, lat_rad = xp.broadcast_arrays(xp.asarray(lon_rad), xp.asarray(lat_rad))
  lon_rad, lat_rad = lon_rad[..., None, None], lat_rad[..., None, None]
  pitch = 2 * xp.tan(xp.asarray(fov_deg) * (np.pi / 360)) / width
  east = ((np.arange(width) + 0.5 - width / 2) * pitch)[:, None]
  north = ((height / 2 - 0.5 - np.arange(height)) * pitch)[:, None, None]
  directions = (
    grid.directions_from_angles(lon_rad, lat_rad)
    + east * grid.directions_from_angles(lon_rad + np.pi / 2, xp.zeros_like(lat_rad))
    + north * grid.directions_from_angles(lon_rad, lat_rad + np.pi / 2)
  )
  return directions / xp.sqrt((directions**2).sum(axis=-1, keepdims=True))


def render_view(
  panorama: ArrayLike,
  lon_rad: ArrayLike,
  lat_rad: ArrayLike,
  fov_deg: ArrayLike,
  size: int | tuple[int, int],
  *,
  method: resample.Method = "bilinear",
) -> jax.Array:
  """Renders the gnomonic view of a panorama around (lon, lat).

  Args:
    panorama: [..., H, 2 H, C].
    lon_rad: [*S] longitude of the centre of the view; several views at once if it is an array.
    lat_rad: [*S] its latitude.
    fov_deg: horizontal field of view, in (0, 180); a scalar.
    size: pixels of the view: (h, w), or one number for a square.
    method: "bilinear", or "nearest" for labels and masks.

  Returns:
    [..., *S, h, w, C]; "nearest" keeps the type, "bilinear" makes integers float32.

  Raises:
    ValueError: an argument is out of range, or the panorama is not 2:1.

  >>> import jax.numpy as jnp
  >>> render_view(jnp.ones((8, 16, 3)), 0.0, 0.5, 60.0, (4, 6)).shape
  (4, 6, 3)
  """
  height = resample.panorama_height(panorama)
  directions = view_directions(lon_rad, lat_rad, fov_deg, size)
  row, column = grid.pixels_from_directions(directions, height)
  return resample.sample(panorama, row, column, method=method)
