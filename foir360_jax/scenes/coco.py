"""COCO JSON whose annotations carry a `rank` (1 = most important) or an `importance` in [0, 1].

One file, or one a split: `annotations.json`, `annotations/*.json`, `train/_annotations.coco.json`
..., pictures beside it, in `images/` or `data/`. Records are kept whole in `extra`, so that writing
loses nothing: what came from COCO goes back as it was, field by field.
"""

import collections
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from foir360_jax.files.json_file import field, read_json
from foir360_jax.files.placement import read_placement
from foir360_jax.metrics import ranks_from_relevance
from foir360_jax.scenes.annotation_list import names_in
from foir360_jax.scenes.coco_annotations import (
  all_marked_as_crowd,
  category_names,
  has_field,
  how_to_rank,
  key_of,
  number_fields,
  object_numbers,
  orders,
)
from foir360_jax.scenes.folder import (
  SceneFolder,
  build_scene,
  files_by_split,
  index_records,
  root_of,
  split_of,
)
from foir360_jax.scenes.picture_finder import PictureFinder, inside_folder, without_suffix
from foir360_jax.scenes.scene import Scene, SceneError, SceneObject, importance_of, naming
from foir360_jax.scenes.segmentation import (
  planar_box,
  read_declared_size,
  read_masks,
  write_segmentation,
)
from foir360_jax.scenes.writing import Plan, optional_fields

LAYOUT = (
  "a .json with images and annotations, here, in annotations/ or in train/ ..., and pictures,"
  " images/ or data/"
)
_LISTS = ("images", "annotations")


def holds(content: Any) -> bool:
  """Whether JSON content has COCO's lists; COCO's captions have these, too, and no objects."""
  if not isinstance(content, dict) or not all(isinstance(content.get(x), list) for x in _LISTS):
    return False
  annotations = content["annotations"]
  captions = [isinstance(item, dict) and "caption" in item for item in annotations]
  return not captions or not all(captions)


def picture_names(content: Any) -> Iterator[str]:
  """Yields the names of the pictures in such content."""
  return names_in(content["images"], "file_name")


def open_files(
  path: pathlib.Path,
  files: Sequence[pathlib.Path],
  *,
  check_pictures: bool,
  rank_field: str | None = None,
) -> SceneFolder:
  """Opens COCO JSON files; see `open_scenes`."""
  entries, finders, notes = [], {}, []
  for split, file in files_by_split(files, path).items():
    finders[split] = PictureFinder(_picture_folders(split, file))
    with naming(file):
      source = _open_file(file, rank_field)
      entries += _entries(split, source)
    if source.all_crowd:
      notes.append(
        f"{file}: all annotations are marked iscrowd, as CVAT marks painted masks: taken as objects"
      )
  records, splits = index_records(path, entries, finders)
  with_pictures = any(
    finder.has_any(name for part, name, _ in entries if part == split)
    for split, finder in finders.items()
  )

  def read(scene_id: str, record: tuple) -> Scene:
    split, source, image, annotations = record
    finder, name = finders[split], image["file_name"]
    with naming(f"{source.file}: {scene_id}"):
      scene = build_scene(
        scene_id,
        finder.require(name) if with_pictures else finder.find(name),
        read_declared_size(image),
        lambda height, width: _objects(annotations, source, height, width, rank_field),
        format="coco",
        check_pictures=check_pictures,
        extra={"image": image, "collection": source.collection},
        image_missing=finder.missing(name),
      )
      note = object_numbers(annotations)[1]
    unranked = "" if scene.is_ranked else how_to_rank(annotations)
    return dataclasses.replace(
      scene, notes=(*scene.notes, *filter(None, [note])), unranked=unranked or scene.unranked
    )

  return SceneFolder("coco", path, splits, records, read, tuple(notes))


class _File(NamedTuple):
  """A file, read: where it is, its two lists, what else it has, and whether all is `iscrowd`."""

  file: pathlib.Path
  images: list[Any]
  annotations: list[Any]
  collection: Mapping[str, Any]
  all_crowd: bool


def _open_file(file: pathlib.Path, rank_field: str | None) -> _File:
  """Reads a file; raises ValueError where none of its annotations can be used."""
  content = read_json(file, SceneError)
  images, annotations = field(content, "images", "list"), field(content, "annotations", "list")
  masks = [item.get("segmentation") for item in annotations if isinstance(item, dict)]
  if masks and not any(masks):
    raise ValueError(
      "the annotations have boxes and no masks (segmentation), and objects are ranked by masks;"
      " outline the objects as polygons, or let a segmenter make masks from the boxes"
    )
  name = (rank_field or "").removeprefix("-")
  if name and annotations and not has_field(annotations, name):
    own = [known for known in ("rank", "importance", "score") if has_field(annotations, known)]
    there = ", ".join([*own, *number_fields(annotations)]) or "none"
    raise ValueError(f"no annotation has a field {name!r}; fields with numbers: {there}")
  collection = {key: value for key, value in content.items() if key not in _LISTS}
  return _File(file, images, annotations, collection, all_marked_as_crowd(annotations))


def _picture_folders(split: str, file: pathlib.Path) -> list[pathlib.Path]:
  """Returns where the pictures of a file may lie, as COCO, CVAT, FiftyOne and Roboflow have it."""
  root = root_of(file)
  subset = file.stem.removeprefix("instances_")  # CVAT's name for it, as "default"
  names = [name for name in dict.fromkeys((split, subset)) if name]
  parts = [root / "images", root / "data", root]
  return [*(part / name for part in parts for name in names), *parts]


def _entries(split: str, source: _File) -> list[tuple[str, str, Any]]:
  """Returns the pictures of a file with their annotations, errors for what belongs to none."""
  file = source.file
  entries: list[tuple[str, str, Any]] = []
  by_image = collections.defaultdict(list)
  for index, annotation in enumerate(source.annotations):
    image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
    if image_id is None or not isinstance(image_id, Hashable):
      name = f"{file.name}: annotations[{index}]"
      entries.append((split, name, SceneError(f"{file}: annotations[{index}] lacks image_id")))
    else:
      by_image[key_of(image_id)].append(annotation)

  counted = collections.Counter[Hashable]()
  for index, image in enumerate(source.images):
    try:
      name, image_id = field(image, "file_name", "text"), image.get("id")
      if image_id is None or not isinstance(image_id, Hashable):
        raise ValueError("lacks id; number the pictures")
    except ValueError as error:
      name = f"{file.name}: images[{index}]"
      entries.append((split, name, SceneError(f"{file}: images[{index}] {error}")))
      continue
    counted[key_of(image_id)] += 1
    entries.append((split, name, (split, source, image, by_image[key_of(image_id)])))
  for key in by_image.keys() - counted.keys():
    image_id = by_image[key][0]["image_id"]
    message = f"{file}: annotations have image_id {image_id!r:.40}, which no picture has as id"
    entries.append((split, f"{file.name}: image_id {image_id!r:.40}", SceneError(message)))

  def checked(entry: Any) -> Any:
    if isinstance(entry, SceneError) or counted[key_of(entry[2]["id"])] == 1:
      return entry
    return SceneError(
      f"{file}: pictures share the id {entry[2]['id']!r:.40}, so that their annotations mix; "
      "number the pictures anew"
    )

  return [(split, name, checked(entry)) for split, name, entry in entries]


def _objects(
  annotations: Sequence[Mapping[str, Any]],
  source: _File,
  height: int,
  width: int,
  rank_field: str | None,
) -> list[SceneObject]:
  """Returns the objects of one picture with what order their annotations give."""
  masks = read_masks(annotations, "annotations", height, width)
  numbers, _ = object_numbers(annotations)
  names = category_names(annotations, field(source.collection, "categories", "list", ()))
  objects = []
  for index, (importance, rank) in enumerate(orders(annotations, rank_field)):
    annotation = annotations[index]
    is_crowd = rank is None and bool(annotation.get("iscrowd")) and not source.all_crowd
    objects.append(
      SceneObject(
        numbers[index], masks[index], importance, rank, names[index], annotation, is_crowd
      )
    )
  return objects


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
  categories = {category["id"]: category["name"] for category in collection["categories"]}
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
    told = optional_fields(scene)
    if scene.format != "coco":
      planned.lose_extra(scene, kept=set(told))
    for index, item in enumerate(scene.objects):
      number = next(object_ids)
      kept = _kept_of_object(scene, item)
      if kept.get("id", number) != number:
        planned.lose(scene, "two annotations of one id: numbered anew")
      record = {**kept, "id": number, "image_id": image_id}
      record |= {name: values[index] for name, values in told.items()}
      annotations.append(_annotation(record, item, categories, order_fields))
  return {**collection, "images": images, "annotations": annotations}


def _kept(scene: Scene, name: str) -> Mapping[str, Any]:
  """Returns a record of COCO that came with a scene; of other formats there is none."""
  return scene.extra.get(name, {}) if scene.format == "coco" else {}


def _kept_of_object(scene: Scene, item: SceneObject) -> Mapping[str, Any]:
  return item.extra if scene.format == "coco" else {}


def _collection(planned: Plan, scenes: Sequence[Scene]) -> dict[str, Any]:
  """Returns what belongs to no picture: info, licences and categories of all collections."""
  merged: dict[str, Any] = {}
  categories: dict[Hashable, dict[str, Any]] = {}
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


def _add_category(categories: dict[Hashable, dict[str, Any]], category: Mapping[str, Any]) -> None:
  """Adds a category unless it is there, under the next free id if another has its own."""
  if any({**one, "id": 0} == {**category, "id": 0} for one in categories.values()):
    return
  number = category["id"]
  if number in categories:
    number = max([other for other in categories if isinstance(other, int)], default=0) + 1
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
  categories: Mapping[Hashable, str],
  order_fields: Sequence[str],
) -> dict[str, Any]:
  """Returns the record of one object, brought up to date.

  Args:
    record: its id, its picture's, and whatever was kept.
    item: the object.
    categories: names of the categories by id.
    order_fields: which of rank and importance to write.
  """
  if key_of(record["id"]) != key_of(item.id) or "object_id" in record:
    record["object_id"] = item.id
  original = record.get("segmentation")
  record["segmentation"] = write_segmentation(item.run_lengths, original)
  if record["segmentation"] is not original:
    record |= {"bbox": planar_box(item.run_lengths), "area": item.run_lengths.area()}
    record.setdefault("iscrowd", int(item.is_crowd))
  names = {key_of(number): name for number, name in categories.items()}
  if names.get(key_of(record.get("category_id")), "") != item.category:
    record.pop("category_id", None)
    numbers = [number for number, name in categories.items() if name == item.category]
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
