"""ResNet-50 beside a slow reference that keeps the batch normalisation apart."""

import hashlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from foir360_jax.models import parameter_keys
from foir360_jax.models.encoders import ResNet50
from foir360_jax.models.pretrained import load_encoder_weights, load_resnet50, read_tensors
from foir360_jax.models.pretrained.resnet50 import resnet50_from_tensors
from foir360_jax.sphere.reference import sphere_conv_reference

BLOCKS = [(3, 1, 64), (4, 2, 128), (6, 2, 256), (3, 2, 512)]  # count, stride of the first, width
MEAN = np.array([0.485, 0.456, 0.406])
DEVIATION = np.array([0.229, 0.224, 0.225])

run = nnx.jit(lambda model, image: model(image))


def assert_close(actual, expected, tolerance):
  assert actual.shape == expected.shape
  error = np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()
  assert error < tolerance


def random_tensors(seed):
  """A state dict with torchvision's names and shapes."""
  rng = np.random.default_rng(seed)
  tensors = {}

  def add(kernel, norm, *shape):
    scale = np.sqrt(2 / np.prod(shape[1:]))
    tensors[f"{kernel}.weight"] = (rng.normal(size=shape) * scale).astype(np.float32)
    for part, low, high in (
      ("weight", 0.5, 1.5),
      ("bias", -0.3, 0.3),
      ("running_mean", -0.3, 0.3),
      ("running_var", 1.5, 3.0),
    ):
      tensors[f"{norm}.{part}"] = rng.uniform(low, high, shape[0]).astype(np.float32)
    tensors[f"{norm}.running_var"][3] = 0.01  # so that epsilon is seen
    tensors[f"{norm}.num_batches_tracked"] = np.array(7)

  add("conv1", "bn1", 64, 3, 7, 7)
  before = 64
  for level, (count, _, width) in enumerate(BLOCKS, start=1):
    for index in range(count):
      prefix = f"layer{level}.{index}."
      add(f"{prefix}conv1", f"{prefix}bn1", width, before, 1, 1)
      add(f"{prefix}conv2", f"{prefix}bn2", width, width, 3, 3)
      add(f"{prefix}conv3", f"{prefix}bn3", 4 * width, width, 1, 1)
      if index == 0:
        add(f"{prefix}downsample.0", f"{prefix}downsample.1", 4 * width, before, 1, 1)
      before = 4 * width
  return tensors | {"fc.weight": np.zeros((5, 2048)), "fc.bias": np.zeros(5)}


def forward(tensors, image, convolve, max_pool):
  """The network from a convolution (x, kernel, stride) and a pool; maps are [B, H, W, C]."""

  def layer(x, kernel, norm, stride=1):
    gamma, beta, mean, variance = (
      np.asarray(tensors[f"{norm}.{part}"], np.float64)
      for part in ("weight", "bias", "running_mean", "running_var")
    )
    x = convolve(x, np.asarray(tensors[f"{kernel}.weight"], np.float64), stride)
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

  x = (np.asarray(image, np.float64) / 255 - MEAN) / DEVIATION
  x = max_pool(np.maximum(layer(x, "conv1", "bn1", 2), 0))
  maps = {}
  for level, (count, first_stride, _) in enumerate(BLOCKS, start=1):
    for index in range(count):
      prefix, stride = f"layer{level}.{index}.", first_stride if index == 0 else 1
      y = np.maximum(layer(x, f"{prefix}conv1", f"{prefix}bn1"), 0)
      y = np.maximum(layer(y, f"{prefix}conv2", f"{prefix}bn2", stride), 0)
      y = layer(y, f"{prefix}conv3", f"{prefix}bn3")
      if index == 0:
        x = layer(x, f"{prefix}downsample.0", f"{prefix}downsample.1", stride)
      x = np.maximum(x + y, 0)
    maps[2 ** (level + 1)] = x
  return maps


def numpy_operations(pad):
  """Convolution and pool a tap at a time; `pad(x, size, value)` extends a map beyond its edges."""

  def taps(x, size, stride, value):
    rows, columns = (-(-length // stride) for length in x.shape[1:3])
    x = pad(x, size // 2, value)
    for row, column in np.ndindex(size, size):
      ends = row + (rows - 1) * stride + 1, column + (columns - 1) * stride + 1
      yield row, column, x[:, row : ends[0] : stride, column : ends[1] : stride]

  def convolve(x, kernel, stride):
    parts = taps(x, kernel.shape[-1], stride, 0)
    return sum(part @ kernel[:, :, row, column].T for row, column, part in parts)

  def max_pool(x):
    return np.max([part for *_, part in taps(x, 3, 2, -np.inf)], axis=0)

  return convolve, max_pool


def pad_with_value(x, size, value):
  return np.pad(x, ((0, 0), (size, size), (size, size), (0, 0)), constant_values=value)


def pad_on_the_sphere(x, size, value):
  height, width = x.shape[1:3]
  rows, columns = np.arange(-size, height + size), np.arange(-size, width + size)
  beyond = (rows < 0) | (rows >= height)
  mirrored = np.where(rows < 0, -1 - rows, np.where(rows >= height, 2 * height - 1 - rows, rows))
  turned = columns + np.where(beyond, width // 2, 0)[:, None]
  return x[:, mirrored[:, None], turned % width]


@pytest.fixture(scope="module")
def drawn_tensors():
  return random_tensors(0)


@pytest.mark.parametrize(
  ("padding", "shape", "pad"),
  [("zero", (2, 37, 46, 3), pad_with_value), ("sphere", (1, 64, 128, 3), pad_on_the_sphere)],
)
def test_features_equal_the_float64_reference(drawn_tensors, padding, shape, pad):
  image = np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)
  actual = run(resnet50_from_tensors(drawn_tensors, padding=padding), image)
  expected = forward(drawn_tensors, image, *numpy_operations(pad))
  assert list(actual) == [4, 8, 16, 32]
  for stride, features in expected.items():
    assert_close(actual[stride], features, 1e-4)


def test_the_reference_equals_torch(drawn_tensors):
  torch = pytest.importorskip("torch")
  functional = torch.nn.functional

  def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

  def convolve(x, kernel, stride):
    weight = torch.from_numpy(kernel)
    y = functional.conv2d(channels_first(x), weight, stride=stride, padding=kernel.shape[-1] // 2)
    return y.permute(0, 2, 3, 1).numpy()

  def max_pool(x):
    return functional.max_pool2d(channels_first(x), 3, 2, 1).permute(0, 2, 3, 1).numpy()

  image = np.random.default_rng(2).uniform(0, 255, (1, 37, 46, 3))
  expected = forward(drawn_tensors, image, convolve, max_pool)
  for stride, x in forward(drawn_tensors, image, *numpy_operations(pad_with_value)).items():
    assert_close(x, expected[stride], 1e-9)


def test_rolling_a_panorama_rolls_the_features(drawn_tensors):
  image = np.random.default_rng(3).uniform(0, 255, (1, 96, 192, 3)).astype(np.float32)
  model = resnet50_from_tensors(drawn_tensors, padding="sphere", sphere_from_stride=16)
  rolled = run(model, np.roll(image, 32, axis=2))
  for stride, features in run(model, image).items():
    assert_close(rolled[stride], np.roll(features, 32 // stride, axis=2), 1e-5)


def test_kernels_lie_on_the_sphere_from_the_stride_that_is_asked_for(draw_parameters):
  model = draw_parameters(
    lambda: ResNet50(padding="sphere", sphere_from_stride=16, rngs=parameter_keys(0))
  )
  spherical = [[block.convolve.spherical for block in blocks] for blocks in model.stages]
  assert spherical == [[False] * 3, [False] * 4, [False] + [True] * 5, [False] + [True] * 2]
  layer = model.stages[2][1].convolve
  x = np.random.default_rng(4).normal(size=(1, 6, 12, 256)).astype(np.float32)
  expected = sphere_conv_reference(x, np.asarray(layer.kernel, np.float64))
  assert_close(jax.jit(layer)(x), expected + np.asarray(layer.bias), 1e-5)


def test_without_batch_normalisation_a_new_network_keeps_the_size_of_its_maps():
  model = ResNet50(padding="zero", rngs=parameter_keys(0))
  image = np.random.default_rng(5).uniform(0, 255, (1, 37, 46, 3)).astype(np.float32)
  sizes = [np.sqrt(np.mean(np.square(x))) for x in run(model, image).values()]
  assert 0.1 < min(sizes) and max(sizes) < 10


def refusal(call, *arguments, **options):
  with pytest.raises(ValueError) as caught:
    call(*arguments, **options)
  assert "\n" not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize(
  ("shape", "strides", "sphere_from_stride", "message"),
  [
    ((64, 128, 3), (4,), None, "needs images [B, H, W, 3]"),
    ((1, 64, 128, 3), (2,), None, "strides must be of (4, 8, 16, 32)"),
    ((1, 72, 144, 3), (16,), None, "H divisible by 16"),
    ((1, 64, 128, 3), (32,), 32, "give at least 96"),
  ],
)
def test_a_shape_that_cannot_be_padded_is_refused(shape, strides, sphere_from_stride, message):
  model = nnx.eval_shape(
    lambda: ResNet50(sphere_from_stride=sphere_from_stride, rngs=parameter_keys(0))
  )
  image = jax.ShapeDtypeStruct(shape, np.float32)
  assert message in refusal(model, image, strides=strides)


def test_tensors_that_do_not_fit_are_refused(drawn_tensors):
  name = "layer2.1.conv2.weight"
  message = refusal(resnet50_from_tensors, drawn_tensors | {"layer5.0.conv1.weight": np.zeros(1)})
  assert message == "ResNet-50 has no place for layer5.0.conv1.weight"
  without = {key: tensor for key, tensor in drawn_tensors.items() if key != name}
  assert refusal(resnet50_from_tensors, without) == f"no {name} among the tensors of ResNet-50"
  wrong = drawn_tensors | {name: np.zeros((128, 64, 3, 3))}
  assert refusal(resnet50_from_tensors, wrong).startswith(f"{name} gives (3, 3, 64, 128)")


def test_weights_come_from_a_file_with_its_checksum_compared(tmp_path, drawn_tensors):
  data = safetensors.numpy.save({name: np.asarray(x) for name, x in drawn_tensors.items()})
  checksum = hashlib.sha256(data).hexdigest()
  good, bad = tmp_path / f"a-{checksum[:8]}.safetensors", tmp_path / "a-01234567.safetensors"
  for file in (good, bad):
    file.write_bytes(data)
  model = load_resnet50(good)
  direct = resnet50_from_tensors(drawn_tensors)
  jax.tree.map(np.testing.assert_array_equal, nnx.state(model), nnx.state(direct))
  assert f"its SHA-256 is {checksum}, not 01234567" in refusal(load_resnet50, bad)
  assert set(read_tensors(bad, sha256=checksum)) == set(drawn_tensors)
  assert "cannot be read" in refusal(load_resnet50, tmp_path / "none.pth")
  (tmp_path / "b.safetensors").write_bytes(b"not tensors at all")
  assert "no safetensors file" in refusal(load_resnet50, tmp_path / "b.safetensors")


def test_weights_of_a_file_go_into_an_encoder(tmp_path, draw_parameters, drawn_tensors):
  tensors = drawn_tensors
  file = tmp_path / "weights.safetensors"
  safetensors.numpy.save_file({name: np.asarray(x) for name, x in tensors.items()}, file)
  encoder = draw_parameters(lambda: ResNet50(sphere_from_stride=16, rngs=parameter_keys(0)))
  report = load_encoder_weights(encoder, str(file))
  assert len(report.copied) == 2 * (1 + 16 * 3 + 4) and not report.interpolated + report.new
  expected = nnx.state(resnet50_from_tensors(tensors))
  jax.tree.map(np.testing.assert_array_equal, nnx.state(encoder), expected)
  assert encoder.stages[2][1].convolve.spherical  # the encoder's own settings stay
