"""From examples of any size and number of objects to arrays of fixed shape: NumPy on dicts.

The second step of the input pipeline: `select_objects`, `resample`, (augmentation), `pad_objects`.

Axes: N objects, H rows (row 0 north-most), W = 2 H columns (column 0 starts at longitude -pi),
three colour channels. Masks are bit-packed along W, see `foir360_jax.batch`.
"""

import math
from typing import Any

import cv2
import numpy as np

Example = dict[str, Any]


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


def select_objects(example: Example, max_objects: int) -> Example:
  """Keeps what the model needs of an example, and no more than its most important objects.

  Args:
    example: see the legend of `foir360_jax.data.source`.
    max_objects: the most objects to keep; of equally important ones the earlier stays.

  Returns:
    `image`, `masks` [N, H, W/8], `relevance` [N] float32 (the importance, in the order of the ranks
    where these tell objects of one importance apart), `category` [N] int32 (-1 where the data set
    has none) and, if the data set knows it, `true_importance` [N] float32; the objects in their old
    order.

  Raises:
    ValueError: masks, labels and image do not fit each other.
  """
  image, masks = example["image"], example["masks"]
  relevance = _relevance(example)
  num_objects, (height, width) = len(relevance), image.shape[:2]
  packed_shape = (num_objects, height, -(-width // 8))
  if masks.shape != packed_shape:
    raise ValueError(
      f"image {example.get('image_id', '?')} of {height}x{width} pixels with {num_objects} objects"
      f" needs bit-packed masks of shape {packed_shape}, not {masks.shape}: prepare the data again"
    )
  kept = np.sort(np.argsort(-relevance, kind="stable")[:max_objects])
  category = np.asarray(example.get("category", np.full(num_objects, -1)), np.int32)
  selected = {
    "image": image,
    "masks": masks[kept],
    "relevance": relevance[kept],
    "category": category[kept],
  }
  if "true_importance" in example:
    selected["true_importance"] = np.asarray(example["true_importance"], np.float32)[kept]
  return selected


def _relevance(example: Example) -> np.ndarray:
  importance = np.asarray(example["importance"], np.float32)
  rank = np.asarray(example.get("rank", ()), np.float32)  # none: nothing to tell apart
  if len(set(zip(importance, rank, strict=False))) <= len(set(importance)):
    return importance
  # Importance never grows with the rank, so this changes no order; float32 resolves 1e-5 / 128.
  trifle = np.float32(1e-5)
  return (1 - trifle) * importance + trifle * (1 - rank / rank.max())


def resample(example: Example, height: int) -> Example:
  """Brings image and masks to `height` x `2 height` pixels.

  Shrinking averages areas; enlarging is bilinear across the seam and the poles. A pixel belongs to
  a mask if at least half of it does; an object too small for that anywhere keeps the pixel that it
  covers most, for every object is to be ranked.

  Args:
    example: `image` [H, W, 3] uint8 with W = 2 H, `masks` [N, H, W/8]; the rest passes through.
    height: rows of the result, divisible by 4 (masks are packed by eight columns).

  Returns:
    The example at the new size; itself if it has that size.

  Raises:
    ValueError: the image is no full panorama, or `height` is not divisible by 4.
  """
  rows, width = example["image"].shape[:2]
  if width != 2 * rows:
    raise ValueError(
      f"a panorama is twice as wide as high, not {width}x{rows}: pad or crop it to the full sphere"
    )
  if height < 4 or height % 4:
    raise ValueError(f"height must be a positive multiple of 4, not {height}")
  if rows == height:
    return example
  image = _resize(example["image"], (height, 2 * height))
  return example | {"image": image, "masks": resample_masks(example["masks"], height)}


def resample_masks(packed: np.ndarray, height: int) -> np.ndarray:
  """The masks of `resample` alone: bit-packed [N, H, W/8] -> [N, height, height / 4]."""
  width = 2 * packed.shape[1]
  masks = np.zeros((len(packed), height, 2 * height), bool)
  for resized, mask in zip(masks, packed, strict=True):
    old, new = _rows_around(mask.any(axis=1), height)
    coverage = _resize(unpack_masks(mask[old], width).astype(np.float32), resized[new].shape)
    # The margin is for halves that come out a rounding error below; an empty mask stays empty.
    resized[new] = coverage >= max(min(0.5, coverage.max()) - 1e-6, 1e-6)
  return pack_masks(masks)


def pad_objects(example: Example, max_objects: int) -> Example:
  """Pads the objects to a fixed number and adds `where`, True for objects.

  Args:
    example: a result of `select_objects`, of at most `max_objects` objects.
    max_objects: the number to pad to.

  Returns:
    The example with `masks`, `relevance`, `true_importance` padded by 0, `category` by -1.

  >>> example = {"relevance": np.ones(1, np.float32), "category": np.array([3])}
  >>> pad_objects(example, 3)["category"].tolist(), pad_objects(example, 3)["where"].tolist()
  ([3, -1, -1], [True, False, False])
  """
  num_objects = len(example["relevance"])
  padded = example | {"where": np.arange(max_objects) < num_objects}
  for key in padded.keys() & {"masks", "relevance", "true_importance", "category"}:
    value = example[key]
    padded[key] = np.full((max_objects, *value.shape[1:]), -(key == "category"), value.dtype)
    padded[key][:num_objects] = value
  return padded


def surround(image: np.ndarray, margin: int) -> np.ndarray:
  """Adds a border to [H, W] or [H, W, C]: the columns beyond the seam and the outermost rows.

  Beyond a pole lies its outermost row, half a turn on; it is repeated, so a pixel of it suffices to
  interpolate.
  """
  north, south = (
    np.repeat(np.roll(row, image.shape[0], axis=1), margin, axis=0)
    for row in (image[:1], image[-1:])
  )
  image = np.concatenate([north, image, south])
  return np.concatenate([image[:, -margin:], image, image[:, :margin]], axis=1)


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


def _resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Resamples [H, W] or [H, W, C] to `shape`, (H, W); whatever is enlarged must be whole."""
  rows, columns = image.shape[:2]
  height, width = shape
  if width < columns:  # output pixels tile the input, so that none of them reaches over the seam
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
  margin = rows // math.gcd(rows, height)  # the narrowest border that is whole at either size
  image = surround(image, margin)
  size = (image.shape[1] * height // rows, image.shape[0] * height // rows)
  border = margin * height // rows
  enlarged = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
  return np.ascontiguousarray(enlarged[border:-border, border:-border])
