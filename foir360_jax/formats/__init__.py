"""The files that go in and out: panoramas, rank files, overlays, and the field's annotations."""

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
  "RankFileError",
  "RankedObjects",
  "RunLengths",
  "Scene",
  "SceneError",
  "SceneFolder",
  "SceneObject",
  "open_scenes",
  "read_rank_file",
  "recognise",
  "write_rank_file",
  "write_scenes",
]
