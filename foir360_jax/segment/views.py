"""Views of a photographed panorama: which there are, and their pictures.

A view is a perspective (gnomonic) picture of a part of the sphere, or the flat panorama itself.
Their masks come back onto the sphere by `segment.view_masks`. Axes: V views, h x w pixels of a
view, H x 2 H of the panorama; row 0 north-most.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.sphere import (
  pad_sphere,
  pixels_from_directions,
  view_directions,
)
from foir360_jax.sphere.resample import panorama_height

Mode = Literal["fast", "full"]
MODES: tuple[Mode, ...] = ("fast", "full")

SIZES = (320, 448, 640)
"""Pixels along the sides of perspective views: few, as each is one more program to compile."""
FLAT_SIZE = (320, 640)
BATCH = 6
"""Views that are rendered at a time, and that a segmenter gets at a time."""


@dataclasses.dataclass(frozen=True)
class View:
  """One view; hashable.

  Attributes:
    name: of its place, safe in names of files.
    group: of views of its kind.
    lon_rad: longitude of its centre; of the flat panorama, of its middle column.
    lat_rad: latitude of its centre; 0 for the flat panorama.
    fov_deg: horizontal field of view; 360 for the flat panorama.
    size: (h, w) in pixels.
  """

  name: str
  group: str
  lon_rad: float
  lat_rad: float
  fov_deg: float
  size: tuple[int, int]

  @property
  def is_flat(self) -> bool:
    """Whether it is the flat panorama."""
    return self.fov_deg == 360

  @property
  def pixels_per_radian(self) -> float:
    """How fine it is at its centre."""
    width = self.size[1]
    if self.is_flat:
      return width / (2 * np.pi)
    return float(width / (2 * np.tan(np.radians(self.fov_deg) / 2)))


class _Ring(NamedTuple):
  """Views of one latitude, evenly spaced; the first one's longitude and the latitude in degrees."""

  number: int
  lat_deg: float
  first_lon_deg: float


_RINGS: dict[int, tuple[_Ring, ...]] = {
  90: (_Ring(6, 0, 0), _Ring(6, 40, 30), _Ring(6, -40, 30), _Ring(1, 90, 0), _Ring(1, -90, 0)),
  55: (_Ring(12, 0, 0), _Ring(8, 38, 0), _Ring(8, -38, 0)),
  120: (_Ring(4, 0, 45), _Ring(1, 90, 0), _Ring(1, -90, 0)),
  35: (_Ring(16, 0, 0),),
}
"""Of each horizontal field of view in degrees."""
_FIELDS_OF_VIEW: dict[Mode, tuple[int, ...]] = {"fast": (90,), "full": (90, 55, 120, 35)}
_LEAST_REAL_PIXELS = 128
"""Of the panorama across a view; narrower views are for panoramas that have so many."""


def plan_views(height: int, mode: Mode = "fast") -> tuple[View, ...]:
  """The views of a panorama of `height` rows: perspective ones, then the flat panorama twice.

  Views of 90 degrees, 20 in all, lie around the horizon, 40 degrees north and south of it, and at
  the poles. "full" adds wider ones for large objects, and narrower ones for small objects where the
  panorama shows them in enough pixels. A view is about as fine at its centre as the panorama,
  within the range of `SIZES`. The flat panorama is seen twice, once turned by half, so that each
  seam is in the middle of the other. Chosen by `segment.study.group_values`.

  Args:
    height: rows of the panorama.
    mode: "fast", as few as keep the recall of objects of some 5 degrees or more, or "full".

  Raises:
    ValueError: an argument is out of range.

  >>> views = plan_views(512)
  >>> len(views), views[0].name, views[0].size, views[-1].name
  (22, 'fov090_lat+00_lon+000', (320, 320), 'flat_lon180')
  >>> [len(plan_views(height, "full")) for height in (256, 512, 1024)]
  [28, 56, 72]
  """
  if height < 1:
    raise ValueError(f"a panorama needs a height of at least 1 row, not {height}")
  if mode not in MODES:
    raise ValueError(f"views are {' or '.join(MODES)}, not {mode!r}")
  views = []
  for fov_deg in _FIELDS_OF_VIEW[mode]:
    if fov_deg < 90 and native_pixels(fov_deg, height) < _LEAST_REAL_PIXELS:
      continue
    side = side_of(fov_deg, height)
    views += [
      perspective_view(ring.first_lon_deg + index * 360 / ring.number, ring.lat_deg, fov_deg, side)
      for ring in _RINGS[fov_deg]
      for index in range(ring.number)
    ]
  return *views, *flat_views()


def perspective_view(lon_deg: float, lat_deg: float, fov_deg: float, side: int) -> View:
  """A square view of `side` pixels.

  >>> perspective_view(210, -40, 90, 320).name
  'fov090_lat-40_lon-150'
  """
  lon_deg = (lon_deg + 180) % 360 - 180
  return View(
    name=f"fov{round(fov_deg):03d}_lat{round(lat_deg):+03d}_lon{round(lon_deg):+04d}",
    group=f"{fov_deg:g}",
    lon_rad=float(np.radians(lon_deg)),
    lat_rad=float(np.radians(lat_deg)),
    fov_deg=float(fov_deg),
    size=(side, side),
  )


def flat_views() -> tuple[View, View]:
  """The flat panorama, and the same turned by half."""
  flat = View("flat", "flat", 0.0, 0.0, 360.0, FLAT_SIZE)
  return flat, dataclasses.replace(flat, name="flat_lon180", lon_rad=-np.pi)


def render_views(
  panorama: np.ndarray, views: Sequence[View]
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
  """Renders views, in batches of one size.

  A panorama that is much finer than a view is averaged to about the view's pitch first, and one
  that is coarser is enlarged by cubic interpolation, of which the views are bilinear samples.

  Args:
    panorama: [H, 2 H, 3] uint8.
    views: in any order.

  Yields:
    Indices into `views`, at most `BATCH`; their pictures, [V, h, w, 3] uint8.

  Raises:
    ValueError: the panorama is not 2:1 or not uint8.
  """
  panorama = np.asarray(panorama)
  height = panorama_height(panorama)
  if panorama.dtype != np.uint8 or panorama.shape[2:] != (3,):
    raise ValueError(f"a panorama is uint8 [H, 2 H, 3], not {panorama.dtype} {panorama.shape}")
  alike: dict[tuple[float, tuple[int, int]], list[int]] = {}
  for index, view in enumerate(views):
    alike.setdefault((view.fov_deg, view.size), []).append(index)
  sources: dict[int, jax.Array] = {}
  for (fov_deg, size), indices in alike.items():
    if fov_deg == 360:
      flat = _resized(panorama, size[0])
      for index in indices:
        shift = -round(views[index].lon_rad / (2 * np.pi) * size[1])
        yield (index,), np.roll(flat, shift, axis=1)[None]
      continue
    source_height = _source_height(height, views[indices[0]].pixels_per_radian)
    if source_height not in sources:
      sources[source_height] = jnp.asarray(_words(_resized(panorama, source_height)))
    lats_rad = tuple(sorted({views[index].lat_rad for index in indices}))
    coordinates = _coordinates(lats_rad, fov_deg, size, source_height)
    for start in range(0, len(indices), BATCH):
      batch = indices[start : start + BATCH]
      full = [views[index] for index in batch + batch[:1] * (BATCH - len(batch))]
      east = (
        np.array([view.lon_rad for view in full]) * (source_height / np.pi) % (2 * source_height)
      )
      pictures = _render(
        sources[source_height],
        *coordinates,
        np.array([lats_rad.index(view.lat_rad) for view in full], np.int32),
        np.floor(east).astype(np.int32),
        (east % 1).astype(np.float32),
      )
      yield tuple(batch), np.asarray(pictures)[: len(batch)]


@jax.jit
def _render(source, row, column, table, whole, fraction):
  """Bilinear samples of a panorama; sums are of 8 bits in lanes of 16.

  Args:
    source: [H + 2, 2 H + 2] uint32, see `_words`.
    row: [T, h, w] float32, of views at longitude 0.
    column: [T, h, w] float32.
    table: [V] int32, which of the T a view takes.
    whole: [V] int32, columns in [0, 2 H) by which a view is further east.
    fraction: [V] float32, what of a column comes to that.

  Returns:
    [V, h, w, 3] uint8.
  """
  pitch = source.shape[1]
  width = pitch - 2
  lanes = jnp.uint32(0x00FF00FF)
  half = jnp.uint32(0x00400040)
  words = source.ravel()

  def mix(first, second, weight):
    """Two channels of each pixel, in 128 parts."""
    return ((first * (128 - weight) + second * weight + half) >> 7) & lanes

  def of_view(place):
    table, whole, fraction = place
    rows, columns = row[table], column[table] + fraction
    north, west = jnp.floor(rows), jnp.floor(columns)
    south_weight = jnp.round((rows - north) * 128).astype(jnp.uint32)
    east_weight = jnp.round((columns - west) * 128).astype(jnp.uint32)
    west = (west.astype(jnp.int32) + whole) % width
    corner = (north.astype(jnp.int32) + 1) * pitch + west + 1
    corners = [
      words.at[corner + offset].get(mode="promise_in_bounds") for offset in (0, 1, pitch, pitch + 1)
    ]
    mixed = []
    for shift in (0, 8):
      nw, ne, sw, se = ((pixels >> shift) & lanes for pixels in corners)
      mixed.append(mix(mix(nw, ne, east_weight), mix(sw, se, east_weight), south_weight) << shift)
    return jax.lax.bitcast_convert_type(mixed[0] | mixed[1], jnp.uint8)[..., :3]

  return jax.lax.map(of_view, (table, whole, fraction))


def side_of(fov_deg: float, height: int) -> int:
  """Pixels of a view about as fine at its centre as a panorama."""
  native = native_pixels(fov_deg, height)
  return next((size for size in SIZES if size >= 0.75 * native), SIZES[-1])


def native_pixels(fov_deg: float, height: int) -> float:
  """Pixels across a view that is as fine at its centre as a panorama of `height` rows."""
  return float(2 * np.tan(np.radians(fov_deg) / 2) * height / np.pi)


def _source_height(height: int, pixels_per_radian: float) -> int:
  """Rows of the panorama that views are sampled from.

  Views are finer off their centre, so what is averaged stays finer than the centre.
  """
  alike = np.pi * pixels_per_radian
  if height > 1.6 * alike:
    return int(np.ceil(1.25 * alike))
  return 2 * height if height < 0.75 * alike else height


def _resized(panorama: np.ndarray, height: int) -> np.ndarray:
  """Means over areas where it shrinks, cubic where it grows, also beyond seam and poles."""
  old = len(panorama)
  if height == old:
    return panorama
  if height < old:
    return cv2.resize(panorama, (2 * height, height), interpolation=cv2.INTER_AREA)
  margin = old // np.gcd(old, height)  # the narrowest border that is whole at either size
  margin *= -(-2 // margin)
  border = margin * height // old
  padded = pad_sphere(panorama, margin)
  size = (padded.shape[1] * height // old, padded.shape[0] * height // old)
  grown = cv2.resize(padded, size, interpolation=cv2.INTER_CUBIC)
  return grown[border:-border, border:-border]


def _words(panorama: np.ndarray) -> np.ndarray:
  """A panorama [H, 2 H, 3] as words [H + 2, 2 H + 2] uint32, red lowest, with what lies around."""
  padded = pad_sphere(panorama, 1).astype(np.uint32)
  return padded[..., 0] | padded[..., 1] << 8 | padded[..., 2] << 16


@functools.lru_cache(maxsize=16)
def _coordinates(
  lats_rad: tuple[float, ...], fov_deg: float, size: tuple[int, int], height: int
) -> tuple[jax.Array, jax.Array]:
  """Rows and columns [T, h, w] float32 on a panorama of views at longitude 0."""
  directions = view_directions(np.zeros(len(lats_rad)), np.array(lats_rad), fov_deg, size)
  row, column = pixels_from_directions(directions, height)
  return jnp.asarray(row, jnp.float32), jnp.asarray(column, jnp.float32)
