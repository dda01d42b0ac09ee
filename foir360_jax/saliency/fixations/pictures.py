"""Pictures with fixations from a prepared `fixations` data set, and the views to train on.

Beside the ranking pipeline: a fixation data set is small, so it is read whole. Pictures are
[H, W, 3] uint8 RGB, fixations [F] places x (right) and y (down) in pixels of that picture.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from foir360_jax.data.source import open_source
from foir360_jax.metrics.fixation import fixation_density

_FORCED = 0  # order of the fixation at which the picture came: not a choice
_SLACK = 0.01  # by how much the shape of a picture may differ from the one asked for


@dataclasses.dataclass(frozen=True, eq=False)
class FixatedPicture:
  """A picture and where people looked.

  Attributes:
    image_id: its name in the data set.
    image: [H, W, 3] uint8 RGB.
    x: [F] float32, in pixels from the left; without each viewer's first fixation.
    y: [F] float32, in pixels from the top.
    degree_px: one degree of visual angle in pixels: the blur of its density.
  """

  image_id: str
  image: np.ndarray
  x: np.ndarray
  y: np.ndarray
  degree_px: float

  def density(self) -> np.ndarray:
    """The blurred fixations [H, W] float32, sum 1; see `metrics.fixation.fixation_density`."""
    return fixation_density(self.x, self.y, self.image.shape[:2], self.degree_px)


class View(NamedTuple):
  """A part of a picture, or the picture and its mirror image around it, brought to a fixed size.

  Attributes:
    image: [h, w, 3] uint8 RGB.
    mass: [h / cell, w / cell] float32, the part of the density that lies in each cell; sum <= 1.
    window: [4] float32, x0, y0, x1, y1 in shares of the picture's width and height.
  """

  image: np.ndarray
  mass: np.ndarray
  window: np.ndarray


def read_fixations(
  name: str, data_dir: str, split: str, *, size: tuple[int, int], degree: float
) -> list[FixatedPicture]:
  """Reads a split and brings every picture and its fixations to one size.

  Pictures at which nobody looked after the first fixation are left out.

  Args:
    name: "fixations/crowd" or "fixations/osie".
    data_dir: the folder that was given to `foir360 prepare`.
    split: "train", "tune", "test" or a part: "train[:50%]".
    size: (height, width) of the result.
    degree: one degree of visual angle as a share of the picture's width.

  Raises:
    ValueError: the data set is missing, has no fixations, or a picture has another shape (height to
      width), so that it would be distorted.
  """
  source = open_source(name, data_dir, split)
  missing = {"image", "image_id", "fixations"} - source.features
  if missing:
    raise ValueError(
      f"{name} has no fixations: it lacks {', '.join(sorted(missing))};"
      " set config.data.names to data sets that have them"
    )
  pictures = (_picture(source[index], name, size, degree) for index in range(len(source)))
  return [picture for picture in pictures if _is_looked_at(picture)]


def _picture(
  example: Mapping[str, Any], name: str, size: tuple[int, int], degree: float
) -> FixatedPicture:
  image, fixations = example["image"], example["fixations"]
  (rows, columns), (height, width) = image.shape[:2], size
  if abs(rows * width / (columns * height) - 1) > _SLACK:
    raise ValueError(
      f"{name} {example['image_id']}: {columns}x{rows} pixels are not of the shape"
      f" {width}x{height}; set config.data.height and .width to the shape of the pictures"
    )
  chosen = np.asarray(fixations["order"]) != _FORCED
  return FixatedPicture(
    image_id=example["image_id"],
    image=_resized(image, size),
    x=np.asarray(fixations["x"], np.float32)[chosen] * (width / columns),
    y=np.asarray(fixations["y"], np.float32)[chosen] * (height / rows),
    degree_px=degree * width,
  )


def fold_of(image_id: str, folds: int) -> int:
  """The part, 0 to `folds` - 1, to which a picture belongs; by its name alone.

  >>> [fold_of(name, 3) for name in ("1001", "1002", "1003", "1004")]
  [2, 0, 2, 1]
  """
  return zlib.crc32(image_id.encode()) % folds


def _is_looked_at(picture: FixatedPicture) -> bool:
  height, width = picture.image.shape[:2]
  x, y = picture.x, picture.y
  return bool(((x >= 0) & (x < width) & (y >= 0) & (y < height)).any())


def draw_view(
  picture: FixatedPicture, density: np.ndarray, share: float, cell: int, rng: np.random.Generator
) -> View:
  """Draws a view at a random place, mirrored or not by chance.

  Args:
    picture: [h, w, 3], the size of the view, too.
    density: its density [h, w].
    share: sides of the view as a share of the picture's, in (0, 2). A view larger than the picture
      shows the mirror image of the picture around it: then the picture's edge is none of the view.
    cell: rows and columns of a cell; divides h and w.
    rng: draws the place and the mirroring.
  """
  size = picture.image.shape[:2]
  sides = [max(1, round(share * length)) for length in size]
  # Where the view is the larger one, its start is before the picture's.
  starts = [
    int(rng.integers(min(0, length - side), max(0, length - side) + 1))
    for length, side in zip(size, sides, strict=True)
  ]
  (y0, x0), (y1, x1) = starts, np.add(starts, sides)
  cells = size[0] // cell, size[1] // cell
  image = _resized(_cut(picture.image, starts, sides, cv2.BORDER_REFLECT), size)
  mass = _resized(_cut(density, starts, sides, cv2.BORDER_CONSTANT), cells)
  mass = mass * np.float32(np.prod(sides) / np.prod(cells))  # the mean of a cell times its pixels
  window = np.array([x0, y0, x1, y1], np.float32) / np.tile(size[::-1], 2)
  if rng.random() < 0.5:
    image, mass = image[:, ::-1], mass[:, ::-1]
    window[[0, 2]] = 1 - window[[2, 0]]
  return View(np.ascontiguousarray(image), np.ascontiguousarray(mass), window.astype(np.float32))


def _cut(picture: np.ndarray, starts: list[int], sides: list[int], border: int) -> np.ndarray:
  """Rows and columns of [H, W, ...] from `starts` on, which may begin and end outside."""
  margins = [
    (max(0, -start), max(0, start + side - length))
    for start, side, length in zip(starts, sides, picture.shape[:2], strict=True)
  ]
  picture = cv2.copyMakeBorder(picture, *margins[0], *margins[1], border)
  top, left = (start + before for start, (before, _) in zip(starts, margins, strict=True))
  return picture[top : top + sides[0], left : left + sides[1]]


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Brings [H, W, ...] to `size`: averages areas where it shrinks, else interpolates linearly."""
  if picture.shape[:2] == size:
    return picture
  shrinks = size[0] < picture.shape[0]
  method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  return cv2.resize(picture, size[::-1], interpolation=method)
