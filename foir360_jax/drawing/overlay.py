"""Draws ranked objects on their panorama: tint, outline and number, and a colour bar below.

Also the colours and drawing steps that `evaluation_sheet` shares. Pictures are [H, W, 3] uint8
RGB, masks [N, H, W], points (x, y). Sizes that depend on the picture are in units of W / 1024.
"""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from foir360_jax.drawing.label_placement import place_labels
from foir360_jax.drawing.picture_text import DARK, GREY, draw_text, text_aspect
from foir360_jax.files.id_map_file import topmost

MIN_WIDTH = 1024
BACKGROUND = (22, 22, 26)
# Red, orange, yellow, green, cyan, blue, violet: about equally bright neighbours, unlike HSV's.
_RAINBOW = np.array(
  [
    (235, 40, 45),
    (250, 135, 25),
    (248, 215, 45),
    (70, 190, 75),
    (30, 185, 205),
    (55, 100, 235),
    (150, 60, 215),
  ],
  np.float32,
)


class RankedMasks(Protocol):
  """What is drawn."""

  @property
  def masks(self) -> np.ndarray:
    """[N, H, W] bool, most important first."""

  @property
  def ranks(self) -> np.ndarray:
    """[N] int, from 1."""


def rank_colours(ranks: np.ndarray) -> np.ndarray:
  """Returns a colour an object, from red (rank 1) through the rainbow to violet (the last rank).

  Args:
    ranks: [N] int, 1 = most important.

  Returns:
    [N, 3] uint8 RGB.

  Example:
    >>> rank_colours(np.array([1, 2, 2])).tolist()
    [[235, 40, 45], [150, 60, 215], [150, 60, 215]]
  """
  ranks = np.asarray(ranks)
  return _rainbow((ranks - 1) / max(int(ranks.max(initial=1)) - 1, 1))


def draw_overlay(panorama: np.ndarray, ranked: RankedMasks) -> np.ndarray:
  """Draws what a user sees: every object tinted, outlined and numbered by its rank.

  Args:
    panorama: [H, W, 3] uint8 RGB.
    ranked: its objects, as `scenes.RankedObjects`; N may be 0.

  Returns:
    [H * s + strip, W * s, 3] uint8 RGB. The strip holds the colour bar; s is 1, or the whole
    number that makes a picture at least 1024 pixels wide.

  Raises:
    ValueError: the masks are not of the panorama's size.
  """
  if ranked.masks.shape[1:] != panorama.shape[:2]:
    raise ValueError(
      f"masks are {list(ranked.masks.shape[1:])}, the panorama {list(panorama.shape[:2])}; "
      "give the panorama that was ranked"
    )
  height, width = panorama.shape[:2]
  scale = -(-MIN_WIDTH // width)
  picture, masks = resize(panorama, ranked.masks, height * scale, width * scale)
  colours = rank_colours(ranked.ranks)
  picture = paint_masks(picture, masks, colours, dim=0.8, grey=0.4, strength=0.45)
  unit = picture.shape[1] / MIN_WIDTH
  draw_numbers(picture, masks, ranked.ranks, colours, min_size=13 * unit, max_size=30 * unit)
  last_rank = int(ranked.ranks.max(initial=0))
  return np.concatenate([picture, colour_bar(picture.shape[1], last_rank)])


def resize(
  picture: np.ndarray, masks: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns picture and masks at another size; borders stay smooth and no mask vanishes."""
  if picture.shape[:2] == (height, width):
    return picture, masks
  shrinks = height < picture.shape[0]
  scaled = np.zeros([len(masks), height, width], bool)
  for index, mask in enumerate(masks):
    coverage = cv2.resize(
      mask.astype(np.float32),
      (width, height),
      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    scaled[index] = coverage >= np.clip(coverage.max(), 1e-6, 0.5)
  filtering = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
  return cv2.resize(picture, (width, height), interpolation=filtering), scaled


def paint_masks(
  picture: np.ndarray,
  masks: np.ndarray,
  colours: np.ndarray,
  *,
  dim: float,
  grey: float,
  strength: float,
) -> np.ndarray:
  """Returns the picture, toned down, with each mask tinted and outlined in its colour.

  Where masks overlap the smaller one's tint is on top; all outlines are above all tints.

  Args:
    picture: [H, W, 3] uint8 RGB.
    masks: [N, H, W] bool, most important first.
    colours: [N, 3] uint8.
    dim: brightness kept outside the objects, 0 ... 1.
    grey: part of the colour taken away outside the objects, 0 ... 1.
    strength: part of the tint in an object's colour, 0 ... 1.
  """
  luminance = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
  painted = cv2.addWeighted(picture, dim * (1 - grey), luminance, dim * grey, 0)
  top = topmost(masks)
  tint = np.append(colours, [[0, 0, 0]], axis=0).astype(np.uint8)[top]
  tinted = cv2.addWeighted(picture, 1 - strength, tint, strength, 0)
  np.copyto(painted, tinted, where=top[..., None] >= 0)

  unit = picture.shape[1] / MIN_WIDTH
  for mask, colour in zip(masks[::-1], colours[::-1], strict=True):
    outlines = _outlines(mask)
    for line_colour, thickness in ((DARK, 3.4), (colour.tolist(), 1.7)):
      line_width = max(1, round(thickness * unit))
      cv2.polylines(painted, outlines, True, line_colour, line_width, cv2.LINE_AA)
  return painted


def draw_numbers(
  picture: np.ndarray,
  masks: np.ndarray,
  ranks: np.ndarray,
  colours: np.ndarray,
  *,
  min_size: float,
  max_size: float,
) -> None:
  """Writes each object's rank on it, in place; beside it on a leader line where it is tiny.

  Args:
    picture: [H, W, 3] uint8 RGB.
    masks: [N, H, W] bool, most important first.
    ranks: [N] int.
    colours: [N, 3] uint8, for the leader lines.
    min_size: height of the smallest number in pixels.
    max_size: height of the largest.
  """
  texts = [str(rank) for rank in ranks]
  labels = place_labels(masks, [text_aspect(text) for text in texts], min_size, max_size)
  for label, colour in zip(labels, colours.tolist(), strict=True):
    if label.anchor != label.centre:
      for line_colour, thickness in ((DARK, min_size / 4), (colour, min_size / 10)):
        line_width = max(1, round(thickness))
        cv2.line(picture, label.anchor, label.centre, line_colour, line_width, cv2.LINE_AA)
        cv2.circle(picture, label.anchor, line_width, line_colour, -1, cv2.LINE_AA)
  for label, text in zip(labels, texts, strict=True):
    draw_text(picture, text, label.centre, label.size)


def colour_bar(width: int, last_rank: int | None = None) -> np.ndarray:
  """Returns the strip, [about W / 23, W, 3] uint8 RGB, that explains the colours.

  Args:
    width: columns of the picture above it.
    last_rank: the rank at the violet end, written there; 0: there are no objects; None: it differs
      among the pictures above.
  """
  unit = width / MIN_WIDTH
  strip = np.full([round(44 * unit), width, 3], BACKGROUND, np.uint8)
  middle, size = strip.shape[0] / 2, 11.5 * unit
  if last_rank == 0:
    draw_text(strip, "no objects", (width / 2, middle), size, colour=GREY)
    return strip
  left, right = round(0.2 * width), round(0.8 * width)
  rows = slice(round(middle - 6 * unit), round(middle + 6 * unit))
  strip[rows, left:right] = _rainbow(np.linspace(0, 1, right - left))
  first, last = ("", "") if last_rank is None else ("  1", f"{last_rank}  ")
  gap = 8 * unit
  draw_text(strip, f"most important{first}", (left - gap, middle), size, align=1)
  draw_text(strip, f"{last}least important", (right + gap, middle), size, align=0)
  return strip


def _rainbow(positions: np.ndarray) -> np.ndarray:
  """Returns the colours, [..., 3] uint8, at positions 0 (red) ... 1 (violet)."""
  stops = np.linspace(0, 1, len(_RAINBOW))
  channels = [np.interp(positions, stops, channel) for channel in _RAINBOW.T]
  return np.stack(channels, axis=-1).round().astype(np.uint8)


def _outlines(mask: np.ndarray) -> Sequence[np.ndarray]:
  """Returns the border lines of a [H, W] mask, left open where it goes on over the seam or pole."""
  margin = 8 + mask.shape[1] // 128  # wider than any line, whose ends it keeps out of the picture
  wrapped = np.pad(mask, ((0, 0), (margin, margin)), mode="wrap")
  wrapped = np.pad(wrapped, ((margin, margin), (0, 0)), mode="edge").astype(np.uint8)
  offset = (-margin, -margin)
  return cv2.findContours(wrapped, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE, offset=offset)[0]
