"""Reads any picture by Pillow, upright, with errors that say what is wrong with the file.

Below `placement`, `panorama_file` (RGB panoramas) and `id_map_file`. Pillow decodes because it
refuses a broken file by an exception, where OpenCV fills the rest with grey and prints the codec's
messages.
"""

import functools
import io
import os
import pathlib
import shlex
import stat
import struct
import warnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

from foir360_jax.paths import expand

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Read where the package pillow-heif is installed, the extra `heic`."""
SUFFIXES = (
  *(".avif", ".bmp", ".gif", ".insp", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".png"),
  *(".tif", ".tiff", ".webp"),
)
"""Names of pictures end so; the contents decide how they are decoded."""
UNREAD_SUFFIXES = (
  *HEIF_SUFFIXES,
  *(".arw", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".jxl", ".nef", ".orf"),
  *(".psd", ".raf", ".raw", ".rw2", ".svg"),
)
"""These are pictures too, which Pillow alone does not decode; each gets a line if nothing does."""

_HEIF_BRANDS = (b"heic", b"heim", b"heis", b"heix", b"hevc", b"mif1", b"msf1")
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
"""How stored pixels are turned upright, by EXIF orientation."""


class PictureError(ValueError):
  """A file is no picture that can be used; one line says which, why, and what to do."""


def read_picture(path: str | os.PathLike) -> Image.Image:
  """Reads a picture of any kind and size, all of its pixels, upright as viewers show it.

  Upright: an EXIF orientation is followed. So the masks that people drew in a viewer fit.

  Raises:
    PictureError: missing, empty, truncated, no picture, or one of more than some 178 million
      pixels, which is refused before it is unpacked.
  """
  picture = open_picture(path, whole=True)
  turn = _TURNS.get(orientation_of(picture))
  if turn is None:
    return picture
  upright = picture.transpose(turn)
  upright.format = picture.format
  return upright


def picture_size(path: str | os.PathLike, *, whole: bool) -> tuple[int, int]:
  """Returns (height, width) of a picture as `read_picture` reads it.

  Args:
    path: a picture file.
    whole: decode all of it, so that a truncated file is found; else the header has to do.

  Raises:
    PictureError: as `read_picture`.
  """
  picture = open_picture(path, whole=whole)
  width, height = picture.size
  return (width, height) if orientation_of(picture) >= 5 else (height, width)


def orientation_of(picture: Image.Image) -> int:
  """Returns the EXIF orientation of a picture of `open_picture`: 1 ... 8; from 5 on, sides swap."""
  if picture.format == "TIFF":  # which Pillow turns itself
    return 1
  try:  # the method of the base class: that of PNG would decode what is left out on purpose
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
  except Exception:  # broken EXIF: the pixels are what counts
    return 1
  return orientation if orientation in _TURNS else 1


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
  """Turns stored pixels upright.

  Args:
    pixels: [H, W] bool or uint8, or [H, W, 3] uint8.
    orientation: see `orientation_of`.

  Returns:
    The same type, [W, H] from orientation 5 on.

  >>> turn_upright(np.array([[True, False, False]]), 6)[:, 0].tolist()
  [True, False, False]
  """
  if orientation not in _TURNS:
    return pixels
  stored = Image.fromarray(np.ascontiguousarray(pixels).view(np.uint8))
  return np.array(stored.transpose(_TURNS[orientation])).view(pixels.dtype)


def open_picture(path: str | os.PathLike, *, whole: bool) -> Image.Image:
  """Opens a picture as it is stored; arguments and errors as of `picture_size`."""
  path = expand(path)
  _check_file(path)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # broken EXIF and large pictures: the pixels are what counts
      if not whole:
        with Image.open(path) as picture:
          if picture.format != "PNG" or not _has_late_metadata(path):
            return picture
      picture = Image.open(io.BytesIO(path.read_bytes()))
      picture.load()
  except Image.DecompressionBombError as error:
    raise PictureError(
      f"{path}: the picture has too many pixels; reduce it to 16384 x 8192"
    ) from error
  except UnidentifiedImageError as error:
    raise PictureError(
      f"{path}: not a picture, or one that is cut off; copy it again or save it as JPEG or PNG"
    ) from error
  except PermissionError as error:
    raise PictureError(f"{path}: cannot be read ({error.strerror}); allow it by chmod") from error
  except Exception as error:  # Pillow's codecs raise nearly anything on broken bytes
    raise PictureError(
      f"{path}: the picture is not complete ({error}); copy or download it again"
    ) from error
  return picture


def printable(name: str) -> str:
  r"""Returns a file's name with what is not UTF-8 in it spelt out, as any output can show it.

  >>> printable("caf\udce9.jpg")
  'caf\\udce9.jpg'
  """
  return name.encode(errors="backslashreplace").decode()


def _check_file(path: pathlib.Path) -> None:
  """Raises PictureError for what cannot be a picture that Pillow decodes."""
  if (name := printable(path.name)) != path.name:
    raise PictureError(
      f"{path.parent / name}: the name is not UTF-8, so no result can carry it; rename it"
    )
  try:
    status = path.stat()
  except OSError as error:
    if path.is_symlink():
      raise PictureError(
        f"{path}: a link to {path.readlink()}, which cannot be read ({error.strerror}); put that"
        " file back, or remove the link"
      ) from error
    raise PictureError(f"{path}: cannot be read ({error.strerror}); check the path") from error
  if not stat.S_ISREG(status.st_mode):
    kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
    raise PictureError(f"{path}: cannot be read (it is {kind}); give the picture itself")
  if not status.st_size:
    raise PictureError(f"{path}: the file is empty; copy or download it again")
  kind = _unread_kind(path)
  if not kind and path.suffix.lower() in UNREAD_SUFFIXES:
    kind = path.suffix.lower()
  if kind in HEIF_SUFFIXES and _reads_heif():
    return
  if kind:
    install = "pip install 'foir360_jax[heic]', or " if kind in HEIF_SUFFIXES else ""
    raise PictureError(
      f"{path}: {kind.strip('.').upper()} is not read; {install}convert it to JPEG or PNG, as by:"
      f" magick {shlex.quote(path.name)} {shlex.quote(path.stem)}.jpg"
    )


@functools.cache
def _reads_heif() -> bool:
  """Whether Pillow decodes HEIF, by the package pillow-heif; makes it do so."""
  try:
    import pillow_heif
  except ImportError:
    return False
  pillow_heif.register_heif_opener()
  return True


def _unread_kind(path: pathlib.Path) -> str:
  """Returns what a file holds, whatever its name, where that is known not to be read; else ""."""
  try:
    with path.open("rb") as file:
      head = file.read(12)
  except OSError:  # whoever reads it says so
    return ""
  if head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS:
    return ".heic"
  return ".avif" if head[4:] == b"ftypavif" and not features.check("avif") else ""


def _has_late_metadata(path: pathlib.Path) -> bool:
  """Whether a PNG has EXIF or text behind its pixels, where the header does not show it."""
  with path.open("rb", buffering=0) as file:
    file.seek(8)
    pixels = False
    while len(head := file.read(8)) == 8:
      length, kind = struct.unpack(">I4s", head)
      pixels = pixels or kind == b"IDAT"
      if pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
        return True
      file.seek(length + 4, os.SEEK_CUR)
  return False
