import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax import sphere

# Under jit, or each of their operations would be compiled for each shape.
sample = jax.jit(sphere.sample, static_argnames="method")
resize = jax.jit(sphere.resize_panorama, static_argnums=1)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def _pixel(panorama, row, column):
  """The pixel at whole coordinates; one row beyond a pole is the far side's outermost row."""
  height, width, _ = panorama.shape
  if row in (-1, height):
    row, column = (0 if row == -1 else height - 1), column + width // 2
  return panorama[row, column % width]


def _bilinear(panorama, row, column):
  north, west = int(np.floor(row)), int(np.floor(column))
  south_weight, east_weight = row - north, column - west
  total = 0.0
  for r, row_weight in ((north, 1 - south_weight), (north + 1, south_weight)):
    for c, column_weight in ((west, 1 - east_weight), (west + 1, east_weight)):
      total = total + row_weight * column_weight * _pixel(panorama, r, c)
  return total


@pytest.mark.parametrize("module", [np, jnp])
def test_bilinear_sampling_equals_the_pixel_by_pixel_reference(rng, module):
  panorama = rng.normal(size=(6, 12, 2))
  row, column = rng.uniform(-0.5, 5.5, 200), rng.uniform(-20, 30, 200)
  row[:3], column[:3] = [-0.5, 5.5, 2.0], [11.5, -0.5, 12.0]
  expected = [_bilinear(panorama, r, c) for r, c in zip(row, column, strict=True)]
  sampled = sphere.sample(panorama.astype(np.float32), module.asarray(row), module.asarray(column))
  np.testing.assert_allclose(sampled, expected, atol=2e-5)


def test_leading_axes_of_panorama_and_shape_of_coordinates_are_kept(rng):
  panorama = rng.normal(size=(2, 3, 4, 8, 5)).astype(np.float32)
  row, column = rng.uniform(0, 3, (6, 1)), rng.uniform(0, 8, 7)
  sampled = sphere.sample(panorama, row, column)
  assert sampled.shape == (2, 3, 6, 7, 5)
  np.testing.assert_allclose(sampled[1, 2], sphere.sample(panorama[1, 2], row, column), atol=1e-6)


def test_row_beyond_a_pole_is_the_outermost_row_half_a_turn_on(rng):
  panorama = rng.normal(size=(4, 8, 1)).astype(np.float32)
  columns = np.arange(8)
  for method in ("nearest", "bilinear"):
    north = sphere.sample(panorama, -1, columns, method=method)
    south = sphere.sample(panorama, 4, columns, method=method)
    np.testing.assert_array_equal(north, np.roll(panorama[0], 4, axis=0))
    np.testing.assert_array_equal(south, np.roll(panorama[3], 4, axis=0))


def test_nearest_takes_the_closest_centre_and_keeps_the_type():
  labels = np.arange(32, dtype=np.int32).reshape(4, 8, 1)
  sampled = sphere.sample(labels, np.array([0.4, 0.6]), np.array([7.4, 7.6]), method="nearest")
  assert sampled.dtype == jnp.int32
  np.testing.assert_array_equal(sampled[:, 0], [7, 8])  # the second one wraps to column 0 of row 1


def test_bilinear_makes_bytes_float():
  sampled = sphere.sample(np.full((2, 4, 1), 200, np.uint8), 0.5, 3.5)
  assert sampled.dtype == jnp.float32
  np.testing.assert_allclose(sampled, [200])


@pytest.mark.parametrize("method", ["linear", ""])
def test_unknown_method_is_refused(method):
  with pytest.raises(ValueError, match="bilinear"):
    sphere.sample(np.zeros((2, 4, 1)), 0, 0, method=method)


@pytest.mark.parametrize("shape", [(4, 8), (4, 7, 1), (0, 0, 3)])
def test_anything_but_a_panorama_is_refused(shape):
  with pytest.raises(ValueError, match="2 H"):
    sphere.sample(np.zeros(shape), 0, 0)
  with pytest.raises(ValueError, match="2 H"):
    sphere.resize_panorama(np.zeros(shape), 4)


def test_missing_channels_are_named_as_that():
  with pytest.raises(ValueError, match=r"not \(3, 4, 8\): add the channels, x\[..., None\]"):
    sphere.resize_panorama(np.zeros((3, 4, 8)), 4)
  assert sphere.resize_panorama(np.zeros((3, 4, 8))[..., None], 4).shape == (3, 4, 8, 1)


@pytest.mark.parametrize("height", [1, 3, 5, 8, 15])
def test_shrinking_is_the_area_mean_for_any_factor(rng, height):
  panorama = rng.normal(size=(16, 32, 3)).astype(np.float32)
  fine = panorama.astype(np.float64).repeat(height, axis=0).repeat(height, axis=1)
  expected = fine.reshape(height, 16, 2 * height, 16, 3).mean(axis=(1, 3))
  actual = resize(panorama, height)
  np.testing.assert_allclose(actual, expected, atol=1e-6)
  by_opencv = cv2.resize(panorama, (2 * height, height), interpolation=cv2.INTER_AREA)
  np.testing.assert_allclose(actual, by_opencv, atol=1e-5)


@pytest.mark.parametrize("height", [6, 7, 10, 32])
def test_enlarging_is_bilinear_sampling_over_seam_and_poles(rng, height):
  panorama = rng.normal(size=(2, 5, 10, 3)).astype(np.float32)
  row = (np.arange(height)[:, None] + 0.5) * 5 / height - 0.5
  column = (np.arange(2 * height) + 0.5) * 5 / height - 0.5
  expected = sample(panorama, row, column)
  np.testing.assert_allclose(resize(panorama, height), expected, atol=1e-5)


@pytest.mark.parametrize("height", [4, 8, 16])
def test_resizing_commutes_with_a_turn(rng, height):
  panorama = rng.normal(size=(8, 16, 2)).astype(np.float32)
  turned = resize(np.roll(panorama, 4, axis=1), height)
  expected = np.roll(resize(panorama, height), height // 2, axis=1)
  np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_resizing_a_mask_gives_fractions_and_the_same_size_gives_the_values():
  mask = np.zeros((4, 8, 1), bool)
  mask[0, :3] = True
  np.testing.assert_allclose(sphere.resize_panorama(mask, 2)[0, :, 0], [0.5, 0.25, 0, 0])
  np.testing.assert_array_equal(sphere.resize_panorama(mask, 4), mask.astype(np.float32))


def test_gradient_of_resizing_reaches_every_pixel_and_keeps_the_sum():
  for height in (3, 11):
    gradient = np.asarray(
      jax.grad(lambda p, h=height: resize(p, h).mean())(np.zeros((8, 16, 1), np.float32))
    )
    assert (gradient > 0).all()
    np.testing.assert_allclose(gradient.sum(), 1, rtol=1e-5)


def test_height_zero_is_refused():
  with pytest.raises(ValueError, match="at least 1 row"):
    sphere.resize_panorama(np.zeros((4, 8, 1)), 0)
