"""Writes scenes as COCO JSON: the records that reading kept, with what has changed since.

The writing half of `coco`. What came from COCO goes back as it was, field by field.
"""

import itertools
import json
import pathlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from foir360_jax.formats.scene import Scene, SceneObject, importance_of
from foir360_jax.formats.scene_folder import (
  index_records,
  inside_folder,
  split_of,
  without_suffix,
)
from foir360_jax.formats.scene_writing import Plan
from foir360_jax.formats.segmentation import planar_box, write_segmentation
from foir360_jax.metrics import ranks_from_relevance


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
  merged, categories, seen = {}, {}, set()
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
  ranks = [item.rank for item in ranked]
  importance = [item.importance for item in ranked]
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
