"""Masks cropped to their bounding boxes, from which overlaps and paintings are computed.

Objects are small beside a panorama, so this is some ten times quicker than whole pictures, and it
needs no more memory than the boxes. Axes: masks [n, H, W], cut here to n crops [h, w].
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True, eq=False)
class CroppedMasks:
  """n masks of one picture.

  Attributes:
    size: (H, W) of the picture; None if there is no mask to tell.
    boxes: [n, 4] int: top, bottom, left, right, the ends excluded; zeros for an empty mask.
    crops: n bool arrays, the masks inside their boxes. An object that is cut by the seam has a box
      of the whole width.
    areas: [n] int, pixels.
  """

  size: tuple[int, int] | None
  boxes: np.ndarray
  crops: tuple[np.ndarray, ...]
  areas: np.ndarray

  def __len__(self) -> int:
    return len(self.crops)

  def window(self, index: int) -> tuple[slice, slice]:
    """Returns the rows and columns of the box of one mask, to index a picture with."""
    top, bottom, left, right = self.boxes[index]
    return slice(top, bottom), slice(left, right)

  def cut(self, index: int, window: tuple[slice, slice]) -> np.ndarray:
    """Returns the part of one mask in a window of the picture that lies inside its box."""
    rows, columns = window
    top, _, left, _ = self.boxes[index]
    return self.crops[index][
      rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]


Masks = CroppedMasks | Iterable[ArrayLike]
"""[n, H, W], or n masks [H, W] one after the other, or what `crop_masks` made of them."""


def crop_masks(masks: Masks) -> CroppedMasks:
  """Cuts masks to their bounding boxes.

  All metrics take the result in the place of the masks: cut once what several metrics look at. From
  an iterator the masks are read one at a time, so that they need not all be in memory.

  Args:
    masks: [n, H, W] or an iterable of [H, W]; a pixel belongs to the mask where the value is above
      0.5. May be empty ([]). Cropped masks are returned as they are.

  Returns:
    Copies of the crops, which do not hold on to `masks`.

  Raises:
    ValueError: if the masks are not [H, W] of one size.

  >>> crop_masks([[[0, 0, 0], [0, 1, 1]]]).boxes
  array([[1, 2, 1, 3]])
  """
  if isinstance(masks, CroppedMasks):
    return masks
  if hasattr(masks, "ndim"):
    masks = np.asarray(masks)  # to take the masks of a device's array one by one would be slow
  size = masks.shape[1:] if isinstance(masks, np.ndarray) and masks.ndim == 3 else None
  boxes, crops = [], []
  for mask in masks:
    mask = _as_bool(np.asarray(mask))
    size = size or mask.shape
    if mask.ndim != 2 or mask.shape != size:
      raise ValueError(f"masks must be n pictures [H, W] of one size, not {size} and {mask.shape}")
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = (rows[0], rows[-1] + 1) if rows.size else (0, 0)
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = (columns[0], columns[-1] + 1) if columns.size else (0, 0)
    boxes.append((top, bottom, left, right))
    crops.append(mask[top:bottom, left:right].copy())
  areas = np.array([np.count_nonzero(crop) for crop in crops], int)
  return CroppedMasks(size, np.array(boxes, int).reshape(-1, 4), tuple(crops), areas)


def _as_bool(mask: np.ndarray) -> np.ndarray:
  if mask.dtype == bool:
    return mask
  return mask > (0.5 if mask.dtype.kind == "f" else 0)  # an integer is not turned into floats
