import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax import sphere

sphere_conv = jax.jit(sphere.sphere_conv, static_argnames="stride")

# height, kernel size, stride, input channels, output channels (None: depthwise)
CASES = [
  (3, 3, 1, 2, 2),
  (4, 3, 1, 3, 2),
  (8, 3, 1, 2, 5),
  (9, 5, 1, 3, 3),
  (8, 7, 2, 2, 1),
  (16, 3, 2, 4, 3),
  (12, 3, 3, 2, 4),
  (8, 5, 2, 1, 3),
  (8, 1, 2, 3, 3),
  (8, 3, 1, 4, None),
  (16, 5, 2, 3, None),
]


def _inputs(height, size, channels, out_channels, batch_size=2):
  rng = np.random.default_rng(height + 10 * size)
  shape = (1, channels) if out_channels is None else (channels, out_channels)
  x = rng.normal(size=(batch_size, height, 2 * height, channels))
  return x.astype(np.float32), rng.normal(size=(size, size, *shape)).astype(np.float32)


def _tap_corners(height, size, stride):
  """Rows, columns and weights [k, k, 4, H / s, W / s] of the four pixels around each tap.

  Straight from the geometry, in three dimensions and float64: the tap is the point
  centre + X east + Y north of the tangent plane.
  """
  width = 2 * height
  lat = np.pi / 2 - (np.arange(height // stride)[:, None] + 0.5) * stride * np.pi / height
  lon = -np.pi + (np.arange(width // stride) + 0.5) * stride * 2 * np.pi / width
  lon, lat = np.broadcast_arrays(lon, lat)
  center = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
  east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)])
  north = np.cross(center, east, axis=0)
  offsets = np.arange(size) - size // 2
  dy, dx = offsets[:, None, None, None], offsets[:, None, None]
  tangent_x = np.tan(dx * 2 * np.pi / width) + 0 * dy
  tangent_y = -np.tan(dy * np.pi / height) / np.cos(dx * 2 * np.pi / width)
  x, y, z = (
    center[i] + tangent_x * east[i] + tangent_y * north[i] for i in range(3)
  )  # [k, k, H / s, W / s]
  on_pole = np.hypot(x, y) < 1e-12  # all longitudes are right there; take the pixel's own
  column = (np.where(on_pole, lon, np.arctan2(y, x)) + np.pi) * width / (2 * np.pi) - 0.5
  row = (np.pi / 2 - np.arctan2(z, np.hypot(x, y))) * height / np.pi - 0.5
  corners = []
  for r, c in ((np.floor(row) + i, np.floor(column) + j) for i in (0, 1) for j in (0, 1)):
    half_turn = np.where((r < 0) | (r >= height), height, 0)
    weights = (1 - abs(row - r)) * (1 - abs(column - c))
    corners.append((np.clip(r, 0, height - 1), (c + half_turn) % width, weights))
  rows, columns, weights = (np.stack(v, axis=2) for v in zip(*corners, strict=True))
  return rows.astype(int), columns.astype(int), weights


def _reference(x, kernel, stride, module):
  """One plain gather; with module=np in float64, with module=jnp for autodiff."""
  rows, columns, weights = _tap_corners(x.shape[1], kernel.shape[0], stride)
  samples = (x[:, rows, columns] * module.asarray(weights)[..., None]).sum(axis=3)
  if kernel.shape[2] == 1 and kernel.shape[3] == x.shape[3] > 1:
    return module.einsum("bijhwc,ijc->bhwc", samples, kernel[:, :, 0])
  return module.einsum("bijhwc,ijcd->bhwd", samples, kernel)


def _assert_close(actual, expected, tolerance=1e-6):
  error = np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()
  assert error < tolerance


@pytest.mark.parametrize(("height", "size", "stride", "channels", "out_channels"), CASES)
def test_result_equals_the_float64_reference(height, size, stride, channels, out_channels):
  x, kernel = _inputs(height, size, channels, out_channels)
  expected = _reference(x.astype(np.float64), kernel.astype(np.float64), stride, np)
  actual = sphere_conv(x, kernel, stride=stride)
  assert actual.shape == (2, height // stride, 2 * height // stride, out_channels or channels)
  assert actual.dtype == jnp.float32
  _assert_close(actual, expected)


@pytest.mark.parametrize(("height", "size", "stride", "channels", "out_channels"), CASES)
def test_gradients_equal_autodiff_of_plain_gathers(height, size, stride, channels, out_channels):
  x, kernel = _inputs(height, size, channels, out_channels)

  def loss(convolve):
    return lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel)))

  def plain(x, kernel):
    return _reference(x, kernel, stride, jnp)

  expected = jax.jit(jax.grad(loss(plain), (0, 1)))(x, kernel)
  ours = jax.grad(loss(lambda x, kernel: sphere_conv(x, kernel, stride=stride)), (0, 1))
  for actual, gradient in zip(jax.jit(ours)(x, kernel), expected, strict=True):
    _assert_close(actual, np.asarray(gradient), 5e-6)


def test_oracle_cases_are_reproduced(shared):
  with np.load(shared / "oracle" / "sphere_conv.npz") as cases:
    for i in range(int(cases["n"])):
      x, kernel = (jnp.asarray(cases[f"{i}/{name}"], jnp.float32) for name in ("x", "kernel"))
      actual = sphere_conv(x, kernel, stride=int(cases[f"{i}/stride"]))
      _assert_close(actual, cases[f"{i}/y"])


@pytest.mark.parametrize(("height", "size", "stride", "channels", "out_channels"), CASES)
def test_roll_of_the_input_rolls_the_output(height, size, stride, channels, out_channels):
  x, kernel = _inputs(height, size, channels, out_channels)
  out = sphere_conv(x, kernel, stride=stride)
  for steps in (1, 3):
    rolled = sphere_conv(np.roll(x, steps * stride, axis=2), kernel, stride=stride)
    _assert_close(rolled, np.roll(out, steps, axis=2))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("axis", [1, 2])
def test_mirrored_input_and_kernel_give_the_mirrored_output(stride, axis):
  x, kernel = _inputs(8, 3, 3, 3)
  mirrored = sphere_conv(np.flip(x, axis), np.flip(kernel, axis - 1), stride=stride)
  _assert_close(mirrored, np.flip(sphere_conv(x, kernel, stride=stride), axis))


def test_constant_panorama_stays_constant_up_to_the_poles():
  _, kernel = _inputs(8, 3, 2, 3)
  out = sphere_conv(np.ones((1, 8, 16, 2), np.float32), kernel)
  _assert_close(out, np.broadcast_to(kernel.sum(axis=(0, 1, 2)), out.shape))


def test_equator_sees_nearly_the_planar_kernel():
  height = 256
  lon, lat = (np.arange(2 * height) * np.pi / height, np.arange(height)[:, None] * np.pi / height)
  x = (np.sin(3 * lon) * np.cos(2 * lat))[None, ..., None].astype(np.float32)
  _, kernel = _inputs(8, 3, 1, 1)
  planar = sum(
    kernel[i, j, 0, 0] * np.roll(x, (1 - i, 1 - j), axis=(1, 2)) for i in range(3) for j in range(3)
  )
  middle = slice(height // 2 - 1, height // 2 + 1)
  np.testing.assert_allclose(sphere_conv(x, kernel)[:, middle], planar[:, middle], atol=1e-3)


def test_jit_changes_nothing():
  x, kernel = _inputs(4, 3, 3, 2)
  _assert_close(sphere.sphere_conv(x, kernel), np.asarray(sphere_conv(x, kernel)))


@pytest.mark.parametrize("stride", [1, 2])
def test_vmap_changes_neither_result_nor_gradient(stride):
  x, kernel = _inputs(8, 3, 3, 2, batch_size=4)

  def value_and_gradient(x):
    return jax.value_and_grad(lambda x: (sphere_conv(x, kernel, stride=stride) ** 2).sum())(x)

  values, gradients = jax.jit(jax.vmap(value_and_gradient))(x.reshape(2, 2, *x.shape[1:]))
  value, gradient = jax.jit(value_and_gradient)(x)
  _assert_close(values.sum(), np.asarray(value))
  _assert_close(gradients.reshape(x.shape), np.asarray(gradient))


@pytest.mark.parametrize("num_blocks", [1, 3, 12])
def test_the_number_of_row_blocks_changes_nothing(monkeypatch, num_blocks):
  x, kernel = _inputs(12, 3, 2, 2)

  def gradients(x, kernel):
    return jax.grad(lambda *args: jnp.tanh(sphere.sphere_conv(*args)).sum(), (0, 1))(x, kernel)

  expected = jax.jit(gradients)(x, kernel)
  monkeypatch.setattr(sphere.circulant, "_num_blocks", lambda rows, row_bytes: num_blocks)
  for actual, gradient in zip(jax.jit(lambda *a: gradients(*a))(x, kernel), expected, strict=True):
    _assert_close(actual, np.asarray(gradient))


def test_large_blocks_are_split_and_small_ones_leave_a_loop():
  assert sphere.circulant._num_blocks(32, 1) == 2
  assert sphere.circulant._num_blocks(32, 2**20) == 8  # 4 MiB each
  assert sphere.circulant._num_blocks(9, 2**21) == 9
  assert sphere.circulant._num_blocks(7, 1) == 7
  assert sphere.circulant._num_blocks(1, 2**30) == 1


def test_gradient_uses_no_scatter():
  x, kernel = _inputs(8, 3, 3, 3)
  for stride in (1, 2):
    gradient = jax.grad(lambda x, s=stride: sphere_conv(x, kernel, stride=s).sum())
    assert "scatter" not in str(jax.make_jaxpr(gradient)(x))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_type", [jnp.bfloat16, jnp.float32])
def test_half_precision_is_promoted_as_usual_and_gradients_keep_their_types(stride, kernel_type):
  x, kernel = (jnp.asarray(v) for v in _inputs(8, 3, 3, 2))
  half = x.astype(jnp.bfloat16), kernel.astype(kernel_type)
  out = sphere_conv(*half, stride=stride)
  assert out.dtype == kernel_type
  _assert_close(out.astype(jnp.float32), np.asarray(sphere_conv(x, kernel, stride=stride)), 5e-2)
  gradients = jax.grad(lambda *args: sphere_conv(*args, stride=stride).sum(), (0, 1))(*half)
  assert [g.dtype for g in gradients] == [jnp.bfloat16, kernel_type]


@pytest.mark.parametrize(
  ("x_shape", "kernel_shape", "stride", "message"),
  [
    ((8, 16, 3), (3, 3, 3, 4), 1, "2 H"),
    ((1, 8, 15, 3), (3, 3, 3, 4), 1, "2 H"),
    ((1, 8, 16, 3), (2, 2, 3, 4), 1, "k odd"),
    ((1, 8, 16, 3), (3, 5, 3, 4), 1, "k odd"),
    ((1, 8, 16, 3), (3, 3, 4), 1, "k odd"),
    ((1, 8, 16, 3), (3, 3, 4, 4), 1, "3 channels"),
    ((1, 8, 16, 3), (3, 3, 1, 4), 1, "3 channels"),
    ((1, 2, 4, 3), (3, 3, 3, 4), 1, "90 degrees"),
    ((1, 9, 18, 3), (3, 3, 3, 4), 2, "stride 2"),
    ((1, 8, 16, 3), (3, 3, 3, 4), 0, "stride 0"),
  ],
)
def test_shapes_outside_the_contract_are_refused(x_shape, kernel_shape, stride, message):
  with pytest.raises(ValueError, match=message):
    sphere_conv(jnp.zeros(x_shape), jnp.zeros(kernel_shape), stride=stride)
