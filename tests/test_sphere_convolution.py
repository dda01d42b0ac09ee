import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from foir360_jax import sphere
from foir360_jax.models.layers import SphereConv
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


@functools.partial(jax.jit, static_argnames=("stride", "formulation"))
def value_and_gradients(x, kernel, cotangent, *, stride=1, formulation=None):
  """The convolution and its gradients by both inputs: gradients alone would compile both too."""

  def convolve(x, kernel):
    return sphere.sphere_conv(x, kernel, stride=stride, formulation=formulation)

  out, gradients_of = jax.vjp(convolve, x, kernel)
  return out, *gradients_of(cotangent)


def _cotangent(x, kernel, stride):
  depthwise = kernel.shape[2] == 1 and kernel.shape[3] == x.shape[3] > 1
  channels = x.shape[3] if depthwise else kernel.shape[3]
  shape = (len(x), x.shape[1] // stride, x.shape[2] // stride, channels)
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def value_of(x, kernel, *, stride=1):
  """The convolution, by the program that also has the gradients: other tests need it anyway."""
  cotangent = _cotangent(x, kernel, stride)
  return value_and_gradients(x, kernel, cotangent, stride=stride, formulation=None)[0]


def _assert_close(actual, expected, tolerance=TOLERANCES["float32"]):
  error = np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()
  assert error < tolerance


def _formulations(stride, channels, out_channels):
  """All; the one that is chosen anyway as None, so that its program is also that of other tests."""
  if stride > 1 or not out_channels:
    return (None,)
  chosen = choose_formulation(channels, out_channels, stride)
  return [None if name == chosen else name for name in FORMULATIONS]


every_case = pytest.mark.parametrize(
  ("height", "size", "stride", "channels", "out_channels"), CASES
)
DENSE_CASES = [case for case in CASES if case[4] and (case[1] > 1 or case[2] > 1)]
every_formulation = pytest.mark.parametrize(
  ("height", "size", "stride", "channels", "out_channels", "formulation"),
  [
    # A forced formulation of 7x7 taps takes long to compile; 3x3 and 5x5 assert the same.
    pytest.param(*case, name, marks=pytest.mark.slow if name and case[1] == 7 else ())
    for case in CASES
    for name in _formulations(*case[2:])
  ],
)


@every_formulation
def test_result_and_gradients_equal_the_float64_reference(
  height, size, stride, channels, out_channels, formulation
):
  x, kernel = _inputs(height, size, channels, out_channels)
  cotangent = _cotangent(x, kernel, stride)
  actual, *gradients = value_and_gradients(
    x, kernel, cotangent, stride=stride, formulation=formulation
  )
  assert actual.shape == (2, height // stride, 2 * height // stride, out_channels or channels)
  assert actual.dtype == jnp.float32
  _assert_close(actual, sphere_conv_reference(x, kernel, stride=stride))
  expected = sphere_conv_gradients_reference(x, kernel, cotangent, stride=stride)
  for actual, gradient in zip(gradients, expected, strict=True):
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
  out = value_of(x, kernel, stride=stride)
  for steps in (1, 3):
    rolled = value_of(np.roll(x, steps * stride, axis=2), kernel, stride=stride)
    _assert_close(rolled, np.roll(out, steps, axis=2))


KINDS = [(1, 3), (2, 3), (1, None)]  # stride, output channels
every_kind = pytest.mark.parametrize(("stride", "out_channels"), KINDS)


def _inputs_of_a_kind(stride, out_channels):
  """Inputs of one shape a kind: what does not depend on the shape shares their programs."""
  x, kernel = _inputs(8, 3, 3, out_channels, batch_size=4)
  return x, kernel, _cotangent(x, kernel, stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("axis", [1, 2])
def test_mirrored_input_and_kernel_give_the_mirrored_output(stride, axis):
  x, kernel, _ = _inputs_of_a_kind(stride, 3)
  mirrored = value_of(np.flip(x, axis), np.flip(kernel, axis - 1), stride=stride)
  _assert_close(mirrored, np.flip(value_of(x, kernel, stride=stride), axis))


def test_constant_panorama_stays_constant_up_to_the_poles():
  x, kernel, _ = _inputs_of_a_kind(1, 3)
  out = value_of(np.ones_like(x), kernel)
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


@every_kind
def test_vmap_changes_neither_result_nor_gradients(stride, out_channels):
  x, kernel, cotangent = _inputs_of_a_kind(stride, out_channels)
  mapped = jax.jit(
    jax.vmap(functools.partial(value_and_gradients, stride=stride), in_axes=(0, None, 0))
  )
  out, x_gradient, kernel_gradients = mapped(
    *(
      array.reshape(2, 2, *array.shape[1:]) if array is not kernel else kernel
      for array in (x, kernel, cotangent)
    )
  )
  expected = value_and_gradients(x, kernel, cotangent, stride=stride)
  _assert_close(out.reshape(cotangent.shape), np.asarray(expected[0]))
  _assert_close(x_gradient.reshape(x.shape), np.asarray(expected[1]))
  _assert_close(kernel_gradients.sum(0), np.asarray(expected[2]))


@pytest.mark.parametrize("num_blocks", [1, 4, 8])
def test_the_number_of_row_blocks_changes_nothing(monkeypatch, num_blocks):
  inputs = _inputs_of_a_kind(1, 3)
  expected = value_and_gradients(*inputs, stride=1)  # of two blocks
  assert sphere.circulant._num_blocks(8, 1) == 2
  asked = []
  monkeypatch.setattr(
    sphere.circulant, "_num_blocks", lambda rows, row_bytes: asked.append(rows) or num_blocks
  )
  table = sphere.formulations._FORMULATIONS
  for name, pair in table.items():  # without jit, which remembers how it was traced
    monkeypatch.setitem(table, name, tuple(function.__wrapped__ for function in pair))
  in_blocks = jax.jit(lambda *inputs: value_and_gradients.__wrapped__(*inputs))
  for actual, other in zip(in_blocks(*inputs), expected, strict=True):
    _assert_close(actual, np.asarray(other))
  assert len(asked) > 1


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
  x, kernel = (v.astype(jnp.bfloat16) for v in _inputs(16, 3, 8, out_channels))
  rounded = [np.asarray(v, np.float64) for v in (x, kernel)]
  expected = sphere_conv_reference(*rounded, stride=stride)
  cotangent = (expected / np.abs(expected).max()).astype(jnp.bfloat16)
  out, *actual_gradients = value_and_gradients(x, kernel, cotangent, stride=stride)
  assert out.dtype == jnp.bfloat16
  _assert_close(out, expected, TOLERANCES["bfloat16"])
  gradients = sphere_conv_gradients_reference(*rounded, np.asarray(cotangent), stride=stride)
  for actual, gradient in zip(actual_gradients, gradients, strict=True):
    assert actual.dtype == jnp.bfloat16
    _assert_close(actual, gradient, 2 * TOLERANCES["bfloat16"])


def test_sampling_weights_are_not_rounded_to_bfloat16():
  # A ramp along the rows is reproduced by bilinear weights that add up to 1, not by rounded ones.
  x = np.ones((1, 32, 64, 1), jnp.bfloat16)
  kernel = np.zeros((3, 3, 1, 1), jnp.bfloat16)
  kernel[0, 0] = 1
  np.testing.assert_array_equal(np.asarray(sphere_conv(x, kernel), np.float32), 1.0)


@pytest.mark.parametrize("stride", [1, 2])
def test_mixed_types_are_promoted_as_usual_and_gradients_keep_their_types(stride):
  x, kernel, cotangent = _inputs_of_a_kind(stride, 3)
  half = x.astype(jnp.bfloat16)
  out, *gradients = value_and_gradients(half, kernel, cotangent, stride=stride)
  assert out.dtype == jnp.float32
  _assert_close(out, np.asarray(value_of(half.astype(np.float32), kernel, stride=stride)))
  assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32]


@every_kind
@pytest.mark.parametrize("check_vma", [False, True])
def test_shard_map_over_the_batch_changes_nothing(stride, out_channels, check_vma):
  inputs = _inputs_of_a_kind(stride, out_channels)
  mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

  def step(x, kernel, cotangent):
    kernel = jax.lax.pcast(kernel, "data", to="varying")
    out, x_gradient, kernel_gradient = value_and_gradients(x, kernel, cotangent, stride=stride)
    return out, x_gradient, jax.lax.psum(kernel_gradient, "data")

  split, whole = PartitionSpec("data"), PartitionSpec()
  mapped = jax.shard_map(
    step,
    mesh=mesh,
    in_specs=(split, whole, split),
    out_specs=(split, split, whole),
    check_vma=check_vma,
  )
  expected = value_and_gradients(*inputs, stride=stride)
  for actual, other in zip(jax.jit(mapped)(*inputs), expected, strict=True):
    _assert_close(actual, np.asarray(other), 2e-6)


@every_kind
def test_pmap_over_the_batch_changes_nothing(stride, out_channels):
  x, kernel, cotangent = _inputs_of_a_kind(stride, out_channels)
  mapped = jax.pmap(functools.partial(value_and_gradients, stride=stride), in_axes=(0, None, 0))
  out, x_gradient, kernel_gradients = mapped(x[:, None], kernel, cotangent[:, None])
  expected = map(np.asarray, value_and_gradients(x, kernel, cotangent, stride=stride))
  actual = out[:, 0], x_gradient[:, 0], np.asarray(kernel_gradients).sum(0)
  for one, other in zip(actual, expected, strict=True):
    _assert_close(one, other, 2e-6)


@every_kind
def test_remat_and_scan_change_nothing(stride, out_channels):
  x, kernel = _inputs(8, 3, 3, out_channels)
  kernels = np.stack([kernel, 0.5 * kernel])

  def block(x, kernel):
    out = jnp.tanh(sphere_conv(x, kernel, stride=stride))
    return jnp.repeat(jnp.repeat(out, stride, 1), stride, 2)

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1))
  def in_loop(x, kernels):
    step = jax.checkpoint(lambda x, kernel: (block(x, kernel), None))
    return jax.lax.scan(step, x, kernels)[0].sum()

  @jax.jit
  def back_through_a_block(x, kernel, cotangent):
    out, gradients_of = jax.vjp(block, x, kernel)
    return out, *gradients_of(cotangent)

  ones = np.ones_like(x)
  middle, *_ = back_through_a_block(x, kernels[0], ones)
  _, cotangent, second = back_through_a_block(middle, kernels[1], ones)
  _, x_gradient, first = back_through_a_block(x, kernels[0], cotangent)
  actual = in_loop(x, kernels)
  _assert_close(actual[0], np.asarray(x_gradient), 5e-6)
  _assert_close(actual[1], np.stack([first, second]), 5e-6)


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
  x, kernel, cotangent = (
    jax.ShapeDtypeStruct(shape, jnp.float32)
    for shape in ((1, 512, 1024, 3), shape, (1, 512 // stride, 1024 // stride, 3))
  )
  program = value_and_gradients.lower(x, kernel, cotangent, stride=stride)
  sizes = [
    np.prod([int(n) for n in dimensions.split("x")[:-1]], dtype=int)
    for dimensions in re.findall(
      r"stablehlo.constant .*tensor<([0-9x]+x[a-z0-9]+)>", program.as_text()
    )
  ]
  assert sizes and sum(sizes) * 4 < 2**20  # one index a pixel and tap would be 18 MiB


@pytest.mark.parametrize(("height", "size", "stride", "channels", "out_channels"), DENSE_CASES)
def test_without_a_formulation_the_chosen_one_computes(
  monkeypatch, height, size, stride, channels, out_channels
):
  monkeypatch.setattr("foir360_jax.sphere.convolution.convolve", lambda name, x, kernel: name)
  inputs = _inputs(height, size, channels, out_channels)
  chosen = choose_formulation(channels, out_channels, stride)
  assert sphere.sphere_conv(*inputs, stride=stride) == chosen


def test_formulation_is_chosen_by_the_channels():
  assert choose_formulation(64, 64, 1) == "two_sided"
  assert choose_formulation(3, 64, 1) == "sample_first"
  assert choose_formulation(128, 1, 1) == "project_first"
  assert choose_formulation(128, 1, 2) == "sample_first"


def test_unknown_formulation_is_refused():
  with pytest.raises(ValueError, match="sample_first, project_first, two_sided, not 'fft'"):
    sphere_conv(np.zeros((1, 8, 16, 3)), np.zeros((3, 3, 3, 4)), formulation="fft")


def test_formulations_that_waste_work_at_a_stride_are_refused():
  with pytest.raises(ValueError, match="with stride 2 only sample_first"):
    sphere_conv(np.zeros((1, 8, 16, 3)), np.zeros((3, 3, 3, 4)), stride=2, formulation="two_sided")


def test_the_layer_says_what_the_operator_says_of_a_missing_batch_axis():
  layer = SphereConv(3, 4, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match="the batch axis is missing"):
    layer(np.zeros((8, 16, 3), np.float32))
  assert layer(np.zeros((8, 16, 3), np.float32)[None]).shape == (1, 8, 16, 4)  # the cure


@pytest.mark.parametrize(
  ("x_shape", "kernel_shape", "stride", "message"),
  [
    ((8, 16, 3), (3, 3, 3, 4), 1, r"not \(8, 16, 3\): the batch axis is missing, give x\[None\]"),
    ((8, 16, 3), (3, 3, 1, 3), 1, "the batch axis is missing"),  # depthwise
    ((8, 16, 3), (1, 1, 3, 4), 1, "the batch axis is missing"),
    ((5, 8, 16), (3, 3, 1, 1), 1, r"the channels are missing, give x\[..., None\]"),
    ((8, 16), (3, 3, 1, 1), 1, "give it four axes"),
    ((1, 8, 15, 3), (3, 3, 3, 4), 1, "resize it to 2:1"),
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
    sphere_conv(np.zeros(x_shape), np.zeros(kernel_shape), stride=stride)
