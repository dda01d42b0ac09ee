"""Random augmentation of training examples: image and masks change together, labels stay.

The third step of the input pipeline, between `resample` and `pad_objects`. Axes: `image` [H, W, 3],
`masks` [N, H, W // 8] uint8, W divisible by 8; all else passes through.
"""

import dataclasses

import cv2
import numpy as np

from foir360_jax.data.colour import change_colours, colour_matrix, reorder_channels
from foir360_jax.data.rotation import flip_longitude, roll_columns, rotate
from foir360_jax.data.transforms import Example

_LARGEST = {
  "rotation_deg": 180,
  "brightness": 1,
  "contrast": 1,
  "saturation": 1,
  "hue_deg": 180,
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Augmentations, all off by default: the fields of `config.data.augment`.

  Labels stay, so switch on what leaves importance as it is. In synthetic360 that is yaw and mirror:
  a rotation changes latitudes, new colours change luminance, and importance depends on both.

  Attributes:
    yaw: roll by a random number of columns, all equally likely. Exact.
    mirror: flip the longitude in half of the cases. Exact.
    permute_colours: put the colour channels in a random order.
    rotation_deg: turn about a random axis, all directions equally likely, by up to this angle.
      Interpolates. In [0, 180].
    brightness: add up to this share of the range, or take it away. In [0, 1].
    contrast: scale the distance from mid-grey by a factor within 1 +- this. In [0, 1].
    saturation: scale the distance from grey by a factor within 1 +- this. In [0, 1].
    hue_deg: turn the hue by up to this angle in either direction. In [0, 180].

  Raises:
    ValueError: a value outside its range.
  """

  yaw: bool = False
  mirror: bool = False
  permute_colours: bool = False
  rotation_deg: float = 0.0
  brightness: float = 0.0
  contrast: float = 0.0
  saturation: float = 0.0
  hue_deg: float = 0.0

  def __post_init__(self) -> None:
    for name, largest in _LARGEST.items():
      value = getattr(self, name)
      if not 0 <= value <= largest:
        raise ValueError(f"config.data.augment.{name} must be in [0, {largest}], not {value}")


def augment(example: Example, rng: np.random.Generator, augmentation: Augmentation) -> Example:
  """Applies the enabled augmentations at random.

  All draws are made in any case: switching one off leaves the others as they were.

  Args:
    example: `image` and `masks`, not changed in place.
    rng: source of the draws.
    augmentation: what to do.

  Returns:
    The augmented example; `example` itself if all is off.
  """
  columns = int(rng.integers(example["image"].shape[1]))
  flipped = rng.random() < 0.5
  order = rng.permutation(3)
  axis = rng.normal(size=3)
  angle_rad = np.deg2rad(augmentation.rotation_deg) * rng.random()
  brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * (
    augmentation.brightness,
    augmentation.contrast,
    augmentation.saturation,
    np.deg2rad(augmentation.hue_deg),
  )
  if augmentation.rotation_deg:
    example = rotate(example, cv2.Rodrigues(angle_rad / np.linalg.norm(axis) * axis)[0])
  if augmentation.yaw:
    example = roll_columns(example, columns)
  if augmentation.mirror and flipped:
    example = flip_longitude(example)
  if brightness or contrast or saturation or hue:
    matrix = colour_matrix(
      brightness=brightness, contrast=1 + contrast, saturation=1 + saturation, hue_rad=hue
    )
    example = example | {"image": change_colours(example["image"], matrix)}
  if augmentation.permute_colours:
    example = example | {"image": reorder_channels(example["image"], order)}
  return example
