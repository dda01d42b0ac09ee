import itertools
import tracemalloc

import numpy as np
import pytest

from foir360_jax import sphere

HEIGHT = 64
CENTERS_DEG = [(0, 0), (-180, 20), (178, -40), (30, 80), (0, 90), (-75, -90), (120, -85)]


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def _direction(lon_deg, lat_deg):
  return sphere.directions_from_angles(np.radians(lon_deg), np.radians(lat_deg))


def _disc(lon_deg, lat_deg, radius_deg, height=HEIGHT):
  cosine = sphere.pixel_directions(height) @ _direction(lon_deg, lat_deg)
  return cosine >= np.cos(np.radians(radius_deg))


def test_solid_angle_of_a_disc_is_that_of_the_cap():
  for center in CENTERS_DEG:
    expected = 2 * np.pi * (1 - np.cos(np.radians(25)))
    assert sphere.solid_angle(_disc(*center, 25, 256)) == pytest.approx(expected, rel=0.03)


def test_solid_angle_keeps_leading_axes_and_empty_masks_have_none():
  masks = np.stack([_disc(0, 0, 30), np.zeros((HEIGHT, 2 * HEIGHT), bool), _disc(0, 0, 180)])
  areas = sphere.solid_angle(masks[None])
  assert areas.shape == (1, 3)
  assert areas[0, 1] == 0
  assert areas[0, 2] == pytest.approx(4 * np.pi)


@pytest.mark.parametrize("center", CENTERS_DEG)
def test_centroid_of_a_disc_is_its_centre(center):
  centroid = sphere.centroid_direction(_disc(*center, 25))
  assert np.degrees(np.arccos(min(1, centroid @ _direction(*center)))) < 1


def test_centroid_that_vanishes_is_straight_ahead():
  ring = np.zeros((8, 16), bool)
  ring[3:5] = True
  both = np.stack([ring, np.ones((8, 16), bool)])
  np.testing.assert_array_equal(sphere.centroid_direction(both), [[1, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize("height", [9, 37, 64])
def test_caps_and_rings_around_a_pole_point_exactly_to_it(height):
  """Their longitude would be that of the rounding error."""
  for rows, pole in ((slice(0, 2), 1), (slice(1, 3), 1), (slice(height - 3, height), -1)):
    mask = np.zeros((height, 2 * height), bool)
    mask[rows] = True
    np.testing.assert_array_equal(sphere.centroid_direction(mask), [0, 0, pole])
    np.testing.assert_array_equal(sphere.bounding_fov_deg(mask)[:2], [0, 90 * pole])


def test_stacked_masks_have_the_moments_of_the_plain_formula(rng):
  """All kinds of masks: discs, caps over the poles, across the seam, everything, noise."""
  masks = [_disc(*center, radius_deg) for center in CENTERS_DEG for radius_deg in (3, 40)]
  masks += [np.ones((HEIGHT, 2 * HEIGHT), bool), rng.random((HEIGHT, 2 * HEIGHT)) < 0.3]
  masks = np.stack(masks).reshape(4, 4, HEIGHT, 2 * HEIGHT)
  weighted = masks * sphere.pixel_areas(HEIGHT).astype(np.float64)
  np.testing.assert_allclose(sphere.solid_angle(masks), weighted.sum((-2, -1)), rtol=1e-12)
  moment = np.einsum("abrc,rcd->abd", weighted, sphere.pixel_directions(HEIGHT))
  expected = sphere.mean_direction(moment, weighted.sum((-2, -1)))
  np.testing.assert_allclose(sphere.centroid_direction(masks), expected, atol=1e-6)
  np.testing.assert_array_equal(expected[-1, -2], [1, 0, 0])


@pytest.mark.parametrize("function", [sphere.solid_angle, sphere.centroid_direction])
def test_the_memory_of_measuring_masks_does_not_grow_with_their_number(function, rng):
  masks = rng.random((16, 64, 128)) < 0.5
  function(masks[:1])  # makes the tables of the grid

  def peak(masks):
    tracemalloc.start()
    function(masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak

  assert peak(masks) < 3 * peak(masks[:1])


def test_of_no_masks_there_are_no_areas_and_no_centroids():
  none = np.zeros((0, 8, 16), bool)
  assert sphere.solid_angle(none).shape == (0,)
  assert sphere.centroid_direction(none).shape == (0, 3)


def test_rows_without_the_object_change_nothing(rng):
  for first, last in ((0, 3), (30, 34), (60, 64), (0, 64)):  # poles, the horizon, everything
    mask = np.zeros((HEIGHT, 2 * HEIGHT), bool)
    mask[first:last] = rng.random((last - first, 2 * HEIGHT)) < 0.3
    areas, directions = sphere.pixel_areas(HEIGHT), sphere.pixel_directions(HEIGHT)
    moment = (areas[mask][:, None] * directions[mask]).sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(sphere.solid_angle(mask), areas[mask].sum(), rtol=1e-5)
    centroid = sphere.centroid_direction(mask)
    np.testing.assert_allclose(centroid, moment / np.linalg.norm(moment), atol=1e-5)


def test_bounding_box_is_the_narrowest_interval_on_the_circle(rng):
  for _ in range(50):
    mask = rng.random((5, 10)) < 0.08
    if not mask.any():
      continue
    x, y, width, height = sphere.bounding_box_px(mask)
    rows, columns = np.nonzero(mask)
    assert (y, height) == (rows.min(), np.ptp(rows) + 1)
    fits = [
      (w, start)
      for w, start in itertools.product(range(1, 11), range(10))
      if ((columns - start) % 10 < w).all()
    ]
    assert (width, x) == min(fits)


def test_bounding_box_of_a_full_ring_starts_at_column_zero():
  mask = np.zeros((4, 8), bool)
  mask[2] = True
  np.testing.assert_array_equal(sphere.bounding_box_px(mask), [0, 2, 8, 1])


@pytest.mark.parametrize("center", CENTERS_DEG)
@pytest.mark.parametrize("radius_deg", [8, 30, 70])
def test_field_of_view_box_of_a_disc_is_square_around_its_centre(center, radius_deg):
  box = sphere.bounding_fov_deg(_disc(*center, radius_deg))
  pixel_deg = 180 / HEIGHT
  assert np.degrees(np.arccos(min(1, _direction(*box[:2]) @ _direction(*center)))) < pixel_deg
  np.testing.assert_allclose(box[2:], 2 * radius_deg, atol=2 * pixel_deg)
  assert -180 <= box[0] < 180 and -90 <= box[1] <= 90


def test_field_of_view_box_holds_all_of_the_object(rng):
  for _ in range(20):
    discs = [_disc(*rng.uniform((-180, -90), (180, 90)), rng.uniform(3, 25)) for _ in range(2)]
    mask = discs[0] | (discs[1] & (rng.random(discs[1].shape) < 0.1))
    lon_deg, lat_deg, width, height = sphere.bounding_fov_deg(mask)
    rotation = sphere.rotation_matrix(np.radians(lon_deg), np.radians(lat_deg), 0.0)
    turned = sphere.pixel_directions(HEIGHT)[mask] @ rotation
    extents = np.degrees(np.abs(sphere.angles_from_directions(turned)).max(axis=1))
    assert (2 * extents <= (width + 1e-4, height + 1e-4)).all()


def test_field_of_view_box_of_an_off_centre_shape_is_tight():
  mask = np.zeros((HEIGHT, 2 * HEIGHT), bool)
  mask[31:33, 40:80] = True  # a long bar on the horizon with a heavy end
  mask[28:36, 40:48] = True
  _, lat_deg, width, height = sphere.bounding_fov_deg(mask)
  assert width == pytest.approx(40 * 180 / HEIGHT, rel=0.01)
  assert height == pytest.approx(8 * 180 / HEIGHT, rel=0.05)
  assert abs(lat_deg) < 0.5


def test_field_of_view_box_of_one_pixel_is_one_pixel_wide_across_the_seam_too():
  for column in (0, 2 * HEIGHT - 1, HEIGHT):
    mask = np.zeros((HEIGHT, 2 * HEIGHT), bool)
    mask[HEIGHT // 2, column] = True
    lon_deg, _, width, height = sphere.bounding_fov_deg(mask)
    assert lon_deg == pytest.approx((column + 0.5) * 180 / HEIGHT - 180)
    np.testing.assert_allclose([width, height], 180 / HEIGHT, rtol=0.01)


def test_field_of_view_box_of_a_ring_and_of_the_whole_sphere():
  ring = np.zeros((HEIGHT, 2 * HEIGHT), bool)
  ring[31:33] = True
  np.testing.assert_allclose(sphere.bounding_fov_deg(ring)[2:], [360, 360 / HEIGHT], atol=0.01)
  whole = np.ones_like(ring)
  np.testing.assert_allclose(sphere.bounding_fov_deg(whole), [0, 0, 360, 180], atol=1e-6)


def _parts_by_flooding(mask):
  height, width = mask.shape
  labels, count = np.zeros(mask.shape, int), 0
  for seed in zip(*np.nonzero(mask), strict=True):
    if labels[seed]:
      continue
    count += 1
    stack = [seed]
    while stack:
      row, column = stack.pop()
      if not mask[row, column] or labels[row, column]:
        continue
      labels[row, column] = count
      stack += [
        (r, (column + d) % width)
        for r in (row - 1, row, row + 1)
        for d in (-1, 0, 1)
        if 0 <= r < height
      ]
      if row in (0, height - 1):
        stack += [(row, c) for c in range(width)]
  return labels


@pytest.mark.parametrize("density", [0.02, 0.1, 0.2, 0.35, 0.6])
def test_components_equal_flooding_on_the_sphere(rng, density):
  for _ in range(20):
    mask = rng.random((12, 24)) < density
    np.testing.assert_array_equal(sphere.connected_components(mask), _parts_by_flooding(mask))


def test_empty_and_full_masks_have_no_and_one_component():
  for value in (False, True):
    labels = sphere.connected_components(np.full((4, 8), value))
    assert labels.dtype == np.int32
    assert (labels == int(value)).all()


def test_empty_masks_are_refused_where_nothing_can_be_said():
  empty = np.zeros((4, 8), bool)
  for function in (
    sphere.centroid_direction,
    sphere.bounding_box_px,
    sphere.bounding_fov_deg,
  ):
    with pytest.raises(ValueError, match="empty mask"):
      function(empty)


def test_anything_but_a_bool_mask_is_refused():
  with pytest.raises(ValueError, match="bool"):
    sphere.solid_angle(np.ones((4, 8)))
  with pytest.raises(ValueError, match="bool"):
    sphere.bounding_fov_deg(np.ones((4, 9), bool))
  with pytest.raises(ValueError, match="one mask"):
    sphere.connected_components(np.ones((2, 4, 8), bool))
