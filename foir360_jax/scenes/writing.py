"""Planning of files before they are written, and the list of what a format cannot hold.

A format's module fills a `Plan` and raises before anything is written; `write_plan` puts it on
disk. Axes: masks [N, H, W].
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Sequence, Set
from typing import Any

import numpy as np

from foir360_jax.files.atomic_file import write_atomically
from foir360_jax.metrics import ranks_from_relevance
from foir360_jax.scenes.rank_file import OPTIONAL_FIELDS
from foir360_jax.scenes.scene import Scene, SceneError, importance_of

# Readers keep records whole in `extra`; these fields the attributes of scenes and objects hold.
_SAID_BY_ATTRIBUTES = {
  *("area", "bbox", "category_id", "file_name", "gt_rank", "height", "id", "image_id"),
  *("image_name", "importance", "level", "object_id", "rank", "rank_order", "segmentation"),
  *("bearing_deg", "pose_deg", "width"),  # the pose is in the picture, which is copied
}


@dataclasses.dataclass
class Plan:
  """The files to write and what they cannot hold.

  Attributes:
    format: name of the format.
    files: content of each file by its path in the folder; a path stands for a picture to copy.
    losses: what is lost, and the ids of the scenes that lose it.
  """

  format: str
  files: dict[str, bytes | pathlib.Path] = dataclasses.field(default_factory=dict)
  losses: dict[str, list[str]] = dataclasses.field(default_factory=dict)

  def add(self, name: str, content: bytes | pathlib.Path) -> None:
    """Plans one file.

    Raises:
      SceneError: another scene has planned it.
    """
    if name in self.files:
      raise SceneError(f"{name}: two scenes would be written to it; rename one of their pictures")
    self.files[name] = content

  def lose(self, scene: Scene, what: str) -> None:
    """Notes that a scene loses something."""
    ids = self.losses.setdefault(what, [])
    if scene.id not in ids[-1:]:
      ids.append(scene.id)

  def lose_unless(self, scene: Scene, kept: bool, what: str) -> None:
    """Notes a loss where something is not kept."""
    if not kept:
      self.lose(scene, what)

  def lose_extra(self, scene: Scene, kept: Set[str] = frozenset()) -> None:
    """Notes the further fields of scene and objects, but for those that are kept."""
    fields = {*scene.extra}.union(*(item.extra for item in scene.objects))
    fields -= _SAID_BY_ATTRIBUTES | kept
    if fields:
      self.lose(scene, f"further fields: {', '.join(sorted(fields))}")

  def lose_categories(self, scene: Scene) -> None:
    """Notes that a format has no names of categories."""
    self.lose_unless(scene, not any(item.category for item in scene.objects), "categories")

  def lose_all_but_order(self, scene: Scene) -> None:
    """Checks a scene for a format of masks and an order alone, and notes what that leaves out.

    Raises:
      SceneError: objects without a rank.
    """
    count = len(scene.objects)
    orders = zip(scene.ranks(), scene.importance(), strict=True)
    orderly = all(abs(value - importance_of(rank, count)) < 1e-6 for rank, value in orders)
    self.lose_unless(scene, orderly, "importance: only the order is kept")
    numbered = [item.id for item in scene.objects] == list(range(1, count + 1))
    self.lose_unless(scene, numbered, "object ids: numbered anew from 1")
    self.lose_categories(scene)
    self.lose_extra(scene)

  def check_painting(self, scene: Scene, masks: np.ndarray, top: np.ndarray) -> None:
    """Notes overlaps that a map of one object a pixel loses.

    Args:
      scene: the scene.
      masks: [N, H, W] bool.
      top: [H, W] index of the object painted at each pixel, -1 for none.

    Raises:
      SceneError: an object would vanish under others.
    """
    visible = np.bincount(top.ravel() + 1, minlength=len(masks) + 1)[1:]
    hidden = [item.id for item, area in zip(scene.objects, visible, strict=True) if not area]
    if hidden:
      raise SceneError(
        f"{scene.id}: objects {hidden} lie wholly under others, where {self.format} has one object "
        "a pixel; write it as coco"
      )
    whole = int(visible.sum()) == sum(item.run_lengths.area() for item in scene.objects)
    self.lose_unless(scene, whole, "overlaps: the smaller object is on top")

  def add_picture(self, scene: Scene, folder: str, *, required: bool = False) -> str:
    """Plans the copy of a scene's picture and returns its file name, "" where there is none.

    Raises:
      SceneError: the picture is required or was there when the scene was read, but is not now.
    """
    if scene.image_file is None:
      if required:
        raise SceneError(f"{scene.id}: {self.format} needs the picture; set image_file")
      self.lose(scene, "no picture to copy")
      return ""
    if not scene.image_file.is_file():
      raise SceneError(f"{scene.image_file}: is not there any more; put the picture back")
    name = f"{scene.id}{scene.image_file.suffix}"
    self.add(f"{folder}/{name}", scene.image_file)
    return name

  def lines(self) -> list[str]:
    """Returns a line for each kind of loss."""
    lines = []
    for what, ids in self.losses.items():
      shown = ", ".join(ids[:3]) + (" ..." if len(ids) > 3 else "")
      lines.append(f"{self.format} cannot hold {what} ({len(ids)} of the scenes: {shown})")
    return lines


def kept_values(scene: Scene, name: str, computed: Sequence[float]) -> list[float]:
  """Returns the values that gave the scene its order when it was read, else computed ones.

  Args:
    scene: a ranked scene.
    name: the field of `extra` that holds the value of an object: higher = more important.
    computed: n values to use where the field is missing or gives another order.
  """
  values: list[Any] = [item.extra.get(name) for item in scene.objects]
  numbers = all(isinstance(value, int | float) for value in values)
  ranks = [item.rank for item in scene.objects]
  if numbers and ranks_from_relevance(values).tolist() == ranks:
    return values
  return list(computed)


def optional_fields(scene: Scene) -> dict[str, list[Any]]:
  """Returns what rank files call so, where all objects have it; elsewhere it may mean anything."""
  if scene.format != "scenes" or not scene.objects:
    return {}
  fields = {name: [item.extra.get(name) for item in scene.objects] for name in OPTIONAL_FIELDS}
  return {name: values for name, values in fields.items() if None not in values}


def write_plan(folder: pathlib.Path, plan: Plan, *, overwrite: bool) -> None:
  """Writes planned files: each whole or not at all, and all or none where the folder is new.

  Raises:
    SceneError: the folder is not empty and `overwrite` is not set.
    OSError: the folder cannot be written, or a picture not be read.
  """
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    if not overwrite or not folder.is_dir():
      raise SceneError(
        f"{folder}: exists and is not empty; give a new folder, or ask to overwrite the files in it"
      )
    _write(folder, plan)
    return
  staged = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
  try:
    staged.mkdir(parents=True)
    _write(staged, plan)
    os.replace(staged, folder)
  finally:
    shutil.rmtree(staged, ignore_errors=True)


def _write(folder: pathlib.Path, plan: Plan) -> None:
  for name, content in plan.files.items():
    data = content.read_bytes() if isinstance(content, pathlib.Path) else content
    write_atomically(folder / name, data)
