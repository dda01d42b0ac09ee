"""One picture with its fixations and boxes, as the layouts' readers give it, and its checks.

Between the readers (`json_layout`, `repository_layout`) and the builder. Positions are in pixels of
the picture: x to the right, y downwards, from its top left corner.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from foir360_jax.files.picture_file import open_picture, orientation_of, read_picture

COLUMNS = ("subject", "order", "x", "y", "duration_ms")  # of Record.fixations
UNRANKED = -1
SLACK_PX = 1.0  # rounding, and counting pixels from 0 or from 1, move a fixation by less


@dataclasses.dataclass(frozen=True)
class Boxes:
  """N boxes and how much they were looked at.

  Attributes:
    edges: [N, 4], x0, y0, x1, y1; a box may reach beyond the picture, as people drew it.
    rank: [N], 1 = most looked at, dense; -1 where nobody looked.
    viewers: [N], how many people looked at the box.
    duration_ms: [N], for how long all of them did.
  """

  edges: np.ndarray
  rank: np.ndarray
  viewers: np.ndarray
  duration_ms: np.ndarray

  @classmethod
  def none(cls) -> "Boxes":
    """No boxes at all."""
    return cls(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int), np.zeros(0))


@dataclasses.dataclass(frozen=True)
class Record:
  """One picture.

  Attributes:
    picture: its file.
    size: (width, height) that the annotation states; None if it states none.
    fixations: [F, 5], the columns named in COLUMNS.
    boxes: boxes with ranks.
  """

  picture: pathlib.Path
  size: tuple[float, float] | None
  fixations: np.ndarray
  boxes: Boxes


def check_record(record: Record) -> tuple[int, int]:
  """Looks for everything that makes a record unusable; returns (height, width) of the picture.

  Raises:
    PictureError: the picture cannot be read; its message begins with the file.
    ValueError: all the other reasons, in one line.
  """
  picture = read_picture(record.picture)
  orientation = orientation_of(open_picture(record.picture, whole=False))
  reasons = [
    *_wrong_picture(picture, orientation, record.size),
    *_wrong_fixations(record.fixations, *picture.size),
    *_wrong_boxes(record.boxes, *picture.size),
  ]
  if reasons:
    raise ValueError("; ".join(reasons))
  return picture.height, picture.width


def table(rows: object, num_columns: int, name: str) -> np.ndarray:
  """Returns rows of numbers as an array [len(rows), num_columns].

  Raises:
    ValueError: anything else.
  """
  try:
    values = np.array(rows, np.float64)
  except (TypeError, ValueError):
    values = np.zeros(())
  if values.size == 0 and values.ndim == 1:
    return values.reshape(0, num_columns)
  if values.ndim != 2 or values.shape[1] != num_columns:
    raise ValueError(f"{name} must be rows of {num_columns} numbers")
  return values


def _wrong_picture(picture, orientation, size) -> Iterator[str]:
  if orientation != 1:  # the data set holds the file, whose other readers may not follow it
    yield (
      f"has the EXIF orientation {orientation}; store it upright: magick mogrify -auto-orient FILE"
    )
  if picture.format != "JPEG" or picture.mode not in ("RGB", "L"):
    yield f"is {picture.format} of mode {picture.mode}; save it as JPEG in RGB or grey"
  if size is not None and picture.size != size:
    yield (
      f"is {picture.width}x{picture.height}, but its annotation says {size[0]:g}x{size[1]:g}; "
      "take both from the same download"
    )


def _wrong_fixations(fixations, width, height) -> Iterator[str]:
  if not len(fixations):
    yield "nobody's fixations are there"
    return
  subject, order, x, y, duration_ms = fixations.T
  viewing = fixations[:, :2]
  outside = (x < -SLACK_PX) | (x > width + SLACK_PX) | (y < -SLACK_PX) | (y > height + SLACK_PX)
  for wrong, reason in (
    (~np.isfinite(fixations).all(1), "NaN or infinite"),
    ((viewing < 0) | (viewing != np.floor(viewing)), "of a subject or order not 0, 1, 2..."),
    (outside, f"more than {SLACK_PX:g} pixel outside the picture"),
    (duration_ms < 0, "of negative duration"),
  ):
    rows = wrong.reshape(len(fixations), -1).any(1)
    if rows.any():
      first = np.flatnonzero(rows)[0]
      values = ", ".join(f"{v:g}" for v in fixations[first])
      yield f"{rows.sum()} fixations {reason} (number {first}: {values})"
  if len(np.unique(viewing, axis=0)) < len(viewing):
    yield "two fixations of one subject have the same order"


def _wrong_boxes(boxes, width, height) -> Iterator[str]:
  x0, y0, x1, y1 = boxes.edges.T
  numbers = np.column_stack([boxes.edges, boxes.viewers, boxes.duration_ms])
  for wrong, reason in (
    (~np.isfinite(numbers).all(1), "NaN or infinite"),
    ((x1 <= x0) | (y1 <= y0), "empty or inverted"),
    ((x1 <= 0) | (y1 <= 0) | (x0 >= width) | (y0 >= height), "outside the picture"),
    ((boxes.viewers < 0) | (boxes.duration_ms < 0), "of negative viewers or duration"),
  ):
    if wrong.any():
      first = np.flatnonzero(wrong)[0]
      values = ", ".join(f"{v:g}" for v in boxes.edges[first])
      yield f"{wrong.sum()} boxes {reason} (number {first}: {values})"
  ranked = np.unique(boxes.rank[boxes.rank != UNRANKED])
  if not np.array_equal(ranked, np.arange(1, len(ranked) + 1)):
    yield f"the ranks of its boxes are not dense from 1: {', '.join(f'{r:g}' for r in ranked)}"
