"""Maps of whole numbers as pictures: instance ids (SCENES) and painted ranks. Axes: [H, W].

On top of `picture_file`; the number of a pixel is its grey level, or its palette index.
"""

import pathlib

import cv2
import numpy as np
from PIL import Image

from foir360_jax.files.picture_file import PictureError, read_picture

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
