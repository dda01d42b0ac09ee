"""The sheet of an evaluation report: ground-truth and predicted ranks side by side.

Above `overlay`, whose colours and drawing steps it uses. Pictures are [H, W, 3] uint8 RGB,
masks [N, H, W] bool, W = 2 H.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from foir360_jax.drawing import overlay
from foir360_jax.drawing.picture_text import GREY, draw_text

_TITLES = ("panorama", "true ranks", "predicted ranks")
_TILE_HEIGHT, _TILE_WIDTH = 320, 640
_GAP, _TITLE_HEIGHT, _CAPTION_HEIGHT = 12, 48, 34
_SHEET_WIDTH = 3 * _TILE_WIDTH + 4 * _GAP


@dataclasses.dataclass(frozen=True, eq=False)
class SheetRow:
  """One panorama of an evaluation; the two lists of objects need not be of one length.

  Attributes:
    image_id: what the caption calls it.
    panorama: [H, W, 3] uint8 RGB.
    true_masks: [N, H, W] bool.
    true_ranks: [N] int, 1 = most important.
    predicted_masks: [M, H, W] bool.
    predicted_ranks: [M] int.
    sa_sor: its SA-SOR, None or NaN where that is undefined.
  """

  image_id: str
  panorama: np.ndarray
  true_masks: np.ndarray
  true_ranks: np.ndarray
  predicted_masks: np.ndarray
  predicted_ranks: np.ndarray
  sa_sor: float | None


def evaluation_sheet(rows: Sequence[SheetRow]) -> np.ndarray:
  """Draws one line a panorama: the picture, its true ranks, its predicted ranks.

  Colours run over each list's own ranks, so red is the most important object of either.

  Args:
    rows: from top to bottom; may be empty.

  Returns:
    [height, 1968, 3] uint8 RGB.
  """
  titles = _strip(_TITLE_HEIGHT)
  for column, title in enumerate(_TITLES):
    middle = _GAP + column * (_TILE_WIDTH + _GAP) + _TILE_WIDTH / 2
    draw_text(titles, title, (middle, _TITLE_HEIGHT / 2), 18)
  parts = [titles]
  for row in rows:
    parts += [_caption(row), _tiles(row), _strip(_GAP)]
  return np.concatenate([*parts, overlay.colour_bar(_SHEET_WIDTH)])


def _strip(height: int) -> np.ndarray:
  """Returns an empty strip over the whole width of the sheet."""
  return np.full([height, _SHEET_WIDTH, 3], overlay.BACKGROUND, np.uint8)


def _caption(row: SheetRow) -> np.ndarray:
  """Returns the strip above a row that names it and its score."""
  caption = _strip(_CAPTION_HEIGHT)
  middle = _CAPTION_HEIGHT / 2
  defined = row.sa_sor is not None and not math.isnan(row.sa_sor)
  score = f"SA-SOR {row.sa_sor:.3f}" if defined else "SA-SOR undefined"
  counts = (f"{len(row.true_masks)} objects", f"{len(row.predicted_masks)} objects")
  draw_text(caption, row.image_id, (_GAP, middle), 13, align=0)
  draw_text(caption, score, (_GAP + _TILE_WIDTH, middle), 13, align=1)
  for column, count in enumerate(counts, start=1):
    left = _GAP + column * (_TILE_WIDTH + _GAP)
    draw_text(caption, count, (left, middle), 12, align=0, colour=GREY)
  return caption


def _tiles(row: SheetRow) -> np.ndarray:
  """Returns a row's three pictures side by side."""
  strip = _strip(_TILE_HEIGHT)
  no_masks = np.zeros([0, *row.panorama.shape[:2]], bool)
  tiles = (
    overlay.resize(row.panorama, no_masks, _TILE_HEIGHT, _TILE_WIDTH)[0],
    _ranked_tile(row.panorama, row.true_masks, row.true_ranks),
    _ranked_tile(row.panorama, row.predicted_masks, row.predicted_ranks),
  )
  for column, tile in enumerate(tiles):
    left = _GAP + column * (_TILE_WIDTH + _GAP)
    strip[:, left : left + _TILE_WIDTH] = tile
  return strip


def _ranked_tile(panorama: np.ndarray, masks: np.ndarray, ranks: np.ndarray) -> np.ndarray:
  """Returns the objects, coloured and numbered by rank, on a dark and grey panorama."""
  order = np.argsort(ranks, kind="stable")
  ranks, colours = np.asarray(ranks)[order], overlay.rank_colours(ranks)[order]
  tile, masks = overlay.resize(panorama, masks[order], _TILE_HEIGHT, _TILE_WIDTH)
  tile = overlay.paint_masks(tile, masks, colours, dim=0.4, grey=0.9, strength=0.65)
  overlay.draw_numbers(tile, masks, ranks, colours, min_size=10, max_size=22)
  return tile
