"""Builds encoders by name."""

from collections.abc import Mapping, Sequence

from flax import nnx

from foir360_jax.models.encoders.contract import Encoder
from foir360_jax.models.encoders.efficientnet_lite0 import EfficientNetLite0
from foir360_jax.models.encoders.panoswin import PanoSwin
from foir360_jax.models.encoders.resnet50 import ResNet50
from foir360_jax.models.encoders.sphere import LEAST_HEIGHT, SphereEncoder

SMALL = "sphere_small"
CONVOLUTIONAL: Mapping[str, type[EfficientNetLite0] | type[ResNet50]] = {
  "sphere_efficientnet_lite0": EfficientNetLite0,
  "sphere_resnet50": ResNet50,
}
"""Encoders whose kernels may lie on the sphere, and of which there are public weights."""

PANOSWIN = "panoswin_tiny"
ENCODERS = (SMALL, *CONVOLUTIONAL, PANOSWIN)


def least_height(name: str, last_stride: int, sphere_from_stride: int) -> int:
  """Rows that a panorama needs for the maps up to `last_stride`; names as in `build_encoder`.

  >>> least_height("sphere_efficientnet_lite0", 16, 4), least_height("panoswin_tiny", 16, 4)
  (80, 32)
  """
  if name == SMALL:
    return LEAST_HEIGHT
  if name == PANOSWIN:
    return 2 * last_stride
  return CONVOLUTIONAL[name].least_height(last_stride, sphere_from_stride)


def build_encoder(
  name: str,
  *,
  widths: Sequence[int],
  blocks: Sequence[int],
  sphere_from_stride: int,
  drop_path: float = 0.0,
  remat: bool = False,
  rngs: nnx.Rngs,
) -> Encoder:
  """Builds an encoder for panoramas.

  Args:
    name: of `ENCODERS`.
    widths: see `SphereEncoder`; this and the next are of `sphere_small` alone.
    blocks: see there.
    sphere_from_stride: the first stride at which kernels of stride 1 lie on the sphere; above the
      last, none do. `panoswin_tiny` has none that could.
    drop_path: see `PanoSwin`; of `panoswin_tiny` alone.
    remat: the backward pass computes each block again; see `apply_blocks`.
    rngs: source of the initial kernels.

  Raises:
    ValueError: an unknown name.
  """
  if name == SMALL:
    return SphereEncoder(widths, blocks, sphere_from_stride, remat=remat, rngs=rngs)
  if name == PANOSWIN:
    return PanoSwin(drop_path=drop_path, remat=remat, rngs=rngs)
  if name not in CONVOLUTIONAL:
    raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, not {name!r}")
  return CONVOLUTIONAL[name](
    padding="sphere", sphere_from_stride=sphere_from_stride, remat=remat, rngs=rngs
  )
