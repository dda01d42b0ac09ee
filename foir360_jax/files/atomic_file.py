"""Atomic writing: a file is either complete or not there."""

import os

from foir360_jax.paths import expand


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
  """Writes `data` under a temporary name beside `path`, then renames it into place.

  A reader, or a run that takes up after a crash, never sees half a file. Missing folders are made.

  Args:
    path: the file to write; an older one is replaced.
    data: its whole content.

  Raises:
    OSError: the folder cannot be written; nothing is left behind.
  """
  path = expand(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    temporary.write_bytes(data)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
