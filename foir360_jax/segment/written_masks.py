"""Masks that another program wrote, in a folder, in place of a segmenter.

`FOLDER/ID.json` has masks of the panorama ID itself, `FOLDER/ID/VIEW.json` of one of its views, by
the names under which `foir360 segment --write_views` writes them. `mask_file` says what such a file
holds. `FOLDER/segmenter.json`, if it is there, says who wrote them: any of `name`, `version`,
`settings`.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from foir360_jax.files.json_file import field, read_json
from foir360_jax.paths import expand
from foir360_jax.segment.mask_file import MaskFile, check_shape, read_mask_file
from foir360_jax.segment.picture_masks import touches_border
from foir360_jax.segment.segmenter import SegmenterError

FLAT = "flat"
"""The view that is the panorama as it is."""
MAX_FLAT_HEIGHT = 2048
"""Masks on larger panoramas are read at this height: a hundred of them take 800 MB."""
ABOUT = "segmenter.json"


class ViewLike(Protocol):
  """What is asked of a view."""

  @property
  def name(self) -> str:
    """Safe in the names of files."""

  @property
  def size(self) -> tuple[int, int]:
    """(h, w) in pixels."""


class WrittenMasks:
  """A folder of masks, asked as a segmenter is.

  Args:
    folder: see the module.

  Raises:
    SegmenterError: there is no such folder.
  """

  name = "masks"
  needs_pixels = False

  def __init__(self, folder: str | os.PathLike):
    self._folder = expand(folder)
    if not self._folder.is_dir():
      raise SegmenterError(
        f"masks:{folder}: there is no such folder; give one with ID.json for a panorama ID, or"
        " ID/VIEW.json for its views"
      )
    self.settings: dict[str, Any] = {"folder": str(folder)}
    self.version = ""
    if (self._folder / ABOUT).exists():
      about = read_json(self._folder / ABOUT, SegmenterError)
      self.settings["written_by"] = about
      try:
        self.version = field(about, "version", "text", "")
      except ValueError as error:
        raise SegmenterError(f"{self._folder / ABOUT}: {error}") from error
    # One of a panorama is read for its size first and for its masks then.
    self._read = functools.lru_cache(maxsize=1)(_read_as_it_is_now)

  def views_of(self, image: str, views: Sequence[Any]) -> tuple[Any, ...]:
    """Returns those of some views that have a file.

    Args:
      image: the panorama's name.
      views: dataclasses with `name` and `size`; "flat" gets the size on which its masks are.

    Raises:
      SegmenterError: none has, or the file of the panorama is not of its shape.
    """
    chosen = []
    for view in views:
      file = self._file(image, view.name)
      if file is not None:
        if view.name == FLAT and (size := self._open(file).size):
          check_shape(size, view.size, file)
          height = min(size[0], MAX_FLAT_HEIGHT)
          view = dataclasses.replace(view, size=(height, 2 * height))
        chosen.append(view)
    if not chosen:
      raise SegmenterError(self._nothing(image, views))
    return tuple(chosen)

  def segment_batch(
    self,
    pictures: np.ndarray,
    confidence: float = 0.0,
    *,
    image: str,
    views: Sequence[ViewLike],
  ) -> list[list[tuple]]:
    """Reads the masks of some views; those without a file have none.

    Args:
      pictures: [V, h, w, 3]; only how many and how large they are counts.
      confidence: objects of a lower score are left out.
      image: the panorama's name.
      views: the V views, of `views_of`.

    Returns:
      V lists of (score, category, mask, touches_border).

    Raises:
      SegmenterError: a file is none; one line that names it.
    """
    height, width = pictures.shape[1:3]
    found = []
    for view in views:
      file = self._file(image, view.name)
      objects = []
      for score, category, mask in self._open(file).masks((height, width)) if file else ():
        if score >= confidence:
          cut = _cut_by_seam(mask) if view.name == FLAT else touches_border(mask)
          objects.append((score, category, mask, cut))
      found.append(objects)
    return found

  def _file(self, image: str, view: str) -> pathlib.Path | None:
    places = [self._folder / image / f"{view}.json"]
    if view == FLAT:
      places.insert(0, self._folder / f"{image}.json")
    return next((place for place in places if place.is_file()), None)

  def _open(self, file: pathlib.Path) -> MaskFile:
    return self._read(file, file.stat().st_mtime_ns)

  def _nothing(self, image: str, views: Sequence[ViewLike]) -> str:
    folder = self._folder / image
    others = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if others:
      return (
        f"{others[0]}: no view of {image} has this name; names are as {views[0].name}, and the same"
        " --views as when the views were written is needed"
      )
    return (
      f"{image}: no masks in {self._folder}; write {self._folder / image}.json, or"
      f" {folder}/VIEW.json for its views"
    )


def _read_as_it_is_now(file: pathlib.Path, changed_ns: int) -> MaskFile:
  del changed_ns  # another one, another file
  return read_mask_file(file)


def _cut_by_seam(mask: np.ndarray) -> bool:
  """Whether a mask [H, 2 H] of a panorama ends at the seam: what goes on beyond it is whole.

  >>> _cut_by_seam(np.array([[True, False]])), _cut_by_seam(np.array([[True, True]]))
  (True, False)
  """
  left, right = mask[:, 0], mask[:, -1]
  return bool((left.any() or right.any()) and not (left & right).any())
