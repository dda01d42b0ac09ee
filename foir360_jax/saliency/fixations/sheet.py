"""The sheet of a fixation report: picture, human density and maps side by side."""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from foir360_jax.drawing import overlay
from foir360_jax.drawing.picture_text import draw_text
from foir360_jax.saliency.fixations.pictures import FixatedPicture

_TILE_HEIGHT = 240
_GAP, _TITLE_HEIGHT = 10, 40
_DIM = 0.35  # of the picture under a map


@dataclasses.dataclass(frozen=True, eq=False)
class FixationRow:
  """One line of the sheet.

  Attributes:
    picture: the picture and its fixations.
    maps: {title: [h, w], not negative}, the same titles in every row.
    note: what is written on the picture.
  """

  picture: FixatedPicture
  maps: Mapping[str, np.ndarray]
  note: str


def fixation_sheet(rows: Sequence[FixationRow]) -> np.ndarray:
  """Draws a line for each picture: it, the density of its fixations, then its maps.

  Each map is shown as the share of its own maximum, over the darkened picture.

  Args:
    rows: from top to bottom, at least one.

  Returns:
    [height, width, 3] uint8 RGB.
  """
  lines = [_line(row) for row in rows]
  titles = ("picture", "people", *rows[0].maps)
  width = lines[0].shape[1]
  head = np.full([_TITLE_HEIGHT, width, 3], overlay.BACKGROUND, np.uint8)
  for column, title in enumerate(titles):
    draw_text(
      head, title.replace("_", " "), ((column + 0.5) * width / len(titles), _TITLE_HEIGHT / 2), 14
    )
  return np.concatenate([head, *lines])


def _line(row: FixationRow) -> np.ndarray:
  height, width = row.picture.image.shape[:2]
  size = (_TILE_HEIGHT, round(width * _TILE_HEIGHT / height))
  picture = _resized(row.picture.image, size)
  labelled = picture.copy()
  draw_text(labelled, row.note, (8, 14), 11, align=0)
  maps = (row.picture.density(), *row.maps.values())
  tiles = [labelled, *(_heat(picture, _resized(np.asarray(x), size)) for x in maps)]
  framed = [np.pad(tile, [(0, _GAP), (0, _GAP), (0, 0)]) for tile in tiles]
  return np.concatenate(framed, axis=1)


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)


def _heat(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Colours a map's share of its maximum, over the picture."""
  share = values / max(values.max(), np.finfo(np.float32).tiny)
  colours = cv2.applyColorMap((255 * share).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
  mixed = _DIM * picture + (1 - _DIM) * colours[..., ::-1]
  return mixed.round().astype(np.uint8)
