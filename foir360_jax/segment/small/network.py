"""The network of the small segmenter: features, places that propose objects, dynamic masks.

EfficientNet-Lite0 gives maps at strides 4, 8, 16 and 32. Its first blocks, to stride 8, stay as
they are; the later ones belong to this network, which may train them. The three coarser maps are
joined from the top down. On each of them a place says whether the centre of an object is there, how
well its mask will fit, and gives the coefficients of that mask: a sum of the channels of one fine
map that all places share, and a quadratic function of where a pixel lies from the place, by which
the masks of two like objects part.

Axes: B pictures, h x w cells of stride 4, P places of all levels in their order, K of them, M mask
channels.

Sources: Tian, Shen, Chen and He, FCOS, ICCV 2019 (places); Tian, Shen and Chen, CondInst, ECCV 2020
(masks from coefficients of places, relative coordinates); Wang et al., SOLOv2, NeurIPS 2020 (one
product with the mask features).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.models.layers import upsample

STRIDES = (8, 16, 32)
"""Of the levels with places."""

MASK_STRIDE = 4
CELL = 32
"""Sides of pictures are multiples of it."""

FROZEN_STAGES = (2, 3)
"""Of EfficientNet-Lite0; what the frozen part gives: strides 4 and 8."""

POSITION_TERMS = 6
"""Coefficients of a mask beside those of the mask channels: 1, x, y, x^2, y^2, x y."""

_FROZEN_BLOCKS = 5  # the stem and the blocks of stages 1 to 3
_FEATURE_SCALE = 0.3  # brings the encoder's features to about unit variance
_UNIT = 4  # of relative positions: strides of the place's level
_REACH = 4.0  # relative positions beyond it count as it: far is far
_RARE = -4.0  # log odds of a centre at the start of a training: hardly any place has one

_he_normal = nnx.initializers.he_normal()


class Frozen(nnx.Variable):
  """A variable that stays as it is, unlike a `Param`."""


class Places(NamedTuple):
  """What the places of all levels say.

  Attributes:
    objectness: [B, P] log odds that the centre of an object is there.
    quality: [B, P] log odds, of the IoU that its mask is expected to have.
    coefficients: [B, P, M + 6] of the masks.
    mask_features: [B, h, w, M].
  """

  objectness: jax.Array
  quality: jax.Array
  coefficients: jax.Array
  mask_features: jax.Array


@functools.cache
def place_centres(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Where the places of a picture are, level by level, row by row.

  Args:
    height: of the picture, a multiple of 32.
    width: likewise.

  Returns:
    [P, 2] float32 x and y in pixels, and [P] float32 strides of their levels.
  """
  centres, strides = [], []
  for stride in STRIDES:
    y, x = np.meshgrid(
      (np.arange(height // stride) + 0.5) * stride,
      (np.arange(width // stride) + 0.5) * stride,
      indexing="ij",
    )
    centres.append(np.stack([x.ravel(), y.ravel()], axis=-1))
    strides.append(np.full(x.size, stride))
  return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)


def mask_logits(
  mask_features: jax.Array, coefficients: jax.Array, centres: jax.Array, strides: jax.Array
) -> jax.Array:
  """Masks of places, at stride 4: one product for all of them.

  Args:
    mask_features: [h, w, M] of a picture.
    coefficients: [K, M + 6].
    centres: [K, 2] x and y of the places in pixels.
    strides: [K] of their levels.

  Returns:
    [K, h, w] log odds.
  """
  height, width, channels = mask_features.shape
  weights, terms = coefficients[:, :channels], coefficients[:, channels:].T[..., None]
  unit = (_UNIT * strides)[:, None]

  def offsets(length: int, centre: jax.Array) -> jax.Array:
    pixels = (jnp.arange(length, dtype=jnp.float32) + 0.5) * MASK_STRIDE
    return jnp.clip((pixels - centre[:, None]) / unit, -_REACH, _REACH)

  x, y = offsets(width, centres[:, 0]), offsets(height, centres[:, 1])
  columns = terms[0] + terms[1] * x + terms[3] * x**2
  rows = terms[2] * y + terms[4] * y**2
  positions = columns[:, None] + rows[..., None] + (terms[5] * y)[..., None] * x[:, None]
  shared = weights @ mask_features.reshape(-1, channels).T
  return shared.reshape(-1, height, width) + positions


class SmallNetwork(nnx.Module):
  """The trained part: the later blocks of EfficientNet-Lite0, and the head.

  Args:
    channels: of the maps that places are read from.
    mask_channels: M.
    train_encoder: whether the later blocks of the encoder are parameters; their spatial filters
      never are: they are few numbers, and their gradient is dear.
    rngs: source of the initial kernels.
  """

  def __init__(
    self,
    channels: int = 64,
    mask_channels: int = 32,
    train_encoder: bool = True,
    *,
    rngs: nnx.Rngs,
  ):
    encoder = EfficientNetLite0(padding="zero", rngs=rngs)
    self.channels, self.mask_channels = channels, mask_channels
    self.encoder = nnx.List(encoder.blocks[_FROZEN_BLOCKS:])
    for block in self.encoder:
      _freeze(block.depthwise, "kernel")
      if not train_encoder:
        _freeze(block.depthwise, "bias")
        for layer in (block.expand, block.project):
          _freeze(layer, "kernel")
          _freeze(layer, "bias")
    linear = functools.partial(nnx.Linear, rngs=rngs)
    widths = EfficientNetLite0.channels
    self.lateral_4 = linear(widths[4], mask_channels)
    self.lateral_8 = linear(widths[8], channels)
    self.lateral_16 = linear(widths[16], channels)
    self.lateral_32 = linear(widths[32], channels)
    self.to_masks = _Convolution(channels, mask_channels, rngs=rngs)
    self.mask_layer = nnx.Conv(
      mask_channels, mask_channels, (3, 3), kernel_init=_he_normal, rngs=rngs
    )
    self.mask_output = linear(mask_channels, mask_channels)
    self.tower = nnx.List([_Convolution(channels, channels, rngs=rngs) for _ in range(2)])
    outputs = 2 + mask_channels + POSITION_TERMS
    small = nnx.initializers.normal(0.01)
    self.output = nnx.Linear(channels, outputs, kernel_init=small, rngs=rngs)
    # At first every mask is a round spot about its place.
    bias = np.zeros(outputs, np.float32)
    bias[0] = _RARE
    bias[2 + mask_channels :] = 1.0, 0.0, 0.0, -2.0, -2.0, 0.0
    assert self.output.bias is not None
    self.output.bias[...] = jnp.asarray(bias)

  def __call__(self, frozen: dict[int, jax.Array]) -> Places:
    """What the places of pictures say.

    Args:
      frozen: the maps of `FROZEN_STAGES`: {2: [B, h, w, 24], 3: [B, h / 2, w / 2, 40]}.
    """
    return self.read(self.encode(frozen))

  def encode(self, frozen: dict[int, jax.Array]) -> dict[int, jax.Array]:
    """The later blocks: maps by their strides, {4: [B, h, w, 24], ..., 32: [B, h / 8, w / 8, 320]}.

    Args:
      frozen: as for a call.
    """
    x, maps = frozen[3], {4: frozen[2], 8: frozen[3]}
    for block in self.encoder:
      x = block(x)
      maps[8 * (frozen[3].shape[1] // x.shape[1])] = x
    return maps

  def read(self, maps: dict[int, jax.Array]) -> Places:
    """The head.

    Args:
      maps: of `encode`.
    """
    maps = {stride: x.astype(jnp.float32) * _FEATURE_SCALE for stride, x in maps.items()}
    p32 = self.lateral_32(maps[32])
    p16 = self.lateral_16(maps[16]) + upsample(p32, 2)
    p8 = self.lateral_8(maps[8]) + upsample(p16, 2)
    # Without norms at stride 4, where they would cost more than the convolution.
    masks = self.lateral_4(maps[4]) + _smooth_twice(self.to_masks(p8))
    masks = self.mask_layer(nnx.relu(masks))
    masks = self.mask_output(nnx.relu(masks))
    levels = []
    for level in (p8, p16, p32):
      for layer in self.tower:
        level = layer(level)
      level = self.output(nnx.relu(level))
      levels.append(level.reshape(len(level), -1, level.shape[-1]))
    places = jnp.concatenate(levels, axis=1)
    return Places(places[..., 0], places[..., 1], places[..., 2:], masks)

  def take_encoder(self, backbone: EfficientNetLite0) -> None:
    """Sets the later blocks to those of a whole encoder."""
    for name, value in encoder_arrays(backbone).items():
      _, index, layer, parameter = name.split(".")
      getattr(getattr(self.encoder[int(index)], layer), parameter).set_value(value)


def encoder_arrays(backbone: EfficientNetLite0) -> dict[str, jax.Array]:
  """The arrays of a whole encoder's later blocks by their names in a `SmallNetwork`."""
  return {
    f"encoder.{index}.{layer}.{parameter}": getattr(getattr(block, layer), parameter)[...]
    for index, block in enumerate(backbone.blocks[_FROZEN_BLOCKS:])
    for layer in ("expand", "depthwise", "project")
    for parameter in ("kernel", "bias")
  }


def _freeze(layer: nnx.Module | None, name: str) -> None:
  assert layer is not None  # the later blocks expand
  setattr(layer, name, Frozen(getattr(layer, name)[...]))


class _Convolution(nnx.Module):
  """LayerNorm over the channels, ReLU, then a 3 x 3 convolution."""

  def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
    self.norm = nnx.LayerNorm(in_channels, rngs=rngs)
    self.conv = nnx.Conv(in_channels, out_channels, (3, 3), kernel_init=_he_normal, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, h, w, in]` -> `[B, h, w, out]`."""
    return self.conv(nnx.relu(self.norm(x)))


def _smooth_twice(x: jax.Array) -> jax.Array:
  """Linear interpolation of `[B, h, w, C]` to twice as many rows and columns."""
  for axis in (1, 2):
    first, last = (
      jax.lax.slice_in_dim(x, start, stop, axis=axis)
      for start, stop in ((0, 1), (x.shape[axis] - 1, x.shape[axis]))
    )
    length = x.shape[axis]
    before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, length - 1, axis=axis)], axis)
    after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, length, axis=axis), last], axis)
    pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1)
    x = pairs.reshape(*x.shape[:axis], 2 * length, *x.shape[axis + 1 :])
  return x
