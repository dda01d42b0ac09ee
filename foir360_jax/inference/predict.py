"""A trained model over a picture or a folder: `ranks/ID.json` and `overlays/ID.png` for each.

`folder_runner` goes over the folder; here is what it does to each panorama. The objects are those
that the model predicts, or those of masks that the folder provides.
"""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from foir360_jax.compilation import compiling
from foir360_jax.files import PanoramaError, find_panoramas
from foir360_jax.files.picture_file import PictureError
from foir360_jax.inference.decision import Decision
from foir360_jax.inference.folder_runner import FolderWork, Show, Summary, run_folder
from foir360_jax.inference.output_folder import package_version
from foir360_jax.inference.ranker import Ranker
from foir360_jax.inference.ranker_input import InputPanorama, read_input
from foir360_jax.paths import expand
from foir360_jax.scenes import RankedObjects, Scene, SceneError, open_scenes
from foir360_jax.train.checkpoint import newest_checkpoint

_say = functools.partial(print, flush=True)


def predict_folder(
  ranker: Ranker,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  overwrite: bool = False,
  say: Callable[[str], None] = _say,
  show: Show | None = None,
) -> Summary:
  """Ranks every panorama it finds, as `run_folder` says, and prints one line about each.

  Args:
    ranker: the model.
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
  work = _Pictures(ranker, expand(input_path))
  if work.passed_over:
    say(f"passed over, as no pictures by their names: {work.passed_over}")
  return run_folder(work, output, overwrite=overwrite, say=say, show=show)


def rank_provided_masks(
  ranker: Ranker,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  overwrite: bool = False,
  say: Callable[[str], None] = _say,
  show: Show | None = None,
) -> Summary:
  """Ranks the objects whose masks a folder provides, as `run_folder` says.

  The last line names the categories that a model does not know which is conditioned on them.

  Args:
    ranker: the model.
    input_path: a folder of any format of `scenes.open_scenes` that has pictures and masks; ranks
      that it may have as well are not read.
    output: see `run_folder`, as the rest.
    overwrite: see there.
    say: see there.
    show: see there.

  Raises:
    ValueError: the folder cannot be opened or holds nothing, or as `run_folder`.
    OSError: a result cannot be written.
  """
  work = _ProvidedMasks(ranker, expand(input_path))
  summary = run_folder(work, output, overwrite=overwrite, say=say, show=show)
  if work.unknown:
    say(
      f"the model does not know {', '.join(sorted(work.unknown))} and ranked these by their looks;"
      f" it knows {', '.join(filter(None, ranker.category_names)) or 'no names'}"
    )
  return summary


def load_ranker(workdir: pathlib.Path, *, rank_masks: bool = False, **thresholds: Any) -> Ranker:
  """The run in `workdir` as a ranker for new panoramas; says so if nobody tuned its thresholds.

  Args:
    workdir: the run.
    rank_masks: whether it is to rank masks that are provided, rather than predict them.
    **thresholds: see `Ranker.load`.
  """
  ranker = Ranker.load(workdir, **thresholds)
  if rank_masks:
    return ranker
  if not ranker.detects:
    raise ValueError(f"{workdir} learned to rank provided masks alone: add --rank_masks")
  if not Decision.is_chosen(newest_checkpoint(workdir / "checkpoints")):
    _say(
      "the newest checkpoint was never evaluated: what is an object is decided by default"
      " thresholds (foir360 evaluate tunes them)"
    )
  return ranker


class _Panorama(NamedTuple):
  """A panorama that was read; `scene` where its masks are provided."""

  id: str
  title: str
  picture: InputPanorama
  scene: Scene | None = None


class _Ranking(FolderWork):
  """What both kinds of prediction share: one panorama at a time, and its two files."""

  def __init__(self, ranker: Ranker, rank_masks: bool):
    self._ranker = ranker
    self._told = False
    self.settings = {
      "command": "predict",
      "model": ranker.settings(rank_masks=rank_masks),
      "rank_masks": rank_masks,
      "version": package_version(),
    }

  def shape(self, item: _Panorama) -> tuple[int, int]:
    return item.picture.pixels.shape[:2]

  def compiling(self, shape: tuple[int, int]) -> str:
    """Returns a line for the first picture: those of other sizes go through the same programs."""
    told, self._told = self._told, True
    return "" if told else compiling("the model")

  def write(self, item: _Panorama, result: RankedObjects, files: tuple[pathlib.Path, ...]) -> str:
    rank_file, overlay = files
    result.save_overlay(overlay)
    result.save_json(rank_file)
    return f"{result.image or item.id}: {len(result)} objects -> {rank_file}, {overlay}"


class _Pictures(_Ranking):
  """Whole pictures, whose objects the model predicts."""

  def __init__(self, ranker: Ranker, path: pathlib.Path):
    super().__init__(ranker, rank_masks=False)
    listing = find_panoramas(path)
    self._files, self.passed_over = listing.pictures, listing.named_others()
    self.source, self.ids = path, tuple(self._files)
    self.notes: set[str] = set()

  def title(self, scene_id: str) -> str:
    file = self._files[scene_id]
    return super().title(scene_id) if isinstance(file, PictureError) else str(file)

  def read(self, scene_id: str) -> _Panorama:
    file = self._files[scene_id]
    if isinstance(file, PictureError):
      raise PanoramaError(str(file))
    picture, notes = read_input(file)
    self.notes.update(f"{scene_id}: {note}" for note in notes)
    return _Panorama(scene_id, str(file), picture)

  def rank(self, items: list[_Panorama]) -> list[RankedObjects]:
    return [self._ranker(item.picture) for item in items]


class _ProvidedMasks(_Ranking):
  """Pictures whose masks the folder provides."""

  def __init__(self, ranker: Ranker, path: pathlib.Path):
    self._folder = open_scenes(path, check_pictures=False)
    if not len(self._folder):
      raise SceneError(f"{path}: holds no picture; give the folder with images and instances")
    super().__init__(ranker, rank_masks=True)
    self.source, self.ids = self._folder.path, self._folder.ids
    self.notes: set[str] = set(self._folder.notes)
    self.unknown: set[str] = set()

  def read(self, scene_id: str) -> _Panorama:
    scene = self._folder.read(scene_id).without_crowds()
    image_file = scene.require_image_file()
    self.notes.update(f"{scene_id}: {note}" for note in scene.notes)
    picture, _ = read_input(image_file)
    return _Panorama(scene_id, self.title(scene_id), picture, scene)

  def rank(self, items: list[_Panorama]) -> list[RankedObjects]:
    return [self._rank(item) for item in items]

  def _rank(self, item: _Panorama) -> RankedObjects:
    scene = item.scene
    assert scene is not None  # `read` gives it
    objects = scene.objects
    categories = [entry.category for entry in objects]
    self.unknown.update(self._ranker.unknown_names(categories))
    return self._ranker.rank_masks(
      item.picture,
      scene.masks(),  # not before: they take the memory
      categories=categories,
      ids=[entry.id for entry in objects],
    )
