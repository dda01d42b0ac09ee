"""ResNet-50 without its classification head, for panoramas and for pictures.

Batch normalisation is part of the convolutions, as in `EfficientNetLite0`: public weights come with
it multiplied into kernels and biases. Kernels are [k, k, in, out].

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the stride of a block
lies on its 3x3 convolution, as in torchvision, where the weights come from.
"""

import functools
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.encoders.contract import Padding
from foir360_jax.models.encoders.convolutional import ConvolutionalEncoder
from foir360_jax.models.precision import dtype_of
from foir360_jax.models.repeated import apply_blocks
from foir360_jax.sphere import pad_sphere, sphere_conv

CHANNELS = types.MappingProxyType({4: 256, 8: 512, 16: 1024, 32: 2048})
"""Channels of the feature maps by their strides."""

STRIDES = tuple(CHANNELS)


class _Stage(NamedTuple):
  """Bottleneck blocks of one width; the first has the stride."""

  blocks: int
  stride: int
  width: int


_STEM_CHANNELS = 64
_STAGES = (_Stage(3, 1, 64), _Stage(4, 2, 128), _Stage(6, 2, 256), _Stage(3, 2, 512))
_EXPANSION = 4  # channels of a block's output over its width
_MEAN = (0.485, 0.456, 0.406)  # of the pictures that the public weights were trained on,
_DEVIATION = (0.229, 0.224, 0.225)  # RGB in [0, 1]
_he_normal, _lecun_normal = nnx.initializers.he_normal(), nnx.initializers.lecun_normal()
_zeros = nnx.initializers.zeros_init()


class ResNet50(ConvolutionalEncoder):
  """The stem and the 16 blocks of ResNet-50.

  Strided convolutions pad alike in front and behind, so pixel i of a map at stride s has its centre
  on pixel s i of the image: half a cell to the north and west of the cell's own.

  Args:
    padding: see `ConvolutionalEncoder`; this and the next two.
    sphere_from_stride: see there; of 3x3 convolutions.
    remat: see there.
    rngs: source of the initial kernels. The last convolution of each block starts at zero, so that
      without batch normalisation the maps keep their size through the blocks.

  >>> def features(image):
  ...   return ResNet50(padding="zero", rngs=nnx.Rngs(0))(image, strides=(4, 32))
  >>> shapes = jax.eval_shape(features, jnp.zeros((1, 60, 80, 3)))
  >>> {stride: x.shape for stride, x in shapes.items()}
  {4: (1, 15, 20, 256), 32: (1, 2, 3, 2048)}
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
    self.stem = _Conv(3, _STEM_CHANNELS, 7, 2, padding, False, rngs=rngs)
    self.stages: nnx.List[nnx.List[_Bottleneck]] = nnx.List()
    channels, map_stride = _STEM_CHANNELS, 4
    for stage in _STAGES:
      blocks: nnx.List[_Bottleneck] = nnx.List()
      for index in range(stage.blocks):
        stride = stage.stride if index == 0 else 1
        map_stride *= stride
        spherical = self._is_spherical(map_stride)
        blocks.append(_Bottleneck(channels, stage.width, stride, padding, spherical, rngs=rngs))
        channels = stage.width * _EXPANSION
      self.stages.append(blocks)

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
      strides: the maps to compute, of 4, 8, 16 and 32; stages beyond the last are not computed.
      seed: ignored.

    Returns:
      {stride: [B, H / stride, W / stride, channels]}, rounded up; see `CHANNELS`.

    Raises:
      ValueError: an unknown stride, or a shape outside this contract.
    """
    del seed
    self._check(image, strides)
    x = (image.astype(jnp.float32) / 255.0 - jnp.asarray(_MEAN)) / jnp.asarray(_DEVIATION)
    x = _max_pool(nnx.relu(self.stem(x.astype(dtype_of(self.stem)))), self.padding)
    maps = {}
    for stride, blocks in zip(STRIDES, self.stages, strict=True):
      if stride > max(strides):
        break
      # No loop over the blocks that are alike: XLA computes convolutions in one so slowly on a CPU
      # that forward and backward take ten times as long, and it is no quicker to compile.
      maps[stride] = x = apply_blocks(blocks, x, remat=self.remat)
    return {stride: maps[stride] for stride in strides}

  @staticmethod
  def least_height(last_stride: int, sphere_from_stride: int | None) -> int:
    """Rows of a panorama with which every kernel stays on this side of the poles."""
    on_sphere = sphere_from_stride is not None and sphere_from_stride <= last_stride
    return max(6, last_stride, 3 * last_stride if on_sphere else 0)


class _Conv(nnx.Module):
  """Convolution with its batch normalisation inside: a kernel [k, k, in, out] and a bias."""

  def __init__(
    self,
    in_channels: int,
    out_channels: int,
    size: int,
    stride: int,
    padding: Padding,
    spherical: bool,
    *,
    initial: nnx.Initializer = _he_normal,
    rngs: nnx.Rngs,
  ):
    self.kernel = nnx.Param(initial(rngs.params(), (size, size, in_channels, out_channels)))
    self.bias = nnx.Param(jnp.zeros(out_channels))
    self.stride = stride
    self.padding = padding
    self.spherical = spherical and stride == 1 and size > 1

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, in]` -> `[B, H / stride, W / stride, out]`, rounded up."""
    kernel = self.kernel[...]
    if self.spherical:
      return sphere_conv(x, kernel) + self.bias[...]
    x = _pad(x, len(kernel) // 2, self.padding, 0.0)
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
      x, kernel, (self.stride, self.stride), "VALID", dimension_numbers=dimensions
    )
    return x + self.bias[...]


class _Bottleneck(nnx.Module):
  """1x1, 3x3 and 1x1 convolutions, added to the input, which is projected where shapes differ."""

  def __init__(
    self,
    in_channels: int,
    width: int,
    stride: int,
    padding: Padding,
    spherical: bool,
    *,
    rngs: nnx.Rngs,
  ):
    channels = width * _EXPANSION
    self.reduce = _Conv(in_channels, width, 1, 1, padding, False, rngs=rngs)
    self.convolve = _Conv(width, width, 3, stride, padding, spherical, rngs=rngs)
    self.expand = _Conv(width, channels, 1, 1, padding, False, initial=_zeros, rngs=rngs)
    project = functools.partial(
      _Conv, in_channels, channels, 1, stride, padding, False, initial=_lecun_normal, rngs=rngs
    )
    self.shortcut = None if stride == 1 and in_channels == channels else project()

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, in]` -> `[B, H / stride, W / stride, 4 width]`, rounded up."""
    y = self.expand(nnx.relu(self.convolve(nnx.relu(self.reduce(x)))))
    return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def _max_pool(x: jax.Array, padding: Padding) -> jax.Array:
  """The largest of 3 x 3 pixels of [B, H, W, C], at stride 2."""
  x = _pad(x, 1, padding, -jnp.inf)
  return nnx.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")


def _pad(x: jax.Array, size: int, padding: Padding, value: float) -> jax.Array:
  if padding == "sphere":
    return pad_sphere(x, size) if size else x
  return jnp.pad(x, ((0, 0), (size, size), (size, size), (0, 0)), constant_values=value)
