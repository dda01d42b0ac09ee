"""Views of objects: in the right direction, upright, as large as the object, also at the poles."""

import jax
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models.cells import flat_directions
from foir360_jax.models.object_views import VIEW_SIZE, ObjectViews, tangent_views
from foir360_jax.sphere import pixel_directions

look_at = jax.jit(tangent_views, static_argnames="context")


def gnomonic_directions(lon_rad, lat_rad, radius_rad):
  """Where a view looks, `[VIEW_SIZE, VIEW_SIZE, 3]`, by Snyder's inverse gnomonic formulas."""
  axis = np.tan(radius_rad) * np.linspace(-1.6, 1.6, VIEW_SIZE)
  x, y = np.meshgrid(axis, -axis)
  rho = np.hypot(x, y)
  angle = np.arctan(rho)
  lat = np.arcsin(np.cos(angle) * np.sin(lat_rad) + y * np.sin(angle) * np.cos(lat_rad) / rho)
  lon = lon_rad + np.arctan2(
    x * np.sin(angle),
    rho * np.cos(lat_rad) * np.cos(angle) - y * np.sin(lat_rad) * np.sin(angle),
  )
  return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


@pytest.mark.parametrize("lat_deg", [-75, -20, 0, 50, 88])
def test_a_view_shows_what_lies_around_its_object_north_up(lat_deg):
  rng = np.random.default_rng(lat_deg % 97)
  lon, lat, radius = rng.uniform(-np.pi, np.pi), np.deg2rad(lat_deg), rng.uniform(0.05, 0.4)
  middle = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
  image = (pixel_directions(256) + 1)[None] / 2  # the colour of a pixel is its direction
  masks = (np.asarray(flat_directions(256)) @ middle > np.cos(radius))[None, None]
  given = (image, masks, middle[None, None], np.full((1, 1), radius))
  view = look_at(*(x.astype(np.float32) for x in given), context=True)
  expected = gnomonic_directions(lon, lat, radius)
  assert view.shape == (1, 1, VIEW_SIZE, VIEW_SIZE, 4)
  np.testing.assert_allclose(view[0, 0, ..., :3], expected, atol=0.02)
  cosine = expected @ middle
  sure = np.abs(np.arccos(np.minimum(cosine, 1)) - radius) > 0.03
  np.testing.assert_array_equal(
    np.asarray(view[0, 0, ..., 3] > 0)[sure], (cosine > np.cos(radius))[sure]
  )
  alone = look_at(*(x.astype(np.float32) for x in given), context=False)
  assert (np.asarray(alone[0, 0, ..., :3])[sure & (cosine < np.cos(radius))] == 0).all()


@pytest.mark.parametrize("pole", [1, -1])
def test_the_view_of_an_object_on_a_pole_shows_its_outline(pole):
  directions = np.asarray(flat_directions(96))
  masks = (pole * directions[:, 2] > np.cos(0.3)).astype(np.float32)[None, None]
  image = np.zeros((1, 48, 96, 3), np.float32)
  direction, radius = np.array([[[1e-8, 0, pole]]], np.float32), np.full((1, 1), 0.3, np.float32)
  view = np.asarray(look_at(image, masks, direction, radius, context=True))[0, 0]
  radii = np.linspace(-1.6, 1.6, VIEW_SIZE)
  expected = np.hypot(radii, radii[:, None])
  np.testing.assert_array_equal(view[..., 3][expected < 0.9] > 0, True)
  np.testing.assert_array_equal(view[..., 3][expected > 1.1] > 0, False)


def test_each_object_is_looked_at_by_itself(draw_parameters):
  look = draw_parameters(lambda: ObjectViews(8, rngs=nnx.Rngs(0)))
  views = np.random.default_rng(3).normal(size=(2, 5, VIEW_SIZE, VIEW_SIZE, 4)).astype(np.float32)
  run = jax.jit(look)
  expected = np.asarray(run(views))
  assert expected.shape == (2, 5, 8) and np.ptp(expected, axis=1).min() > 1e-3
  changed = views.copy()
  changed[1, 2] += 1
  difference = np.abs(run(changed) - expected).max(-1)
  assert difference[1, 2] > 1e-3
  difference[1, 2] = 0
  assert difference.max() < 1e-6
