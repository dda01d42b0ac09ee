"""Learned saliency: a small readout of human fixations on the features of a frozen backbone.

The readout is convolutions of one tap (it sees what the backbone sees at a place, and nothing of
where in the view that place is), then a blur. It is trained by `configs/fixation.py`.

Beside the density it gives the appearance of each place: the same features along their principal
components, which are not trained for anything.

Axes: V or B views [h, w], cells of `CELL` pixels [h / 8, w / 8, rounded up], C channels, K
components.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.models.encoders.efficientnet_lite0 import STAGES
from foir360_jax.saliency.alignment import (
  apply_along_axes,
  blur_matrix,
  cell_centres,
  interpolation_matrix,
  tile_centres,
)
from foir360_jax.saliency.observation import Observation

CELL = 8
"""Rows and columns of the pixels that share one value of the readout."""

FEATURES = {number: STAGES[number] for number in (3, 4, 5, 6, 7)}
"""The stages of the backbone whose features are read: strides 8, 16, 16, 32 and 32."""

COMPONENTS = 32
"""Principal components of the features that make up the appearance."""

_he_normal = nnx.initializers.he_normal()


class FeatureStatistic(nnx.Variable):
  """What is known of channels on the training pictures; no gradient reaches it."""


class FixationReadout(nnx.Module):
  """Feature maps -> unnormalised log-density of fixations, one value a cell.

  Args:
    channels: of the hidden layers, one or more.
    enlargement: by which the pictures were enlarged whose features it was trained on: so much finer
      is what it sees of them.
    rngs: source of the initial kernels.
  """

  def __init__(
    self, channels: Sequence[int] = (64, 32), enlargement: float = 1.0, *, rngs: nnx.Rngs
  ):
    self.enlargement = enlargement
    first, *others = channels
    self.projections = nnx.List(
      _Projection(stage.channels, first, rngs=rngs) for stage in FEATURES.values()
    )
    self.bias = nnx.Param(jnp.zeros(first))
    self.layers = nnx.List(
      nnx.Linear(before, after, kernel_init=_he_normal, rngs=rngs)
      for before, after in zip(channels, [*others, 1], strict=True)
    )
    self.log_blur = nnx.Param(jnp.zeros(()))  # of the blur's sigma in cells

  def __call__(
    self, features: Mapping[int, jax.Array], size: tuple[int, int], keep: jax.Array | None = None
  ) -> jax.Array:
    """Features of pictures of `size` -> [B, h / CELL, w / CELL] float32; see `observe`."""
    return self.observe(features, size, keep)[0]

  def observe(
    self, features: Mapping[int, jax.Array], size: tuple[int, int], keep: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """The log-density, and the appearance.

    Args:
      features: {stage: [B, h / stride, w / stride, C]} with the stages of `FEATURES`.
      size: (h, w) of the pictures.
      keep: [B, channels[0]] factors for the first hidden layer (dropout, in training).

    Returns:
      [B, h / CELL, w / CELL] and [B, h / CELL, w / CELL, K], both float32.
    """
    # First the products, then the interpolation: they commute, and this order is the cheap one.
    products: dict[int, jax.Array] = {}
    for (number, stage), projection in zip(FEATURES.items(), self.projections, strict=True):
      products[stage.stride] = products.get(stage.stride, 0.0) + projection(features[number])
    tiles = [tile_centres(length, CELL) for length in size]
    product = sum(at_tiles(x, size, stride) for stride, x in products.items())
    hidden, appearance = jnp.split(product, [self.bias.shape[0]], axis=-1)
    hidden = nnx.relu(hidden + self.bias[...])
    if keep is not None:
      hidden = hidden * keep[:, None, None]
    *layers, last = self.layers
    for layer in layers:
      hidden = nnx.relu(layer(hidden))
    sigma = jnp.exp(self.log_blur[...])
    blurs = (blur_matrix(len(places), sigma) for places in tiles)
    return apply_along_axes(*blurs, last(hidden)[..., 0]), appearance


class _Projection(nnx.Module):
  """Standardises channels and multiplies them by the first hidden layer's kernel and the axes."""

  def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
    self.mean = FeatureStatistic(jnp.zeros(in_channels))
    self.deviation = FeatureStatistic(jnp.ones(in_channels))
    self.kernel = nnx.Param(_he_normal(rngs.params(), (in_channels, out_channels)))
    self.axes = FeatureStatistic(jnp.zeros((in_channels, COMPONENTS)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, h, w, in]` -> `[B, h, w, out + K]`."""
    # The standardisation of so many channels goes into the kernel, which is small.
    kernel = jnp.concatenate([self.kernel[...], self.axes[...]], axis=-1)
    kernel = kernel / self.deviation[...][:, None]
    return x.astype(jnp.float32) @ kernel - self.mean[...] @ kernel


def at_tiles(x: jax.Array, size: tuple[int, int], stride: int) -> jax.Array:
  """Brings a map of pictures of `size` to the readout's cells: [B, h / CELL, w / CELL, C]."""
  for axis, length in enumerate(size, start=1):
    centres, places = cell_centres(length, stride), tile_centres(length, CELL)
    share = np.float32((centres[0] - places[0]) / CELL)
    if stride == CELL and 0 <= share <= 1:
      # Each place is between a given centre and the one before it: no need for a matrix.
      first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
      before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, -1, axis=axis)], axis)
      x = share * before + (1 - share) * x
    else:
      matrix = interpolation_matrix(centres, places)
      x = jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis)), 0, axis)
  return x


class LearnedSaliency(nnx.Module):
  """Density of human fixations in perspective views: backbone, readout, softmax.

  A pytree with its weights as leaves: pass it to a jitted function as an argument (as `self` is
  passed here). Closed over, or as a static argument, its 3.4 million weights would become constants
  of the program.

  Args:
    backbone: with padding "zero".
    readout: trained on features of this backbone.
    enlarges: whether the backbone sees views enlarged, as the readout was trained; see `for_parts`.
  """

  def __init__(
    self, backbone: EfficientNetLite0, readout: FixationReadout, *, enlarges: bool = True
  ):
    self.backbone = backbone
    self.readout = readout
    self.enlarges = enlarges

  @jax.jit
  def __call__(self, views: jax.Array) -> jax.Array:
    """[V, h, w, 3] RGB in [0, 255], uint8 or float -> [V, h, w] float32 >= 0, mean 1 each.

    Each view is a density of its own: divided by h w, what a view gives sums to 1.

    Raises:
      ValueError: the views have another shape.
    """
    return self.observe(views).density

  def observe(self, views: jax.Array) -> Observation:
    """The density and the appearance, at once."""
    if views.ndim != 4 or views.shape[-1] != 3:
      raise ValueError(f"views must be [V, h, w, 3], not {list(views.shape)}")
    images, shape = views.astype(jnp.float32), views.shape[1:3]
    size = enlarged_size(shape, self.readout.enlargement) if self.enlarges else shape
    if size != shape:
      images = jax.image.resize(images, (len(views), *size, 3), "linear")
    features = self.backbone.stages(images, tuple(FEATURES))
    cells, appearance = self.readout.observe(features, size)
    log_density = _at_pixels(cells, size, shape)
    density = jax.nn.softmax(log_density.reshape(len(views), -1), axis=-1)
    return Observation((density * density.shape[-1]).reshape(log_density.shape), appearance)

  def for_parts(self) -> Self:
    """The same model without the enlargement, which for views of a part of a scene gains nothing.

    Measured in docs/weak_labels.md; the enlargement makes three times as many pixels.
    """
    return type(self)(self.backbone, self.readout, enlarges=False)


def enlarged_size(shape: tuple[int, int], enlargement: float) -> tuple[int, int]:
  """The size at which the backbone sees pictures of this shape: whole cells, if it is another.

  >>> enlarged_size((336, 448), 1.5), enlarged_size((50, 50), 1.5), enlarged_size((50, 50), 1.0)
  ((504, 672), (72, 72), (50, 50))
  """
  if enlargement == 1:
    return shape
  return tuple(CELL * max(1, round(length * enlargement / CELL)) for length in shape)


def _at_pixels(cells: jax.Array, size: tuple[int, int], shape: tuple[int, int]) -> jax.Array:
  """Brings cells of pictures of `size` bilinearly to the pixels [B, *shape] of the originals."""
  matrices = (
    interpolation_matrix(tile_centres(length, CELL), (np.arange(n) + 0.5) * (length / n))
    for length, n in zip(size, shape, strict=True)
  )
  return apply_along_axes(*matrices, cells)
