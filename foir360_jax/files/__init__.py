"""Files on disk: written atomically, locked, read with errors that say what is wrong.

Knows pictures and JSON; what they mean (scenes, ranks) is in `foir360_jax.scenes`.
"""

from foir360_jax.files.atomic_file import write_atomically
from foir360_jax.files.folder_lock import sole_writer
from foir360_jax.files.panorama_file import (
  PanoramaError,
  find_panoramas,
  read_panorama,
  save_image,
)

__all__ = [
  "PanoramaError",
  "find_panoramas",
  "read_panorama",
  "save_image",
  "sole_writer",
  "write_atomically",
]
