"""Padding modes of the convolutional encoders with public weights.

Padding, and from which stride on kernels lie on the sphere, are settings of the layers; parameters
are the same for all of them, so that public weights fit.
"""

from collections.abc import Mapping

import jax
from flax import nnx

from foir360_jax.models.encoders.contract import Padding, check_image


class ConvolutionalEncoder(nnx.Module):
  """The settings of an encoder, and the check of its input. Subclasses have `channels`.

  Args:
    padding: "zero" for pictures of any size; "sphere" for panoramas: around the seam and across the
      poles.
    sphere_from_stride: with padding "sphere", the first stride of the maps on which the taps of
      convolutions of stride 1 lie on the sphere (see `sphere.sphere_conv`); None: on no map.
      Convolutions of stride 2 stay planar.
    remat: the backward pass computes each block again; see `apply_blocks`.

  Raises:
    ValueError: the padding is unknown, or spherical convolutions are asked for with padding "zero".
  """

  channels: Mapping[int, int]

  def __init__(self, padding: Padding, sphere_from_stride: int | None, remat: bool):
    name = type(self).__name__
    if padding not in ("zero", "sphere"):
      raise ValueError(f"{name}: padding must be 'zero' or 'sphere', not {padding!r}")
    if padding == "zero" and sphere_from_stride is not None:
      raise ValueError(f"{name}: sphere_from_stride needs padding='sphere'")
    self.padding = padding
    self.sphere_from_stride = sphere_from_stride
    self.remat = remat

  def _is_spherical(self, stride: int) -> bool:
    """Whether kernels lie on the sphere on maps of this stride."""
    return self.sphere_from_stride is not None and stride >= self.sphere_from_stride

  def _check(self, image: jax.Array, strides: tuple[int, ...]) -> None:
    """Raises ValueError for images or strides that this encoder cannot take."""
    last = max(strides, default=0)
    rows, planar_rows = (self.least_height(last, s) for s in (self.sphere_from_stride, None))
    cure = f", or {planar_rows} with sphere_from_stride=None" if planar_rows < rows else ""
    name, known = type(self).__name__, tuple(self.channels)
    check_image(name, image.shape, strides, known, self.padding, rows, cure)

  @staticmethod
  def least_height(last_stride: int, sphere_from_stride: int | None) -> int:
    """Rows that a panorama needs for the maps up to `last_stride`."""
    raise NotImplementedError
