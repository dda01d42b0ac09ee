"""Measures of masks on the sphere: area, centre, boxes, components. NumPy, on the host.

Masks are bool [H, W], W = 2 H, row 0 north-most, column 0 at longitude -pi. The left and right
edges of the picture are the same meridian, and the top and bottom edges are single points.
"""

import math

import numpy as np

from foir360_jax.sphere import grid
from foir360_jax.sphere.rotation import rotation_matrix


def solid_angle(mask: np.ndarray) -> np.ndarray:
  """Returns the solid angle of masks [..., H, W] in steradians, [...]; 4 pi is the whole sphere.

  >>> round(float(solid_angle(np.ones((8, 16), bool))), 4)
  12.5664
  """
  return _moments(_checked(mask))[..., 0]


def centroid_direction(mask: np.ndarray) -> np.ndarray:
  """Returns the unit vector towards the middle of masks [..., H, W], [..., 3] float64.

  It is the mean of the pixels' directions, weighted by solid angle. Where that vanishes (a ring
  around the horizon, the whole sphere) it is straight ahead, (1, 0, 0); see `grid.mean_direction`.

  Raises:
    ValueError: a mask is empty.
  """
  moments = _moments(_checked(mask))
  if not moments[..., 0].all():
    raise ValueError("an empty mask has no centroid: leave out the padding first")
  return grid.mean_direction(moments[..., 1:], moments[..., 0])


def bounding_box_px(mask: np.ndarray) -> np.ndarray:
  """Returns [x, y, width, height] of a mask [H, W] in whole pixels, int64 [4].

  Columns are a circle: of all intervals that hold the object the narrowest is taken (the
  westernmost of equals), so x lies in [0, W) and x + width may pass W when the object crosses the
  seam.

  Raises:
    ValueError: the mask is empty or not one [H, W] mask.

  >>> mask = np.zeros((4, 8), bool)
  >>> mask[1, [7, 0, 1]] = True
  >>> bounding_box_px(mask)
  array([7, 1, 3, 1])
  """
  mask = _single(mask)
  if not mask.any():
    raise ValueError("an empty mask has no box: leave out the padding first")
  rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
  # The interval leaves out the widest gap between neighbouring columns of the object.
  gap_before = (columns - np.roll(columns, 1) - 1) % mask.shape[1]
  first = np.argmax(gap_before)
  width = mask.shape[1] - gap_before[first]
  return np.array([columns[first], rows[0], width, rows[-1] - rows[0] + 1])


def bounding_fov_deg(mask: np.ndarray) -> np.ndarray:
  """Returns [lon, lat, width, height] in degrees of an object-centred box, float64 [4].

  Turn the sphere so that (lon, lat) is straight ahead and north stays up (yaw and pitch, no roll).
  In that frame all of the object, its pixels to their corners, lies within width / 2 of longitude 0
  and within height / 2 of latitude 0. The centre is the centroid, moved to the middle of the
  extents. So a round object of angular diameter d has width = height = d wherever it is, be it on
  the seam or over a pole; width is at most 360 and height at most 180, and a ring around the
  horizon is 360 wide. Longitude is in [-180, 180).

  Raises:
    ValueError: the mask is empty or not one [H, W] mask.
  """
  mask = _checked(_single(mask))
  outline = _outline_directions(mask)
  back_lat_rad = np.linspace(-np.pi / 2, np.pi / 2, 4 * len(mask) + 1)
  back = grid.directions_from_angles(np.pi, back_lat_rad)
  center = centroid_direction(mask)
  boxes = []
  for _ in range(6):  # each turn changes the extents a little, so the middle is found step by step
    lon_rad, lat_rad = grid.angles_from_directions(center)
    rotation = rotation_matrix(lon_rad, lat_rad, 0.0)
    # Extents lie on the outline, unless the object covers the frame's poles or what is behind.
    behind = back[_contains(mask, back @ rotation.T)]
    extents = np.stack(grid.angles_from_directions(np.concatenate([outline @ rotation, behind])))
    width, height = 2 * np.abs(extents).max(axis=1)
    boxes.append((lon_rad, lat_rad, width, height))
    middle = (extents.min(axis=1) + extents.max(axis=1)) / 2
    center = grid.mean_direction(rotation @ grid.directions_from_angles(*middle), 1.0)
  areas = np.array([width * height for *_, width, height in boxes])
  smallest = np.argmax(areas <= areas.min() * (1 + 1e-6))  # the first one that is no larger
  return np.degrees(boxes[smallest])


def connected_components(mask: np.ndarray) -> np.ndarray:
  """Returns labels [H, W] int32 of a mask's parts: 0 outside, then 1, 2, ... in reading order.

  Pixels that touch on the sphere, be it at a corner, are of one part. So parts join across the
  seam, and all pixels of the outermost row touch at the pole.

  Raises:
    ValueError: it is not one [H, W] mask.

  >>> mask = np.zeros((4, 8), bool)
  >>> mask[1, [0, 3, 7]] = True
  >>> connected_components(mask)[1]
  array([1, 0, 0, 2, 0, 0, 0, 1], dtype=int32)
  """
  import cv2  # here, so that the rest of the package needs nothing but jax

  mask = _single(mask)
  count, planar = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
  west, east = planar[:, 0], np.pad(planar[:, -1], 1)
  touching = [np.stack([west, east[i : i + len(mask)]], axis=1) for i in range(3)]
  touching += [np.stack([row, np.full_like(row, row.max())], axis=1) for row in planar[[0, -1]]]
  pairs = np.unique(np.concatenate(touching), axis=0)
  joined = np.arange(count)
  for a, b in pairs[(pairs > 0).all(axis=1)]:
    joined[joined == joined[a]] = joined[b]
  parts, first_pixel = np.unique(joined[planar[mask]], return_index=True)
  renumbered = np.zeros(count, np.int32)
  renumbered[parts[np.argsort(first_pixel)]] = np.arange(1, len(parts) + 1)
  return renumbered[joined[planar]]


def _checked(mask: np.ndarray) -> np.ndarray:
  mask = np.asarray(mask)
  if mask.dtype != bool or mask.ndim < 2 or mask.shape[-1] != 2 * mask.shape[-2]:
    raise ValueError(
      f"a mask is bool [..., H, 2 H], not {mask.dtype} {mask.shape}: compare with > 0"
    )
  return mask


def _single(mask: np.ndarray) -> np.ndarray:
  """One mask of any size: columns are a circle whatever angle they are apart."""
  mask = np.asarray(mask)
  if mask.dtype != bool or mask.ndim != 2:
    raise ValueError(
      f"expected one mask [H, W], bool, not {mask.dtype} {mask.shape}: call it for each mask"
    )
  return mask


def _outline_directions(mask: np.ndarray) -> np.ndarray:
  """Directions [n, 3] of the pixel corners at which the object meets its surroundings."""
  rows = _rows(mask)
  first = max(rows.start - 1, 0)  # one empty row on either side, unless a pole is there
  band = np.pad(mask[first : rows.stop + 1], ((1, 1), (0, 0)), mode="edge")
  west = np.roll(band, 1, axis=1)
  any_of_4 = band[:-1] | band[1:] | west[:-1] | west[1:]
  all_of_4 = band[:-1] & band[1:] & west[:-1] & west[1:]
  row, column = np.nonzero(any_of_4 & ~all_of_4)
  pixel_rad = np.pi / len(mask)
  lat_rad = np.pi / 2 - (first + row) * pixel_rad
  return grid.directions_from_angles(column * pixel_rad - np.pi, lat_rad)


def _moments(masks: np.ndarray) -> np.ndarray:
  """Solid angles and weighted sums of directions of masks [..., H, W], [..., 4] float64.

  A row of a mask is a few runs of pixels, and the sums over a run are differences of two entries of
  a table: so only the ends of runs are looked at. Masks are measured one by one, as most take few
  of the rows, and a stack of products with all pixels would need many times their memory.
  """
  *batch, height, width = masks.shape
  lat_rad = np.pi / 2 - (np.arange(height) + 0.5) * (np.pi / height)
  lon_rad = (np.arange(width) + 0.5) * (np.pi / height) - np.pi
  along = np.stack([np.ones(width), np.cos(lon_rad), np.sin(lon_rad)], axis=-1)
  before = np.concatenate([np.zeros((1, 3)), np.cumsum(along, axis=0)])  # of the columns before
  areas = grid.pixel_areas(height)[:, 0].astype(np.float64)  # the same all along a row
  moments = np.zeros((math.prod(batch), 4))
  for moment, mask in zip(moments, masks.reshape(-1, height, width), strict=True):
    rows = _rows(mask)
    changes = np.diff(np.pad(mask[rows], ((0, 0), (1, 1))), axis=1)
    row, column = np.divmod(np.flatnonzero(changes), width + 1)  # where runs begin and end, in turn
    row, sums = row[::2] + rows.start, before[column[1::2]] - before[column[::2]]
    count, east_x, east_y = (areas[row, None] * sums).T
    level, sine = np.cos(lat_rad)[row], np.sin(lat_rad)[row]
    moment[:] = count.sum(), level @ east_x, level @ east_y, sine @ count
  return moments.reshape(*batch, 4)


def _rows(mask: np.ndarray) -> slice:
  """The rows in which a mask [H, W] has pixels: most objects take few of a panorama's."""
  rows = np.flatnonzero(mask.any(axis=-1))
  return slice(rows[0], rows[-1] + 1) if len(rows) else slice(0, 0)


def _contains(mask: np.ndarray, directions: np.ndarray) -> np.ndarray:
  """Whether the pixels that hold the directions [n, 3] belong to the mask, [n]."""
  row, column = grid.pixels_from_directions(directions, len(mask))
  row = np.clip(np.rint(row).astype(int), 0, len(mask) - 1)
  return mask[row, np.rint(column).astype(int) % mask.shape[1]]
