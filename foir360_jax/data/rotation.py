"""Rotation and mirroring of panoramas: image and bit-packed masks change together.

What `augment` is made of. Rolling by whole columns and mirroring map the pixel grid onto itself and
are exact; a rotation about another axis interpolates the image and reads the masks at the nearest
pixel.

Axes: `image` [H, W, 3], W = 2 H, `masks` [N, H, W // 8] uint8, W divisible by 8; all else in an
example passes through, so it must not depend on where an object lies (`select_objects` sees to it).
"""

import math

import cv2
import numpy as np

from foir360_jax.data.transforms import Example
from foir360_jax.sphere import pad_sphere, pixel_directions, pixels_from_directions

# _REVERSED[b] has the bits of b in the opposite order.
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)[:, ::-1])


def roll_columns(example: Example, columns: int) -> Example:
  """Rotates the panorama to the east by whole columns: column c goes to (c + columns) mod W.

  >>> masks = np.packbits([[[1, 0, 0, 0, 0, 0, 1, 1]]], axis=-1)
  >>> image = np.zeros((1, 8, 3), np.uint8)
  >>> np.unpackbits(roll_columns({"image": image, "masks": masks}, 3)["masks"])
  array([0, 1, 1, 1, 0, 0, 0, 0], dtype=uint8)
  """
  image, masks = example["image"], np.ascontiguousarray(example["masks"])
  # The widest words that rows consist of, the first column in their highest bit.
  size = math.gcd(masks.shape[-1], 8)
  num_words, num_bits = divmod(columns % image.shape[1], 8 * size)
  words = np.roll(masks.view(f">u{size}").astype(f"=u{size}"), num_words, axis=-1)
  if num_bits:  # the low bits of each word move into the next one
    words = (words >> num_bits) | (np.roll(words, 1, axis=-1) << (8 * size - num_bits))
  masks = words.astype(f">u{size}").view(np.uint8)
  return example | {"image": np.roll(image, columns, axis=1), "masks": masks}


def flip_longitude(example: Example) -> Example:
  """Mirrors east and west, longitude -> -longitude: column c goes to W - 1 - c."""
  masks = example["masks"]
  if masks.size:  # OpenCV takes no empty arrays
    rows = masks.reshape(-1, masks.shape[-1])
    masks = cv2.LUT(cv2.flip(rows, 1), _REVERSED).reshape(masks.shape)
  return example | {"image": cv2.flip(example["image"], 1), "masks": masks}


def rotate(example: Example, rotation: np.ndarray) -> Example:
  """Rotates the panorama: the content of direction d moves to direction `rotation @ d`.

  As `foir360_jax.sphere.rotate_panorama`, rounded: the image is bilinear across the seam and the
  poles, a mask takes the nearest pixel. An object so small that no pixel takes it keeps one, where
  one of its own pixels goes: every object is to be ranked.

  Args:
    example: `image` and `masks`.
    rotation: [3, 3], orthonormal.

  Returns:
    The turned example; equal to the given one if `rotation` is the identity.
  """
  image, masks = example["image"], example["masks"]
  height = image.shape[0]
  # The inverse rotation tells where each pixel's content came from.
  source = cv2.transform(pixel_directions(height), rotation.T.astype(np.float32))
  row, column = pixels_from_directions(source, height)
  row, column = row + 1, column + 1  # in a panorama with a border

  def sample(panorama: np.ndarray, method: int) -> np.ndarray:
    maps = panorama[..., None] if panorama.ndim == 2 else panorama
    return cv2.remap(pad_sphere(maps, 1), column, row, method)

  rotated = np.empty_like(masks)
  for first in range(0, len(masks), 8):  # eight objects at a time, which share a byte a pixel
    group = masks[first : first + 8]
    shared = sample(_share_bytes(group), cv2.INTER_NEAREST)
    rotated[first : first + 8] = _split_bytes(shared, len(group))
  for index in np.flatnonzero(masks.any(axis=(1, 2)) & ~rotated.any(axis=(1, 2))):
    rotated[index] = _one_pixel(masks[index], rotation)
  return example | {"image": sample(image, cv2.INTER_LINEAR), "masks": rotated}


def _share_bytes(masks: np.ndarray) -> np.ndarray:
  """Up to eight masks [N, H, W // 8] -> [H, W] uint8, whose bit n is object n's."""
  bits = np.unpackbits(masks, axis=-1)
  words = bits.view(np.uint64)  # eight pixels; a bit shifted by up to seven stays within its byte
  for index in range(1, len(masks)):
    words[0] |= words[index] << index
  return bits[0]


def _split_bytes(shared: np.ndarray, num_objects: int) -> np.ndarray:
  """The inverse of `_share_bytes`."""
  return np.stack([np.packbits(shared & (1 << index), axis=-1) for index in range(num_objects)])


def _one_pixel(mask: np.ndarray, rotation: np.ndarray) -> np.ndarray:
  """The mask [H, W // 8] of where a mask's middle pixel, in reading order, goes."""
  height, width = len(mask), 2 * len(mask)
  pixels = np.flatnonzero(np.unpackbits(mask, axis=-1))
  row, column = divmod(pixels[len(pixels) // 2], width)
  direction = rotation @ pixel_directions(height)[row, column]
  row, column = np.rint(pixels_from_directions(direction, height)).astype(int)
  one = np.zeros((height, width), bool)
  one[min(max(row, 0), height - 1), column % width] = True
  return np.packbits(one, axis=-1)
