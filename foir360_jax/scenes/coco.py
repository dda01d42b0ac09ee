"""COCO JSON whose annotations carry a `rank` (1 = most important) or an `importance` in [0, 1].

One file, or one a split: `annotations.json`, `annotations/*.json` ..., pictures beside it or in
`images/`. Records are kept whole in `extra`, so that writing loses nothing: what came from COCO
goes back as it was, field by field.
"""

import collections
import itertools
import json
import pathlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from foir360_jax.files.json_file import field, inside, read_json
from foir360_jax.files.placement import read_placement
from foir360_jax.metrics import ranks_from_relevance
from foir360_jax.scenes.folder import (
  SceneFolder,
  build_scene,
  files_by_split,
  find_picture,
  has_any_picture,
  index_records,
  inside_folder,
  require_picture,
  split_of,
  without_suffix,
)
from foir360_jax.scenes.scene import Scene, SceneError, SceneObject, importance_of, naming
from foir360_jax.scenes.segmentation import (
  planar_box,
  read_declared_size,
  read_masks,
  write_segmentation,
)
from foir360_jax.scenes.writing import Plan

LAYOUT = "a .json with images and annotations, here or in annotations/, and pictures or images/"
_LISTS = ("images", "annotations")


def holds(content: Any) -> bool:
  """Whether JSON content has COCO's lists."""
  return isinstance(content, dict) and all(isinstance(content.get(name), list) for name in _LISTS)


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
  entries: list[tuple[str, str, Any]] = []
  by_image = collections.defaultdict(list)
  for index, annotation in enumerate(field(content, "annotations", "list")):
    image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
    if image_id is None or not isinstance(image_id, Hashable):
      name = f"{file.name}: annotations[{index}]"
      entries.append((split, name, SceneError(f"{file}: annotations[{index}] lacks image_id")))
    else:
      by_image[image_id].append(annotation)

  collection = {key: value for key, value in content.items() if key not in _LISTS}
  counted = collections.Counter[Hashable]()
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
  known = {index: value for index, value in enumerate(values) if value is not None}
  ranks: list[int | None] = [None] * len(values)
  for index, rank in zip(known, ranks_from_relevance(list(known.values())), strict=True):
    ranks[index] = int(rank)
  return ranks


def _with_importance(
  ranks: Sequence[int | None], importance: Sequence[float | None]
) -> list[tuple[float | None, int | None]]:
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


def plan(scenes: Sequence[Scene], split_by_id: Mapping[str, str]) -> Plan:
  """Returns the files of a COCO folder, one JSON file a split; see `write_scenes`."""
  planned = Plan("coco")
  file_names = _file_names(scenes, split_by_id)
  for split in dict.fromkeys(split_by_id.values()):
    members = [scene for scene in scenes if split_by_id[scene.id] == split]
    content = _content(planned, members, split, file_names)
    file = f"annotations/{split}.json" if split else "annotations.json"
    planned.add(file, json.dumps(content, ensure_ascii=False).encode())
  return planned


def _content(
  planned: Plan, scenes: Sequence[Scene], split: str, file_names: Mapping[str, str]
) -> dict[str, Any]:
  """Returns the content of one file."""
  collection = _collection(planned, scenes)
  names = {category["id"]: category["name"] for category in collection["categories"]}
  image_ids = _numbers([_kept(scene, "image").get("id") for scene in scenes])
  object_ids = _numbers(
    [_kept_of_object(scene, item).get("id") for scene in scenes for item in scene.objects]
  )
  images, annotations = [], []
  for scene in scenes:
    image_id = next(image_ids)
    original = _kept(scene, "image")
    if original.get("id", image_id) != image_id:
      planned.lose(scene, "two pictures of one id: numbered anew")
    size = {"height": scene.height, "width": scene.width}
    if original and scene.image_file and all(original.get(name) is None for name in size):
      if not read_placement(scene.image_file, whole=False).is_part:
        size = {}  # the picture says it
    name = file_names[scene.id]
    if name != original.get("file_name", name):
      planned.lose(scene, "picture names that do not give the ids: named by the id")
    images.append({**original, "id": image_id, "file_name": name, **size})
    if scene.image_file is not None:
      # A name without suffix stays so in the JSON; the file has one, by which it is found again.
      suffix = "" if without_suffix(name) != name else scene.image_file.suffix
      place = "/".join(part for part in ("images", split, str(inside_folder(name))) if part)
      planned.add(place + suffix, scene.image_file)
    order_fields = _order_fields(scene)
    for item in scene.objects:
      number = next(object_ids)
      kept = _kept_of_object(scene, item)
      if kept.get("id", number) != number:
        planned.lose(scene, "two annotations of one id: numbered anew")
      record = {**kept, "id": number, "image_id": image_id}
      annotations.append(_annotation(record, item, names, order_fields))
  return {**collection, "images": images, "annotations": annotations}


def _kept(scene: Scene, name: str) -> Mapping[str, Any]:
  """Returns a record of COCO that came with a scene; of other formats there is none."""
  return scene.extra.get(name, {}) if scene.format == "coco" else {}


def _kept_of_object(scene: Scene, item: SceneObject) -> Mapping[str, Any]:
  return item.extra if scene.format == "coco" else {}


def _collection(planned: Plan, scenes: Sequence[Scene]) -> dict[str, Any]:
  """Returns what belongs to no picture: info, licences and categories of all collections."""
  merged: dict[str, Any] = {}
  categories: dict[int, dict[str, Any]] = {}
  seen = set()
  for scene in scenes:
    collection = _kept(scene, "collection")
    if id(collection) not in seen:  # scenes of one file share it
      seen.add(id(collection))
      others = {name: value for name, value in collection.items() if name != "categories"}
      if any(merged.get(name, value) != value for name, value in others.items()):
        planned.lose(scene, "info, licences and the like of more than one collection")
      merged = {**others, **merged}
      for category in collection.get("categories") or ():
        _add_category(categories, category)
    for name in [item.category for item in scene.objects if item.category]:
      if all(category["name"] != name for category in categories.values()):
        _add_category(categories, {"id": 1, "name": name})
  return {**merged, "categories": list(categories.values())}


def _add_category(categories: dict[int, dict[str, Any]], category: Mapping[str, Any]) -> None:
  """Adds a category unless it is there, under the next free id if another has its own."""
  if any({**one, "id": 0} == {**category, "id": 0} for one in categories.values()):
    return
  number = category["id"] if category["id"] not in categories else max(categories) + 1
  categories[number] = {**category, "id": number}


def _numbers(wanted: Sequence[Hashable]) -> Iterator[Hashable]:
  """Yields each wanted number, or a new one where it is None or was given before."""
  taken = [number for number in wanted if isinstance(number, int)]
  fresh = itertools.count(max(taken, default=0) + 1)
  used = set()
  for number in wanted:
    if number is None or number in used:
      number = next(fresh)
    used.add(number)
    yield number


def _annotation(
  record: dict[str, Any],
  item: SceneObject,
  names: Mapping[Hashable, str],
  order_fields: Sequence[str],
) -> dict[str, Any]:
  """Returns the record of one object, brought up to date.

  Args:
    record: its id, its picture's, and whatever was kept.
    item: the object.
    names: names of the categories by id.
    order_fields: which of rank and importance to write.
  """
  if item.id != record["id"] or "object_id" in record:
    record["object_id"] = item.id
  original = record.get("segmentation")
  record["segmentation"] = write_segmentation(item.run_lengths, original)
  if record["segmentation"] is not original:
    record |= {"bbox": planar_box(item.run_lengths), "area": item.run_lengths.area()}
    record.setdefault("iscrowd", 0)
  if names.get(record.get("category_id"), "") != item.category:
    record.pop("category_id", None)
    numbers = [number for number, name in names.items() if name == item.category]
    record |= {"category_id": numbers[0]} if numbers else {}
  if item.rank is not None:
    record |= {name: getattr(item, name) for name in order_fields}
  return record


def _order_fields(scene: Scene) -> list[str]:
  """Returns which of rank and importance to write: what was there, and what that does not say."""
  ranked = [item for item in scene.objects if item.rank is not None]
  ranks = [item.rank for item in scene.objects if item.rank is not None]
  importance = [item.importance for item in scene.objects if item.importance is not None]
  given = {name for item in ranked for name in _kept_of_object(scene, item)}
  fields = []
  by_importance = ranks_from_relevance(importance).tolist() == ranks
  if "rank" in given or "importance" not in given or not by_importance:
    fields.append("rank")
  if "importance" in given or importance != [importance_of(rank, len(ranks)) for rank in ranks]:
    fields.append("importance")
  return fields


def _file_names(scenes: Sequence[Scene], split_by_id: Mapping[str, str]) -> dict[str, str]:
  """Returns the name of each scene's picture by id: the kept one where reading it gives that id.

  Without a picture the id is taken, which needs no suffix.
  """
  plain = {
    scene.id: scene.id + (scene.image_file.suffix if scene.image_file else "") for scene in scenes
  }
  names = {scene.id: _kept(scene, "image").get("file_name", plain[scene.id]) for scene in scenes}
  several = len(set(split_by_id.values())) > 1
  splits = {split: split_of(split) or split * several for split in split_by_id.values()}
  while True:
    entries = [(splits[split_by_id[number]], name, number) for number, name in names.items()]
    records, _ = index_records(pathlib.Path(), entries)
    wrong = [
      number for number in names if records.get(number) != number and names[number] != plain[number]
    ]
    if not wrong:
      return names
    names |= {number: plain[number] for number in wrong}
