"""Transforms from raw examples to arrays of fixed shape: NumPy on dicts.

The second step of the input pipeline: `select_objects`, `resample`, (augmentation), `pad_objects`.

Axes: N objects, H rows (row 0 north-most), W = 2 H columns (column 0 starts at longitude -pi),
three colour channels. Masks are bit-packed along W, see `foir360_jax.batch`.
"""

from typing import Any

import numpy as np

from foir360_jax.files.panorama_file import is_panorama, stretch_with_masks
from foir360_jax.scenes.packed_masks import (
  pack_masks,
  resample_masks,
  resize_picture,
  unpack_masks,
)

Example = dict[str, Any]


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
    example: `image` [H, W, 3] uint8 with W = 2 H but for a few rows (`is_panorama`), which is then
      stretched to it; `masks` [N, H, W/8]; the rest passes through.
    height: rows of the result, divisible by 4 (masks are packed by eight columns).

  Returns:
    The example at the new size; itself if it has that size.

  Raises:
    ValueError: the image is no full panorama, or `height` is not divisible by 4.
  """
  rows, width = example["image"].shape[:2]
  if not is_panorama(rows, width):
    raise ValueError(
      f"a panorama is twice as wide as high, not {width}x{rows}: pad or crop it to the full sphere"
    )
  if height < 4 or height % 4:
    raise ValueError(f"height must be a positive multiple of 4, not {height}")
  if width != 2 * rows:
    image, masks = stretch_with_masks(example["image"], unpack_masks(example["masks"], width))
    example = example | {"image": image, "masks": pack_masks(masks)}
  if rows == height:
    return example
  image = resize_picture(example["image"], (height, 2 * height))
  return example | {"image": image, "masks": resample_masks(example["masks"], height)}


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
