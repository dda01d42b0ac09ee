"""Annotated panoramas: what `segment.study.frames` measures on.

Axes: N objects, H rows (row 0 north-most), W = 2 H columns.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from foir360_jax.files import read_panorama
from foir360_jax.files.json_file import read_json
from foir360_jax.files.panorama_file import stretch_with_masks
from foir360_jax.paths import expand
from foir360_jax.scenes import open_scenes

IDS = "_ids.png"


class Frame(NamedTuple):
  """An annotated panorama.

  Attributes:
    name: safe in names of files.
    group: of frames that are annotated alike, for a column of the table.
    video: frames of one video are alike, so that they are drawn together for intervals.
    panorama: [H, 2 H, 3] uint8.
    masks: [N, H, 2 H] bool.
  """

  name: str
  group: str
  video: str
  panorama: np.ndarray
  masks: np.ndarray


def read_frames(folder: str | pathlib.Path) -> Iterator[Frame]:
  """Reads the annotated panoramas of a folder, one at a time.

  Args:
    folder: of `NAME.png` with `NAME_ids.png` (an id map, 0 = none) and a `manifest.json` beside the
      folder; or of any format that `scenes.open_scenes` reads, crowds left out.

  Raises:
    ValueError: a file is missing or cannot be used.
  """
  folder = expand(folder)
  if folder.is_dir() and any(folder.glob(f"*{IDS}")):
    yield from _read_id_maps(folder)
    return
  for scene in (scene.without_crowds() for scene in open_scenes(folder)):
    panorama = read_panorama(scene.require_image_file())
    yield Frame(scene.id, "all", scene.id, *stretch_with_masks(panorama, scene.masks()))


def _read_id_maps(folder: pathlib.Path) -> Iterator[Frame]:
  manifest = read_json(folder.parent / "manifest.json", ValueError)
  for record in manifest["erp_annotated"]:
    name = record["id"]
    panorama = read_panorama(folder / f"{name}.png")
    id_map = cv2.imread(str(folder / f"{name}{IDS}"), cv2.IMREAD_UNCHANGED)
    if id_map is None or id_map.shape != panorama.shape[:2]:
      raise ValueError(f"{folder / name}{IDS}: no id map of the size of {name}.png; copy it there")
    ids = np.unique(id_map[id_map > 0])
    if len(ids) != record["n_objects"]:
      raise ValueError(
        f"{folder / name}{IDS}: {len(ids)} objects, not {record['n_objects']} as manifest.json says"
      )
    masks = id_map == ids[:, None, None]
    yield Frame(name, _group(record), _video(name), *stretch_with_masks(panorama, masks))


def _group(record: Mapping[str, Any]) -> str:
  """How a frame is annotated: by instances, or by components of one mask; grey ones apart."""
  annotation = record["annotation"]
  if "grey only" in annotation:
    return "grey"
  return "instances" if "instance masks" in annotation else "components"


def _video(name: str) -> str:
  """Of names as pavs_seq_VIDEO_NUMBER their video; else the name."""
  return name.rpartition("_")[0] if name.startswith("pavs_seq_") else name
