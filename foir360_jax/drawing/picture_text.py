"""Text on pictures, outlined so that it reads on any ground. Points are (x, y) in pixels.

The font is the one that Pillow carries: OpenCV's changed from version 4 to 5.
"""

import functools

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WHITE = (255, 255, 255)
GREY = (172, 172, 180)
DARK = (12, 12, 14)
_OVERSAMPLING = 4  # strokes are whole pixels; drawn large and reduced they come in quarters


def text_aspect(text: str) -> float:
  """Returns the width of a text with its outline as a multiple of its height."""
  return _glyphs(text, 32)[0].shape[1] / 32


def draw_text(
  picture: np.ndarray,
  text: str,
  point: tuple[float, float],
  size: float,
  *,
  colour: tuple[int, int, int] = WHITE,
  align: float = 0.5,
) -> None:
  """Draws a line of text with a dark outline, in place; what passes the border is cut.

  Args:
    picture: [H, W, 3] uint8 RGB.
    text: one line.
    point: (x, y): y is the middle of the capitals' height, x is as `align` says.
    size: height of a capital in pixels.
    colour: RGB of the letters.
    align: the part of the text left of the point: 0 begins there, 1 ends there.
  """
  fill, outline = _glyphs(text, max(4, round(size)))
  height, width = fill.shape
  top, left = round(point[1] - height / 2), round(point[0] - align * width)
  rows = slice(max(0, top), max(0, min(top + height, picture.shape[0])))
  columns = slice(max(0, left), max(0, min(left + width, picture.shape[1])))
  patch = picture[rows, columns]
  cut = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
  shaded = patch + outline[cut] * (np.array(DARK) - patch)
  patch[:] = (shaded + fill[cut] * (np.array(colour) - shaded)).round()


@functools.lru_cache(maxsize=512)
def _glyphs(text: str, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the coverage of the letters, and of the letters with their outline, in [0, 1].

  Both are [h, w]; the capitals' middle is at h / 2, so what hangs below the line does not lift it.
  """
  capital = _OVERSAMPLING * size
  font = ImageFont.load_default(capital / 0.72)  # its capitals are 0.72 of the em
  bold, border = round(capital / 26), round(capital / 7)
  side = _OVERSAMPLING * round((bold + border) / _OVERSAMPLING + 0.5)
  margin = side + _OVERSAMPLING * round(0.25 * size)
  width = _OVERSAMPLING * round(font.getlength(text) / _OVERSAMPLING + 0.5) + 2 * side
  coverage = []
  for stroke in (bold, bold + border):
    drawn = Image.new("L", (width, capital + 2 * margin))
    ImageDraw.Draw(drawn).text(
      (side, margin + capital), text, fill=255, font=font, anchor="ls", stroke_width=stroke
    )
    reduced = cv2.resize(
      np.asarray(drawn, np.float32) / 255,
      (drawn.width // _OVERSAMPLING, drawn.height // _OVERSAMPLING),
      interpolation=cv2.INTER_AREA,
    )
    coverage.append(reduced)
  return coverage[0], coverage[1]
