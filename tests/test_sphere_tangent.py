import jax
import numpy as np
import pytest

from foir360_jax import sphere

CENTERS = [(0.0, 0.0), (np.pi, 0.3), (-2.0, np.pi / 2), (1.0, -1.4)]


def _scene(directions):
  x, y, z = (directions[..., axis] for axis in range(3))
  return np.stack([x + 0.5 * y * z, z - x * y], axis=-1)


@pytest.mark.parametrize("center", CENTERS)
def test_view_directions_follow_the_inverse_gnomonic_projection(center):
  lon_rad, lat_rad = center
  directions = sphere.view_directions(lon_rad, lat_rad, 80.0, (6, 10))
  half = np.tan(np.radians(40))
  x = (np.arange(10) + 0.5) / 5 * half - half
  y = ((6 - 1) / 2 - np.arange(6))[:, None] * (half / 5)
  rho = np.hypot(x, y)
  angle = np.arctan(rho)
  sin_lat = np.cos(angle) * np.sin(lat_rad) + y * np.sin(angle) * np.cos(lat_rad) / rho
  lon = lon_rad + np.arctan2(
    x * np.sin(angle),
    rho * np.cos(lat_rad) * np.cos(angle) - y * np.sin(lat_rad) * np.sin(angle),
  )
  cos_lat = np.sqrt(1 - sin_lat**2)
  expected = np.stack([cos_lat * np.cos(lon), cos_lat * np.sin(lon), sin_lat], axis=-1)
  np.testing.assert_allclose(directions, expected, atol=1e-9)


def test_field_of_view_is_measured_between_the_outer_edges():
  wide = sphere.view_directions(0.0, 0.0, 90.0, (1, 400))
  lon_rad, _ = sphere.angles_from_directions(wide[0])
  assert np.degrees(lon_rad[-1] - lon_rad[0]) == pytest.approx(90, abs=0.4)
  assert (np.diff(lon_rad) > 0).all()  # east is on the right


def test_north_is_up():
  _, lat_rad = sphere.angles_from_directions(sphere.view_directions(2.0, 0.0, 60.0, 8))
  assert (np.diff(lat_rad, axis=0) < 0).all()


@pytest.mark.parametrize("center", CENTERS)
def test_view_shows_the_scene_at_seam_and_poles_too(center):
  panorama = _scene(sphere.pixel_directions(64)).astype(np.float32)
  view = sphere.render_view(panorama, *center, 70.0, (9, 12))
  expected = _scene(sphere.view_directions(*center, 70.0, (9, 12)))
  assert view.shape == (9, 12, 2)
  np.testing.assert_allclose(view, expected, atol=2e-3)


def test_several_views_at_once_equal_single_ones_under_jit():
  panorama = np.random.default_rng(0).normal(size=(2, 16, 32, 3)).astype(np.float32)
  lon_rad, lat_rad = (np.array(v) for v in zip(*CENTERS, strict=True))
  views = jax.jit(lambda p, lon, lat: sphere.render_view(p, lon, lat, 60.0, 5))(
    panorama, lon_rad, lat_rad
  )
  assert views.shape == (2, 4, 5, 5, 3)
  for i, center in enumerate(CENTERS):
    np.testing.assert_allclose(
      views[:, i], sphere.render_view(panorama, *center, 60.0, 5), atol=1e-4
    )


def test_field_of_view_may_be_traced():
  panorama = _scene(sphere.pixel_directions(16)).astype(np.float32)
  traced = jax.jit(lambda fov_deg: sphere.render_view(panorama, 0.1, 0.2, fov_deg, 6))(50.0)
  expected = sphere.render_view(panorama, 0.1, 0.2, 50.0, 6)
  np.testing.assert_allclose(traced, expected, atol=1e-5)


def test_nearest_keeps_labels_as_they_are():
  labels = np.arange(128, dtype=np.uint8).reshape(8, 16, 1)
  view = sphere.render_view(labels, 0.0, 0.0, 40.0, 1, method="nearest")
  assert view.dtype == np.uint8
  assert view.item() in labels[3:5, 7:9]


@pytest.mark.parametrize(
  ("fov_deg", "size", "message"),
  [(0.0, 4, "fov_deg"), (180.0, 4, "fov_deg"), (60.0, (0, 4), "1x1"), (60.0, 0, "1x1")],
)
def test_impossible_views_are_refused(fov_deg, size, message):
  with pytest.raises(ValueError, match=message):
    sphere.render_view(np.zeros((4, 8, 1)), 0.0, 0.0, fov_deg, size)
