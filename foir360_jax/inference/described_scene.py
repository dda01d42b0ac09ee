"""One panorama on the host for weak labels: read and described, and its results written.

Below `weak_labels`; the threads of `folder_runner` do this while the device works. Axes as in
`weak_labels.rank`.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from foir360_jax import scenes
from foir360_jax.files import read_panorama
from foir360_jax.files.panorama_file import is_panorama
from foir360_jax.files.placement import Pose
from foir360_jax.scenes import RankedObjects, SceneError
from foir360_jax.scenes.scene import naming
from foir360_jax.weak_labels.program import DescribedScene, WeakRanks
from foir360_jax.weak_labels.rank import OBJECT_COUNTS, describe_scene, ranked_objects


@dataclasses.dataclass
class ReadyScene:
  """A scene that may be ranked; `described` is None where it has no objects, or was ranked."""

  scene: scenes.Scene
  panorama: np.ndarray
  described: DescribedScene | None

  @property
  def id(self) -> str:
    """The name of its results."""
    return self.scene.id

  @property
  def title(self) -> str:
    """By which a line names it."""
    return str(self.scene.image_file)


def read_scene(folder: scenes.SceneFolder, scene_id: str) -> ReadyScene:
  """Reads and describes a scene.

  Raises:
    ValueError: it cannot be ranked; one line says why.
  """
  scene = folder.read(scene_id).without_crowds()
  picture = check_scene(scene, scene.image_file or f"{folder.path}: {scene_id}")
  panorama = read_panorama(picture)
  with naming(picture):
    described = describe_scene(panorama, scene.masks()) if scene.objects else None
  return ReadyScene(scene, panorama, described)


def check_scene(scene: scenes.Scene, where: Any) -> pathlib.Path:
  """Returns the file of the picture; SceneError for what masks and a picture alone do not show."""
  image_file = scene.require_image_file()
  if not is_panorama(scene.height, scene.width):
    raise SceneError(
      f"{where}: {scene.width} x {scene.height} pixels is not 2:1; give a full panorama, twice as"
      " wide as high"
    )
  if len(scene.objects) > OBJECT_COUNTS[-1]:
    raise SceneError(
      f"{where}: {len(scene.objects)} objects are more than {OBJECT_COUNTS[-1]}; leave out the"
      " smallest, or join those of one kind"
    )
  return image_file


def write_result(
  item: ReadyScene,
  result: WeakRanks | None,
  index: int,
  files: tuple[pathlib.Path, ...],
  overlays: bool,
) -> None:
  """Writes one panorama's overlay, then its rank file, the first of `files`."""
  scene, masks = item.scene, item.scene.masks()
  names: dict[str, Any] = dict(
    categories=[entry.category for entry in scene.objects],
    ids=[entry.id for entry in scene.objects],
    image=scene.image_file.name if scene.image_file else "",
    pose=Pose(*scene.extra["pose_deg"]) if "pose_deg" in scene.extra else None,
  )
  if result is None:
    ranked = RankedObjects.from_masks(item.panorama, masks, [], **names)
  else:
    ranked = ranked_objects(result, index, item.panorama, masks, **names)
  rank_file, overlay = files
  if overlays:
    ranked.save_overlay(overlay)
  ranked.save_json(rank_file)
