"""IRSR and SIFR: one JSON list a split, each object with a 0-based rank that rises with importance.

SIFR: `SPLIT/SPLIT_annotations.json`, `SPLIT/rgb/`, `SPLIT/gt/`, the rank in `gt_rank` of the
annotation. IRSR, its pickle files converted: `Annotations/SPLIT.json`, `Images/SPLIT/rgb/`, the
ranks in a list `rank` of the record.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from foir360_jax.files.id_map_file import encode_id_map, topmost
from foir360_jax.files.json_file import field
from foir360_jax.scenes.annotation_list import names_in, open_annotation_list, order_field
from foir360_jax.scenes.folder import SceneFolder, files_by_split
from foir360_jax.scenes.scene import Scene
from foir360_jax.scenes.segmentation import planar_box, write_segmentation
from foir360_jax.scenes.writing import Plan, kept_values

LAYOUT = "SPLIT/SPLIT_annotations.json (SIFR) or Annotations/SPLIT.json (IRSR): a list of pictures"


def holds(content: Any) -> bool:
  """Whether JSON content is a list of pictures with annotations."""
  return isinstance(content, list) and any(
    isinstance(entry, dict) and "file_name" in entry and "annotations" in entry for entry in content
  )


def picture_names(content: Any) -> Iterator[str]:
  """Yields the names of the pictures in such content."""
  return names_in(content, "file_name")


def open_files(
  path: pathlib.Path, files: Sequence[pathlib.Path], *, check_pictures: bool
) -> SceneFolder:
  """Opens the JSON files of IRSR or SIFR; see `open_scenes`."""
  by_split = files_by_split(files, path)

  def picture_folders(split: str) -> list[pathlib.Path]:
    beside = by_split[split].parent
    root = beside.parent
    return [beside / "rgb", root / "Images" / split / "rgb", beside / split / "rgb", beside]

  return open_annotation_list(
    "irsr",
    path,
    by_split,
    records_of=lambda content: content,
    name_field="file_name",
    values_of=_values,
    picture_folders=picture_folders,
    check_pictures=check_pictures,
  )


def plan(scenes: Sequence[Scene], split_by_id: Mapping[str, str]) -> Plan:
  """Returns the files of the SIFR layout; see `write_scenes`."""
  planned = Plan("irsr")
  lists: dict[str, list[dict[str, Any]]] = {split: [] for split in split_by_id.values()}
  for number, scene in enumerate(scenes, start=1):
    planned.lose_all_but_order(scene)
    split = split_by_id[scene.id]
    ranks = scene.ranks()
    last = max(ranks, default=0)
    gt_ranks = kept_values(scene, "gt_rank", [last - rank for rank in ranks])
    annotations = [
      {
        "bbox": planar_box(item.run_lengths),
        "segmentation": write_segmentation(item.run_lengths, item.extra.get("segmentation")),
        "gt_rank": gt_rank,
      }
      for item, gt_rank in zip(scene.objects, gt_ranks, strict=True)
    ]
    record = {
      "file_name": planned.add_picture(scene, f"{split}/rgb") or f"{scene.id}.jpg",
      "image_id": number,
      "height": scene.height,
      "width": scene.width,
      "annotations": annotations,
    }
    lists[split].append(record)
    levels = [0] + [255 * (last - rank + 1) // last for rank in ranks]
    grey = np.array(levels)[topmost(scene.masks()) + 1]
    planned.add(f"{split}/gt/{scene.id}.png", encode_id_map(grey))
  for split, records in lists.items():
    planned.add(f"{split}/{split}_annotations.json", json.dumps(records).encode())
  return planned


def _values(record: Mapping[str, Any]) -> list[int]:
  if "rank" in record:
    ranks = [{"rank": rank} for rank in field(record, "rank", "list")]
    return order_field(ranks, "rank", list_name="rank")
  return order_field(record["annotations"], "gt_rank")
