import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax import sphere


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def test_first_pixel_looks_north_west_behind_and_columns_grow_to_the_east():
  height = 8
  lon_rad, lat_rad = sphere.angles_from_directions(sphere.pixel_directions(height))
  np.testing.assert_allclose(lon_rad[3], -np.pi + (np.arange(16) + 0.5) * np.pi / 8, atol=1e-6)
  np.testing.assert_allclose(lat_rad[:, 5], np.pi / 2 - (np.arange(8) + 0.5) * np.pi / 8, atol=1e-6)


def test_tables_are_float32_cached_and_cannot_be_changed():
  for table in (sphere.pixel_directions, sphere.pixel_areas):
    assert table(4) is table(4)
    assert table(4).dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
      table(4)[0] = 0


@pytest.mark.parametrize("height", [1, 7, 64])
def test_pixel_areas_cover_the_sphere_and_a_polar_cap(height):
  areas = sphere.pixel_areas(height).astype(np.float64)
  assert areas.shape == (height, 2 * height)
  np.testing.assert_allclose(areas.sum(), 4 * np.pi, rtol=1e-6)
  cap_lat_rad = np.pi / 2 - np.pi / height
  np.testing.assert_allclose(areas[0].sum(), 2 * np.pi * (1 - np.sin(cap_lat_rad)), rtol=1e-5)


def test_angles_and_directions_are_inverse_of_each_other(rng):
  lon_rad, lat_rad = rng.uniform(-np.pi, np.pi, 50), rng.uniform(-1.5, 1.5, 50)
  directions = sphere.directions_from_angles(lon_rad, lat_rad)
  np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1)
  back = sphere.angles_from_directions(3.7 * directions)
  np.testing.assert_allclose(back, (lon_rad, lat_rad), atol=1e-12)


def test_longitude_pi_is_reported_as_minus_pi():
  for xp in (np, jnp):
    lon_rad, _ = sphere.angles_from_directions(xp.asarray([-1.0, 0.0, 0.0]))
    assert lon_rad == pytest.approx(-np.pi)


def test_pixel_centres_have_whole_coordinates():
  row, column = sphere.pixels_from_directions(sphere.pixel_directions(16), 16)
  expected = np.meshgrid(np.arange(16), np.arange(32), indexing="ij")
  np.testing.assert_allclose(row, expected[0], atol=1e-4)
  np.testing.assert_allclose(column, expected[1], atol=1e-4)


def test_poles_and_seam_lie_half_a_pixel_outside_the_outermost_centres():
  north, south = np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, -1.0])
  assert sphere.pixels_from_directions(north, 8)[0] == pytest.approx(-0.5)
  assert sphere.pixels_from_directions(south, 8)[0] == pytest.approx(7.5)
  assert sphere.pixels_from_directions(np.array([-1.0, 0.0, 0.0]), 8)[1] == pytest.approx(-0.5)


def test_numpy_stays_numpy_and_jax_stays_jax(rng):
  directions = rng.normal(size=(5, 3)).astype(np.float32)
  in_numpy = sphere.pixels_from_directions(directions, 8)
  in_jax = jax.jit(lambda d: sphere.pixels_from_directions(d, 8))(directions)
  assert isinstance(in_numpy[0], np.ndarray) and isinstance(in_jax[0], jax.Array)
  np.testing.assert_allclose(in_jax, in_numpy, atol=1e-5)


def test_height_zero_is_refused():
  with pytest.raises(ValueError, match="at least 1 row"):
    sphere.pixel_directions(0)
