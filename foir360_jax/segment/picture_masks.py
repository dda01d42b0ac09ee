"""Between a network's grid and a picture's pixels: pictures fitted into its input, masks back.

Used by adapters whose library leaves this to its user. Pixel centres lie at (row + 0.5, column +
0.5) of every grid; boxes are x0, y0, x1, y1 in pixels of the picture unless they say otherwise.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

BORDER_SHARE = 1 / 160  # of the longer side: masks of coarse grids end a little before the border


class Letterbox(NamedTuple):
  """How a picture lies in a network's input, its shape kept as far as whole pixels let.

  Attributes:
    picture: (h, w) of the picture.
    inner: (h, w) of what the picture becomes.
    left: columns of the input before it.
    top: rows of the input before it.
    size: (h, w) of the input.
  """

  picture: tuple[int, int]
  inner: tuple[int, int]
  left: int
  top: int
  size: tuple[int, int]

  @classmethod
  def centred(cls, picture: tuple[int, int], size: tuple[int, int]) -> "Letterbox":
    """Places a picture in the middle of an input of a given size.

    >>> Letterbox.centred((256, 512), (640, 640))
    Letterbox(picture=(256, 512), inner=(320, 640), left=0, top=160, size=(640, 640))
    """
    inner = _scaled(picture, min(size[0] / picture[0], size[1] / picture[1]))
    return cls(picture, inner, (size[1] - inner[1]) // 2, (size[0] - inner[0]) // 2, size)

  @classmethod
  def rectangle(cls, picture: tuple[int, int], longer: int, multiple: int = 32) -> "Letterbox":
    """Places a picture in the least input of sides that are multiples, its longer side given.

    >>> Letterbox.rectangle((256, 512), 640).size
    (320, 640)
    """
    inner = _scaled(picture, longer / max(picture))
    return cls.centred(picture, _rounded_up(inner, multiple))

  @classmethod
  def corner(
    cls, picture: tuple[int, int], shorter: int, longest: int, multiple: int = 32
  ) -> "Letterbox":
    """Places a picture at the upper left, its shorter side given unless the other gets too long.

    >>> Letterbox.corner((256, 512), 800, 1333)[1:]
    ((666, 1333), 0, 0, (672, 1344))
    """
    inner = _scaled(picture, min(shorter / min(picture), longest / max(picture)))
    return cls(picture, inner, 0, 0, _rounded_up(inner, multiple))

  def fit(self, picture: np.ndarray, fill: Sequence[float]) -> np.ndarray:
    """Returns the input [h, w, 3] for a picture, of its type, with `fill` around it."""
    canvas = np.empty((*self.size, 3), picture.dtype)
    canvas[:] = fill
    inner = cv2.resize(picture, self.inner[::-1], interpolation=cv2.INTER_LINEAR)
    canvas[self.top : self.top + self.inner[0], self.left : self.left + self.inner[1]] = inner
    return canvas

  def to_picture(self, boxes: np.ndarray) -> np.ndarray:
    """Returns boxes [..., 4] of the input in pixels of the picture.

    >>> box = np.array([0, 160, 640, 480])
    >>> Letterbox.centred((256, 512), (640, 640)).to_picture(box).tolist()
    [0.0, 0.0, 512.0, 256.0]
    """
    scale = np.array([self.picture[1] / self.inner[1], self.picture[0] / self.inner[0]] * 2)
    return (np.asarray(boxes, np.float64) - [self.left, self.top] * 2) * scale

  def frame(self) -> np.ndarray:
    """Returns the box [4] of the whole input, margins included, in pixels of the picture."""
    return self.to_picture(np.array([0, 0, self.size[1], self.size[0]]))


def mask_in_box(
  values: np.ndarray,
  frame: np.ndarray,
  box: np.ndarray,
  size: tuple[int, int],
  *,
  threshold: float,
  outside: float | None = None,
) -> np.ndarray:
  """Returns the mask of an object: where bilinear samples of a grid exceed a threshold in a box.

  Args:
    values: [m, n] float32.
    frame: [4] where the grid's outer edges lie.
    box: [4] outside which there is no mask; every pixel that it touches is sampled.
    size: (h, w) of the picture.
    threshold: of the values.
    outside: the value beyond the grid; None: that of the nearest cell.

  Returns:
    [h, w] bool.
  """
  mask = np.zeros(size, bool)
  left, top = (max(int(np.floor(value)), 0) for value in box[:2])
  right, bottom = (min(int(np.ceil(v)), n) for v, n in zip(box[2:], size[::-1], strict=True))
  width, height = frame[2] - frame[0], frame[3] - frame[1]
  if right <= left or bottom <= top or width <= 0 or height <= 0:
    return mask
  step_x, step_y = values.shape[1] / width, values.shape[0] / height
  to_grid = np.array(
    [
      [step_x, 0, (left + 0.5 - frame[0]) * step_x - 0.5],
      [0, step_y, (top + 0.5 - frame[1]) * step_y - 0.5],
    ]
  )
  samples = cv2.warpAffine(
    np.ascontiguousarray(values, np.float32),
    to_grid,
    (right - left, bottom - top),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT,
    borderValue=0.0 if outside is None else outside,
  )
  mask[top:bottom, left:right] = samples > threshold
  return mask


def touches_border(mask: np.ndarray, box: np.ndarray | None = None) -> bool:
  """Whether the border of the picture may cut an object.

  Args:
    mask: [h, w] bool.
    box: [4] that the network gave for it, which may reach further than the mask does.

  >>> touches_border(np.eye(3, dtype=bool)), touches_border(np.pad([[True]], 9))
  (True, False)
  """
  height, width = mask.shape
  margin = max(1, round(max(height, width) * BORDER_SHARE))
  edges = (mask[:margin], mask[-margin:], mask[:, :margin], mask[:, -margin:])
  if any(edge.any() for edge in edges):
    return True
  if box is None:
    return False
  x0, y0, x1, y1 = box
  return bool(x0 < margin or y0 < margin or x1 > width - margin or y1 > height - margin)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
  return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _rounded_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
  return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple
