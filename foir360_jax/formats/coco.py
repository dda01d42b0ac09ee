"""COCO JSON whose annotations carry a `rank` (1 = most important) or an `importance` in [0, 1].

One file, or one a split: `annotations.json`, `annotations/*.json` ..., pictures beside it or in
`images/`. Records are kept whole in `extra`, so that `coco_writing` loses nothing.
"""

import collections
import pathlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from foir360_jax.files.json_file import field, inside, read_json
from foir360_jax.formats.scene import Scene, SceneError, SceneObject, importance_of, naming
from foir360_jax.formats.scene_folder import (
  SceneFolder,
  build_scene,
  files_by_split,
  find_picture,
  has_any_picture,
  index_records,
  require_picture,
)
from foir360_jax.formats.segmentation import read_declared_size, read_masks
from foir360_jax.metrics import ranks_from_relevance

LAYOUT = "a .json with images and annotations, here or in annotations/, and pictures or images/"


def holds(content: Any) -> bool:
  """Whether JSON content has COCO's lists."""
  return isinstance(content, dict) and all(
    isinstance(content.get(name), list) for name in ("images", "annotations")
  )


def open_files(
  path: pathlib.Path,
  files: Sequence[pathlib.Path],
  *,
  check_pictures: bool,
  rank_field: str | None = None,
) -> SceneFolder:
  """Opens COCO JSON files; see `open_scenes`."""
  entries, folders = [], {}
  for split, file in files_by_split(files).items():
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    folders[split] = [root / "images", root / "images" / split, root, root / split]
    with naming(file):
      entries += _entries(split, file, read_json(file, SceneError))
  records, splits = index_records(path, entries)
  with_pictures = any(
    has_any_picture(folders[split], [name for part, name, _ in entries if part == split])
    for split in folders
  )

  def read(scene_id: str, record: tuple) -> Scene:
    split, file, image, annotations, collection = record
    find = require_picture if with_pictures else find_picture
    with naming(f"{file}: {scene_id}"):
      categories = field(collection, "categories", "list", ())
      return build_scene(
        scene_id,
        find(folders[split], image["file_name"]),
        read_declared_size(image),
        lambda height, width: _objects(annotations, categories, height, width, rank_field),
        format="coco",
        check_pictures=check_pictures,
        extra={"image": image, "collection": collection},
      )

  return SceneFolder("coco", path, splits, records, read)


def _entries(split: str, file: pathlib.Path, content: Any) -> list[tuple[str, str, Any]]:
  """Returns the pictures of a file with their annotations, errors for what belongs to none."""
  images = field(content, "images", "list")
  entries, by_image = [], collections.defaultdict(list)
  for index, annotation in enumerate(field(content, "annotations", "list")):
    image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
    if image_id is None or not isinstance(image_id, Hashable):
      name = f"{file.name}: annotations[{index}]"
      entries.append((split, name, SceneError(f"{file}: annotations[{index}] lacks image_id")))
    else:
      by_image[image_id].append(annotation)

  collection = {key: value for key, value in content.items() if key not in _LISTS}
  counted = collections.Counter()
  for index, image in enumerate(images):
    try:
      name, image_id = field(image, "file_name", "text"), image.get("id")
      if image_id is None or not isinstance(image_id, Hashable):
        raise ValueError("lacks id; number the pictures")
    except ValueError as error:
      name = f"{file.name}: images[{index}]"
      entries.append((split, name, SceneError(f"{file}: images[{index}] {error}")))
      continue
    counted[image_id] += 1
    entries.append((split, name, (split, file, image, by_image[image_id], collection)))
  for image_id in by_image.keys() - counted.keys():
    message = f"{file}: annotations have image_id {image_id!r:.40}, which no picture has as id"
    entries.append((split, f"{file.name}: image_id {image_id!r:.40}", SceneError(message)))

  def checked(entry: Any) -> Any:
    if isinstance(entry, SceneError) or counted[entry[2]["id"]] == 1:
      return entry
    return SceneError(
      f"{file}: pictures share the id {entry[2]['id']!r:.40}, so that their annotations mix; "
      "number the pictures anew"
    )

  return [(split, name, checked(entry)) for split, name, entry in entries]


_LISTS = ("images", "annotations")


def _objects(
  annotations: Sequence[Mapping[str, Any]],
  categories: Sequence[Any],
  height: int,
  width: int,
  rank_field: str | None,
) -> list[SceneObject]:
  """Returns the objects of one picture with what order their annotations give."""
  names = {}
  for index, category in enumerate(categories):
    with inside(f"categories[{index}]"):
      names[field(category, "id", "integer")] = field(category, "name", "text")
  masks = read_masks(annotations, "annotations", height, width)
  orders = _orders(annotations, rank_field)
  objects = []
  for index, (annotation, mask) in enumerate(zip(annotations, masks, strict=True)):
    with inside(f"annotations[{index}]"):
      number = field(annotation, "id", "integer")
      number = field(annotation, "object_id", "integer", number)
      category = field(annotation, "category_id", "integer", None)
      if names and category is not None and category not in names:
        raise ValueError(f"category_id {category} is not among the categories; add it there")
    importance, rank = orders[index]
    objects.append(SceneObject(number, mask, importance, rank, names.get(category, ""), annotation))
  return objects


def _orders(
  annotations: Sequence[Mapping[str, Any]], rank_field: str | None
) -> list[tuple[float | None, int | None]]:
  """Returns (importance, rank) of each annotation, (None, None) where it has neither."""
  if rank_field is not None:
    sign = 1 if rank_field.startswith("-") else -1
    given = _column(annotations, rank_field.removeprefix("-"), "number")
    ranks = _ranks([None if value is None else sign * value for value in given])
    return _with_importance(ranks, [None] * len(ranks))
  importance = _column(annotations, "importance", "number")
  ranks = _column(annotations, "rank", "integer")
  for index, value in enumerate(importance):
    if value is not None and not 0 <= value <= 1:
      raise ValueError(f"annotations[{index}]: importance is {value}, outside [0, 1]; scale it")
  for index, rank in enumerate(ranks):
    if rank is not None and rank < 1:
      raise ValueError(f"annotations[{index}]: rank is {rank}; 1 is the most important")
  if not any(rank is not None for rank in ranks):
    ranks = _ranks(importance)
  return _with_importance(ranks, importance)


def _column(annotations: Sequence[Any], name: str, kind: str) -> list[Any]:
  """Returns a field of all annotations, None where it is missing."""
  values = []
  for index, annotation in enumerate(annotations):
    with inside(f"annotations[{index}]"):
      values.append(field(annotation, name, kind, None))
  return values


def _ranks(values: Sequence[float | None]) -> list[int | None]:
  """Returns dense ranks of values, higher = more important; None stays None."""
  known = [index for index, value in enumerate(values) if value is not None]
  ranks: list[int | None] = [None] * len(values)
  for index, rank in zip(known, ranks_from_relevance([values[i] for i in known]), strict=True):
    ranks[index] = int(rank)
  return ranks


def _with_importance(ranks, importance) -> list[tuple[float | None, int | None]]:
  """Puts (n - rank + 1) / n where no importance is given; refuses to mix both."""
  missing = [index for index, value in enumerate(importance) if value is None]
  ranked = [index for index, rank in enumerate(ranks) if rank is not None]
  partly = [index for index in missing if index in ranked]
  if partly and len(partly) < len(ranked):
    raise ValueError(f"annotations {partly} have no importance while others have; give all or none")
  orders = []
  for value, rank in zip(importance, ranks, strict=True):
    if rank is not None and value is None:
      value = importance_of(rank, len(ranked))
    orders.append((None if value is None else float(value), rank))
  return orders
