"""The readout: from features of a frozen backbone to a density of fixations.

It is convolutions of one tap (it sees what the backbone sees at a place, and nothing of where in
the view that place is), then a blur. It is trained by `configs/fixation.py`.

Beside the density it gives the appearance of each place: the same features along their principal
components, which are not trained for anything.

Axes: V or B views [h, w], cells of `CELL` pixels [h / 8, w / 8, rounded up], C channels, K
components.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.models.encoders.efficientnet_lite0 import STAGES
from foir360_jax.saliency.alignment import (
  apply_along_axes,
  blur_matrix,
  cell_centres,
  interpolation_matrix,
  tile_centres,
)

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
    rows, columns = (blur_matrix(len(places), sigma) for places in tiles)
    return apply_along_axes(rows, columns, last(hidden)[..., 0]), appearance


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


def enlarged_size(shape: tuple[int, int], enlargement: float) -> tuple[int, int]:
  """The size at which the backbone sees pictures of this shape: whole cells, if it is another.

  >>> enlarged_size((336, 448), 1.5), enlarged_size((50, 50), 1.5), enlarged_size((50, 50), 1.0)
  ((504, 672), (72, 72), (50, 50))
  """
  if enlargement == 1:
    return shape
  height, width = (CELL * max(1, round(length * enlargement / CELL)) for length in shape)
  return height, width


def density_at(
  cells: jax.Array, size: tuple[int, int], places: tuple[np.ndarray, np.ndarray]
) -> jax.Array:
  """The density that log-densities of cells make of the pixels of views.

  Args:
    cells: [V, h / CELL, w / CELL] unnormalised log-densities of pictures of `size`.
    size: (h, w).
    places: [m], [n] the rows and columns of the pixels in these pictures; in between is linear.

  Returns:
    [V, m, n] float32, mean 1 each.
  """
  rows, columns = (
    interpolation_matrix(tile_centres(length, CELL), along)
    for length, along in zip(size, places, strict=True)
  )
  log_density = apply_along_axes(rows, columns, cells)
  density = jax.nn.softmax(log_density.reshape(len(cells), -1), axis=-1)
  return (density * density.shape[-1]).reshape(log_density.shape)
