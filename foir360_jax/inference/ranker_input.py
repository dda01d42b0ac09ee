"""What rankers take, checked: panoramas as arrays or pictures, their masks, and lists of these."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

from foir360_jax.files.panorama_file import (
  PlacedPanorama,
  is_panorama,
  place_panorama,
  read_placed_panorama,
)
from foir360_jax.files.placement import Pose
from foir360_jax.paths import expand

_MIN_SHARE = 0.5  # of a mask, that must lie where there is a picture


@dataclasses.dataclass(frozen=True, eq=False)
class InputPanorama:
  """A panorama that was checked, and read where it was a path.

  Attributes:
    pixels: `[H, 2 H, 3]` uint8 RGB.
    image: the picture's name for the rank file, "" where it has none.
    data: `[H, 2 H]` bool, where there is a picture; None: everywhere.
    pose: of the camera, where the picture says so.
  """

  pixels: np.ndarray
  image: str = ""
  data: np.ndarray | None = None
  pose: Pose | None = None

  @classmethod
  def of(cls, placed: PlacedPanorama, image: str) -> Self:
    """Takes what was read of a picture."""
    return cls(placed.pixels, image, placed.data, placed.placement.pose)


def open_panorama(panorama: Any, image: str = "") -> InputPanorama:
  """Reads or checks what a user gives as a panorama.

  Args:
    panorama: see `Panorama`; an `InputPanorama` stays as it is.
    image: its name; if "", that of the file, where it is a path.

  Raises:
    TypeError: it is none of these.
    ValueError: an array of another shape or type, or a file that `read_panorama` refuses.
  """
  if isinstance(panorama, InputPanorama):
    return panorama
  if isinstance(panorama, Image.Image):
    name = image or pathlib.PurePath(getattr(panorama, "filename", "")).name
    return InputPanorama.of(place_panorama(panorama, name or "the picture"), name)
  if isinstance(panorama, str | os.PathLike):
    file = expand(panorama)
    return InputPanorama.of(read_placed_panorama(file), image or file.name)
  pixels = np.asarray(panorama)
  if pixels.dtype.kind not in "biuf":  # None, dicts, lists of paths ...
    raise TypeError(
      "a panorama is a uint8 array [H, 2 H, 3], the path of a picture or a PIL image, not"
      f" {type(panorama).__name__}; for several give a list of them"
    )
  found = f"panorama must be uint8 [H, 2 H, 3], not {pixels.dtype} {list(pixels.shape)}"
  if pixels.ndim == 4 and pixels.shape[-1] == 3:
    raise ValueError(f"{found}; for several give a list: list(panoramas)")
  if pixels.ndim != 3 or pixels.shape[-1] != 3:
    raise ValueError(f"{found}; give RGB, channels last, without alpha")
  if not len(pixels) or not is_panorama(*pixels.shape[:2]):
    raise ValueError(f"{found}; give a full equirectangular panorama, twice as wide as high")
  if pixels.dtype != np.uint8:
    raise ValueError(f"{found}; convert values in [0, 1] by np.uint8(255 * panorama)")
  return InputPanorama(pixels, image)


def read_input(path: pathlib.Path) -> tuple[InputPanorama, list[str]]:
  """Reads a picture, with a line on each kind of metadata that was followed.

  Raises:
    PanoramaError: see `read_panorama`.
  """
  placed = read_placed_panorama(path)
  return InputPanorama.of(placed, path.name), placed.placement.notes(with_masks=False)


def cut_to_data(masks: np.ndarray, data: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
  """Leaves out of masks what lies where there is no picture, and those that mostly do.

  Args:
    masks: [N, H, W] bool; changed in place.
    data: see `InputPanorama`.

  Returns:
    The masks that are left, [M, H, W], and which they are, [N] bool.
  """
  if data is None:
    kept = np.asarray(masks.any(axis=(1, 2)))
  else:
    before = np.count_nonzero(masks, axis=(1, 2))
    masks &= data
    inside = np.count_nonzero(masks, axis=(1, 2))
    kept = np.asarray((inside > 0) & (inside >= _MIN_SHARE * before))
  return (masks if kept.all() else masks[kept]), kept


Panorama = np.ndarray | str | os.PathLike | Image.Image | InputPanorama
"""uint8 `[H, 2 H, 3]` RGB (or a few rows off, see `is_panorama`), the path of a picture that
`read_panorama` reads, such a picture as a PIL image, or what `open_panorama` made of one of these.
"""


class ProvidedMasks(NamedTuple):
  """A panorama with masks that were checked; the rest as of `Ranker.rank_masks`."""

  picture: InputPanorama
  masks: np.ndarray
  categories: Sequence[str] | None
  ids: Sequence[int] | None


def open_masks(
  panorama: Any,
  masks: Any,
  categories: Sequence[str] | None,
  ids: Sequence[int] | None,
  image: str,
) -> ProvidedMasks:
  """Checks a panorama, as `open_panorama` does, and its masks.

  Raises:
    TypeError: see there.
    ValueError: see there, or the masks are of another shape or type.
  """
  picture = open_panorama(panorama, image)
  height, width = picture.pixels.shape[:2]
  if isinstance(masks, list | tuple) and not masks:
    masks = np.zeros((0, height, width), bool)
  masks = np.asarray(masks)
  if masks.dtype != bool or masks.shape[1:] != (height, width):
    raise ValueError(
      f"masks must be bool [N, {height}, {width}], as the panorama, not {masks.dtype}"
      f" {list(masks.shape)}"
    )
  if empty := np.flatnonzero(~masks.any(axis=(1, 2))).tolist():
    raise ValueError(f"masks {empty} have no pixel; leave them out")
  for what, given in (("categories", categories), ("ids", ids)):
    if isinstance(given, str):
      raise ValueError(f"{what} must be a list with an entry each mask, not {given!r}")
    if given is not None and len(given) != len(masks):
      raise ValueError(f"{len(given)} {what} do not fit {len(masks)} masks")
  return ProvidedMasks(picture, masks, categories, ids)


def one_each(given: Any, count: int, what: str, default: Any = None) -> Sequence[Any]:
  """An argument for each of several panoramas; `default` stands for one that is not given."""
  if given is None or isinstance(given, str) and given == default:
    return [default] * count
  if isinstance(given, str) or len(given) != count:
    found = repr(given) if isinstance(given, str) else len(given)
    raise ValueError(f"{count} panoramas need {count} {what}, not {found}; give a list")
  return given
