"""Exact augmentation of panoramas: images and bit-packed masks move together, labels stay.

The third step of the input pipeline, between `resample` and `pad_objects`. A turn about the
vertical by whole columns and a mirror map the pixel grid onto itself: nothing is interpolated.

Axes: `image` [H, W, 3], `masks` [N, H, W // 8] uint8, W divisible by 8; all else passes through.
"""

import cv2
import numpy as np

from foir360_jax.data.transforms import Example

# _REVERSED[b] has the bits of b in the opposite order.
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)[:, ::-1])


def augment(
  example: Example, rng: np.random.Generator, *, yaw: bool, mirror: bool, permute_colours: bool
) -> Example:
  """Applies those of the three augmentations that are switched on, each drawn uniformly.

  All draws are made in any case: switching one off leaves the others as they were.

  Args:
    example: `image` and `masks`, not changed in place.
    rng: source of the draws.
    yaw: roll by a random number of columns.
    mirror: flip the longitude in half of the cases.
    permute_colours: put the colour channels in a random order.

  Returns:
    The augmented example.
  """
  columns = int(rng.integers(example["image"].shape[1]))
  flipped = rng.random() < 0.5
  order = rng.permutation(3)
  if yaw:
    example = roll_columns(example, columns)
  if mirror and flipped:
    example = flip_longitude(example)
  if permute_colours:
    example = reorder_channels(example, order)
  return example


def roll_columns(example: Example, columns: int) -> Example:
  """Turns the panorama to the east by whole columns: column c goes to (c + columns) mod W.

  >>> masks = np.packbits([[[1, 0, 0, 0, 0, 0, 1, 1]]], axis=-1)
  >>> image = np.zeros((1, 8, 3), np.uint8)
  >>> np.unpackbits(roll_columns({"image": image, "masks": masks}, 3)["masks"])
  array([0, 1, 1, 1, 0, 0, 0, 0], dtype=uint8)
  """
  num_bytes, num_bits = divmod(columns % example["image"].shape[1], 8)
  masks = np.roll(example["masks"], num_bytes, axis=-1)
  if num_bits:  # the low bits of each byte move into the next one
    masks = (masks >> num_bits) | (np.roll(masks, 1, axis=-1) << (8 - num_bits))
  return example | {"image": np.roll(example["image"], columns, axis=1), "masks": masks}


def flip_longitude(example: Example) -> Example:
  """Mirrors east and west, longitude -> -longitude: column c goes to W - 1 - c."""
  masks = _REVERSED[example["masks"][..., ::-1]]
  return example | {"image": cv2.flip(example["image"], 1), "masks": masks}


def reorder_channels(example: Example, order: np.ndarray) -> Example:
  """Puts the colour channels in another order: the new channel c is the old channel order[c]."""
  return example | {"image": example["image"][..., order]}
