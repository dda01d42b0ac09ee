import dataclasses

import jax
import numpy as np
import pytest

from foir360_jax.sphere import directions_from_angles, pixel_directions
from foir360_jax.weak_labels import (
  ViewPlan,
  cell_areas,
  coverage_views,
  coverage_whole,
  pack_objects,
  plan_views,
  render_views,
  render_whole,
)

HEIGHT = 16
PLAN = dataclasses.replace(plan_views(HEIGHT), size=8, whole_height=8, whole_margin=4)
# No two views alike, so nothing to be turned.
ODD_PLAN = ViewPlan((0.3, -2.9, 1.0), (0.2, -0.7, 1.5), 100.0, 4, 6, 2)


def slow_rays(plan, view):
  """Longitude and latitude of each pixel of a view, by turning rays of a camera that looks east."""
  half = np.tan(np.radians(plan.fov_deg) / 2)
  offset = (2 * (np.arange(plan.size) + 0.5) / plan.size - 1) * half
  right, down = np.meshgrid(offset, offset)
  lat = plan.lat_rad[view]
  ahead = np.cos(lat) + down * np.sin(lat)
  up = np.sin(lat) - down * np.cos(lat)
  return plan.lon_rad[view] + np.arctan2(right, ahead), np.arctan2(up, np.hypot(ahead, right))


def slow_pixels(plan, view, height):
  lon_rad, lat_rad = slow_rays(plan, view)
  column = ((lon_rad + np.pi) / (2 * np.pi) % 1) * 2 * height - 0.5
  return (np.pi / 2 - lat_rad) / np.pi * height - 0.5, column


def pixel(panorama, row, column):
  """A pixel, around the seam and over the poles."""
  height = len(panorama)
  if row < 0 or row >= height:
    row, column = (-1 - row if row < 0 else 2 * height - 1 - row), column + height
  return panorama[row, column % (2 * height)].astype(float)


def slow_view(panorama, plan, view):
  picture = np.zeros((plan.size, plan.size, panorama.shape[-1]))
  rows, columns = slow_pixels(plan, view, len(panorama))
  for place in np.ndindex(plan.size, plan.size):
    north, west = int(np.floor(rows[place])), int(np.floor(columns[place]))
    south_weight, east_weight = rows[place] - north, columns[place] - west
    for row, row_weight in ((north, 1 - south_weight), (north + 1, south_weight)):
      for column, column_weight in ((west, 1 - east_weight), (west + 1, east_weight)):
        picture[place] += row_weight * column_weight * pixel(panorama, row, column)
  return picture


def halved(panorama):
  height, width, channels = panorama.shape
  return panorama.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def draw_panorama(seed, height=HEIGHT):
  return np.random.default_rng(seed).integers(0, 256, (height, 2 * height, 3), dtype=np.uint8)


def draw_masks(seed, count=35, height=HEIGHT):
  """Caps of all sizes, which overlap, some over a pole or the seam."""
  rng = np.random.default_rng(seed)
  centres = rng.normal(size=(count, 3))
  centres /= np.linalg.norm(centres, axis=-1, keepdims=True)
  cosine = np.einsum("nx,hwx->nhw", centres, pixel_directions(height))
  return cosine > np.cos(rng.uniform(0.1, 1.5, (count, 1, 1)))


@pytest.mark.parametrize("height", [16, 128, 200, 256, 333, 512, 4096])
def test_views_are_chosen_from_the_resolution(height):
  plan = plan_views(height)
  assert 90 <= plan.fov_deg <= 110
  pixels = 2 * np.tan(np.radians(plan.fov_deg) / 2) * height / np.pi  # of the panorama in a view
  if 90 < plan.fov_deg < 110:
    assert pixels == pytest.approx(128)
  assert plan.size % 32 == 0 and 128 <= plan.size <= 256
  assert 0 <= plan.size - pixels < 32 or plan.size in (128, 256)
  assert plan.whole_height % 32 == 0 and 128 <= plan.whole_height <= 256
  assert abs(plan.whole_height - height) <= 16 or plan.whole_height in (128, 256)
  assert plan.whole_height == 2 * plan.whole_margin and plan.whole_margin % 4 == 0
  assert hash(plan) == hash(plan_views(height))


def test_every_direction_is_well_within_a_view_of_90_degrees():
  plan = plan_views(512)
  directions = pixel_directions(360)
  centres = directions_from_angles(np.array(plan.lon_rad), np.array(plan.lat_rad))
  nearest = np.arccos(np.clip(directions @ centres.T, -1, 1)).min(-1)
  assert 35.5 < np.degrees(nearest.max()) < 36
  # Half the field of view that a view needs to see a direction, of the best view.
  lon_rad, lat_rad = np.array(plan.lon_rad), np.array(plan.lat_rad)
  east = directions_from_angles(lon_rad + np.pi / 2, 0 * lat_rad)
  north = directions_from_angles(lon_rad, lat_rad + np.pi / 2)
  ahead = directions @ centres.T
  aside = np.maximum(abs(directions @ east.T), abs(directions @ north.T))
  needed = np.degrees(np.arctan2(aside, ahead)).min(-1)
  assert needed.max() < 35.3
  between = np.degrees(np.arccos(np.clip(centres @ centres.T, -1, 1))) + 360 * np.eye(16)
  assert between.min() > 44.9


@pytest.mark.parametrize("seed", range(2))
def test_views_are_those_of_a_slow_reference(seed):
  panorama = draw_panorama(seed)  # it has twice the views' pixels: 8 rows are left
  views = np.asarray(render_views(panorama, PLAN))
  assert views.shape == (16, 8, 8, 3) and views.dtype == np.float32
  for view in range(16):
    np.testing.assert_allclose(views[view], slow_view(halved(panorama), PLAN, view), atol=2e-2)


def test_views_of_any_plan_and_of_an_odd_height_are_those_of_a_slow_reference():
  panorama = draw_panorama(2, height=5)
  for plan in (ODD_PLAN, dataclasses.replace(PLAN, lon_rad=PLAN.lon_rad[::-1])):
    views = np.asarray(render_views(panorama, plan))
    for view in range(len(plan.lon_rad)):
      np.testing.assert_allclose(views[view], slow_view(panorama, plan, view), atol=2e-2)


def test_a_height_that_no_block_divides_is_resized():
  plain = np.full((34, 68, 3), 7, np.uint8)  # 2 x 17 rows for views worth 8.8
  assert np.asarray(render_views(plain, PLAN)) == pytest.approx(7, abs=1e-4)


def test_turning_by_90_degrees_permutes_the_views_bit_for_bit():
  panorama, packed = draw_panorama(3), pack_objects(draw_masks(3))
  render = jax.jit(lambda x: render_views(x, PLAN))
  cover = jax.jit(lambda x: coverage_views(x, PLAN, 35, 4))
  for make, array in ((render, panorama), (cover, packed)):
    views, turned = np.asarray(make(array)), np.asarray(make(np.roll(array, HEIGHT // 2, axis=1)))
    np.testing.assert_array_equal(turned, np.roll(views, 4, axis=0))
    assert (turned != views).any()


@pytest.mark.parametrize("height", [4, 8, 16])
def test_the_whole_view_is_the_panorama_continued_beyond_the_seam(height):
  panorama = draw_panorama(4, height)
  whole = np.asarray(render_whole(panorama, PLAN))
  assert whole.shape == (8, 24, 3) and whole.dtype == np.float32
  if height >= 8:
    inside = panorama if height == 8 else halved(panorama)
    np.testing.assert_allclose(whole[:, 4:-4], inside, atol=1e-3)
  np.testing.assert_array_equal(whole[:, :4], whole[:, -8:-4])
  np.testing.assert_array_equal(whole[:, -4:], whole[:, 4:8])


@pytest.mark.parametrize("count", [0, 1, 32, 33, 70])
def test_packed_bits_are_the_masks(count):
  masks = np.random.default_rng(count).random((count, 3, 6)) < 0.3
  masks[: count // 2, 1] = False  # rows without any
  packed = pack_objects(masks)
  assert packed.dtype == np.uint32 and packed.shape == (3, 6, -(-count // 32))
  for n in range(count):
    np.testing.assert_array_equal(packed[..., n // 32] >> (n % 32) & 1, masks[n])


@pytest.mark.parametrize(("seed", "plan"), [(5, PLAN), (6, ODD_PLAN)])
def test_coverage_of_views_is_that_of_a_slow_reference(seed, plan):
  masks = draw_masks(seed)
  coverage = np.asarray(coverage_views(pack_objects(masks), plan, 35, 4))
  cells = plan.size // 4
  assert coverage.shape == (len(plan.lon_rad), 35, cells, cells) and coverage.dtype == np.float32
  for view in range(len(plan.lon_rad)):
    rows, columns = slow_pixels(plan, view, HEIGHT)
    rows = np.clip(np.rint(rows).astype(int), 0, HEIGHT - 1)
    seen = masks[:, rows, np.rint(columns).astype(int) % (2 * HEIGHT)]
    expected = seen.reshape(35, cells, 4, cells, 4).mean((2, 4))
    np.testing.assert_allclose(coverage[view], expected, atol=1e-6)


@pytest.mark.parametrize("height", [2, 8, 64, 128])  # cells of up to 16 x 16 and 64 x 64 pixels
def test_coverage_of_the_whole_view_is_the_exact_mean(height):
  masks = draw_masks(height, height=height)
  coverage = np.asarray(coverage_whole(pack_objects(masks), PLAN, 35, 4))
  pixels = height // 2
  expected = masks.reshape(35, 2, pixels, 4, pixels).mean((2, 4))
  expected = np.concatenate([expected[..., -1:], expected, expected[..., :1]], axis=-1)
  np.testing.assert_allclose(coverage, expected, atol=1e-6)


@pytest.mark.parametrize("height", [3, 5, 7])
def test_each_pixel_counts_where_cells_are_no_whole_numbers_of_pixels(height):
  masks = np.eye(2 * height**2, dtype=bool).reshape(-1, height, 2 * height)
  coverage = np.asarray(coverage_whole(pack_objects(masks), PLAN, len(masks), 4))[..., 1:-1]
  np.testing.assert_allclose(coverage.sum(0), 1, atol=1e-6)
  share = coverage.mean((1, 2)) * len(masks)
  assert share.min() > (2 / 3) ** 2 and share.max() < (3 / 2) ** 2


def test_an_object_of_one_pixel_is_seen_at_512_rows():
  rng = np.random.default_rng(7)
  plan, height = plan_views(512), 512
  row = [0, 511, 256, 100, *rng.integers(0, height, 12)]
  column = [0, 700, 1023, 0, *rng.integers(0, 2 * height, 12)]
  masks = np.zeros((16, height, 2 * height), bool)
  masks[np.arange(16), row, column] = True
  packed = pack_objects(masks)
  whole = np.asarray(coverage_whole(packed, plan, 16, 4))
  assert ((whole * cell_areas(plan, 4)[1]).sum((1, 2)) > 0).all()
  assert (coverage_views(packed, plan, 16, 4).max((0, 2, 3)) > 0).mean() > 0.5  # most by a view


def test_no_array_of_all_objects_and_pixels_exists():
  plan, count = dataclasses.replace(PLAN, size=64), 128
  packed = jax.ShapeDtypeStruct((HEIGHT, 2 * HEIGHT, 4), np.uint32)
  program = jax.jit(lambda x: coverage_views(x, plan, count, 4)).lower(packed).compile()
  assert program.memory_analysis().temp_size_in_bytes < 16 * count * 64 * 64  # bytes, if bool


def test_cells_have_the_solid_angle_that_they_cover():
  views, whole = cell_areas(PLAN, 4)
  assert views.dtype == whole.dtype == np.float32
  assert views.shape == (16, 2, 2) and whole.shape == (2, 6)
  np.testing.assert_allclose(whole.sum(), 4 * np.pi, rtol=1e-6)
  assert not whole[:, 0].any() and not whole[:, -1].any() and (whole[:, 1:-1] > 0).all()
  half = np.tan(np.radians(PLAN.fov_deg) / 2)
  fine = (np.arange(400) + 0.5) / 400 * half  # one cell: a quarter of the view
  slow = (1 + fine**2 + fine[:, None] ** 2) ** -1.5 * (half / 400) ** 2
  np.testing.assert_allclose(views, slow.sum(), rtol=1e-4)
  finer = cell_areas(PLAN, 1)[0].reshape(16, 2, 4, 2, 4).sum((2, 4))
  np.testing.assert_allclose(finer, views, rtol=1e-5)


def test_a_wrong_argument_is_one_line():
  packed = pack_objects(draw_masks(8))
  with pytest.raises(ValueError, match="cells of 3 pixels do not divide 8 pixels"):
    coverage_views(packed, PLAN, 35, 3)
  with pytest.raises(ValueError, match="2 words hold 64 objects, not 65"):
    coverage_whole(packed, PLAN, 65, 4)
  with pytest.raises(ValueError, match=r"masks are bool \[N, H, W\]"):
    pack_objects(np.zeros((2, 3, 6)))
  with pytest.raises(ValueError, match="at least 1 row"):
    plan_views(0)
