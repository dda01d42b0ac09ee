"""Maps of whole numbers as pictures: instance ids (SCENES) and painted ranks. Axes: [H, W].

On top of `picture_file`; the number of a pixel is its grey level, or its palette index.
"""

import pathlib

import cv2
import numpy as np
from PIL import Image

from foir360_jax.files.picture_file import PictureError, read_picture

MIN_EDGE_SHARE = 0.9  # of the pixels of a value that smoothing left
_MIN_REFUSED = 3
_LOSSY = ("JPEG", "JPEG2000", "WEBP")
_WRONG_MODES = {
  "F": "has floating-point pixels",
  "I": "has 32-bit pixels",
  "LA": "has a transparency channel",
  "PA": "has a palette with transparency",
}


def read_id_map(path: pathlib.Path) -> np.ndarray:
  """Reads a map of 1, 8 or 16 bits, grey or of palette indices.

  Returns:
    [H, W] uint8 or uint16.

  Raises:
    PictureError: not a whole picture, lossy, or of another type, as colours or 32 bits.
  """
  return _numbers(path, read_picture(path))


def read_grey_levels(path: pathlib.Path) -> np.ndarray:
  """Reads a map as `read_id_map`, but takes the grey that a palette gives, not its indices."""
  picture = read_picture(path)
  if picture.mode == "P" and not picture.has_transparency_data:
    rgb = np.asarray(picture.convert("RGB"))
    if (rgb != rgb[..., :1]).any():
      raise PictureError(
        f"{path}: the map has colours, which have no order; save the levels as grey (0 = no object)"
      )
    return np.ascontiguousarray(rgb[..., 0])
  return _numbers(path, picture)


def note_on_edges(numbers: np.ndarray) -> str:
  """Looks for numbers that smoothing or a resize by interpolation left between two others.

  They occur along edges only: nearly all of their pixels see at least three numbers among the eight
  around them. A thin object that others cover on both sides looks like one, but hardly most of a
  map's objects do. (In 39 panoramas with 112 outlined objects there is none.)

  Args:
    numbers: [H, W] uint8 or uint16.

  Returns:
    A note that names them, "" where there are none.

  Raises:
    ValueError: they are more than the others: the map was smoothed.

  >>> note_on_edges(np.array([[0, 0, 9, 9]] * 4, np.uint8))
  ''
  """
  found = edge_numbers(numbers)
  others = np.count_nonzero(np.bincount(numbers.ravel())[1:]) - len(found)
  if not found or not others:  # smoothing leaves those between which it made others
    return ""
  shown = f"{', '.join(map(str, found[:8]))}{' ...' if len(found) > 8 else ''}"
  if len(found) >= _MIN_REFUSED and len(found) > others:
    raise ValueError(
      f"{len(found)} of its {len(found) + others} numbers occur only along edges ({shown}), as"
      " smoothing or a resize by interpolation leaves them; save it without smoothing, and resize"
      " it by nearest pixel"
    )
  return f"numbers {shown} occur only along edges, as smoothing leaves them; are they objects?"


def edge_numbers(numbers: np.ndarray) -> list[int]:
  """Returns the numbers of a map [H, W] that occur along edges only; see `note_on_edges`."""
  height, width = numbers.shape
  square = np.ones((3, 3), np.uint8)
  low, high = cv2.erode(numbers, square), cv2.dilate(numbers, square)
  padded = np.pad(numbers, 1, mode="edge")
  sees_three = np.zeros(numbers.shape, bool)
  for row in range(3):
    for column in range(3):
      other = padded[row : row + height, column : column + width]
      sees_three |= (other != low) & (other != high)
  counts = np.bincount(numbers.ravel())
  at_edges = np.bincount(numbers[sees_three], minlength=len(counts))
  only = (counts > 0) & (at_edges >= MIN_EDGE_SHARE * counts)
  return (np.flatnonzero(only[1:]) + 1).tolist()


def topmost(masks: np.ndarray) -> np.ndarray:
  """Returns [H, W] int: the object seen at each pixel, the smallest of those there; -1 for none.

  Args:
    masks: [N, H, W] bool.

  Example:
    >>> topmost(np.array([[[True, False]], [[True, True]]])).tolist()
    [[0, 1]]
  """
  top = np.full(masks.shape[1:], -1, np.int16)
  for index in np.argsort([-np.count_nonzero(mask) for mask in masks], kind="stable"):
    top[masks[index]] = index
  return top


def _numbers(path: pathlib.Path, picture: Image.Image) -> np.ndarray:
  """Returns the numbers of a picture, or raises PictureError for one of another type."""
  if picture.format in _LOSSY:
    raise PictureError(
      f"{path}: a {picture.format} file changes the numbers of a map; paint it anew as PNG"
    )
  wrong = _WRONG_MODES.get(picture.mode)
  if picture.mode == "P" and picture.has_transparency_data:
    wrong = _WRONG_MODES["PA"]
  elif picture.mode not in ("1", "L", "P") and not picture.mode.startswith("I;16"):
    wrong = wrong or f"has colours ({picture.mode})"
  if wrong:
    raise PictureError(
      f"{path}: the map {wrong}; save it with one grey channel of 8 or 16 bits (0 = no object)"
    )
  id_map = np.asarray(picture)
  return id_map.astype(np.uint16 if picture.mode.startswith("I") else np.uint8)


def encode_id_map(id_map: np.ndarray) -> bytes:
  """Returns a map [H, W] of numbers up to 65535 as a PNG of 8 bits, or of 16 where it needs them.

  >>> len(encode_id_map(np.zeros([4, 8], int))) > 0
  True
  """
  dtype = np.uint8 if id_map.max(initial=0) < 256 else np.uint16
  return cv2.imencode(".png", id_map.astype(dtype))[1].tobytes()
