"""Finds, reads and writes panoramas. Axes: [H, W, 3] RGB uint8.

W = 2 H but for a few rows (`is_panorama`): what such a picture gives, as masks, keeps its size, and
whatever computes on the sphere works on `stretch` of it.
"""

import os
import pathlib
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from foir360_jax.files.atomic_file import write_atomically
from foir360_jax.files.picture_file import SUFFIXES, PictureError, open_picture
from foir360_jax.files.picture_folder import Listing, list_pictures, picture_id
from foir360_jax.files.placement import Placement, placement_of
from foir360_jax.paths import expand

MIN_HEIGHT = 32
MAX_OFF_DEG = 1.0
_PNG_DEPTH = 24  # the byte that holds the bits a channel


class PanoramaError(ValueError):
  """A picture cannot be used as a panorama; one line says which, why, and what to do."""


def find_panoramas(path: str | os.PathLike) -> Listing:
  """Lists the pictures that a path stands for, by the names of their results.

  Args:
    path: one picture, or a folder whose own pictures are taken (not those of its subfolders; hidden
      files are passed over), see `picture_folder.list_pictures`.

  Returns:
    At least one picture, or an error in place of those that would share their results.

  Raises:
    PanoramaError: nothing there, or no picture in the folder.
  """
  path = expand(path)
  if not path.is_dir():
    if not os.path.lexists(path):
      raise PanoramaError(f"{path}: no such file or folder; give a picture or a folder of pictures")
    return Listing({picture_id(path.name): path}, ())
  listing = list_pictures(path)
  if not listing.pictures:
    others = f" (it holds {listing.named_others()})" if listing.others else ""
    raise PanoramaError(
      f"{path}: no picture in this folder{others}; give one that holds {' '.join(SUFFIXES)} files"
    )
  return listing


class PlacedPanorama(NamedTuple):
  """A panorama, and where its pixels come from.

  Attributes:
    pixels: [H, W, 3] uint8 RGB, as of `read_panorama`.
    placement: how they were placed.
  """

  pixels: np.ndarray
  placement: Placement

  @property
  def data(self) -> np.ndarray | None:
    """Where there is a picture at all, [H, W] bool; None: everywhere."""
    return self.placement.data()


def read_panorama(path: str | os.PathLike) -> np.ndarray:
  """Reads a full equirectangular panorama; see `read_placed_panorama`.

  Returns:
    [H, W, 3] uint8, RGB; 2:1 as far as `is_panorama` says, else it can be made so by `stretch`.

  Raises:
    PanoramaError: see there.
  """
  return read_placed_panorama(path).pixels


def read_placed_panorama(path: str | os.PathLike) -> PlacedPanorama:
  """Reads a full equirectangular panorama, and how its pixels were placed.

  Grey is repeated over the three channels, 16 bits a channel keep their upper 8, transparent
  pixels go to black. It is read upright, as viewers show it (EXIF orientation), and a picture that
  is a part of the sphere by its GPano fields (XMP) is placed on the full sphere, the rest black;
  see `placement`.

  Args:
    path: a picture file of one of `SUFFIXES`.

  Returns:
    The pixels, 2:1 as far as `is_panorama` says, and their placement.

  Raises:
    PanoramaError: missing, empty, truncated or no picture; not 2:1; fewer than `MIN_HEIGHT` rows.
  """
  path = expand(path)
  try:
    picture = open_picture(path, whole=True)
  except PictureError as error:
    raise PanoramaError(str(error)) from error
  return place_panorama(picture, path)


def place_panorama(picture: Image.Image, path: str | os.PathLike) -> PlacedPanorama:
  """Takes an opened picture for a full equirectangular panorama.

  Args:
    picture: as Pillow opens a file, not turned upright.
    path: by which errors name it.

  Returns:
    See `read_placed_panorama`.

  Raises:
    PanoramaError: see there.
  """
  path = pathlib.Path(path)
  try:
    placement = placement_of(path, picture)
    panorama = placement.place(_rgb(path, picture))
  except PictureError as error:
    raise PanoramaError(str(error)) from error
  height, width = panorama.shape[:2]
  if not is_panorama(height, width):
    cure = (
      "cut out one of the two eyes if it is a stereo picture"
      if height == width
      else "export it so, or fill the missing part with black"
    )
    raise PanoramaError(
      f"{path}: {width} x {height} pixels is not 2:1; give a full equirectangular panorama (360 x "
      f"180 degrees, twice as wide as high): {cure}"
    )
  if height < MIN_HEIGHT:
    raise PanoramaError(
      f"{path}: {width} x {height} pixels is too small; give at least "
      f"{2 * MIN_HEIGHT} x {MIN_HEIGHT}"
    )
  return PlacedPanorama(panorama, placement)


def read_pixels(path: str | os.PathLike) -> np.ndarray:
  """Reads a picture of any shape as `read_panorama` does, [H, W, 3] uint8.

  Raises:
    PictureError: missing, empty, truncated or no picture, or of a kind that is not read.
  """
  path = expand(path)
  picture = open_picture(path, whole=True)
  return placement_of(path, picture).place(_rgb(path, picture))


def encode_panorama(path: pathlib.Path) -> bytes:
  """Returns a file that any reader decodes to what `read_pixels` gives.

  That is the picture's own file where it is a JPEG or a PNG of RGB with 8 bits a channel whose
  pixels are read as they are stored; else a PNG.

  Raises:
    PictureError: as `read_pixels`.
  """
  picture = open_picture(path, whole=False)
  placement = placement_of(path, picture)
  if kind_of(path) in PLAIN_KINDS and placement.orientation == 1 and not placement.is_part:
    return path.read_bytes()
  return _png(read_pixels(path))


PLAIN_KINDS = ("JPEG of mode RGB", "PNG of mode RGB")
"""Pictures that every reader decodes alike."""


def kind_of(path: pathlib.Path) -> str:
  """Returns the file format of a picture and the type of its pixels, as "PNG of mode RGB"."""
  picture = open_picture(path, whole=False)
  kind = f"{picture.format} of mode {picture.mode}"
  if picture.has_transparency_data:
    kind += " with transparency"
  if picture.format == "PNG":
    with path.open("rb") as file:
      if file.read(_PNG_DEPTH + 1)[-1] == 16:  # Pillow calls it RGB as well
        kind += " of 16 bits"
  return kind


def is_panorama(height: int, width: int) -> bool:
  """Whether a picture is 2:1 but for a row, or for a degree of latitude: by rounding, mostly.

  The rule of all commands. Such a picture is taken for the full sphere, and what belongs to it
  keeps its size.

  >>> is_panorama(64, 128), is_panorama(63, 128), is_panorama(1020, 2048), is_panorama(1000, 2048)
  (True, True, True, False)
  """
  return abs(height - width / 2) <= max(1.0, height * MAX_OFF_DEG / 180)


def stretch(panorama: np.ndarray) -> np.ndarray:
  """Returns a panorama [H, W, 3] with 2 H columns; one that has them stays as it is."""
  height, width = panorama.shape[:2]
  if width == 2 * height:
    return panorama
  return cv2.resize(panorama, (2 * height, height), interpolation=cv2.INTER_LINEAR)


def stretch_with_masks(panorama: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns a panorama [H, W, 3] and its masks [N, H, W] bool, both with 2 H columns."""
  return stretch(panorama), resize_columns(masks, 2 * len(panorama))


def resize_columns(masks: np.ndarray, width: int) -> np.ndarray:
  """Returns masks [..., H, W] bool with other columns, [..., H, width].

  Each new column is the nearest; of fewer ones each is all that it stands for, so that no object
  loses its last pixel.

  >>> resize_columns(np.array([[True, False, True]]), 2).tolist()
  [[True, True]]
  """
  old = masks.shape[-1]
  if width == old:
    return masks
  if width > old:
    return masks[..., ((np.arange(width) + 0.5) * old / width).astype(int)]
  targets = ((np.arange(old) + 0.5) * width / old).astype(int)
  return np.logical_or.reduceat(masks, np.searchsorted(targets, np.arange(width)), axis=-1)


def save_image(path: str | os.PathLike, rgb: np.ndarray) -> None:
  """Writes a PNG, whole or not at all.

  Args:
    path: the file to write; missing folders are made.
    rgb: [H, W, 3] uint8, any size.

  Raises:
    ValueError: the picture has another shape or type.
  """
  if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[-1] != 3:
    raise ValueError(f"{path}: a picture must be uint8 [H, W, 3], not {rgb.dtype} {rgb.shape}")
  write_atomically(path, _png(rgb))


def _png(rgb: np.ndarray) -> bytes:
  return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def _rgb(path: pathlib.Path, picture: Image.Image) -> np.ndarray:
  """Returns [H, W, 3] uint8 for a picture of any other type but floating-point numbers."""
  if picture.mode == "F":
    raise PictureError(f"{path}: pixels are floating-point numbers; save it with 8 bits a channel")
  if picture.mode.startswith("I"):  # 16-bit grey
    grey = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
  if picture.has_transparency_data:
    picture = picture.convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
  return np.array(picture.convert("RGB"))
