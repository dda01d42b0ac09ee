"""Finds, reads and writes panoramas. Axes: [H, W, 3] RGB uint8, W = 2 H."""

import os
import pathlib

import cv2
import numpy as np
from PIL import Image

from foir360_jax.files.atomic_file import write_atomically
from foir360_jax.files.picture_file import SUFFIXES, PictureError, read_picture

MIN_HEIGHT = 32


class PanoramaError(ValueError):
  """A picture cannot be used as a panorama; one line says which, why, and what to do."""


def find_panoramas(path: str | os.PathLike) -> list[pathlib.Path]:
  """Lists the pictures that a path stands for, sorted by name.

  Args:
    path: one picture, or a folder whose own pictures are taken (not those of its subfolders; hidden
      files are passed over).

  Returns:
    At least one path. No two share a stem, since results are written under it (`ranks/STEM.json`).

  Raises:
    PanoramaError: nothing there, no picture in the folder, or two pictures of one stem.
  """
  path = pathlib.Path(path)
  suffixes = " ".join(SUFFIXES)
  if path.is_file():
    return [path]
  if not path.is_dir():
    raise PanoramaError(f"{path}: no such file or folder; give a picture or a folder of pictures")
  pictures = sorted(
    child
    for child in path.iterdir()
    if child.suffix.lower() in SUFFIXES and not child.name.startswith(".") and child.is_file()
  )
  if not pictures:
    raise PanoramaError(f"{path}: no picture in this folder; give one that holds {suffixes} files")
  seen: dict[str, pathlib.Path] = {}
  for picture in pictures:
    if picture.stem in seen:
      raise PanoramaError(
        f"{picture}: its results would overwrite those of {seen[picture.stem].name}; "
        "rename one of the two"
      )
    seen[picture.stem] = picture
  return pictures


def read_panorama(path: str | os.PathLike) -> np.ndarray:
  """Reads a full equirectangular panorama.

  Grey is repeated over the three channels, 16 bits a channel keep their upper 8, transparent
  pixels go to black. An EXIF orientation is not followed: row 0 of the stored pixels is the zenith,
  and a turned panorama would not be 2:1. A picture whose height is at most one row off W / 2 (the
  rounding of an earlier resize) is stretched to exactly 2:1, so the result may be a pixel or two
  wider or narrower than the file.

  Args:
    path: a picture file of one of `SUFFIXES`.

  Returns:
    [H, 2 H, 3] uint8, RGB.

  Raises:
    PanoramaError: missing, empty, truncated or no picture; not 2:1; fewer than `MIN_HEIGHT` rows.
  """
  path = pathlib.Path(path)
  try:
    panorama = _rgb(path, read_picture(path))
  except PictureError as error:
    raise PanoramaError(str(error)) from error
  height, width = panorama.shape[:2]
  if abs(width / 2 - height) > 1:
    raise PanoramaError(
      f"{path}: {width} x {height} pixels is not 2:1; give a full equirectangular panorama (360 x "
      "180 degrees, twice as wide as high): export it so, or fill the missing part with black"
    )
  if height < MIN_HEIGHT:
    raise PanoramaError(
      f"{path}: {width} x {height} pixels is too small; give at least "
      f"{2 * MIN_HEIGHT} x {MIN_HEIGHT}"
    )
  if width != 2 * height:
    panorama = cv2.resize(panorama, (2 * height, height), interpolation=cv2.INTER_LINEAR)
  return panorama


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
  encoded = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
  write_atomically(path, encoded.tobytes())


def _rgb(path: pathlib.Path, picture: Image.Image) -> np.ndarray:
  """Returns [H, W, 3] uint8 for a picture of any other type but floating-point numbers."""
  if picture.mode == "F":
    raise PanoramaError(f"{path}: pixels are floating-point numbers; save it with 8 bits a channel")
  if picture.mode.startswith("I"):  # 16-bit grey
    grey = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
  if picture.has_transparency_data:
    picture = picture.convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
  return np.array(picture.convert("RGB"))
