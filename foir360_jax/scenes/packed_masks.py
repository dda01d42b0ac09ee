"""Bit-packed masks, and their resampling.

Training and prediction resample by the same functions, so that a model sees the same masks in both.
Axes: N objects, H rows (row 0 north-most), W = 2 H columns, eight of them a byte.
"""

import math

import cv2
import numpy as np

from foir360_jax.sphere import pad_sphere


def pack_masks(masks: np.ndarray) -> np.ndarray:
  """Packs boolean masks [..., H, W] into bits [..., H, ceil(W / 8)] uint8, first column highest.

  >>> pack_masks(np.array([[[True, False, False, False, False, False, True, True]]]))
  array([[[131]]], dtype=uint8)
  """
  return np.packbits(masks, axis=-1)


def unpack_masks(packed: np.ndarray, width: int) -> np.ndarray:
  """Unpacks bits [..., H, ceil(width / 8)] uint8 into boolean masks [..., H, width].

  >>> unpack_masks(np.array([[[131]]], np.uint8), 8).astype(int)
  array([[[1, 0, 0, 0, 0, 0, 1, 1]]])
  """
  return np.unpackbits(packed, axis=-1, count=width).view(bool)


def resample_masks(packed: np.ndarray, height: int) -> np.ndarray:
  """The masks of `data.resample` alone: bit-packed [N, H, W/8] -> [N, height, height / 4]."""
  width = 2 * packed.shape[1]
  masks = np.zeros((len(packed), height, 2 * height), bool)
  for resized, mask in zip(masks, packed, strict=True):
    old, new = _rows_around(mask.any(axis=1), height)
    coverage = resize_picture(unpack_masks(mask[old], width).astype(np.float32), resized[new].shape)
    # The margin is for halves that come out a rounding error below; an empty mask stays empty.
    resized[new] = coverage >= max(min(0.5, coverage.max()) - 1e-6, 1e-6)
  return pack_masks(masks)


def resize_picture(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Resamples [H, W] or [H, W, C] to `shape`, (H, W); whatever is enlarged must be whole."""
  rows, columns = image.shape[:2]
  height, width = shape
  if width < columns:  # output pixels tile the input, so that none of them reaches over the seam
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
  margin = rows // math.gcd(rows, height)  # the narrowest border that is whole at either size
  flat = image.ndim == 2
  image = pad_sphere(image[..., None] if flat else image, margin)
  size = (image.shape[1] * height // rows, image.shape[0] * height // rows)
  border = margin * height // rows
  enlarged = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
  return np.ascontiguousarray(enlarged[border:-border, border:-border])


def _rows_around(occupied: np.ndarray, height: int) -> tuple[slice, slice]:
  """The fewest rows around those `occupied` [H] that are also whole rows at the new height.

  Returns:
    Their place at the old height and at the new one. All rows if none is occupied, or if they
    become more: enlarging reads beyond them.
  """
  rows = len(occupied)
  if height > rows or not occupied.any():
    return slice(0, rows), slice(0, height)
  pieces = math.gcd(rows, height)  # into which the grids of both heights divide
  inside = np.flatnonzero(occupied.reshape(pieces, -1).any(axis=1))
  first, end = int(inside[0]), int(inside[-1]) + 1
  old, new = (slice(first * n // pieces, end * n // pieces) for n in (rows, height))
  return old, new
