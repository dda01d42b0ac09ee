"""Where the stored pixels of a picture lie in what is read of it: upright, on the full sphere.

Two kinds of metadata say so: the EXIF orientation, and the XMP fields of GPano (Google's Photo
Sphere), by which a picture is a part of an equirectangular panorama. Readers of annotations place
masks by the same rule as `panorama_file` does the pixels. Axes: [H, W] or [H, W, 3].
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from foir360_jax.files.picture_file import (
  PictureError,
  open_picture,
  orientation_of,
  turn_upright,
)

# An attribute GPano:NAME="VALUE" or an element <GPano:NAME>VALUE</GPano:NAME>: RDF has both forms.
_FIELD = re.compile(rb"(?<!/)\bGPano:(\w+)\s*(?:=\s*[\"']([^\"'<]*)|>\s*([^<]*)<)")
_CURE = "correct these fields, or remove them: exiftool -XMP-GPano:all= FILE"
_ROUNDING_PX = 2.0


class Pose(NamedTuple):
  """How the camera was held, as GPano says it; pitch and roll are 0 where it does not.

  Attributes:
    heading_deg: of the middle of the full panorama, clockwise from north.
    pitch_deg: of the same, above the horizon.
    roll_deg: of the same, clockwise.
  """

  heading_deg: float = 0.0
  pitch_deg: float = 0.0
  roll_deg: float = 0.0


@dataclasses.dataclass(frozen=True)
class Placement:
  """Where a picture's pixels lie. Sizes are (height, width).

  Attributes:
    stored: the size in the file.
    orientation: of EXIF, see `picture_file.orientation_of`.
    upright: the size after that is followed.
    size: the size of what is read: of the full sphere, where the picture is a part of it.
    top: the row of it in which the upright picture begins.
    left: the column; the picture may pass the right edge, which is the seam.
    pose: None where GPano does not tell the heading.
  """

  stored: tuple[int, int]
  orientation: int
  upright: tuple[int, int]
  size: tuple[int, int]
  top: int = 0
  left: int = 0
  pose: Pose | None = None

  @property
  def is_part(self) -> bool:
    """Whether the picture is a part of the sphere."""
    return self.size != self.upright

  def place(self, stored: np.ndarray) -> np.ndarray:
    """Returns the picture's own pixels as they are read: of `size`, 0 where there is no data.

    Args:
      stored: as in the file, [H, W, 3] uint8.
    """
    return self._on_sphere(turn_upright(stored, self.orientation))

  def data(self) -> np.ndarray | None:
    """Returns where what is read has pixels of the picture, [H, W] bool; None: everywhere."""
    return self._on_sphere(np.ones(self.upright, bool)) if self.is_part else None

  def fits(self, size: tuple[int, ...]) -> bool:
    """Whether `place_mask` knows which pixels masks of a size count."""
    return tuple(size) in (self.size, self.upright, self.stored)

  def place_mask(self, mask: np.ndarray) -> np.ndarray:
    """Returns a mask of `size`, [H, W] bool.

    Args:
      mask: of the size of what is read, and then taken as it is; or of the upright picture; or of
        the stored one, where sides swap: only then its size tells that it counts stored pixels.
    """
    if mask.shape == self.size:
      return mask
    if mask.shape != self.upright:
      mask = turn_upright(mask, self.orientation)
    return self._on_sphere(mask)

  def notes(self, *, with_masks: bool) -> list[str]:
    """Returns a line on each kind of metadata that was followed.

    Args:
      with_masks: whether masks of the picture were provided, which may not fit.
    """
    notes = []
    if self.orientation != 1:
      check = "; see that masks fit" if with_masks else ""
      notes.append(f"EXIF orientation {self.orientation}: read upright, as viewers show it{check}")
    if self.is_part:
      notes.append(
        "a part of the sphere by its GPano fields: placed on a full one of"
        f" {self.size[1]} x {self.size[0]} pixels"
      )
    return notes

  def _on_sphere(self, pixels: np.ndarray) -> np.ndarray:
    """Puts upright pixels [h, w, ...] on the full sphere."""
    if not self.is_part:
      return pixels
    placed = np.zeros((*self.size, *pixels.shape[2:]), pixels.dtype)
    columns = (self.left + np.arange(self.upright[1])) % self.size[1]
    placed[self.top : self.top + self.upright[0], columns] = pixels
    return placed


def read_placement(path: str | os.PathLike, *, whole: bool) -> Placement:
  """Reads how a picture is to be placed; arguments and errors as of `picture_size`."""
  return placement_of(pathlib.Path(path), open_picture(path, whole=whole))


def placement_of(path: pathlib.Path, picture: Image.Image) -> Placement:
  """Returns the placement of a picture of `open_picture`.

  Raises:
    PictureError: its GPano fields contradict themselves or the picture's size.
  """
  stored, orientation = picture.size[::-1], orientation_of(picture)
  upright = stored[::-1] if orientation >= 5 else stored
  placement = Placement(stored, orientation, upright, upright)
  fields = _gpano_fields(picture)
  if not fields:
    return placement
  pose = Pose(
    *(_number(fields, f"Pose{name}Degrees", 0.0) for name in ("Heading", "Pitch", "Roll"))
  )
  if not math.isnan(_number(fields, "PoseHeadingDegrees")):  # else no bearing is known
    placement = dataclasses.replace(placement, pose=pose)
  if fields.get("ProjectionType", "equirectangular").lower() != "equirectangular":
    return placement
  try:
    return _placed(placement, fields)
  except ValueError as error:
    raise PictureError(f"{path}: its GPano fields (XMP) {error}; {_CURE}") from None


def _placed(placement: Placement, fields: Mapping[str, str]) -> Placement:
  """Returns a placement on the full sphere; raises ValueError with what is wrong."""
  height, width = placement.upright
  full = [_number(fields, f"FullPano{side}Pixels", 0.0) for side in ("Height", "Width")]
  part = [
    _number(fields, f"CroppedAreaImage{side}Pixels", size)
    for side, size in (("Height", height), ("Width", width))
  ]
  if min(*full, *part) <= 0 or full == part or full == [height, width]:
    return placement  # nothing is said, or the picture has all of the sphere
  said = f"say that it is {part[1]:g} x {part[0]:g} of a sphere of {full[1]:g} x {full[0]:g} pixels"
  # Many programs resize a picture and leave the fields as they are.
  scale = width / part[1]
  if abs(part[0] * scale - height) > _ROUNDING_PX:
    if abs(full[0] * width / full[1] - height) <= _ROUNDING_PX:
      return placement  # filled up since
    raise ValueError(f"{said}, which does not fit its {width} x {height}")
  top, left = (_number(fields, f"CroppedArea{side}Pixels") * scale for side in ("Top", "Left"))
  if math.isnan(top) or math.isnan(left):
    raise ValueError(f"{said}, but not where: CroppedAreaTopPixels or -LeftPixels is missing")
  rows, columns = (size * scale for size in full)
  if top < 0 or top + height > rows + _ROUNDING_PX or width > columns + _ROUNDING_PX:
    raise ValueError(f"{said}, but from CroppedAreaTopPixels on that leads out of it")
  if Image.MAX_IMAGE_PIXELS and rows * columns > 2 * Image.MAX_IMAGE_PIXELS:
    raise ValueError(f"{said}, which are too many; reduce the picture, and them with it")
  size = max(round(rows), height), max(round(columns), width)
  return dataclasses.replace(
    placement, size=size, top=min(round(top), size[0] - height), left=round(left) % size[1]
  )


def _gpano_fields(picture: Image.Image) -> dict[str, str]:
  """Returns what XMP says in GPano, {} for nothing."""
  xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
  data = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
  return {
    name.decode(): (attribute or element).decode(errors="replace").strip()
    for name, attribute, element in _FIELD.findall(data)
  }


def _number(fields: Mapping[str, str], name: str, default: float = math.nan) -> float:
  """Returns a number; the default where it is missing or none."""
  try:
    value = float(fields[name])
  except (KeyError, ValueError):
    return default
  return value if math.isfinite(value) else default
