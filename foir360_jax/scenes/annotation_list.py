"""JSON lists of pictures with ordered objects: what IRSR, SIFR and SeqRank share.

Between their modules, which name the fields, and `scene_folder`.
"""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from foir360_jax.files.json_file import field, inside, read_json
from foir360_jax.scenes.folder import (
  SceneFolder,
  build_scene,
  index_records,
)
from foir360_jax.scenes.picture_finder import PictureFinder
from foir360_jax.scenes.scene import Scene, SceneError, SceneObject, naming, order_objects
from foir360_jax.scenes.segmentation import read_declared_size, read_masks


def open_annotation_list(
  format: str,
  path: pathlib.Path,
  files: Mapping[str, pathlib.Path],
  *,
  records_of: Callable[[Any], list],
  name_field: str,
  values_of: Callable[[Mapping[str, Any]], Sequence[float]],
  picture_folders: Callable[[str], Sequence[pathlib.Path]],
  check_pictures: bool,
) -> SceneFolder:
  """Opens one JSON file a split.

  Args:
    format: name of the format.
    path: the folder, or the one file.
    files: the file of each split, "" for one that names no split.
    records_of: returns the list of pictures in the content of a file.
    name_field: the field of a record with the name of the picture.
    values_of: returns the value of each annotation of a record, higher = more important.
    picture_folders: where the pictures of a split may lie; if none is there at all, scenes have
      no picture and need a height and width.
    check_pictures: see `open_scenes`.

  Raises:
    SceneError: a file cannot be read or is no such list.
  """
  entries: list[tuple[str, str, tuple[pathlib.Path, Any, str] | SceneError]] = []
  for split, file in files.items():
    with naming(file):
      for index, record in enumerate(records_of(read_json(file, SceneError))):
        try:
          name = field(record, name_field, "text")
        except ValueError as error:
          nameless = SceneError(f"{file}: [{index}] {error}")
          entries.append((split, f"{file.name}[{index}]", nameless))
        else:
          entries.append((split, name, (file, record, f"[{index}]")))

  finders = {split: PictureFinder(picture_folders(split)) for split in files}
  records, splits = index_records(path, _with_split(entries), finders)
  with_pictures = any(
    finder.has_any(name for part, name, _ in entries if part == split)
    for split, finder in finders.items()
  )

  def read(scene_id: str, placed: tuple) -> Scene:
    split, name, (file, record, where) = placed
    finder = finders[split]
    find = finder.require if with_pictures else finder.find
    with naming(f"{file}: {where} {scene_id}"):
      annotations = field(record, "annotations", "list")

      def make_objects(height: int, width: int) -> tuple[SceneObject, ...]:
        masks = read_masks(annotations, "annotations", height, width)
        objects = [
          SceneObject(index + 1, mask, extra=annotation)
          for index, (mask, annotation) in enumerate(zip(masks, annotations, strict=True))
        ]
        values = values_of(record)
        if len(values) != len(objects):
          raise ValueError(f"has {len(objects)} objects and {len(values)} ranks; give one each")
        return order_objects(objects, values)

      return build_scene(
        scene_id,
        find(name),
        read_declared_size(record),
        make_objects,
        format=format,
        check_pictures=check_pictures,
        extra={key: value for key, value in record.items() if key != "annotations"},
        image_missing=finder.missing(name),
      )

  return SceneFolder(format, path, splits, records, read)


def names_in(records: Iterable[Any], field_name: str) -> Iterator[str]:
  """Yields a field of the records that have it as text."""
  for record in records:
    if isinstance(record, dict) and isinstance(record.get(field_name), str):
      yield record[field_name]


def order_field(
  annotations: Sequence[Any], name: str, *, list_name: str = "annotations"
) -> list[int]:
  """Returns a whole number from 0 up of each annotation.

  Raises:
    ValueError: it is missing, no whole number or negative; the message names the annotation.
  """
  values = []
  for index, annotation in enumerate(annotations):
    with inside(f"{list_name}[{index}]"):
      values.append(field(annotation, name, "integer"))
      if values[-1] < 0:
        raise ValueError(f"{name} is {values[-1]}; give 0 (least important) or more")
  return values


def _with_split(
  entries: Iterable[tuple[str, str, tuple[pathlib.Path, Any, str] | SceneError]],
) -> Iterator[tuple[str, str, Any]]:
  """Puts split and name into the records that reading needs; errors stay as they are."""
  for split, name, entry in entries:
    yield split, name, entry if isinstance(entry, SceneError) else (split, name, entry)
