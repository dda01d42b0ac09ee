"""The files that go in and out: panoramas, rank files, overlays, and the field's annotations."""

from foir360_jax.formats.atomic_file import write_atomically
from foir360_jax.formats.folder_lock import sole_writer
from foir360_jax.formats.overlay import draw_overlay
from foir360_jax.formats.panorama_file import (
  PanoramaError,
  find_panoramas,
  read_panorama,
  save_image,
)
from foir360_jax.formats.rank_file import (
  RANK_FILE_SCHEMA,
  RankFileError,
  read_rank_file,
  write_rank_file,
)
from foir360_jax.formats.ranked_objects import RankedObjects
from foir360_jax.formats.run_lengths import RunLengths
from foir360_jax.formats.scene import Scene, SceneError, SceneObject
from foir360_jax.formats.scene_folder import SceneFolder
from foir360_jax.formats.scene_formats import FORMATS, open_scenes, recognise, write_scenes

__all__ = [
  "FORMATS",
  "RANK_FILE_SCHEMA",
  "PanoramaError",
  "RankFileError",
  "RankedObjects",
  "RunLengths",
  "Scene",
  "SceneError",
  "SceneFolder",
  "SceneObject",
  "draw_overlay",
  "find_panoramas",
  "open_scenes",
  "read_panorama",
  "read_rank_file",
  "recognise",
  "save_image",
  "sole_writer",
  "write_atomically",
  "write_rank_file",
  "write_scenes",
]
