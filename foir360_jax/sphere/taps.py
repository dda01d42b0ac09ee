"""Taps of the spherical convolution as sparse sampling matrices.

Sits below `convolution`. Taps are counted row by row, northern row first, T = k * k of them.
"""

import functools

import numpy as np

from foir360_jax.sphere.circulant import CirculantMatrix


@functools.cache
def tap_matrix(
  height: int, size: int, stride: int = 1, *, map_per_tap: bool = False
) -> CirculantMatrix:
  """The bilinear sampling of all taps.

  The columns under one output pixel are lanes: then every shift is a whole number of output pixels.

  Args:
    height: rows of the input.
    size: taps along each side of the kernel.
    stride: input pixels per output pixel.
    map_per_tap: False: from (row, column within an output pixel) to (output row, tap). True: from
      (row, column within an output pixel and tap) to (output row, 0), the sum over the taps, each
      of which samples a map of its own.
  """
  tap_row, tap_column = tap_coordinates(height, size, stride)
  corners = []
  for south in (0, 1):
    for east in (0, 1):
      row, column = np.floor(tap_row) + south, np.floor(tap_column) + east
      weight = (1 - abs(tap_row - row)) * (1 - abs(tap_column - column))
      beyond_pole = (row < 0) | (row >= height)
      column = np.where(beyond_pole, column + height, column)  # half a turn is H columns
      row = np.where(row < 0, -1 - row, np.where(row >= height, 2 * height - 1 - row, row))
      corners.append((row, column, weight))
  row, column, weight = (np.stack(v) for v in zip(*corners, strict=True))  # [4, H / s, T]
  nonzero = np.nonzero(weight)
  _, out_row, tap = nonzero
  row, column = row[nonzero].astype(int), column[nonzero].astype(int)
  taps, within = size * size, column % stride
  if map_per_tap:
    lane, lanes, out_lane, out_lanes = within * taps + tap, stride * taps, 0 * tap, 1
  else:
    lane, lanes, out_lane, out_lanes = within, stride, tap, taps
  return CirculantMatrix(
    destination=out_row * out_lanes + out_lane,
    source=row * lanes + lane,
    shift=column // stride,
    weight=weight[nonzero],
    columns=2 * height // stride,
    out_shape=(height // stride, out_lanes),
    in_shape=(height, lanes),
  )


def tap_coordinates(height: int, size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
  """Row and eastward offset in input pixels of each tap of output column 0, float64 [H / s, T].

  Offsets count from the centre of input column 0.
  """
  pixel_rad = np.pi / height  # rows and columns have the same pitch
  center_rows = (np.arange(height // stride) + 0.5) * stride
  lat_rad = np.pi / 2 - center_rows[:, None] * pixel_rad
  reach = (np.arange(size) - size // 2) * pixel_rad
  south_rad, east_rad = (offset.ravel() for offset in np.meshgrid(reach, reach, indexing="ij"))
  tangent_x = np.tan(east_rad)
  tangent_y = -np.tan(south_rad) / np.cos(east_rad)
  # The point of the tangent plane, seen from the centre of the sphere in the frame of its meridian.
  toward_axis = np.cos(lat_rad) - tangent_y * np.sin(lat_rad)
  up = np.sin(lat_rad) + tangent_y * np.cos(lat_rad)
  tap_lon_rad = np.arctan2(tangent_x, toward_axis)
  tap_lat_rad = np.arctan2(up, np.hypot(tangent_x, toward_axis))
  row = (np.pi / 2 - tap_lat_rad) / pixel_rad - 0.5
  column = tap_lon_rad / pixel_rad + (stride - 1) / 2
  # A tap that falls on a pixel centre needs one pixel, not four with weights of 1e-16.
  row, column = (np.where(abs(v - np.rint(v)) < 1e-9, np.rint(v), v) for v in (row, column))
  return row, column
