"""EfficientNet-Lite0 without its classification head.

It takes perspective pictures as they are and panoramas with the sphere's padding. Batch
normalisation is part of the convolutions: `pretrained.load_efficientnet_lite0` multiplies it into
their kernels and biases, so that the module has nothing else. Kernels are [k, k, in, out].

Source: Tan and Le, EfficientNet, ICML 2019; EfficientNet-Lite is B0 with ReLU6 and without
squeeze-and-excitation.
"""

import functools
import types
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.encoders.contract import Padding
from foir360_jax.models.encoders.convolutional import ConvolutionalEncoder
from foir360_jax.models.repeated import apply_blocks
from foir360_jax.sphere import pad_sphere, sphere_conv


class Stage(NamedTuple):
  """Successive blocks of one width; its features are what the last of them gives."""

  stride: int
  channels: int


STAGES = types.MappingProxyType(
  {
    1: Stage(2, 16),
    2: Stage(4, 24),
    3: Stage(8, 40),
    4: Stage(16, 80),
    5: Stage(16, 112),
    6: Stage(32, 192),
    7: Stage(32, 320),
  }
)
"""The stages of blocks in their order; in the paper's table, after the stem, they are 2 to 8."""

CHANNELS = types.MappingProxyType({stage.stride: stage.channels for stage in STAGES.values()})
"""Channels of the feature maps by their strides: of the last stage at each."""

STRIDES = tuple(CHANNELS)


class _Block(NamedTuple):
  """One inverted residual block: input channels times `expansion` are convolved depthwise."""

  kernel_size: int
  stride: int
  expansion: int
  channels: int


_STEM_CHANNELS = 32
_BLOCKS = (
  _Block(3, 1, 1, 16),
  *(_Block(3, 2, 6, 24), _Block(3, 1, 6, 24)),
  *(_Block(5, 2, 6, 40), _Block(5, 1, 6, 40)),
  *(_Block(3, 2, 6, 80), _Block(3, 1, 6, 80), _Block(3, 1, 6, 80)),
  *(_Block(5, 1, 6, 112), _Block(5, 1, 6, 112), _Block(5, 1, 6, 112)),
  *(_Block(5, 2, 6, 192), _Block(5, 1, 6, 192), _Block(5, 1, 6, 192), _Block(5, 1, 6, 192)),
  _Block(3, 1, 6, 320),
)

_CACHED_FLOATS = 2**19  # 2 MiB; the speed hardly depends on it between 2**18 and 2**20
_he_normal = nnx.initializers.he_normal()


class EfficientNetLite0(ConvolutionalEncoder):
  """The stem and the 16 blocks of EfficientNet-Lite0.

  Strided convolutions pad as TensorFlow, where the weights come from, does: on even sizes one pixel
  more behind than in front. So pixel i of a map at stride s has its centre on pixel
  s i + s - 1 of the image, half a cell to the south and east of the cell's own.

  Args:
    padding: see `ConvolutionalEncoder`; this and the next two.
    sphere_from_stride: see there; of depthwise convolutions.
    remat: see there.
    rngs: source of the initial kernels.

  >>> def features(image):
  ...   model = EfficientNetLite0(padding="zero", rngs=nnx.Rngs(0))
  ...   return model(image, strides=(4, 8))
  >>> shapes = jax.eval_shape(features, jnp.zeros((1, 30, 40, 3)))
  >>> {stride: x.shape for stride, x in shapes.items()}
  {4: (1, 8, 10, 24), 8: (1, 4, 5, 40)}
  """

  channels = CHANNELS

  def __init__(
    self,
    *,
    padding: Padding = "sphere",
    sphere_from_stride: int | None = None,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    super().__init__(padding, sphere_from_stride, remat)
    self.stem = _Stem(_STEM_CHANNELS, padding, rngs=rngs)
    self.blocks: nnx.List[_InvertedResidual] = nnx.List()
    channels, map_stride = _STEM_CHANNELS, 2
    for block in _BLOCKS:
      spherical = self._is_spherical(map_stride)
      self.blocks.append(_InvertedResidual(channels, block, padding, spherical, rngs=rngs))
      channels, map_stride = block.channels, map_stride * block.stride

  def __call__(
    self,
    image: jax.Array,
    *,
    strides: tuple[int, ...] = STRIDES,
    seed: jax.Array | None = None,
  ) -> dict[int, jax.Array]:
    """Feature maps: what the last block at each stride gives.

    Args:
      image: [B, H, W, 3], RGB in [0, 255]. Padding "sphere": W = 2 H, H divisible by the greatest
        stride and not so small that a kernel goes around a pole.
      strides: the maps to compute, of 2, 4, 8, 16 and 32; blocks beyond the last are not computed.
      seed: ignored.

    Returns:
      {stride: [B, H / stride, W / stride, channels]}, rounded up; see `CHANNELS`.

    Raises:
      ValueError: an unknown stride, or a shape outside this contract.
    """
    del seed
    self._check(image, strides)
    last = {stage.stride: number for number, stage in STAGES.items()}
    maps = self.stages(image, tuple(last[stride] for stride in strides))
    return {stride: maps[last[stride]] for stride in strides}

  def stages(self, image: jax.Array, numbers: tuple[int, ...]) -> dict[int, jax.Array]:
    """Feature maps of stages, also of those that another stage of the same stride follows.

    Args:
      image: as for `__call__`.
      numbers: of `STAGES`; blocks beyond the last are not computed.

    Returns:
      {number: [B, H / stride, W / stride, channels]}, rounded up.

    Raises:
      ValueError: an unknown number, or a shape outside this contract.
    """
    unknown = [number for number in numbers if number not in STAGES]
    if unknown:
      raise ValueError(f"EfficientNetLite0 has stages 1 to {max(STAGES)}, not {unknown[0]}")
    self._check(image, tuple({STAGES[number].stride: None for number in numbers}))
    x = self.stem(image)
    maps, widths = {}, {stage.channels: number for number, stage in STAGES.items()}
    for block in self.blocks:
      number = widths[block.project.kernel.shape[1]]
      if number > max(numbers):
        break
      # The last block of a stage has the last word. No loop over the few that are alike: on a CPU
      # it compiles no faster.
      maps[number] = x = apply_blocks([block], x, remat=self.remat)
    return {number: maps[number] for number in numbers}

  @staticmethod
  def least_height(last_stride: int, sphere_from_stride: int | None) -> int:
    """Rows of a panorama with which every layer up to `last_stride` can pad its map."""
    needed, stride = 2, 2
    for block in _BLOCKS:
      if stride * block.stride <= last_stride:
        on_sphere = sphere_from_stride is not None and stride >= sphere_from_stride
        rows = block.kernel_size if on_sphere and block.stride == 1 else block.kernel_size // 2
        needed = max(needed, rows * stride)
      stride *= block.stride
    return needed


class _Stem(nnx.Module):
  """Convolution of stride 2 on the image, scaled to about [-1, 1]; then ReLU6."""

  def __init__(self, channels: int, padding: Padding, *, rngs: nnx.Rngs):
    self.kernel = nnx.Param(_he_normal(rngs.params(), (3, 3, 3, channels)))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.padding = padding

  def __call__(self, image: jax.Array) -> jax.Array:
    """`[B, H, W, 3]` in [0, 255] -> `[B, H / 2, W / 2, channels]`."""
    return _in_groups(self._convolve, image, self.kernel.shape[3])

  def _convolve(self, image: jax.Array) -> jax.Array:
    x = (image.astype(jnp.float32) - 127.0) / 128.0
    x = _pad(x.astype(self.kernel.dtype), 3, 2, self.padding)
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
      x, self.kernel[...], (2, 2), "VALID", dimension_numbers=dimensions
    )
    return nnx.relu6(x + self.bias[...])


class _Pointwise(nnx.Module):
  """Convolution with one tap: a product with a matrix [in, out], plus a bias."""

  def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
    self.kernel = nnx.Param(_he_normal(rngs.params(), (in_channels, out_channels)))
    self.bias = nnx.Param(jnp.zeros(out_channels))

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, in]` -> `[B, H, W, out]`."""
    return x @ self.kernel[...] + self.bias[...]


class _Depthwise(nnx.Module):
  """Convolution of every channel with its own kernel, plus a bias, then ReLU6."""

  def __init__(self, channels, block: _Block, padding: Padding, spherical: bool, *, rngs: nnx.Rngs):
    shape = (block.kernel_size, block.kernel_size, 1, channels)
    self.kernel = nnx.Param(_he_normal(rngs.params(), shape))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.stride = block.stride
    self.padding = padding
    self.spherical = spherical and block.stride == 1

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` -> `[B, H / stride, W / stride, C]`."""
    kernel = self.kernel[...]
    if self.spherical:
      x = sphere_conv(x, kernel)
    else:
      x = _convolve_depthwise(_pad(x, len(kernel), self.stride, self.padding), kernel, self.stride)
    return nnx.relu6(x + self.bias[...])


class _InvertedResidual(nnx.Module):
  """Expands the channels, convolves them depthwise, and projects them; adds the input if it can."""

  def __init__(
    self, in_channels: int, block: _Block, padding: Padding, spherical: bool, *, rngs: nnx.Rngs
  ):
    channels = in_channels * block.expansion
    self.expand = _Pointwise(in_channels, channels, rngs=rngs) if block.expansion > 1 else None
    self.depthwise = _Depthwise(channels, block, padding, spherical, rngs=rngs)
    self.project = _Pointwise(channels, block.channels, rngs=rngs)
    self.adds_input = block.stride == 1 and in_channels == block.channels

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, Cin]` -> `[B, H / stride, W / stride, Cout]`."""
    return _in_groups(self._convolve, x, self.depthwise.kernel.shape[3])

  def _convolve(self, x: jax.Array) -> jax.Array:
    y = x if self.expand is None else nnx.relu6(self.expand(x))
    y = self.project(self.depthwise(y))
    return x + y if self.adds_input else y


def _in_groups(
  layer: Callable[[jax.Array], jax.Array], x: jax.Array, widest_channels: int
) -> jax.Array:
  """Applies a layer to the images of a batch; on a CPU to few at a time.

  So its widest map, which is several times as large as what comes in and goes out, stays in the
  CPU's cache and in memory that is already there.
  """
  batch_size, height, width, _ = x.shape
  group = batch_size
  if jax.default_backend() == "cpu":
    floats = height * width * widest_channels
    group = max(1, min(batch_size, _CACHED_FLOATS // floats))
    while batch_size % group:
      group -= 1
  if group == batch_size:
    return layer(x)
  y = jax.lax.map(layer, x.reshape(-1, group, *x.shape[1:]))
  return y.reshape(batch_size, *y.shape[2:])


def _pad(x: jax.Array, size: int, stride: int, padding: Padding) -> jax.Array:
  """Pads [B, H, W, C] so that a kernel of `size` gives H / stride and W / stride, rounded up."""
  pads = []
  for length in x.shape[1:3]:
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    pads.append((total // 2, total - total // 2))
  if padding == "zero":
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))
  (north, south), (west, east) = pads
  reach = max(south, east)  # sizes are even: as much behind as in front, or one more
  return pad_sphere(x, reach)[:, reach - north :, reach - west :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """Planar depthwise convolution of a padded map, as a sum of shifted maps.

  Its gradient is written out: what would come of the sum itself pads a map for every tap.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, 1, C].
    stride: distance of the output's pixels.

  Returns:
    [B, (H - k) // stride + 1, (W - k) // stride + 1, C], of the type of x; sums are float32.
  """
  out: jax.Array | float = 0.0
  for row, column, taps in _taps(x, len(kernel), stride):
    out = out + taps * kernel[row, column, 0]
  return jnp.asarray(out, x.dtype)


def _taps(x: jax.Array, size: int, stride: int) -> Iterator[tuple[int, int, jax.Array]]:
  """What each tap of a kernel sees: its row, its column, and [B, h, w, C], at least float32."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  rows, columns = ((length - size) // stride + 1 for length in x.shape[1:3])
  for row in range(size):
    for column in range(size):
      taps = x[:, row : row + (rows - 1) * stride + 1 : stride]
      yield row, column, taps[:, :, column : column + (columns - 1) * stride + 1 : stride]


def _depthwise_forward(
  x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _convolve_depthwise(x, kernel, stride), (x, kernel)


def _depthwise_backward(
  stride: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  size = len(kernel)
  # To x: the same convolution of the gradient, spread out by the stride, with the kernel turned.
  margins = [
    (size - 1, length - 1 - (steps - 1) * stride, stride - 1)
    for length, steps in zip(x.shape[1:3], gradient.shape[1:3], strict=True)
  ]
  spread = jax.lax.pad(gradient, jnp.zeros((), x.dtype), [(0, 0, 0), *margins, (0, 0, 0)])
  to_x = _convolve_depthwise(spread, kernel[::-1, ::-1], 1)
  sums = [(taps * gradient).sum((0, 1, 2)) for _, _, taps in _taps(x, size, stride)]
  return to_x, jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


_convolve_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
