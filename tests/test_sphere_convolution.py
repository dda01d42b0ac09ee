import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from foir360_jax import sphere
from foir360_jax.sphere import FORMULATIONS
from foir360_jax.sphere.formulations import choose_formulation
from foir360_jax.sphere.reference import (
  TOLERANCES,
  sphere_conv_gradients_reference,
  sphere_conv_reference,
)

sphere_conv = jax.jit(sphere.sphere_conv, static_argnames=("stride", "formulation"))

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
  (8, 1, 1, 3, 2),
  (8, 1, 2, 3, 3),
  (7, 7, 1, 2, 2),
  (24, 3, 1, 1, 40),  # rows around the poles apart; many more channels out than in
  (8, 3, 1, 4, None),
  (16, 5, 2, 3, None),
  (32, 5, 1, 3, None),
  (8, 1, 1, 3, None),
]


def _inputs(height, size, channels, out_channels, batch_size=2):
  rng = np.random.default_rng(height + 10 * size)
  shape = (1, channels) if out_channels is None else (channels, out_channels)
  x = rng.normal(size=(batch_size, height, 2 * height, channels))
  return x.astype(np.float32), rng.normal(size=(size, size, *shape)).astype(np.float32)


def _assert_close(actual, expected, tolerance=TOLERANCES["float32"]):
  error = np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()
  assert error < tolerance


def _formulations(stride, out_channels):
  return FORMULATIONS if stride == 1 and out_channels else (None,)


every_case = pytest.mark.parametrize(
  ("height", "size", "stride", "channels", "out_channels"), CASES
)
every_formulation = pytest.mark.parametrize(
  ("height", "size", "stride", "channels", "out_channels", "formulation"),
  [(*case, name) for case in CASES for name in _formulations(case[2], case[4])],
)


@every_formulation
def test_result_equals_the_float64_reference(
  height, size, stride, channels, out_channels, formulation
):
  x, kernel = _inputs(height, size, channels, out_channels)
  actual = sphere_conv(x, kernel, stride=stride, formulation=formulation)
  assert actual.shape == (2, height // stride, 2 * height // stride, out_channels or channels)
  assert actual.dtype == jnp.float32
  _assert_close(actual, sphere_conv_reference(x, kernel, stride=stride))


@every_formulation
def test_gradients_equal_the_float64_reference(
  height, size, stride, channels, out_channels, formulation
):
  x, kernel = _inputs(height, size, channels, out_channels)
  shape = (2, height // stride, 2 * height // stride, out_channels or channels)
  cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)

  @jax.jit
  def gradients(x, kernel):
    return jax.vjp(
      lambda *args: sphere_conv(*args, stride=stride, formulation=formulation), x, kernel
    )[1](cotangent)

  expected = sphere_conv_gradients_reference(x, kernel, cotangent, stride=stride)
  for actual, gradient in zip(gradients(x, kernel), expected, strict=True):
    _assert_close(actual, gradient, 2 * TOLERANCES["float32"])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("depthwise", [False, True])
def test_reference_gradients_are_those_of_the_reference(stride, depthwise):
  x, kernel = _inputs(6, 3, 2, None if depthwise else 3)
  out = sphere_conv_reference(x, kernel, stride=stride)
  cotangent = np.random.default_rng(2).normal(size=out.shape)
  for i, gradient in enumerate(
    sphere_conv_gradients_reference(x, kernel, cotangent, stride=stride)
  ):
    inputs = [x.astype(float), kernel.astype(float)]
    direction = np.random.default_rng(3).normal(size=gradient.shape)
    inputs[i] = direction  # the convolution is linear in each
    slope = (sphere_conv_reference(*inputs, stride=stride) * cotangent).sum()
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-9)


def test_oracle_cases_are_reproduced(shared):
  with np.load(shared / "oracle" / "sphere_conv.npz") as cases:
    for i in range(int(cases["n"])):
      x, kernel = (jnp.asarray(cases[f"{i}/{name}"], jnp.float32) for name in ("x", "kernel"))
      actual = sphere_conv(x, kernel, stride=int(cases[f"{i}/stride"]))
      _assert_close(actual, cases[f"{i}/y"])


@every_case
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


@pytest.mark.parametrize("out_channels", [2, None])
@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_is_within_its_tolerance(stride, out_channels):
  x, kernel = (jnp.asarray(v, jnp.bfloat16) for v in _inputs(16, 3, 8, out_channels))
  rounded = [np.asarray(v, np.float64) for v in (x, kernel)]
  expected = sphere_conv_reference(*rounded, stride=stride)
  out, vjp = jax.vjp(lambda *args: sphere_conv(*args, stride=stride), x, kernel)
  assert out.dtype == jnp.bfloat16
  _assert_close(out, expected, TOLERANCES["bfloat16"])
  cotangent = jnp.asarray(expected / np.abs(expected).max(), jnp.bfloat16)
  gradients = sphere_conv_gradients_reference(*rounded, np.asarray(cotangent), stride=stride)
  for actual, gradient in zip(vjp(cotangent), gradients, strict=True):
    assert actual.dtype == jnp.bfloat16
    _assert_close(actual, gradient, 2 * TOLERANCES["bfloat16"])


def test_sampling_weights_are_not_rounded_to_bfloat16():
  # A ramp along the rows is reproduced by bilinear weights that add up to 1, not by rounded ones.
  x = jnp.ones((1, 32, 64, 1), jnp.bfloat16)
  kernel = jnp.zeros((3, 3, 1, 1), jnp.bfloat16).at[0, 0].set(1)
  np.testing.assert_array_equal(np.asarray(sphere_conv(x, kernel), np.float32), 1.0)


@pytest.mark.parametrize("stride", [1, 2])
def test_mixed_types_are_promoted_as_usual_and_gradients_keep_their_types(stride):
  x, kernel = (jnp.asarray(v) for v in _inputs(8, 3, 3, 2))
  half = x.astype(jnp.bfloat16)
  out = sphere_conv(half, kernel, stride=stride)
  assert out.dtype == jnp.float32
  _assert_close(out, np.asarray(sphere_conv(half.astype(jnp.float32), kernel, stride=stride)))
  gradients = jax.grad(lambda *args: sphere_conv(*args, stride=stride).sum(), (0, 1))(half, kernel)
  assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32]


KINDS = [(1, 3), (2, 3), (1, None)]  # stride, output channels
every_kind = pytest.mark.parametrize(("stride", "out_channels"), KINDS)


def _gradients_of(stride):
  def loss(x, kernel):
    return jnp.sum(jnp.tanh(sphere_conv(x, kernel, stride=stride)))

  return jax.grad(loss, (0, 1))


@every_kind
@pytest.mark.parametrize("check_vma", [False, True])
def test_shard_map_over_the_batch_changes_nothing(stride, out_channels, check_vma):
  x, kernel = _inputs(8, 3, 3, out_channels, batch_size=4)
  expected = jax.jit(_gradients_of(stride))(x, kernel)
  mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

  def step(x, kernel):
    kernel = jax.lax.pcast(kernel, "data", to="varying")
    x_gradient, kernel_gradient = _gradients_of(stride)(x, kernel)
    return x_gradient, jax.lax.psum(kernel_gradient, "data")

  split, whole = PartitionSpec("data"), PartitionSpec()
  mapped = jax.shard_map(
    step, mesh=mesh, in_specs=(split, whole), out_specs=(split, whole), check_vma=check_vma
  )
  for actual, gradient in zip(jax.jit(mapped)(x, kernel), expected, strict=True):
    _assert_close(actual, np.asarray(gradient), 2e-6)


@every_kind
def test_pmap_over_the_batch_changes_nothing(stride, out_channels):
  x, kernel = _inputs(8, 3, 3, out_channels, batch_size=4)
  expected, _ = jax.jit(_gradients_of(stride))(x, kernel)
  actual, _ = jax.pmap(_gradients_of(stride), in_axes=(0, None))(x[:, None], kernel)
  _assert_close(actual[:, 0], np.asarray(expected), 2e-6)


@every_kind
def test_remat_and_scan_change_nothing(stride, out_channels):
  x, kernel = _inputs(8, 3, 3, out_channels)
  kernels = np.stack([kernel, 0.5 * kernel])

  def block(x, kernel):
    out = jnp.tanh(sphere_conv(x, kernel, stride=stride))
    return jnp.repeat(jnp.repeat(out, stride, 1), stride, 2)

  def in_loop(x, kernels):
    step = jax.checkpoint(lambda x, kernel: (block(x, kernel), None))
    return jax.lax.scan(step, x, kernels)[0].sum()

  def unrolled(x, kernels):
    return block(block(x, kernels[0]), kernels[1]).sum()

  expected = jax.jit(jax.grad(unrolled, (0, 1)))(x, kernels)
  for actual, gradient in zip(
    jax.jit(jax.grad(in_loop, (0, 1)))(x, kernels), expected, strict=True
  ):
    _assert_close(actual, np.asarray(gradient), 5e-6)


@every_kind
def test_backward_pass_keeps_the_inputs_and_nothing_else(stride, out_channels):
  x, kernel = _inputs(16, 3, 3, out_channels)
  residuals = jax.eval_shape(
    lambda *args: jax.vjp(lambda *a: sphere.sphere_conv(*a, stride=stride), *args)[1], x, kernel
  )
  kept = sum(leaf.size for leaf in jax.tree.leaves(residuals))
  assert kept <= x.size + kernel.size


@every_kind
def test_a_large_map_adds_no_large_constants_to_the_program(stride, out_channels):
  shape = (3, 3, 3, 3) if out_channels else (3, 3, 1, 3)
  program = jax.jit(_gradients_of(stride)).lower(
    jax.ShapeDtypeStruct((1, 512, 1024, 3), jnp.float32), jax.ShapeDtypeStruct(shape, jnp.float32)
  )
  sizes = [
    np.prod([int(n) for n in dimensions.split("x")[:-1]], dtype=int)
    for dimensions in re.findall(
      r"stablehlo.constant .*tensor<([0-9x]+x[a-z0-9]+)>", program.as_text()
    )
  ]
  assert sizes and sum(sizes) * 4 < 2**20  # one index a pixel and tap would be 18 MiB


def test_formulation_is_chosen_by_the_channels():
  assert choose_formulation(64, 64, 1) == "two_sided"
  assert choose_formulation(3, 64, 1) == "sample_first"
  assert choose_formulation(128, 1, 1) == "project_first"
  assert choose_formulation(128, 1, 2) == "sample_first"


def test_unknown_formulation_is_refused():
  with pytest.raises(ValueError, match="sample_first, project_first, two_sided, not 'fft'"):
    sphere_conv(jnp.zeros((1, 8, 16, 3)), jnp.zeros((3, 3, 3, 4)), formulation="fft")


def test_formulations_that_waste_work_at_a_stride_are_refused():
  with pytest.raises(ValueError, match="with stride 2 only sample_first"):
    sphere_conv(
      jnp.zeros((1, 8, 16, 3)), jnp.zeros((3, 3, 3, 4)), stride=2, formulation="two_sided"
    )


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
