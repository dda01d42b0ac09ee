"""One mask of the candidates of an object: by the votes of the views that see a pixel.

A view votes for the pixels that it holds for the object and against the others that it sees; what
it does not see it leaves to others. Towards its border a view's vote fades: there it has seen the
least of what is around, and where it faded at once, the outline would have a step. Votes stay
numbers in [0, 1] until a mask is needed, so that outlines are smooth on any finer grid.

Axes: N candidates, V views, h x 2 h of the working height, H x 2 H of the panorama; row 0
north-most.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from foir360_jax.segment.packed_overlap import WORD, PackedMasks

_ROWS = 128  # of the grid on which the fading is worked out
_LEAST_VOTE = 8  # of 255, at a view's border
_MARGIN = 3  # pixels around an object

_BLUR_PX = 0.4  # rounds the steps of the working height's pixels


class SoftMask(NamedTuple):
  """A window of the sphere with the share of votes for an object; 0 outside.

  Attributes:
    row: the window's first row; may lie beyond a pole.
    column: its first column, in [0, 2 h); the window goes on beyond the seam.
    share: [R, C] float32 in [0, 1], C at most 2 h.
  """

  row: int
  column: int
  share: np.ndarray


class Fading:
  """How much views have a say at each pixel: 1 inside, less at their borders, 0 beyond.

  Args:
    fields: V masks of what the views see.
    fade_deg: width of the border in which it falls.

  Attributes:
    weights: [V, h, 2 h] uint8, of 255.
  """

  def __init__(self, fields: PackedMasks, fade_deg: float):
    height = fields.height
    self.weights = np.zeros((len(fields), height, 2 * height), np.uint8)
    rows = min(_ROWS, height)
    reach = max(1, round(fade_deg / 180 * rows))
    everywhere = slice(0, height), np.arange(fields.words.shape[2])
    for index in range(len(fields)):
      field = fields.pixels(index, *everywhere)[:, : 2 * height]
      coarse = cv2.resize(field * 255, (2 * rows, rows), interpolation=cv2.INTER_AREA)
      if coarse.min() == 255:
        self.weights[index] = 255
        continue
      faded = _depth(coarse < 230, reach)  # a gap of two pixels is a border, too
      whole = cv2.resize(faded, (2 * height, height), interpolation=cv2.INTER_LINEAR)
      np.maximum(whole, _LEAST_VOTE, out=whole)
      np.multiply(whole, field, out=self.weights[index])


def vote(
  masks: PackedMasks,
  members: np.ndarray,
  views: np.ndarray,
  weights: np.ndarray,
  fading: Fading,
) -> SoftMask:
  """Joins the candidates of one object.

  Several candidates of one view are its one answer, which has the greatest of their weights.

  Args:
    masks: all candidates.
    members: indices of those of the object; at least one, not empty.
    views: [n] the view of each member.
    weights: [n] its weight, above 0.
    fading: of the views.
  """
  height, width = masks.height, 2 * masks.height
  first = int(masks.first_row[members].min())
  end = int(masks.end_row[members].max())
  words = _around(masks.occupied[members].any(axis=0))
  columns = (WORD * words[:, None] + np.arange(WORD)).ravel()
  inside = columns < width  # the last word may go on beyond the seam
  rows = slice(first, end)
  whole = bool(inside.all())
  votes = np.zeros((end - first, len(columns)), np.float32)
  seen = np.zeros_like(votes)
  single = len(members) == 1
  for view in np.unique(views):
    mine = members[views == view]
    answer = masks.pixels(int(mine[0]), rows, words)
    for index in mine[1:]:
      answer |= masks.pixels(int(index), rows, words)
    if single:
      votes += answer
      break
    weight = float(weights[views == view].max()) / 255
    say = _columns(fading.weights[view, rows], columns % width)
    say = np.maximum(say, answer * np.uint8(_LEAST_VOTE))  # what it found, it saw
    votes += cv2.multiply(answer, say, scale=weight, dtype=cv2.CV_32F)
    cv2.scaleAdd(say.astype(np.float32), weight, seen, seen)
  if not single:
    np.divide(votes, seen, out=votes, where=seen > 0)
  if not whole:
    votes, columns = votes[:, inside], columns[inside]
  return _trimmed(votes, first, int(columns[0]), height)


def soft_to_mask(soft: SoftMask, height: int, working_height: int) -> np.ndarray:
  """The mask of an object on a panorama of `height` rows, at least `working_height`: bool."""
  mask = np.zeros((height, 2 * height), bool)
  rows, columns = soft.share.shape
  scale = height / working_height
  top, left = int(np.floor(soft.row * scale)), int(np.floor(soft.column * scale))
  tall, wide = int(np.ceil(rows * scale)) + 1, int(np.ceil(columns * scale)) + 1
  if scale == 1:
    fine = soft.share
  else:
    # Pixel centres: (r + 0.5) / scale - 0.5 on the working height, from the window's corner.
    moves = [
      (start + 0.5) / scale - 0.5 - at for start, at in ((left, soft.column), (top, soft.row))
    ]
    matrix = np.array([[1 / scale, 0, moves[0]], [0, 1 / scale, moves[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(
      soft.share, matrix, (wide, tall), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
  part = fine >= 0.5
  kept = slice(max(0, -top), min(len(part), height - top))
  part, top = part[kept], max(0, top)
  left %= 2 * height
  for start in range(0, part.shape[1], 2 * height):  # one column may come twice
    piece = part[:, start : start + 2 * height]
    before_seam = min(piece.shape[1], 2 * height - left)
    target = mask[top : top + len(part)]
    target[:, left : left + before_seam] |= piece[:, :before_seam]
    target[:, : piece.shape[1] - before_seam] |= piece[:, before_seam:]
  return mask


def pack_soft(soft: Sequence[SoftMask], height: int) -> PackedMasks:
  """The masks of soft masks at the working height."""
  bits = [np.packbits(soft_to_mask(one, height, height)) for one in soft]
  return PackedMasks(np.array(bits, np.uint8).reshape(len(bits), -(-height * height // 4)), height)


def _depth(outside: np.ndarray, reach: int) -> np.ndarray:
  """How far cells lie from those `outside` [R, 2 R]: uint8, 255 from `reach` rows on."""
  rows, columns = outside.shape
  # Along each row to either side, around the sphere.
  at = np.arange(3 * columns, dtype=np.float32)
  places = np.where(np.tile(outside, 3), at, np.float32(-1e6))
  west = at - np.maximum.accumulate(places, axis=1)
  places = np.where(places < 0, np.float32(1e6), places)
  east = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1] - at
  along = np.minimum(west, east)[:, columns : 2 * columns]
  along *= np.sin((np.arange(rows, dtype=np.float32) + 0.5) * np.float32(np.pi / rows))[:, None]
  # Beyond a pole the sphere goes on on its other side.
  north, south = (np.roll(part, columns // 2, axis=1) for part in (along[:reach], along[-reach:]))
  along = np.concatenate([north[::-1], along, south[::-1]])
  nearest = np.full((rows, columns), np.float32(reach))
  for offset in range(-reach, reach + 1):
    part = along[reach + offset : reach + offset + rows]
    np.minimum(nearest, np.hypot(part, np.float32(offset)), out=nearest)
  return (nearest * (255 / reach)).astype(np.uint8)


def _around(occupied: np.ndarray) -> np.ndarray:
  """Columns of words in the order of the narrowest interval around those `occupied`, circular."""
  count = len(occupied)
  found = np.flatnonzero(occupied)
  gaps = (np.roll(found, -1) - found - 1) % count
  last = int(gaps.argmax())
  if len(found) == 1:
    return found
  start = found[(last + 1) % len(found)]
  return (start + np.arange(count - gaps[last])) % count


def _columns(picture: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Columns of a picture, which are one interval or two."""
  breaks = np.flatnonzero(np.diff(columns) != 1)
  edges = [0, *(breaks + 1), len(columns)]
  pieces = [
    picture[:, columns[a] : columns[b - 1] + 1] for a, b in zip(edges[:-1], edges[1:], strict=True)
  ]
  return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)


def _trimmed(share: np.ndarray, row: int, column: int, height: int) -> SoftMask:
  """Cuts a window to what may be above one half, with a margin, and rounds the steps of pixels."""
  width = 2 * height
  rows, columns = np.flatnonzero(share.any(axis=1)), np.flatnonzero(share.any(axis=0))
  if not len(rows):  # no view that found it sees it
    return SoftMask(row, column, np.zeros((1, 1), np.float32))
  share = share[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  row, column = row + int(rows[0]), (column + int(columns[0])) % width
  around = share.shape[1] >= width - 2 * _MARGIN  # it meets itself
  if around and share.shape[1] < width:
    share = np.pad(share, ((0, 0), (0, width - share.shape[1])))
  north, south = min(_MARGIN, row), min(_MARGIN, height - row - len(share))
  sides = (0, 0) if around else (_MARGIN, _MARGIN)
  padded = np.pad(share, ((north, south), sides))
  if around:
    padded = np.pad(padded, ((0, 0), (_MARGIN, _MARGIN)), mode="wrap")
  blurred = cv2.GaussianBlur(padded, (0, 0), _BLUR_PX, borderType=cv2.BORDER_REPLICATE)
  if around:
    return SoftMask(row - north, column, blurred[:, _MARGIN:-_MARGIN])
  return SoftMask(row - north, (column - _MARGIN) % width, blurred)
