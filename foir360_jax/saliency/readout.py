"""Learned saliency: a small readout of human fixations on the features of a frozen backbone.

The readout is convolutions of one tap (it sees what the backbone sees at a place, and nothing of
where in the view that place is), then a blur. It is trained by `configs/fixation.py`.

Axes: V or B views [h, w], cells of `CELL` pixels [h / 8, w / 8, rounded up], C channels.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.saliency.alignment import (
  apply_along_axes,
  blur_matrix,
  cell_centres,
  interpolation_matrix,
  tile_centres,
)

CELL = 8
"""Rows and columns of the pixels that share one value of the readout."""

FEATURES = {8: 40, 16: 112, 32: 320}
"""Strides of the feature maps that are read, and their channels."""

_he_normal = nnx.initializers.he_normal()


class FeatureStatistic(nnx.Variable):
  """Mean or deviation of a channel on the training pictures; no gradient reaches it."""


class FixationReadout(nnx.Module):
  """Feature maps -> unnormalised log-density of fixations, one value a cell.

  Args:
    channels: of the hidden layers, one or more.
    rngs: source of the initial kernels.
  """

  def __init__(self, channels: Sequence[int] = (64, 32), *, rngs: nnx.Rngs):
    first, *others = channels
    self.projections = nnx.List(_Projection(width, first, rngs=rngs) for width in FEATURES.values())
    self.bias = nnx.Param(jnp.zeros(first))
    self.layers = nnx.List(
      nnx.Linear(before, after, kernel_init=_he_normal, rngs=rngs)
      for before, after in zip(channels, [*others, 1], strict=True)
    )
    self.log_blur = nnx.Param(jnp.zeros(()))  # of the blur's sigma in cells

  def __call__(
    self, features: Mapping[int, jax.Array], size: tuple[int, int], keep: jax.Array | None = None
  ) -> jax.Array:
    """Features of pictures of `size` -> [B, h / CELL, w / CELL] float32.

    Args:
      features: {stride: [B, h / stride, w / stride, C]} with the strides of `FEATURES`.
      size: (h, w) of the pictures.
      keep: [B, channels[0]] factors for the first hidden layer (dropout, in training).
    """
    tiles = [tile_centres(length, CELL) for length in size]
    hidden = self.bias[...]
    for stride, projection in zip(FEATURES, self.projections, strict=True):
      # First the product, then the interpolation: they commute, and this order is the cheap one.
      matrices = (
        interpolation_matrix(cell_centres(length, stride), places)
        for length, places in zip(size, tiles, strict=True)
      )
      hidden = hidden + apply_along_axes(*matrices, projection(features[stride]))
    for layer in self.layers:
      hidden = nnx.relu(hidden)
      if keep is not None:
        hidden, keep = hidden * keep[:, None, None], None
      hidden = layer(hidden)
    sigma = jnp.exp(self.log_blur[...])
    return apply_along_axes(*(blur_matrix(len(places), sigma) for places in tiles), hidden[..., 0])


class _Projection(nnx.Module):
  """Standardises channels and multiplies them by a matrix."""

  def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
    self.mean = FeatureStatistic(jnp.zeros(in_channels))
    self.deviation = FeatureStatistic(jnp.ones(in_channels))
    self.kernel = nnx.Param(_he_normal(rngs.params(), (in_channels, out_channels)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, h, w, in]` -> `[B, h, w, out]`."""
    x = (x.astype(jnp.float32) - self.mean[...]) / self.deviation[...]
    return x @ self.kernel[...]


class LearnedSaliency(nnx.Module):
  """Density of human fixations in perspective views: backbone, readout, softmax.

  A pytree with its weights as leaves: pass it to a jitted function as an argument (as `self` is
  passed here). Closed over, or as a static argument, its 3.4 million weights would become constants
  of the program.

  Args:
    backbone: with padding "zero".
    readout: trained on features of this backbone.
  """

  def __init__(self, backbone: EfficientNetLite0, readout: FixationReadout):
    self.backbone = backbone
    self.readout = readout

  @jax.jit
  def __call__(self, views: jax.Array) -> jax.Array:
    """[V, h, w, 3] RGB in [0, 255], uint8 or float -> [V, h, w] float32 >= 0, mean 1 each.

    Each view is a density of its own: divided by h w, what a view gives sums to 1.
    """
    log_density = self.log_density(views)
    density = jax.nn.softmax(log_density.reshape(len(views), -1), axis=-1)
    return (density * density.shape[-1]).reshape(log_density.shape)

  def log_density(self, views: jax.Array) -> jax.Array:
    """[V, h, w, 3] -> [V, h, w] float32, up to a constant.

    Raises:
      ValueError: the views have another shape.
    """
    if views.ndim != 4 or views.shape[-1] != 3:
      raise ValueError(f"views must be [V, h, w, 3], not {list(views.shape)}")
    size = views.shape[1:3]
    features = self.backbone(views.astype(jnp.float32), strides=tuple(FEATURES))
    cells = self.readout(features, size)
    return enlarge(cells, size)


def enlarge(cells: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Brings values of cells [B, h / CELL, w / CELL] bilinearly to pixels [B, h, w]."""
  matrices = (
    interpolation_matrix(tile_centres(length, CELL), np.arange(length) + 0.5) for length in size
  )
  return apply_along_axes(*matrices, cells)
