"""Reads any picture by Pillow, with errors that say what is wrong with the file.

Below `panorama_file` (RGB panoramas) and `id_map_file`. Pillow decodes because it refuses a broken
file by an exception, where OpenCV fills the rest with grey and prints the codec's messages.
"""

import io
import os
import pathlib
import warnings

from PIL import Image, UnidentifiedImageError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class PictureError(ValueError):
  """A file is no picture that can be used; one line says which, why, and what to do."""


def read_picture(path: str | os.PathLike) -> Image.Image:
  """Reads a picture of any kind and size, all of its pixels.

  An EXIF orientation is not followed: annotations count the rows and columns that are stored.

  Raises:
    PictureError: missing, empty, truncated, no picture, or one of more than some 178 million
      pixels, which is refused before it is unpacked.
  """
  return _open(pathlib.Path(path), whole=True)


def picture_size(path: str | os.PathLike, *, whole: bool) -> tuple[int, int]:
  """Returns (height, width) of a picture.

  Args:
    path: a picture file.
    whole: decode all of it, so that a truncated file is found; else the header has to do.

  Raises:
    PictureError: as `read_picture`.
  """
  width, height = _open(pathlib.Path(path), whole=whole).size
  return height, width


def _open(path: pathlib.Path, *, whole: bool) -> Image.Image:
  try:
    data = path.read_bytes() if whole else b""
    empty = not path.stat().st_size
  except OSError as error:
    raise PictureError(f"{path}: cannot be read ({error.strerror}); check the path") from error
  if empty:
    raise PictureError(f"{path}: the file is empty; copy or download it again")
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # broken EXIF and large pictures: the pixels are what counts
      if not whole:
        with Image.open(path) as picture:
          return picture
      picture = Image.open(io.BytesIO(data))
      picture.load()
  except Image.DecompressionBombError as error:
    raise PictureError(
      f"{path}: the picture has too many pixels; reduce it to 16384 x 8192"
    ) from error
  except UnidentifiedImageError as error:
    raise PictureError(
      f"{path}: not a picture, or one that is cut off; copy it again or save it as JPEG or PNG"
    ) from error
  except Exception as error:  # Pillow's codecs raise nearly anything on broken bytes
    raise PictureError(
      f"{path}: the picture is not complete ({error}); copy or download it again"
    ) from error
  return picture
