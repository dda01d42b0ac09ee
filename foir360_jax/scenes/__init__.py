"""Annotated pictures and ranked objects: types, and one module for each of the field's formats.

A `Scene` is one annotated picture, whatever format it came in; `RankedObjects` is what rankers
return and rank files hold.
"""

from foir360_jax.scenes.folder import SceneFolder
from foir360_jax.scenes.formats import FORMATS, open_scenes, recognise, write_scenes
from foir360_jax.scenes.packed_masks import pack_masks, unpack_masks
from foir360_jax.scenes.rank_file import RANK_FILE_SCHEMA, RankFileError
from foir360_jax.scenes.ranked_objects import RankedObjects, read_rank_file
from foir360_jax.scenes.run_lengths import RunLengths
from foir360_jax.scenes.scene import Scene, SceneError, SceneObject

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
  "pack_masks",
  "read_rank_file",
  "recognise",
  "unpack_masks",
  "write_scenes",
]
