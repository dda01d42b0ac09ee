"""Views of a panorama, and which objects they see.

Perspective views that cover the sphere, and the whole panorama as one more. Axes: V views, N
objects, panoramas [H, 2 H, C], views [size, size, C], cells of `cell` x `cell` view pixels [g, k];
row 0 north-most. Masks travel as bits, object n as bit n % 32 of word n // 32.

The longitudes of the views have a period of 90 degrees. Where H is even that is a whole number of
columns, and each view is rendered as the view of the first quarter with the panorama turned, so
that turning the panorama by 90 degrees permutes the views bit for bit.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.batch import Array
from foir360_jax.sphere import (
  pad_longitude,
  pixel_areas,
  pixels_from_directions,
  resize_panorama,
  sample,
  view_directions,
)

_RING_LAT_RAD = np.deg2rad(55.0)
"""No direction is further than 36 degrees from the centre of a view, and 2.7 views of 90 degrees
see one on average (1 to 4); the horizon's are 45 degrees apart, and the nearest others 48."""


@dataclasses.dataclass(frozen=True)
class ViewPlan:
  """Which views are made of a panorama; hashable.

  Attributes:
    lon_rad: longitudes of the centres of the V views.
    lat_rad: their latitudes.
    fov_deg: field of view of each.
    size: pixels along each side of a view.
    whole_height: rows of the whole panorama as a view.
    whole_margin: columns by which that is continued beyond the seam on either side.
  """

  lon_rad: tuple[float, ...]
  lat_rad: tuple[float, ...]
  fov_deg: float
  size: int
  whole_height: int
  whole_margin: int


def plan_views(height: int) -> ViewPlan:
  """The 16 views of panoramas of `height` rows: 8 on the horizon, 4 north and 4 south of it.

  A small panorama gets wider views, of up to 110 degrees, so that they hold enough real pixels. A
  view has about as many pixels as the panorama has there, 128 to 256.

  >>> plan = plan_views(512)
  >>> len(plan.lon_rad), plan.fov_deg, plan.size, plan.whole_height, plan.whole_margin
  (16, 90.0, 256, 256, 128)
  """
  if height < 1:
    raise ValueError(f"a panorama needs a height of at least 1 row, not {height}")
  enough_deg = np.degrees(2 * np.arctan(128 * np.pi / (2 * height)))
  fov_deg = float(np.clip(enough_deg, 90.0, 110.0))
  native = 2 * np.tan(np.radians(fov_deg) / 2) * height / np.pi
  whole_height = int(np.clip(32 * round(height / 32), 128, 256))
  quarters = np.arange(4)[:, None] * (np.pi / 2) - np.pi
  lon_rad = quarters + np.array([0.0, np.pi / 4, 0.0, 0.0])
  lat_rad = np.tile([0.0, 0.0, _RING_LAT_RAD, -_RING_LAT_RAD], 4)
  return ViewPlan(
    lon_rad=tuple(lon_rad.ravel().tolist()),
    lat_rad=tuple(lat_rad.tolist()),
    fov_deg=fov_deg,
    size=int(np.clip(32 * np.ceil(native / 32 - 1e-6), 128, 256)),
    whole_height=whole_height,
    whole_margin=whole_height // 2,  # a quarter turn: hardly a hole is filled from further away
  )


def render_views(panorama: Array, plan: ViewPlan) -> jax.Array:
  """The perspective views [V, size, size, C] float32 of a panorama [H, 2 H, C], bilinear.

  A panorama with many more pixels than the views is first averaged over whole blocks of pixels to
  about their pitch (2/3 to 3/2 of it; resized where no such block divides it).
  """
  panorama = jnp.asarray(panorama)
  pitch_rad = 2 * np.tan(np.radians(plan.fov_deg) / 2) / plan.size
  panorama = _shrink(panorama.astype(jnp.float32), _reduced_height(len(panorama), pitch_rad))
  row, column, turns = _coordinates(plan, len(panorama))

  def of_turn(turn):
    return sample(_turned(panorama, turn, turns), row, column)

  views = jax.lax.map(of_turn, jnp.arange(turns))
  return views.reshape(-1, *views.shape[2:])


def render_whole(panorama: Array, plan: ViewPlan) -> jax.Array:
  """The whole panorama as a view, [whole_height, 2 whole_height + 2 whole_margin, C] float32."""
  panorama = _shrink(jnp.asarray(panorama).astype(jnp.float32), plan.whole_height)
  return pad_longitude(panorama, plan.whole_margin)


def pack_objects(masks: np.ndarray) -> np.ndarray:
  """Packs masks [N, H, W] bool into words [H, W, ceil(N / 32)] uint32. NumPy, on the host.

  >>> masks = np.zeros((34, 1, 2), bool)
  >>> masks[[0, 2, 33], 0, 1] = True
  >>> pack_objects(masks)[0, 1].tolist()
  [5, 2]
  """
  masks = np.asarray(masks)
  if masks.dtype != bool or masks.ndim != 3:
    raise ValueError(f"masks are bool [N, H, W], not {masks.dtype} {masks.shape}")
  count, *size = masks.shape
  packed = np.zeros((-(-count // 32), *size), np.uint32)
  for index, mask in enumerate(masks):
    rows = np.flatnonzero(mask.any(axis=1))  # most objects take few of the rows
    if len(rows):
      band = slice(rows[0], rows[-1] + 1)
      packed[index // 32, band] |= mask[band].astype(np.uint32) << np.uint32(index % 32)
  return np.ascontiguousarray(np.moveaxis(packed, 0, -1))


def coverage_views(packed: Array, plan: ViewPlan, num_objects: int, cell: int) -> jax.Array:
  """The share of each cell of each view that each object covers, [V, N, g, g] float32.

  Sampled at the centres of the view's pixels, which count alike within a cell.

  Args:
    packed: [H, 2 H, L] uint32, see `pack_objects`.
    plan: the views.
    num_objects: N <= 32 L.
    cell: pixels of a view along each side of a cell; must divide `plan.size`.

  Raises:
    ValueError: `cell` does not divide the view, or N > 32 L.
  """
  cells = _cells(plan.size, cell)
  row, column, turns = _coordinates(plan, len(packed))
  nearest = np.floor(row + 0.5).astype(np.float32), np.floor(column + 0.5).astype(np.float32)

  def of_turn(turn):
    turned = _turned(jnp.asarray(packed), turn, turns)

    def of_view(place):  # view by view: the bits of all of them would not fit into memory
      words = sample(turned, *place, method="nearest")
      words = words.reshape(cells, cell, cells, cell, -1)
      return _count_bits(words, num_objects)

    return jax.lax.map(of_view, nearest)

  counts = jax.lax.map(of_turn, jnp.arange(turns))
  return counts.reshape(-1, *counts.shape[2:]).astype(jnp.float32) / cell**2


def coverage_whole(packed: Array, plan: ViewPlan, num_objects: int, cell: int) -> jax.Array:
  """The share of each cell of the whole view that each object covers, [N, g, k] float32.

  Each pixel of the panorama counts: exactly its share where cells are whole numbers of pixels; else
  a cell is sampled at points no further apart than half a pixel. Arguments as in `coverage_views`.

  Raises:
    ValueError: `cell` does not divide the view or its margin, or N > 32 L.
  """
  height = len(packed)
  rows, margin = _cells(plan.whole_height, cell), _cells(plan.whole_margin, cell)
  points = -(-2 * height // rows) if height % rows else height // rows  # along a cell's side
  row, column = (
    ((np.arange(count * points) + 0.5) * size / (count * points)).astype(np.int32)
    for count, size in ((rows, height), (2 * rows, 2 * height))
  )

  def of_row(row):
    words = jnp.take(jnp.asarray(packed)[row], column, axis=1)
    return _count_bits(words.reshape(1, points, 2 * rows, points, -1), num_objects)[:, 0]

  counts = jax.lax.map(of_row, jnp.asarray(row.reshape(rows, points)))
  shares = jnp.moveaxis(counts, 0, 1).astype(jnp.float32) / points**2
  return pad_longitude(shares[..., None], margin)[..., 0]


def cell_areas(plan: ViewPlan, cell: int) -> tuple[np.ndarray, np.ndarray]:
  """Solid angles of the cells in steradians, float32.

  Returns:
    Of the views, [V, g, g], and of the whole view, [g, k]: its margins, which repeat other cells,
    have 0, the rest sums to 4 pi.

  Raises:
    ValueError: `cell` does not divide the views or the margin.
  """
  edges = np.linspace(-1, 1, _cells(plan.size, cell) + 1) * np.tan(np.radians(plan.fov_deg) / 2)
  x, y = edges, edges[:, None]
  below = np.arctan(x * y / np.sqrt(1 + x**2 + y**2))  # solid angle from the centre to (x, y)
  views = np.diff(np.diff(below, axis=0), axis=1).astype(np.float32)
  whole = pixel_areas(_cells(plan.whole_height, cell))
  margin = _cells(plan.whole_margin, cell)
  whole = np.pad(whole, ((0, 0), (margin, margin)))
  return np.broadcast_to(views, (len(plan.lon_rad), *views.shape)).copy(), whole


def _cells(pixels: int, cell: int) -> int:
  if cell < 1 or pixels % cell:
    raise ValueError(f"cells of {cell} pixels do not divide {pixels} pixels: take another `cell`")
  return pixels // cell


@functools.lru_cache(maxsize=8)
def _coordinates(plan: ViewPlan, height: int) -> tuple[np.ndarray, np.ndarray, int]:
  """Rows and columns [V / turns, size, size] of the view pixels of the first turn, and the turns.

  All views are those of the first turn with the panorama turned on by 1 / turns of the circle.
  """
  lon_rad, lat_rad = np.array(plan.lon_rad), np.array(plan.lat_rad)
  turns = 1
  if height % 2 == 0 and len(lon_rad) % 4 == 0:
    lon, lat = lon_rad.reshape(4, -1), lat_rad.reshape(4, -1)
    quarter = np.arange(4)[:, None] * (np.pi / 2)
    turns = 4 if np.allclose(lon, lon[0] + quarter) and (lat == lat[0]).all() else 1
  first = len(lon_rad) // turns
  directions = view_directions(lon_rad[:first], lat_rad[:first], plan.fov_deg, plan.size)
  return *pixels_from_directions(directions, height), turns


def _turned(panorama: jax.Array, turn, turns: int) -> jax.Array:
  """The panorama [H, W, C] turned west by `turn` of `turns` parts of the circle."""
  if turns == 1:
    return panorama
  return jnp.roll(panorama, -turn * (panorama.shape[1] // turns), axis=1)


def _reduced_height(height: int, pitch_rad: float) -> int:
  """Rows of a panorama whose pixels are about as far apart as those of views of that pitch."""
  wanted = np.pi / pitch_rad
  heights = [height, *(height // f for f in range(2, height) if height % (2 * f) == 0)]
  reduced = min(heights, key=lambda h: abs(np.log(h / wanted)))
  if height <= wanted or 2 / 3 <= reduced / wanted <= 3 / 2:
    return reduced
  return 2 * int(np.ceil(wanted / 2))


def _shrink(panorama: jax.Array, height: int) -> jax.Array:
  """`resize_panorama`, without its matrix products where whole blocks of pixels are averaged."""
  factor, rest = divmod(len(panorama), height)
  if rest or factor < 2:
    return resize_panorama(panorama, height)
  blocks = panorama.reshape(height, factor, 2 * height, factor, panorama.shape[-1])
  return blocks.mean((1, 3))


def _count_bits(words: jax.Array, num_objects: int) -> jax.Array:
  """How many of the p x q pixels of each cell belong to each object.

  Adds several objects at a time: every eighth bit of a word is put into a byte of its own, and
  bytes are added as words (every sixteenth and 16 bits for cells of more than 255 pixels).

  Args:
    words: [g, p, k, q, L] uint32.
    num_objects: N <= 32 L.

  Returns:
    [N, g, k] uint32.

  Raises:
    ValueError: N > 32 L, or a cell has more than 65535 pixels.
  """
  rows, high, columns, wide, num_words = words.shape
  if num_objects > 32 * num_words:
    raise ValueError(f"{num_words} words hold {32 * num_words} objects, not {num_objects}")
  if high * wide > 65535:
    raise ValueError(f"a cell of {high} x {wide} pixels is too large: take a smaller one")
  width, ones = (8, 0x01010101) if high * wide <= 255 else (16, 0x00010001)
  lane_sums = []
  for first in range(width):
    lanes = (words >> first) & jnp.uint32(ones)
    lane_sums.append(lanes.sum((1, 3), dtype=jnp.uint32))
  sums = jnp.stack(lane_sums, axis=-1)  # [g, k, L, width]
  starts = jnp.arange(0, 32, width, dtype=jnp.uint32)[:, None]
  counts = (sums[..., None, :] >> starts) & jnp.uint32(2**width - 1)  # [g, k, L, 32 / width, width]
  return jnp.moveaxis(counts.reshape(rows, columns, -1)[..., :num_objects], -1, 0)
