"""Recognises, opens and writes folders of ranked objects in any of the field's formats.

The entrance to the formats; each lives in a module of its own.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from foir360_jax.files.json_file import read_json
from foir360_jax.files.listing import child, list_entries, list_files, list_folders
from foir360_jax.files.picture_file import SUFFIXES, UNREAD_SUFFIXES
from foir360_jax.files.picture_folder import list_pictures
from foir360_jax.paths import expand
from foir360_jax.scenes import assr, coco, irsr, rank_map, scenes_layout, seqrank
from foir360_jax.scenes.annotation_files import (
  JSON_FORMATS,
  AnnotationFiles,
  find_annotation_files,
)
from foir360_jax.scenes.folder import SceneFolder
from foir360_jax.scenes.foreign_tools import way_in
from foir360_jax.scenes.scene import Scene, SceneError
from foir360_jax.scenes.writing import Plan, write_plan

FORMATS = {
  "scenes": scenes_layout.LAYOUT,
  "assr": assr.LAYOUT,
  "irsr": irsr.LAYOUT,
  "seqrank": seqrank.LAYOUT,
  "coco": coco.LAYOUT,
  "rank_map": rank_map.LAYOUT,
}
"""The names of the formats, each with what is looked for in a folder."""

_BY_FOLDER = {"scenes": scenes_layout, "assr": assr, "rank_map": rank_map}
_PLANS: Mapping[str, Callable[[Sequence[Scene], Mapping[str, str]], Plan]] = {
  "assr": assr.plan,
  "irsr": irsr.plan,
  "seqrank": seqrank.plan,
  "coco": coco.plan,
  "rank_map": rank_map.plan,
}
_PICKLES = (".pkl", ".pickle")
_NEEDS_SPLIT = ("assr", "irsr", "seqrank")


def recognise(folder: str | os.PathLike) -> str:
  """Returns the format of a folder, or of one JSON file, by what lies there.

  Raises:
    SceneError: no format or more than one fits, or there are pickle files only.
  """
  path = _existing(folder)
  return _recognise(path, find_annotation_files(path))


def _recognise(path: pathlib.Path, files: AnnotationFiles) -> str:
  found = [name for name, module in _BY_FOLDER.items() if path.is_dir() and module.recognises(path)]
  found += [name for name in JSON_FORMATS if name in files.by_format]
  if len(found) > 1:
    raise SceneError(
      f"{path}: could be {' or '.join(found)}; say which by --format, or remove what is not meant"
    )
  if not found and path.is_dir() and rank_map.is_flat(path):
    found = ["rank_map"]
  if not found:
    _refuse_pickles(path)
    if files.tools:
      raise SceneError(f"{path}: {way_in(files.tools)}")
    _refuse_results(path)
    _refuse_nothing(path)
    looked_for = "; ".join(f"{name}: {layout}" for name, layout in FORMATS.items())
    seen = "".join(f"; {note}" for note in files.notes[:1])
    alone = " (pictures, but no masks or ranks)" if _has_pictures(path) else ""
    raise SceneError(f"{path}: no known format{alone}{seen}; looked for {looked_for}")
  return found[0]


def _refuse_nothing(path: pathlib.Path) -> None:
  """Raises SceneError for a folder in which there is nothing to recognise."""
  if path.is_dir() and not list_entries(path):
    raise SceneError(f"{path}: is empty; give the folder with the annotations")
  if (path / "settings.json").is_file():  # of `predict` and `weak-labels`
    raise SceneError(f"{path}: holds no results; rank pictures into it before")


def _has_pictures(path: pathlib.Path) -> bool:
  """Whether a folder, or its `images/`, has pictures."""
  places = (path, child(path, "images")) if path.is_dir() else ()
  return any(list_pictures(place).pictures for place in places)


def open_scenes(
  folder: str | os.PathLike,
  *,
  format: str | None = None,
  rank_field: str | None = None,
  check_pictures: bool = True,
) -> SceneFolder:
  """Opens annotated pictures of any format of the field.

  Args:
    folder: the folder; of the JSON formats also the one file, with the pictures beside it.
    format: a name in `FORMATS`; None: recognised by what lies there.
    rank_field: COCO only: the field of the annotations, or of their `attributes`, that orders the
      objects, lower = more important, "-NAME" if higher is; any numbers will do. None: `rank`,
      which counts 1, 2, 3 ..., or `importance`.
    check_pictures: decode every picture that is read, so that truncated ones are found. Without
      it only their headers are read, which is enough to compare annotations.

  Returns:
    The folder, nothing but its lists read so far. Scenes that cannot be used raise when read.

  Raises:
    SceneError: it is not recognised, of another format, or its lists cannot be read.
  """
  path = _existing(folder)
  if format is None or format in JSON_FORMATS:
    files = find_annotation_files(path)
    format = format or _recognise(path, files)
  if format not in FORMATS:
    raise SceneError(f"format {format!r} is not known; choose one of {', '.join(FORMATS)}")
  if rank_field is not None and format != "coco":
    raise SceneError(f"{path}: --rank_field is for coco, not for {format}; leave it out")
  if format in _BY_FOLDER:
    if not path.is_dir():
      raise SceneError(f"{path}: is a file; {format} is a folder with {FORMATS[format]}")
    return _BY_FOLDER[format].open_folder(path, check_pictures=check_pictures)
  chosen = files.by_format.get(format)
  if not chosen:
    _refuse_pickles(path)
    raise SceneError(f"{path}: is not {format}; looked for {FORMATS[format]}")
  if format == "coco":
    opened = coco.open_files(path, chosen, check_pictures=check_pictures, rank_field=rank_field)
  else:
    opened = JSON_FORMATS[format].open_files(path, chosen, check_pictures=check_pictures)
  return dataclasses.replace(opened, notes=(*files.notes, *opened.notes))


def write_scenes(
  folder: str | os.PathLike,
  scenes: Iterable[Scene],
  *,
  format: str,
  splits: Mapping[str, Sequence[str]] | None = None,
  overwrite: bool = False,
) -> list[str]:
  """Writes scenes with copies of their pictures as one folder of a format.

  Nothing is written before all scenes are found to be fit. A new folder appears whole or not at
  all, and so does each file in one that is overwritten.

  Args:
    folder: a folder that does not exist or is empty.
    scenes: the scenes, no two of one id; all with a picture, or none.
    format: a name in `FORMATS`.
    splits: the ids of each split, each scene in exactly one; None: no splits, or one named "test"
      where the format cannot do without.
    overwrite: replace files in a folder that is not empty; others in it stay.

  Returns:
    A line for each kind of thing that the format cannot hold and that is therefore not written;
    [] where everything is.

  Raises:
    SceneError: the format cannot hold the ranks or an object, or the folder is not empty.
    OSError: the folder cannot be written, or a picture not be read.
  """
  if format not in FORMATS:
    raise SceneError(f"format {format!r} is not known; choose one of {', '.join(FORMATS)}")
  scenes = list(scenes)
  _check_ids([scene.id for scene in scenes])
  pictures = sum(scene.image_file is not None for scene in scenes)
  if 0 < pictures < len(scenes):
    raise SceneError(f"{len(scenes) - pictures} of {len(scenes)} scenes have no picture; set all")
  split_by_id = _split_by_id(scenes, splits, "test" if format in _NEEDS_SPLIT else "")
  if format == "scenes":
    plan = scenes_layout.plan(scenes, splits)
  else:
    plan = _PLANS[format](scenes, split_by_id)
  write_plan(expand(folder).absolute(), plan, overwrite=overwrite)
  return plan.lines()


def _existing(folder: str | os.PathLike) -> pathlib.Path:
  path = expand(folder)
  if not path.exists():
    raise SceneError(f"{path}: no such folder; give the folder with the annotations")
  if path.is_file():
    _refuse_pickles(path)
    if path.suffix.lower() in (*SUFFIXES, *UNREAD_SUFFIXES):
      raise SceneError(f"{path}: is a picture; give the folder with it and its annotations")
  return path


def _refuse_pickles(path: pathlib.Path) -> None:
  """Raises SceneError if there are pickle files."""
  folders = (path, *list_folders(path))
  for file in [path] if path.is_file() else [f for place in folders for f in list_files(place)]:
    if file.suffix.lower() in _PICKLES:
      raise SceneError(
        f"{file}: pickle files are refused, since unpickling runs whatever code they hold; in an "
        "environment that may be lost, convert it: python -c 'import json, pickle; json.dump("
        f'pickle.load(open("{file.name}", "rb")), open("{file.stem}.json", "w"), default=lambda v: '
        "v.decode() if isinstance(v, bytes) else v.tolist())'"
      )


def _refuse_results(path: pathlib.Path) -> None:
  """Raises SceneError if there is a list of detections, as detectron2 and pycocotools write it."""
  for file in [path] if path.is_file() else list_files(path, ".json"):
    content = None
    with contextlib.suppress(SceneError):  # what is no JSON is passed over, with a line of its own
      content = read_json(file, SceneError)
    first = content[0] if isinstance(content, list) and content else None
    if isinstance(first, dict) and {"image_id", "score"} <= first.keys():
      raise SceneError(
        f"{file}: is a list of results for COCO's evaluation, as detectron2 writes it, which names"
        " no pictures; put it into the COCO file of the truth (GT.json) and score pred.json with"
        ' --pred_rank_field=-score: python -c \'import json; pred = json.load(open("GT.json"));'
        f' results = json.load(open("{file.name}")); pred["annotations"] = [r | {{"id": i}} for i,'
        ' r in enumerate(results, 1)]; json.dump(pred, open("pred.json", "w"))\''
      )


def _check_ids(ids: Sequence[str]) -> None:
  """Raises SceneError for ids that are no names of files, or that two scenes share."""
  for scene_id, count in collections.Counter(ids).items():
    if count > 1:
      raise SceneError(f"{count} scenes have the id {scene_id}; rename them")
    if not re.fullmatch(r"[^/\\\0\n]+", scene_id) or scene_id.startswith("."):
      raise SceneError(f"{scene_id!r:.80} cannot be the name of a file; rename the scene")


def _split_by_id(
  scenes: Sequence[Scene], splits: Mapping[str, Sequence[str]] | None, default: str
) -> dict[str, str]:
  """Returns the split of each scene."""
  if splits is None:
    return {scene.id: default for scene in scenes}
  _check_ids(list(splits))
  named = collections.Counter(scene_id for ids in splits.values() for scene_id in ids)
  wrong = sorted({scene.id for scene in scenes} ^ named.keys())
  wrong += sorted(scene_id for scene_id, count in named.items() if count > 1)
  if wrong:
    raise SceneError(f"splits must name each scene once; look at {', '.join(wrong[:5])}")
  return {scene_id: split for split, ids in splits.items() for scene_id in ids}
