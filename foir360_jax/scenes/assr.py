"""ASSR, the layout of Attention Shift Ranks, at any picture size.

`{images,gt}/SPLIT/ID.*`, `rank_order/SPLIT/ID.json` (a number an object: 1.0, 0.9 ... 0.6 for the
five salient ones, 0.5 and less for the others), `obj_seg_data_SPLIT.json` (masks, in the order of
the ids in `SPLIT_images.txt`). All objects are taken, ordered by their number.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from foir360_jax.files.id_map_file import encode_id_map, topmost
from foir360_jax.files.json_file import field, inside, read_json
from foir360_jax.files.listing import child, list_files
from foir360_jax.files.placement import read_placement
from foir360_jax.scenes.folder import (
  SceneFolder,
  build_scene,
  index_records,
)
from foir360_jax.scenes.picture_finder import PictureFinder, without_suffix
from foir360_jax.scenes.scene import Scene, SceneError, SceneObject, naming, order_objects
from foir360_jax.scenes.scenes_layout import read_id_list
from foir360_jax.scenes.segmentation import planar_box, read_masks, write_segmentation
from foir360_jax.scenes.writing import Plan, kept_values

LAYOUT = "obj_seg_data_SPLIT.json, SPLIT_images.txt, images/SPLIT/, rank_order/SPLIT/ID.json"
_LIST_END, _MASKS_START = "_images", "obj_seg_data_"
MIN_SALIENT = 0.5  # numbers above it are salient to ASSR's own evaluation


def recognises(folder: pathlib.Path) -> bool:
  """Whether a folder has the masks or the ranks of ASSR."""
  return bool(_mask_files(folder)) or child(folder, "rank_order").is_dir()


def open_folder(folder: pathlib.Path, *, check_pictures: bool) -> SceneFolder:
  """Opens an ASSR folder; see `open_scenes`."""
  lists = {
    file.stem[: -len(_LIST_END)].lower(): file
    for file in list_files(folder, ".txt")
    if file.stem.lower().endswith(_LIST_END)
  }
  masks = _mask_files(folder)
  entries: list[tuple[str, str, Any]] = []
  for split in sorted({*lists, *masks}):
    if split not in lists or split not in masks:
      missing = f"{split}_images.txt" if split in masks else f"obj_seg_data_{split}.json"
      raise SceneError(f"{folder / missing}: missing; add it, or remove the split {split}")
    entries += _aligned(split, lists[split], masks[split])
  if not entries:
    raise SceneError(f"{folder}: lists no picture; ASSR is {LAYOUT}")
  records, splits = index_records(folder, entries)
  finders = {
    split: PictureFinder([folder / "images" / split, folder / "images"]) for split in lists
  }

  def read(scene_id: str, record: tuple[str, str, Any, str]) -> Scene:
    split, name, data, where = record
    # pictures come first: their name is checked before it leads to another file
    image_file = finders[split].require(name)
    values = _rank_order(child(child(child(folder, "rank_order"), split), f"{name}.json"))
    with naming(f"{where} {name}"):
      object_data = field(data, "object_data", "list")
      if len(values) != len(object_data):
        raise ValueError(
          f"has {len(object_data)} objects, rank_order/{split}/{name}.json {len(values)} numbers; "
          "give one each"
        )

      def make_objects(height: int, width: int) -> tuple[SceneObject, ...]:
        objects = [
          SceneObject(index + 1, mask, extra={**object_data[index], "rank_order": values[index]})
          for index, mask in enumerate(read_masks(object_data, "object_data", height, width))
        ]
        return order_objects(objects, values)

      return build_scene(
        scene_id, image_file, None, make_objects, format="assr", check_pictures=check_pictures
      )

  return SceneFolder("assr", folder, splits, records, read)


def _mask_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the file with the masks of each split."""
  files = [f for f in list_files(folder, ".json") if f.stem.lower().startswith(_MASKS_START)]
  return {file.stem[len(_MASKS_START) :].lower(): file for file in files}


def plan(scenes: Sequence[Scene], split_by_id: Mapping[str, str]) -> Plan:
  """Returns the files of an ASSR folder; see `write_scenes`."""
  planned = Plan("assr")
  lists: dict[str, list[dict[str, Any]]] = {split: [] for split in split_by_id.values()}
  for scene in scenes:
    planned.lose_all_but_order(scene)
    split = split_by_id[scene.id]
    planned.add_picture(scene, f"images/{split}", required=True)
    if scene.image_file and read_placement(scene.image_file, whole=False).is_part:
      raise SceneError(f"{scene.id}: a part of the sphere, which assr cannot say; write it as coco")
    computed = [round(1.1 - 0.1 * rank, 1) for rank in scene.ranks()]
    values = kept_values(scene, "rank_order", computed)
    object_data = []
    for item in scene.objects:
      x, y, width, height = planar_box(item.run_lengths)
      segmentation = write_segmentation(item.run_lengths, item.extra.get("segmentation"))
      object_data.append({"bbox": [x, y, x + width, y + height], "segmentation": segmentation})
    lists[split].append({"img": scene.id, "object_data": object_data})
    ranks = json.dumps({"rank_order": values})
    planned.add(f"rank_order/{split}/{scene.id}.json", ranks.encode())
    levels = [0] + [int(255 * value) if value > MIN_SALIENT else 0 for value in values]
    grey = np.array(levels)[topmost(scene.masks()) + 1]
    planned.add(f"gt/{split}/{scene.id}.png", encode_id_map(grey))
  for split, records in lists.items():
    names = "".join(f"{record['img']}\n" for record in records)
    planned.add(f"{split}_images.txt", names.encode())
    planned.add(f"obj_seg_data_{split}.json", json.dumps(records).encode())
  return planned


def _aligned(
  split: str, list_file: pathlib.Path, mask_file: pathlib.Path
) -> Iterator[tuple[str, str, tuple[str, str, Any, str] | SceneError]]:
  """Yields the entries of a split: each listed name with its masks."""
  names = read_id_list(list_file)
  data = read_json(mask_file, SceneError)
  if not isinstance(data, list) or len(data) != len(names):
    length = f"{len(data)} pictures" if isinstance(data, list) else "no list"
    raise SceneError(
      f"{mask_file}: has {length}, {list_file.name} {len(names)} names; both are in one order"
    )
  for index, (name, record) in enumerate(zip(names, data, strict=True)):
    where = f"{mask_file}: [{index}]"
    image = record.get("img") if isinstance(record, dict) else None
    if isinstance(image, str) and pathlib.PurePath(without_suffix(image)).name != name:
      yield (
        split,
        name,
        SceneError(
          f"{where} is of {image}, {list_file.name} has {name} there; bring both in one order"
        ),
      )
    else:
      yield split, name, (split, name, record, where)


def _rank_order(path: pathlib.Path) -> list[float]:
  """Returns the numbers of one picture."""
  with naming(path):
    values = field(read_json(path, SceneError), "rank_order", "list")
    for index, value in enumerate(values):
      with inside(f"rank_order[{index}]"):
        if field({"value": value}, "value", "number") > 1:
          raise ValueError(f"is {value}, above 1.0, the most important object's number")
    return values
