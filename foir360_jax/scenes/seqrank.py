"""SeqRank's JSON of ASSR and IRSR: `category_id` 0 = not salient, larger = more salient.

One file a split, `{"data": [{"image_name", "height", "width", "annotations"}]}`, with the pictures
in `images/SPLIT/`.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foir360_jax.files.json_file import field
from foir360_jax.scenes.annotation_list import names_in, open_annotation_list, order_field
from foir360_jax.scenes.folder import SceneFolder, files_by_split
from foir360_jax.scenes.scene import Scene
from foir360_jax.scenes.segmentation import write_segmentation
from foir360_jax.scenes.writing import Plan, kept_values

LAYOUT = 'SPLIT.json with {"data": [{"image_name", ..., "annotations"}]} and images/SPLIT/'


def holds(content: Any) -> bool:
  """Whether JSON content has a list `data` of pictures."""
  data = content.get("data") if isinstance(content, dict) else None
  return isinstance(data, list) and any(
    isinstance(entry, dict) and "image_name" in entry for entry in data
  )


def picture_names(content: Any) -> Iterator[str]:
  """Yields the names of the pictures in such content."""
  return names_in(content["data"], "image_name")


def open_files(
  path: pathlib.Path, files: Sequence[pathlib.Path], *, check_pictures: bool
) -> SceneFolder:
  """Opens SeqRank's JSON files; see `open_scenes`."""
  by_split = files_by_split(files, path)

  def picture_folders(split: str) -> list[pathlib.Path]:
    beside = by_split[split].parent
    roots = [beside, beside.parent] if beside.name.lower() == "annotations" else [beside]
    return [folder for root in roots for folder in (root / "images" / split, root / "images", root)]

  return open_annotation_list(
    "seqrank",
    path,
    by_split,
    records_of=lambda content: field(content, "data", "list"),
    name_field="image_name",
    values_of=lambda record: order_field(record["annotations"], "category_id"),
    picture_folders=picture_folders,
    check_pictures=check_pictures,
  )


def plan(scenes: Sequence[Scene], split_by_id: Mapping[str, str]) -> Plan:
  """Returns the files of SeqRank's layout; see `write_scenes`."""
  planned = Plan("seqrank")
  lists: dict[str, list[dict[str, Any]]] = {split: [] for split in split_by_id.values()}
  for scene in scenes:
    planned.lose_all_but_order(scene)
    split = split_by_id[scene.id]
    name = planned.add_picture(scene, f"images/{split}")
    if name and not name.endswith(".jpg"):
      planned.lose(scene, "pictures other than .jpg, for SeqRank's own loader: kept as they are")
    ranks = scene.ranks()
    last = max(ranks, default=0)
    values = kept_values(scene, "category_id", [last - rank + 1 for rank in ranks])
    annotations = []
    for item, value in zip(scene.objects, values, strict=True):
      segmentation = write_segmentation(item.run_lengths, item.extra.get("segmentation"))
      if isinstance(segmentation, dict):
        planned.lose(scene, "masks that are no polygons: written as run lengths")
      annotations.append({"category_id": value, "segmentation": segmentation})
    lists[split].append(
      {
        "image_name": scene.id,
        "height": scene.height,
        "width": scene.width,
        "annotations": annotations,
      }
    )
  for split, records in lists.items():
    planned.add(f"{split}.json", json.dumps({"data": records}).encode())
  return planned
