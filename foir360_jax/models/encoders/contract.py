"""The interface of all encoders, and the check of their input."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import jax

Padding = Literal["zero", "sphere"]
"""How maps are continued beyond their edges: by zeros, or around the seam and across the poles."""


class Encoder(Protocol):
  """Images to feature maps; every encoder of this package is one.

  Its parameters have names from which `layer_depths` knows their order.
  """

  @property
  def channels(self) -> Mapping[int, int]:
    """Of the feature maps, by their strides, finest first."""

  def __call__(
    self, image: jax.Array, *, strides: tuple[int, ...], seed: jax.Array | None = None
  ) -> dict[int, jax.Array]:
    """Feature maps.

    Args:
      image: [B, H, W, 3], RGB in [0, 255], of any type.
      strides: the maps to return.
      seed: [B] uint32, in training: all randomness of an example comes from its own seed. None, in
        use: there is none. An encoder without randomness ignores it.

    Returns:
      {stride: [B, H / stride, W / stride, C]} of the parameters' type; see
      `precision.computing_in`.
    """


def check_image(
  name: str,
  shape: tuple[int, ...],
  strides: Sequence[int],
  known: Sequence[int],
  padding: Padding,
  least_height: int,
  cure: str = "",
) -> None:
  """Raises ValueError for images or strides that an encoder cannot take.

  Args:
    name: of the encoder.
    shape: of the images, [B, H, W, 3].
    strides: those asked for.
    known: those that the encoder has.
    padding: "sphere" asks for panoramas, W = 2 H and H divisible by the greatest stride.
    least_height: rows that a panorama needs.
    cure: what helps beside more rows.
  """
  if not strides or not set(strides) <= set(known):
    raise ValueError(f"{name}: strides must be of {tuple(known)}, not {tuple(strides)}")
  if len(shape) != 4 or shape[3] != 3:
    cure = ": the batch axis is missing, give image[None]" if shape[2:] == (3,) else ""
    raise ValueError(f"{name} needs images [B, H, W, 3], not {shape}{cure}")
  if padding == "zero":
    return
  _, height, width, _ = shape
  last = max(strides)
  if width != 2 * height or height % last:
    raise ValueError(
      f"{name}: a panorama needs [B, H, 2 H, 3] with H divisible by {last}, not {shape}: resize it"
    )
  if height < least_height:
    raise ValueError(
      f"{name}: {height} rows are too few for strides up to {last}; give at least"
      f" {least_height}{cure}"
    )
