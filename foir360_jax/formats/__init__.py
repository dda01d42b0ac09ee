"""The files that go in and out: panoramas, rank files, and the picture of a ranking."""

from foir360_jax.formats.atomic_file import write_atomically
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

__all__ = [
  "RANK_FILE_SCHEMA",
  "PanoramaError",
  "RankFileError",
  "RankedObjects",
  "draw_overlay",
  "find_panoramas",
  "read_panorama",
  "read_rank_file",
  "save_image",
  "write_atomically",
  "write_rank_file",
]
