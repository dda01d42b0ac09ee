"""What the places of a canvas shall say: which object each of them stands for.

An object belongs to the level whose range of sizes holds its own, near the bounds to two, and there
to the places about its centre of mass (centre sampling of FCOS). Axes: N objects, P places.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from foir360_jax.segment.small.network import MASK_STRIDE, STRIDES, place_centres
from foir360_jax.segment.training.augmentation import Canvas

NONE, IGNORED = -1, -2
"""Instead of an object: nothing is there; what is there is not asked."""

SIZES = ((0, 72), (56, 176), (136, np.inf))
"""Longer sides in pixels of the objects of each level, from one up to below the other."""

_RADIUS = 1.5  # strides from the centre within which places belong to an object
_LEAST_CELLS = 0.6  # cells of stride 4: smaller objects are not asked for


def at_mask_stride(mask: np.ndarray) -> np.ndarray:
  """The mean of each cell of stride 4, [h, w] uint8 -> [h / 4, w / 4] uint8."""
  height, width = mask.shape
  cells = width // MASK_STRIDE, height // MASK_STRIDE
  return cv2.resize(mask, cells, interpolation=cv2.INTER_AREA)


def make_targets(
  canvas: Canvas, max_objects: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """The masks of a canvas, and to which each place belongs.

  Args:
    canvas: sides are multiples of 32.
    max_objects: N; of more, drawn ones are ignored.
    rng: of the drawing.

  Returns:
    [N, h / 4, w / 4] uint8 masks, zero where there is no object, and [P] int32: an index into them,
    `NONE` or `IGNORED`.
  """
  height, width = canvas.image.shape[:2]
  small = [at_mask_stride(mask) for mask in canvas.masks]
  ignored = at_mask_stride(canvas.ignored)
  large_enough = [mask.sum(dtype=np.int64) >= 255 * _LEAST_CELLS for mask in small]
  kept = [mask for mask, large in zip(small, large_enough, strict=True) if large]
  left_out = [mask for mask, large in zip(small, large_enough, strict=True) if not large]
  if len(kept) > max_objects:
    order = rng.permutation(len(kept))
    left_out += [kept[index] for index in order[max_objects:]]
    kept = [kept[index] for index in order[:max_objects]]
  for mask in left_out:
    ignored = np.maximum(ignored, mask)
  masks = np.zeros((max_objects, height // MASK_STRIDE, width // MASK_STRIDE), np.uint8)
  if kept:
    masks[: len(kept)] = kept
  return masks, assign(kept, ignored, (height, width))


def assign(masks: Sequence[np.ndarray], ignored: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """To which object each place belongs; to the smallest, where several want it.

  Args:
    masks: N of [h / 4, w / 4] uint8, none empty.
    ignored: [h / 4, w / 4] uint8.
    size: (h, w).

  Returns:
    [P] int32, see `make_targets`.
  """
  owner = np.full(len(place_centres(*size)[0]), NONE, np.int32)
  levels, start = [], 0
  for stride in STRIDES:
    rows, columns = size[0] // stride, size[1] // stride
    view = owner[start : start + rows * columns].reshape(rows, columns)
    shrunk = cv2.resize(ignored, (columns, rows), interpolation=cv2.INTER_AREA)
    view[shrunk > 127] = IGNORED
    levels.append(view)
    start += rows * columns
  areas = [int(mask.sum(dtype=np.int64)) for mask in masks]
  for index in np.argsort([-area for area in areas], kind="stable"):
    rows_sum = masks[index].sum(1, dtype=np.float64)
    columns_sum = masks[index].sum(0, dtype=np.float64)
    y, x = (
      float(sums @ (np.arange(len(sums)) + 0.5)) * MASK_STRIDE / areas[index]
      for sums in (rows_sum, columns_sum)
    )
    longer = max(_extent(masks[index].max(axis)) for axis in (0, 1)) * MASK_STRIDE
    for view, stride, (least, most) in zip(levels, STRIDES, SIZES, strict=True):
      if not least <= longer < most:
        continue
      r = np.abs((np.arange(view.shape[0]) + 0.5) * stride - y)
      c = np.abs((np.arange(view.shape[1]) + 0.5) * stride - x)
      near = np.ix_(r < _RADIUS * stride, c < _RADIUS * stride)
      view[near] = index
      view[r.argmin(), c.argmin()] = index
  return owner


def _extent(profile: np.ndarray) -> int:
  """Cells from the first to the last that an object covers by a third, at least 1."""
  covered = np.flatnonzero(profile > 76)
  return int(covered[-1] - covered[0] + 1) if len(covered) else 1
