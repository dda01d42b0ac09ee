"""`PhotoRanker` over a picture or a folder: ranked, only segmented, or its views written.

`folder_runner` goes over the folder; here is what it does to each panorama.
"""

import functools
import glob
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from foir360_jax.compilation import compiling
from foir360_jax.files import PanoramaError, find_panoramas, save_image, write_atomically
from foir360_jax.files.id_map_file import encode_id_map, topmost
from foir360_jax.files.panorama_file import encode_panorama, stretch
from foir360_jax.files.picture_file import PictureError
from foir360_jax.inference.folder_runner import FolderWork, Show, Summary, run_folder
from foir360_jax.inference.output_folder import ResultFiles, package_version
from foir360_jax.inference.photo_ranker import PhotoRanker
from foir360_jax.inference.ranker_input import InputPanorama, read_input
from foir360_jax.paths import expand
from foir360_jax.scenes import RankedObjects
from foir360_jax.scenes.rank_file import encode_object_records
from foir360_jax.segment.views import Mode, plan_views, render_views

_say = functools.partial(print, flush=True)
_JPEG = b"\xff\xd8\xff"


def rank_photographs(
  ranker: PhotoRanker,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  overwrite: bool = False,
  say: Callable[[str], None] = _say,
  show: Show | None = None,
) -> Summary:
  """Finds and ranks the objects of every panorama: `ranks/ID.json` and `overlays/ID.png`.

  Args:
    ranker: finds and ranks them.
    input_path: a picture or a folder of pictures.
    output: see `run_folder`, as the rest.
    overwrite: see there.
    say: see there.
    show: see there.

  Raises:
    PanoramaError: there is no picture at all.
    ValueError: see `run_folder`.
    OSError: a result cannot be written.
  """
  return _run(_Ranking(ranker, input_path), output, overwrite, say, show)


def segment_photographs(
  ranker: PhotoRanker,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  overwrite: bool = False,
  say: Callable[[str], None] = _say,
  show: Show | None = None,
) -> Summary:
  """Makes a SCENES folder of panoramas and the objects that are found in them.

  That is `images/ID.jpg|png`, `instances/ID.png` and `objects/ID.json`. Arguments and errors as of
  `rank_photographs`.
  """
  return _run(_Segmenting(ranker, input_path), output, overwrite, say, show)


def write_views(
  views: Mode,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  overwrite: bool = False,
  say: Callable[[str], None] = _say,
  show: Show | None = None,
) -> Summary:
  """Writes the views that a segmenter would see, for a program of another kind.

  That is `ID/VIEW.png` and `ID/views.json`, which says where each of them looks. Its masks are read
  by the segmenter `masks:FOLDER`. Arguments and errors as of `rank_photographs`.

  Args:
    views: "fast" or "full".
    input_path: see there, as the rest.
    output: see there.
    overwrite: see there.
    say: see there.
    show: see there.
  """
  return _run(_Views(views, input_path), output, overwrite, say, show)


def _run(work, output, overwrite, say, show) -> Summary:
  if work.passed_over:
    say(f"passed over, as no pictures by their names: {work.passed_over}")
  return run_folder(work, output, overwrite=overwrite, say=say, show=show)


class _Photograph(NamedTuple):
  """A panorama that was read."""

  id: str
  title: str
  picture: InputPanorama


class _Photographs(FolderWork):
  """What all of them share: the pictures, one at a time."""

  def __init__(self, input_path: str | os.PathLike, **settings: Any):
    path = expand(input_path)
    listing = find_panoramas(path)
    self._files, self.passed_over = listing.pictures, listing.named_others()
    self.source, self.ids = path, tuple(self._files)
    self.notes: set[str] = set()
    self.settings = {**settings, "version": package_version()}

  def title(self, scene_id: str) -> str:
    file = self._files[scene_id]
    return super().title(scene_id) if isinstance(file, PictureError) else str(file)

  def read(self, scene_id: str) -> _Photograph:
    file = self._files[scene_id]
    if isinstance(file, PictureError):
      raise PanoramaError(str(file))
    picture, notes = read_input(file)
    self.notes.update(f"{scene_id}: {note}" for note in notes)
    return _Photograph(scene_id, str(file), picture)

  def shape(self, item: _Photograph) -> tuple[int, int]:
    return item.picture.pixels.shape[:2]

  def compiling(self, shape: tuple[int, int]) -> str:
    return compiling(f"for {shape[1]} x {shape[0]} pixels")


class _Ranking(_Photographs):
  def __init__(self, ranker: PhotoRanker, input_path: str | os.PathLike):
    super().__init__(input_path, command="rank", **ranker.settings(), order="solid angle")
    self._ranker = ranker

  def rank(self, items: list[_Photograph]) -> list[RankedObjects]:
    return [self._ranker(item.picture) for item in items]

  def write(self, item: _Photograph, result: RankedObjects, files: tuple[pathlib.Path, ...]) -> str:
    rank_file, overlay = files
    result.save_overlay(overlay)
    result.save_json(rank_file)
    return f"{result.image or item.id}: {_objects(result)} -> {rank_file}, {overlay}"


class _Segmenting(_Photographs):
  files = ResultFiles(("objects", ".json"), (("instances", ".png"),))

  def __init__(self, ranker: PhotoRanker, input_path: str | os.PathLike):
    super().__init__(input_path, command="segment", **ranker.settings())
    self._ranker = ranker

  def rank(self, items: list[_Photograph]) -> list[RankedObjects]:
    return [self._ranker.segment(item.picture) for item in items]

  def write(self, item: _Photograph, result: RankedObjects, files: tuple[pathlib.Path, ...]) -> str:
    object_file, id_map = files
    picture = encode_panorama(pathlib.Path(item.title))
    images = object_file.parents[1] / "images"
    image = images / f"{item.id}{'.jpg' if picture.startswith(_JPEG) else '.png'}"
    for other in images.glob(f"{glob.escape(item.id)}.*"):  # of a picture of another kind
      if other.stem == item.id and other != image:
        other.unlink()
    write_atomically(image, picture)
    numbers = np.append(result.ids, 0)[topmost(result.masks)]
    write_atomically(id_map, encode_id_map(numbers))
    content = {**result.to_dict(), "image": image.name}
    write_atomically(object_file, encode_object_records(content))
    return f"{result.image or item.id}: {_objects(result)} -> {object_file}, {id_map}"


class _ViewFiles(ResultFiles):
  """`ID/views.json`, written after the views beside it."""

  def done(self, output: pathlib.Path) -> set[str]:
    return {path.parent.name for path in output.glob("*/views.json")}

  def of(self, output: pathlib.Path, scene_id: str) -> tuple[pathlib.Path, ...]:
    return (output / scene_id / "views.json",)


class _Views(_Photographs):
  files = _ViewFiles()

  def __init__(self, views: Mode, input_path: str | os.PathLike):
    super().__init__(input_path, command="segment --write_views", views=views)
    self._views = views

  def rank(self, items: list[_Photograph]) -> list[dict[str, tuple[Any, np.ndarray]]]:
    return [self._render(item) for item in items]

  def _render(self, item: _Photograph) -> dict[str, tuple[Any, np.ndarray]]:
    panorama = stretch(item.picture.pixels)
    views = plan_views(len(panorama), self._views)
    return {
      views[index].name: (views[index], picture)
      for indices, pictures in render_views(panorama, views)
      for index, picture in zip(indices, pictures, strict=True)
    }

  def write(
    self,
    item: _Photograph,
    result: dict[str, tuple[Any, np.ndarray]],
    files: tuple[pathlib.Path, ...],
  ) -> str:
    (list_file,) = files
    records = []
    for name, (view, picture) in result.items():
      save_image(list_file.with_name(f"{name}.png"), picture)
      height, width = view.size
      records.append(
        {
          "name": name,
          "lon_deg": round(float(np.degrees(view.lon_rad)), 6),
          "lat_deg": round(float(np.degrees(view.lat_rad)), 6),
          "fov_deg": view.fov_deg,
          "height": height,
          "width": width,
        }
      )
    text = json.dumps({"image": pathlib.PurePath(item.title).name, "views": records}, indent=2)
    write_atomically(list_file, (text + "\n").encode())
    return f"{item.title}: {len(records)} views -> {list_file.parent}"


def _objects(result: RankedObjects) -> str:
  return f"{len(result)} object{'' if len(result) == 1 else 's'}"
