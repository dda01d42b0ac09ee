"""Masks of views, back on the sphere.

Axes: V views, N masks, h x w pixels of a view, H x 2 H of the panorama, row 0 north-most. Masks on
the sphere travel as the bits of their pixels in reading order, [P / 8] uint8, P = 2 H H, the first
one highest (`np.packbits`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from foir360_jax.segment.views import View
from foir360_jax.sphere import directions_from_angles, pad_sphere, pixel_directions

_BLOCK = 16
"""Pixels of the sphere along the sides of the blocks of which it is known what they see."""
_MAX_TABLES = 128  # of up to 3 MB each
_FLAT_MARGIN = 2  # columns and rows by which the flat panorama goes on around the sphere


def view_fields(views: Sequence[View], height: int) -> np.ndarray:
  """What each view sees of a panorama of `height` rows.

  Returns:
    [V, P / 8] uint8: whether a pixel's centre lies in the view.
  """
  fields = []
  for view in views:
    table = _table(view, height)
    whole = np.zeros((height, 2 * height), bool)
    _paste(whole, table, (slice(0, table.seen.shape[0]), slice(0, table.seen.shape[1])), table.seen)
    fields.append(np.packbits(whole))
  return np.stack(fields)


def to_sphere(masks: np.ndarray, view: View, height: int) -> np.ndarray:
  """Brings masks of a view back onto the sphere.

  A pixel of the sphere is in a mask where the view's pixels around its centre are to at least half,
  interpolated; so outlines are smooth where the sphere is finer than the view. Beyond the view's
  border there is nothing, and up to it the outermost pixels go on.

  Args:
    masks: [N, h, w] bool, of any size in the shape of the view.
    view: the view.
    height: rows of the panorama.

  Returns:
    [N, P / 8] uint8.

  Raises:
    ValueError: masks are not bool [N, h, w].
  """
  masks = np.asarray(masks)
  if masks.dtype != bool or masks.ndim != 3:
    raise ValueError(f"masks are bool [N, h, w], not {masks.dtype} {masks.shape}")
  packed = np.zeros((len(masks), -(-2 * height * height // 8)), np.uint8)
  if not len(masks):
    return packed
  view = dataclasses.replace(view, size=masks.shape[1:])
  table = _table(view, height)
  radius = _smoothing(view, height)
  whole = np.zeros((height, 2 * height), bool)
  for bits, mask in zip(packed, masks, strict=True):
    window = table.window_of(mask)
    if window is None:
      continue
    picture = mask.astype(np.uint8) * 255
    if view.is_flat:
      picture = pad_sphere(picture[..., None], _FLAT_MARGIN)[..., 0]
    if radius:
      picture = cv2.GaussianBlur(picture, (0, 0), radius, borderType=cv2.BORDER_REPLICATE)
    maps = table.places[window], table.fractions[window]
    part = cv2.remap(picture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rows = _paste(whole, table, window, (part > 127) & table.seen[window])
    first, end = rows.start * height // 4, rows.stop * height // 4
    if height % 4:
      first, end, rows = 0, len(bits), slice(0, height)
    bits[first:end] = np.packbits(whole[rows])
    whole[rows] = False
  return packed


class _Table(NamedTuple):
  """Where the pixels of a window of the sphere lie in a view.

  The window holds all that the view sees. Its columns go on around the seam.

  Attributes:
    row: its first row on the sphere.
    column: its first column, in [0, 2 H).
    seen: [R, C] bool.
    places: [R, C, 2] int16, whole columns and rows of the view, as `cv2.remap` takes them.
    fractions: [R, C] uint16, of the columns and rows.
    least: [2, r, c] float32: the least column and row of the view in each block of the window.
    greatest: [2, r, c] float32: the greatest.
  """

  row: int
  column: int
  seen: np.ndarray
  places: np.ndarray
  fractions: np.ndarray
  least: np.ndarray
  greatest: np.ndarray

  def window_of(self, mask: np.ndarray) -> tuple[slice, slice] | None:
    """The part of the window in which a mask of the view can lie; None: in none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
      return None
    reach = 1.0
    first = np.array([columns[0], rows[0]])[:, None, None] - reach
    last = np.array([columns[-1], rows[-1]])[:, None, None] + reach
    blocks: np.ndarray = np.all((self.least <= last) & (self.greatest >= first), axis=0)
    rows, columns = np.flatnonzero(blocks.any(axis=1)), np.flatnonzero(blocks.any(axis=0))
    if not len(rows):
      return None
    return tuple(
      slice(int(part[0]) * _BLOCK, min((int(part[-1]) + 1) * _BLOCK, size))
      for part, size in zip((rows, columns), self.seen.shape, strict=True)
    )  # type: ignore[return-value]


@functools.lru_cache(maxsize=_MAX_TABLES)
def _table(view: View, height: int) -> _Table:
  column, row = _places(view, height)
  view_height, view_width = view.size
  seen = np.isfinite(column)
  for place, size in ((column, view_width), (row, view_height)):
    seen &= (place >= -0.5) & (place <= size - 0.5)
  middle = int((view.lon_rad / np.pi + 1) * height)
  west = middle - height  # so that the middle of the view is in the middle of the window
  column, row, seen = (np.roll(values, -west, axis=1) for values in (column, row, seen))
  rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
  if not len(rows):  # no pixel's centre: an empty window
    rows = columns = np.array([0])
  window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
  column, row, seen = (np.ascontiguousarray(x[window]) for x in (column, row, seen))
  places = np.stack([column, row])
  margins = [(0, 0), *((0, -size % _BLOCK) for size in seen.shape)]
  bounds = []
  for function, outside in ((np.minimum, np.inf), (np.maximum, -np.inf)):
    padded = np.pad(np.where(seen, places, outside), margins, constant_values=outside)
    blocks = padded.reshape(2, padded.shape[1] // _BLOCK, _BLOCK, -1, _BLOCK)
    bounds.append(function.reduce(function.reduce(blocks, axis=4), axis=2).astype(np.float32))
  column, row = (np.where(seen, place, 0).astype(np.float32) for place in places)
  margin = _FLAT_MARGIN if view.is_flat else 0
  maps = cv2.convertMaps(column + margin, row + margin, cv2.CV_16SC2)
  return _Table(int(rows[0]), int(columns[0] + west) % (2 * height), seen, *maps, *bounds)


def _places(view: View, height: int) -> tuple[np.ndarray, np.ndarray]:
  """Columns and rows [H, 2 H] of a view at the pixels of the sphere; infinite behind the view."""
  view_height, view_width = view.size
  if view.is_flat:
    pitch = view_width / (2 * height)
    column = (np.arange(2 * height) + 0.5 - view.lon_rad / np.pi * height) * pitch % view_width
    row = (np.arange(height) + 0.5) * view_height / height
    column, row = np.meshgrid((column - 0.5).astype(np.float32), (row - 0.5).astype(np.float32))
    return column, row
  axes = [
    directions_from_angles(view.lon_rad, view.lat_rad),
    directions_from_angles(view.lon_rad + np.pi / 2, 0.0),
    directions_from_angles(view.lon_rad, view.lat_rad + np.pi / 2),
  ]
  ahead, east, north = np.moveaxis(pixel_directions(height) @ np.array(axes, np.float32).T, -1, 0)
  with np.errstate(divide="ignore"):
    scale = np.where(ahead > 1e-6, view.pixels_per_radian / ahead, np.float32(np.inf))
  with np.errstate(invalid="ignore"):
    return east * scale + (view_width / 2 - 0.5), view_height / 2 - 0.5 - north * scale


def _paste(
  whole: np.ndarray, table: _Table, window: tuple[slice, slice], part: np.ndarray
) -> slice:
  """Puts a part of a table's window into its place on the sphere; returns the rows there."""
  width = whole.shape[1]
  rows = slice(table.row + window[0].start, table.row + window[0].stop)
  first = (table.column + window[1].start) % width
  before_seam = min(part.shape[1], width - first)
  whole[rows, first : first + before_seam] = part[:, :before_seam]
  whole[rows, : part.shape[1] - before_seam] = part[:, before_seam:]
  return rows


def _smoothing(view: View, height: int) -> float:
  """By how many pixels masks are blurred: no stairs where they grow, nothing lost where not."""
  scale = height / np.pi / view.pixels_per_radian
  if scale < 0.6:
    return 0.4 * float(np.sqrt(1 / scale**2 - 1))
  return 0.6 if scale > 1.25 else 0.0
