"""Painted rank maps: one grey picture a scene, brighter = more important, 0 = no object.

`images/ID.jpg|png` with `rank_maps/ID.png` (or `gt/`), or both with a folder a split between; or
maps alone, `ID.png` in the folder itself. SeqRank's name of a map, `ID_count_N.png`, stands for ID.
Each connected region of one level is an object. Axes: maps [H, W]; of panoramas regions join across
the seam and at the poles.
"""

import dataclasses
import pathlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from foir360_jax.files.id_map_file import (
  encode_id_map,
  note_on_edges,
  read_grey_levels,
  topmost,
)
from foir360_jax.files.listing import child, list_folders
from foir360_jax.files.panorama_file import is_panorama
from foir360_jax.files.picture_file import PictureError, open_picture
from foir360_jax.scenes import assr
from foir360_jax.scenes.folder import (
  SceneFolder,
  build_scene,
  index_records,
  pictures_by_id,
  split_of,
)
from foir360_jax.scenes.picture_finder import PictureFinder
from foir360_jax.scenes.run_lengths import split_id_map
from foir360_jax.scenes.scene import Scene, SceneError, SceneObject, naming, order_objects
from foir360_jax.scenes.writing import Plan
from foir360_jax.sphere import connected_components

LAYOUT = (
  "rank_maps/ID.png or gt/ID.png (grey = rank) with images/, or a folder a split in both; or ID.png"
)
MAP_FOLDERS = ("rank_maps", "gt")
MAX_REGIONS = 1000
_COUNT = re.compile(r"_count_\d+$")
_LOOKED_AT = 20  # pictures by which a folder is recognised
SPECK = 1 / 50_000  # of the picture: 10 pixels of 1024 x 512


def recognises(folder: pathlib.Path) -> bool:
  """Whether a folder has maps and not the annotations of which they are a picture."""
  maps = any(child(folder, name).is_dir() for name in MAP_FOLDERS)
  return maps and not assr.recognises(folder)


def is_flat(folder: pathlib.Path) -> bool:
  """Whether the pictures of a folder itself are maps: all are grey, and one at least has regions.

  A folder of grey panoramas is none: each has thousands of regions, or was saved with losses. At
  most `_LOOKED_AT` pictures are looked at.
  """
  pictures = [path for path in pictures_by_id(folder).values() if isinstance(path, pathlib.Path)]
  pictures = pictures[:_LOOKED_AT]
  try:
    modes = {open_picture(path, whole=False).mode for path in pictures}
  except PictureError:
    return False
  grey = all(mode in ("1", "L", "P") or mode.startswith("I") for mode in modes)
  return grey and any(map(_has_regions, pictures))


def _has_regions(path: pathlib.Path) -> bool:
  try:
    levels = read_grey_levels(path)
    note_on_edges(levels)
    objects_of_map(levels)
  except ValueError:
    return False
  return True


def open_folder(folder: pathlib.Path, *, check_pictures: bool) -> SceneFolder:
  """Opens a folder of rank maps; see `open_scenes`."""
  root = next(filter(pathlib.Path.is_dir, (child(folder, name) for name in MAP_FOLDERS)), folder)
  image_root = child(folder, "images")
  splits = [""]
  if root != folder:
    splits += [place.name for place in list_folders(root)]
  entries = []
  for split in splits:
    images = pictures_by_id(child(image_root, split))
    maps = _without_counts(pictures_by_id(root / split), images)
    for name in sorted({*maps, *images}):
      entries.append((split_of(split) or split, name, (split, name, maps.get(name))))
  records, by_split = index_records(folder, entries)
  with_pictures = image_root.is_dir()
  finders = {split: PictureFinder([image_root / split]) for split in splits}

  def read(scene_id: str, record: tuple) -> Scene:
    split, name, map_file = record
    if map_file is None:
      raise SceneError(f"{root / split / name}.*: missing; add the rank map, or remove the picture")
    if isinstance(map_file, SceneError):
      raise map_file
    image_file = None
    if with_pictures:
      image_file = finders[split].find(name)
      if image_file is None:
        raise SceneError(f"{image_root / split / name}.*: missing; add the picture")
    with naming(map_file):
      levels = read_grey_levels(map_file)
      smoothed = note_on_edges(levels)
      objects, notes = objects_of_map(levels)
      scene = build_scene(
        scene_id,
        image_file,
        levels.shape,
        lambda height, width: objects,
        format="rank_map",
        check_pictures=check_pictures,
        image_missing=f"{map_file} has no picture; put maps into {folder / MAP_FOLDERS[0]} and"
        f" pictures into {image_root}",
      )
    return dataclasses.replace(scene, notes=tuple(filter(None, [*scene.notes, smoothed, *notes])))

  return SceneFolder("rank_map", folder, by_split, records, read)


def _without_counts(
  maps: Mapping[str, pathlib.Path | SceneError], images: Mapping[str, Any]
) -> dict[str, pathlib.Path | SceneError]:
  """Returns maps by the ids of their pictures, where SeqRank has named all of them with a count."""
  names = {name: _COUNT.sub("", name) for name in maps}
  if any(short == name or name in images for name, short in names.items()):
    return dict(maps)
  counts = Counter(names.values())
  plain: dict[str, pathlib.Path | SceneError] = {}
  for name, short in names.items():
    plain[short] = maps[name]
    if counts[short] > 1:
      plain[short] = SceneError(
        f"{maps[name]}: another map is of {short}, too; keep that with the right count"
      )
  return plain


def objects_of_map(levels: np.ndarray) -> tuple[tuple[SceneObject, ...], tuple[str, ...]]:
  """Finds the objects of a rank map.

  Args:
    levels: [H, W] whole numbers, 0 = no object, higher = more important.

  Returns:
    The objects, numbered from 1 by falling level, each connected region one; and notes on what a
    person should look at: specks, and levels of several regions.

  Raises:
    ValueError: there are so many regions that the map must be of another kind.

  >>> levels = np.array([[0, 9, 0, 0, 0, 0, 0, 0], *[[5, 0, 0, 0, 0, 0, 0, 5]] * 3], np.uint8)
  >>> [(item.rank, item.run_lengths.area()) for item in objects_of_map(levels)[0]]
  [(1, 1), (2, 6)]
  """
  height, width = levels.shape
  found = np.flatnonzero(np.bincount(levels.ravel()))[::-1]
  id_map = np.zeros(levels.shape, np.int32)
  values: list[int] = []
  for level in found[found > 0].tolist():
    mask = levels == level
    labels = _regions(mask)[mask]
    id_map[mask] = labels + len(values)
    values += [level] * int(labels.max())
    if len(values) > MAX_REGIONS:
      raise ValueError(
        f"has more than {MAX_REGIONS} regions; paint ranks without smoothing and save them as PNG"
      )
  objects = [
    SceneObject(number, mask, extra={"level": values[number - 1]})
    for number, mask in split_id_map(id_map).items()
  ]
  notes = [
    f"grey level {level} has {count} regions: {count} objects that tie, or one in pieces"
    for level, count in Counter(values).items()
    if count > 1
  ]
  areas = {item.id: item.run_lengths.area() for item in objects}
  specks = [number for number, area in areas.items() if area < SPECK * height * width]
  if specks:
    notes.append(f"objects {specks} are specks of {[areas[number] for number in specks]} pixels")
  return order_objects(objects, values), tuple(notes)


def plan(scenes: Sequence[Scene], split_by_id: Mapping[str, str]) -> Plan:
  """Returns the files of a folder of rank maps; see `write_scenes`."""
  planned = Plan("rank_map")
  for scene in scenes:
    planned.lose_all_but_order(scene)
    place = "/".join(part for part in (split_by_id[scene.id], scene.id) if part)
    planned.add_picture(scene, f"images/{split_by_id[scene.id]}".rstrip("/"))
    masks = scene.masks()
    top = topmost(masks)
    planned.check_painting(scene, masks, top)
    ranks = scene.ranks()
    last = max(ranks, default=0)
    brightest = 255 if last <= 255 else 65535
    levels = brightest * (last + 1 - np.array([last + 1, *ranks])) // max(last, 1)
    painted = levels[top + 1]
    areas = sorted(int((top == index).sum()) for index in range(len(masks)))
    regions = [item.run_lengths.area() for item in objects_of_map(painted)[0]]
    planned.lose_unless(
      scene, sorted(regions) == areas, "objects in pieces, or ties that touch: regions are objects"
    )
    planned.add(f"rank_maps/{place}.png", encode_id_map(painted))
  return planned


def _regions(mask: np.ndarray) -> np.ndarray:
  """Returns labels [H, W] of the regions of a mask, from 1; 0 outside."""
  height, width = mask.shape
  count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
  # One region on the plane is one on the sphere: most levels are done here.
  return connected_components(mask) if is_panorama(height, width) and count > 2 else labels
