"""SCENES, this project's own layout: pictures, id maps, and rank files as labels.

A folder with `images/ID.jpg|png`, `instances/ID.png` (0 = none, n = object n), optionally
`ranks/ID.json` and lists of ids `train*.txt`, `val*.txt`, `test*.txt`. Without `instances/` the
masks of the rank files count: that is what prediction writes. What an id map cannot hold (masks
that overlap, categories and confidences of objects without ranks) is in `objects/ID.json`, which
counts where it is there. Axes: id maps [H, W].
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from pycocotools import mask as coco_mask

from foir360_jax.files.id_map_file import encode_id_map, note_on_edges, read_id_map, topmost
from foir360_jax.files.listing import child, list_files
from foir360_jax.files.panorama_file import is_panorama
from foir360_jax.files.picture_folder import picture_id
from foir360_jax.files.placement import Pose
from foir360_jax.scenes.folder import (
  SceneFolder,
  build_scene,
  files_by_split,
  pictures_by_id,
  split_of,
)
from foir360_jax.scenes.picture_finder import without_suffix
from foir360_jax.scenes.rank_file import (
  RANK_FILE_SCHEMA,
  encode_rank_records,
  read_object_records,
  read_rank_labels,
  read_rank_records,
)
from foir360_jax.scenes.ranked_objects import RankedObjects
from foir360_jax.scenes.run_lengths import RunLengths, split_id_map
from foir360_jax.scenes.scene import Scene, SceneError, SceneObject, importance_of, naming
from foir360_jax.scenes.writing import Plan, optional_fields

LAYOUT = (
  "images/ID.jpg|png with instances/ID.png (id maps) or objects/ID.json, and ranks/ID.json, or one"
  " of these"
)
MAX_ID = 65535
_RANK_FIELDS = set(RANK_FILE_SCHEMA["$defs"]["object"]["required"])


def recognises(folder: pathlib.Path) -> bool:
  """Whether a folder holds id maps, object files or rank files."""
  files = [
    path for name in ("objects", "ranks") for path in list_files(child(folder, name), ".json")
  ]
  return child(folder, "instances").is_dir() or bool(files)


def open_folder(folder: pathlib.Path, *, check_pictures: bool) -> SceneFolder:
  """Opens a SCENES folder; see `open_scenes`."""
  images = _Files.of(child(folder, "images"))
  instances = _Files.of(child(folder, "instances"))
  described, ranks = (
    {picture_id(path.name): path for path in list_files(child(folder, name), ".json")}
    for name in ("objects", "ranks")
  )
  splits, listed_twice = _read_lists(folder)
  ids = {*images.paths, *instances.paths, *described, *ranks}.union(*splits.values())

  def read(scene_id: str, record: None) -> Scene:
    image_file = images.path_of(scene_id)
    rank_file = ranks.get(scene_id)
    if scene_id in described:
      found = _read_objects(described[scene_id])
      if scene_id in instances.paths:
        found = _with_id_map(found, instances.path_of(scene_id))
    elif (map_file := instances.path_of(scene_id)) is not None:
      found = _read_map(map_file)
    elif rank_file is not None:
      found, rank_file = _read_ranked(rank_file, scene_id), None
    else:
      raise SceneError(f"{folder}: {scene_id} has neither instances nor ranks; add one of the two")
    if rank_file is not None:
      found = _with_labels(found, rank_file, scene_id)
    scene = build_scene(
      scene_id,
      image_file,
      found.size,
      lambda height, width: found.objects,
      format="scenes",
      check_pictures=check_pictures,
      image_missing=f"has no picture; put it into {images.folder}",
    )
    return dataclasses.replace(scene, notes=(*scene.notes, *found.notes))

  records = {scene_id: listed_twice.get(scene_id) for scene_id in ids}
  return SceneFolder("scenes", folder, splits, records, read)


def with_ranks_of(scene: Scene, rank_file: pathlib.Path) -> Scene:
  """Replaces what a scene says of ranks and categories by what a rank file says of its objects.

  Args:
    scene: a scene of any format.
    rank_file: ranks all its objects, named by their ids.

  Returns:
    The scene, as if it had been read from SCENES: `extra` is the rank file's.

  Raises:
    SceneError: the file is missing or broken, or is not of these objects and their very masks:
      ids are 1, 2, 3 in nearly every scene, so that they say little.
  """
  with naming(rank_file):
    content = read_rank_records(rank_file)
    masks = {item.id: item.run_lengths for item in scene.objects}
    where = scene.image_file or scene.id
    _check_labels(content, masks, (scene.height, scene.width), where)
    other = [x["id"] for x in content["objects"] if x["segmentation"] != masks[x["id"]]]
    if other:
      raise ValueError(
        f"is of other masks of objects {other} than {where} has; rank it anew, without this file"
      )
    notes = (*scene.notes, *_disagreements(content, masks, scene.id))
    objects = tuple(_scene_object(entry, masks[entry["id"]]) for entry in content["objects"])
    return dataclasses.replace(scene, objects=objects, notes=notes, format="scenes")


def plan(scenes: Sequence[Scene], splits: Mapping[str, Sequence[str]] | None) -> Plan:
  """Returns the files of a SCENES folder; see `write_scenes`."""
  planned = Plan("scenes")
  for scene in scenes:
    image = planned.add_picture(scene, "images")
    numbers = [item.id for item in scene.objects]
    if numbers and not (min(numbers) >= 1 and max(numbers) <= MAX_ID):
      planned.lose(scene, f"object ids outside 1 ... {MAX_ID}: numbered anew from 1")
      numbers = list(range(1, len(numbers) + 1))
    masks = scene.masks()
    top = topmost(masks)
    planned.check_painting(scene, masks, top)
    id_map = np.append(numbers, 0).astype(np.int64)[top]
    planned.add(f"instances/{scene.id}.png", encode_id_map(id_map))
    ranked = any(item.rank for item in scene.objects)
    planned.lose_extra(scene, kept=set(optional_fields(scene)) if ranked else set())
    if ranked:
      planned.add(f"ranks/{scene.id}.json", _rank_file(scene, masks, numbers, image))
    else:
      planned.lose_categories(scene)
  for split, ids in (splits or {}).items():
    planned.add(f"{split}.txt", "".join(f"{scene_id}\n" for scene_id in ids).encode())
  return planned


@dataclasses.dataclass(frozen=True)
class _Files:
  """The pictures of one folder, which may be absent as a whole but not in part."""

  folder: pathlib.Path
  paths: dict[str, pathlib.Path | SceneError]

  @classmethod
  def of(cls, folder: pathlib.Path) -> Self:
    return cls(folder, pictures_by_id(folder))

  def path_of(self, scene_id: str) -> pathlib.Path | None:
    if not self.folder.is_dir():
      return None
    path = self.paths.get(scene_id)
    if path is None:
      raise SceneError(f"{self.folder / scene_id}.*: missing; add it, or remove {scene_id}")
    if isinstance(path, SceneError):
      raise path
    return path


class _Found(NamedTuple):
  """The objects of one scene as its files have them: the masks are those of `file`."""

  file: pathlib.Path
  size: tuple[int, int]
  objects: list[SceneObject]
  notes: tuple[str, ...] = ()


def _read_map(file: pathlib.Path) -> _Found:
  id_map = read_id_map(file)
  objects = [SceneObject(number, mask) for number, mask in split_id_map(id_map).items()]
  with naming(file):
    return _Found(
      file, (len(id_map), id_map.shape[1]), objects, tuple(filter(None, [note_on_edges(id_map)]))
    )


def _read_objects(file: pathlib.Path) -> _Found:
  content = read_object_records(file)
  objects = [_scene_object(entry, entry["segmentation"]) for entry in content["objects"]]
  return _Found(file, (content["height"], content["width"]), objects)


def _read_ranked(file: pathlib.Path, scene_id: str) -> _Found:
  content = read_rank_records(file)
  objects = [_scene_object(entry, entry["segmentation"]) for entry in content["objects"]]
  masks = {item.id: item.run_lengths for item in objects}
  notes = _disagreements(content, masks, scene_id)
  return _Found(file, (content["height"], content["width"]), objects, tuple(notes))


def _with_id_map(found: _Found, file: pathlib.Path | None) -> _Found:
  """Raises SceneError where an id map is not that of the objects, the smaller ones on top."""
  assert file is not None
  id_map = read_id_map(file)
  painted = np.zeros_like(id_map)
  fits = id_map.shape == found.size
  for item in sorted(found.objects, key=lambda item: -item.run_lengths.area()):
    fits = fits and item.id <= np.iinfo(id_map.dtype).max
    if not fits:
      break
    painted[item.mask] = item.id
  if not fits or not np.array_equal(painted, id_map):
    raise SceneError(f"{found.file}: has other objects than {file}; remove what is not meant")
  return found


def _with_labels(found: _Found, rank_file: pathlib.Path, scene_id: str) -> _Found:
  """Gives objects what a rank file says of them; what it does not say stays."""
  content = read_rank_labels(rank_file, *found.size)
  masks = {item.id: item.run_lengths for item in found.objects}
  before = {item.id: item for item in found.objects}
  with naming(rank_file):
    _check_labels(content, masks, found.size, found.file)
    objects = []
    for entry in content["objects"]:
      ranked, old = _scene_object(entry, masks[entry["id"]]), before[entry["id"]]
      category, extra = ranked.category or old.category, {**old.extra, **ranked.extra}
      objects.append(dataclasses.replace(ranked, category=category, extra=extra))
    notes = (*found.notes, *_disagreements(content, masks, scene_id))
  return found._replace(objects=objects, notes=notes)


def _read_lists(
  folder: pathlib.Path,
) -> tuple[dict[str, tuple[str, ...]], dict[str, SceneError]]:
  """Returns the ids of each split, and an error for each id that is listed more than once."""
  splits, twice = {}, {}
  found: dict[str, str] = {}
  lists = [path for path in list_files(folder, ".txt") if split_of(path.stem)]
  for split, path in files_by_split(lists).items():
    ids = read_id_list(path)
    for scene_id in ids:
      if scene_id in found:
        twice[scene_id] = SceneError(
          f"{path}: {scene_id} is listed in {found[scene_id]} already; keep it once"
        )
      found[scene_id] = path.name
    splits[split] = tuple(sorted(set(ids)))
  return splits, twice


def read_id_list(path: pathlib.Path) -> list[str]:
  """Returns the ids of a list, one a line; suffixes of pictures and empty lines are passed over.

  Raises:
    SceneError: the file cannot be read.
  """
  try:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise SceneError(f"{path}: cannot be read ({error}); write one id a line in UTF-8") from error
  return [without_suffix(line.strip()) for line in lines if line.strip()]


def _check_labels(
  content: Mapping[str, Any],
  masks: Mapping[int, RunLengths],
  size: tuple[int, ...],
  map_file: pathlib.Path | str | None,
) -> None:
  """Raises ValueError where a rank file is not of the objects of its id map."""
  if (content["height"], content["width"]) != tuple(size):
    raise ValueError(
      f"is for {content['width']} x {content['height']} pixels, {map_file} has "
      f"{size[1]} x {size[0]}; rank the picture of the id map"
    )
  ranked = {entry["id"] for entry in content["objects"]}
  if ranked - set(masks):
    raise ValueError(
      f"ranks objects {sorted(ranked - set(masks))}, which {map_file} does not have; remove them"
    )
  if set(masks) - ranked:
    raise ValueError(
      f"has no rank for objects {sorted(set(masks) - ranked)} of {map_file}; rank all of them"
    )


def _disagreements(
  content: Mapping[str, Any], masks: Mapping[int, RunLengths], scene_id: str
) -> list[str]:
  """Returns notes where a rank file seems to be of another picture."""
  notes = []
  image = content["image"]
  # Ids may begin with split and folders, and end in a digest: see `folder.index_records`.
  name = re.escape(without_suffix(pathlib.PurePath(image).name))
  if image and not re.fullmatch(rf"(.*_)?{name}(_[0-9a-f]{{8}})?", scene_id):
    notes.append(f"the rank file names the picture {image}")
  for entry in content["objects"]:
    mask = masks[entry["id"]]
    pair = [mask.to_coco() for mask in (entry.get("segmentation", mask), mask)]
    if pair[0] != pair[1] and coco_mask.iou(pair[:1], pair[1:], [0])[0, 0] < 0.5:
      notes.append(
        f"object {entry['id']} has another mask in the rank file than in the id map, which counts"
      )
  return notes


def _scene_object(entry: Mapping[str, Any], mask: RunLengths) -> SceneObject:
  """Returns an object with what a rank file or an object file says of it."""
  extra = {name: value for name, value in entry.items() if name not in _RANK_FIELDS}
  importance, rank = entry.get("importance"), entry.get("rank")
  return SceneObject(
    entry["id"],
    mask,
    None if importance is None else float(importance),
    None if rank is None else int(rank),
    entry["category"],
    extra,
  )


def _rank_file(scene: Scene, masks: np.ndarray, numbers: Sequence[int], image: str) -> bytes:
  """Returns the rank file of a scene, its ranks and importance as they are."""
  ranks, importance = scene.ranks(), scene.importance()
  height, width = scene.height, scene.width
  if not is_panorama(height, width):
    raise SceneError(
      f"{scene.id}: rank files hold 2:1 panoramas only, not {width} x {height}; write it as coco"
    )
  items = scene.objects
  order = sorted(range(len(items)), key=lambda i: (ranks[i], -importance[i]))
  optional: dict[str, Any] = {
    name: [x[i] for i in order] for name, x in optional_fields(scene).items()
  }
  if "pose_deg" in scene.extra:
    optional["pose"] = Pose(*scene.extra["pose_deg"])
  ranked = RankedObjects.from_masks(
    np.broadcast_to(np.uint8(0), (height, width, 3)),
    masks[order],
    [importance_of(ranks[i], len(items)) for i in order],
    [items[i].category for i in order],
    ids=[numbers[i] for i in order],
    image=image,
    **optional,
  )
  ranked = dataclasses.replace(ranked, importance=np.array(importance, np.float32)[order])
  return encode_rank_records(ranked.to_dict())
