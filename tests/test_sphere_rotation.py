import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax import sphere


def _scene(directions):
  """A smooth picture [..., 2], given by what is seen in each direction."""
  x, y, z = (directions[..., axis] for axis in range(3))
  return np.stack([x + 0.5 * y * z, z - x * y], axis=-1)


def test_matrix_is_a_rotation_and_its_transpose_the_inverse():
  angles = np.random.default_rng(0).uniform(-4, 4, (3, 20))
  matrices = sphere.rotation_matrix(*angles)
  assert matrices.shape == (20, 3, 3)
  identity = np.broadcast_to(np.eye(3), (20, 3, 3))
  np.testing.assert_allclose(matrices @ matrices.swapaxes(1, 2), identity, atol=1e-12)
  np.testing.assert_allclose(np.linalg.det(matrices), 1)


def test_matrix_is_the_product_of_the_three_turns():
  yaw, pitch, roll = 0.4, -0.9, 2.1
  parts = [(yaw, 0.0, 0.0), (0.0, pitch, 0.0), (0.0, 0.0, roll)]
  product = np.linalg.multi_dot([sphere.rotation_matrix(*part) for part in parts])
  np.testing.assert_allclose(sphere.rotation_matrix(yaw, pitch, roll), product, atol=1e-12)


def test_ahead_goes_to_yaw_and_pitch_whatever_the_roll():
  ahead = sphere.rotation_matrix(2.5, -0.7, 1.3) @ np.array([1.0, 0.0, 0.0])
  np.testing.assert_allclose(sphere.angles_from_directions(ahead), (2.5, -0.7))


def test_roll_turns_east_to_north():
  east, north = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
  np.testing.assert_allclose(sphere.rotation_matrix(0.0, 0.0, np.pi / 2) @ east, north, atol=1e-12)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("columns", [1, 5, -3, 16])
@pytest.mark.parametrize("module", [np, jnp])
def test_yaw_by_whole_columns_is_a_roll(method, columns, module):
  panorama = np.random.default_rng(0).normal(size=(2, 16, 32, 3)).astype(np.float32)
  rotation = module.asarray(sphere.rotation_matrix(columns * np.pi / 16, 0.0, 0.0))
  turned = sphere.rotate_panorama(panorama, rotation, method=method)
  tolerance = {"nearest": 0, "bilinear": 2e-5}[method]
  np.testing.assert_allclose(turned, np.roll(panorama, columns, axis=2), atol=tolerance)


@pytest.mark.parametrize("angles", [(0.3, 0.8, -1.0), (0.0, np.pi / 2, 0.0), (-2.0, 3.0, 0.5)])
def test_what_was_seen_at_d_is_then_seen_at_rotation_times_d(angles):
  directions = sphere.pixel_directions(64)
  rotation = sphere.rotation_matrix(*angles)
  turned = sphere.rotate_panorama(_scene(directions), rotation)
  # An interpolation error of the second order in the pixel pitch (0.05 rad) remains.
  np.testing.assert_allclose(turned, _scene(directions @ rotation), atol=2e-3)


def test_nearest_keeps_labels_as_they_are():
  labels = np.random.default_rng(0).integers(0, 5, (8, 16, 1)).astype(np.uint8)
  turned = sphere.rotate_panorama(labels, sphere.rotation_matrix(0.1, 0.9, 2.0), method="nearest")
  assert turned.dtype == jnp.uint8
  assert set(np.unique(turned)) <= set(np.unique(labels))


def test_rotation_may_be_traced():
  panorama = _scene(sphere.pixel_directions(16)).astype(np.float32)

  def turn(yaw_rad):
    return sphere.rotate_panorama(panorama, sphere.rotation_matrix(yaw_rad, 0.2, 0.0))

  expected = sphere.rotate_panorama(panorama, sphere.rotation_matrix(0.7, 0.2, 0.0))
  np.testing.assert_allclose(jax.jit(turn)(0.7), expected, atol=1e-5)


def test_wrong_shapes_are_refused():
  with pytest.raises(ValueError, match=r"\[3, 3\]"):
    sphere.rotate_panorama(np.zeros((4, 8, 1)), np.eye(4))
  with pytest.raises(ValueError, match="2 H"):
    sphere.rotate_panorama(np.zeros((4, 9, 1)), np.eye(3))


def test_bearings_follow_the_pose_of_the_camera():
  # By hand: a level camera heading east; one that looks up by 30 degrees; one that lies on its
  # right side, whose right is down and whose up is to the right.
  level = {"heading_deg": 90, "pitch_deg": 0, "roll_deg": 0}
  assert sphere.bearings_deg([0, 90, -90], [0, 0, 20], **level) == pytest.approx(
    np.array([[90, 0], [180, 0], [0, 20]]), abs=1e-9
  )
  up = sphere.bearings_deg([0, 180, 0], [0, 0, 60], heading_deg=0, pitch_deg=30, roll_deg=0)
  assert up[:2] == pytest.approx(np.array([[0, 30], [180, -30]])) and up[2, 1] > 89.999
  side = sphere.bearings_deg([90, 0], [0, 89.999], heading_deg=0, pitch_deg=0, roll_deg=90)
  assert side[0, 1] == pytest.approx(-90) and side[1] == pytest.approx([90, 0], abs=1e-2)
