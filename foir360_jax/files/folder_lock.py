"""A lock that lets one process at a time write into a folder."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator

from foir360_jax.paths import expand

_FILE = ".lock"


@contextlib.contextmanager
def sole_writer(folder: str | os.PathLike) -> Iterator[None]:
  """Holds a folder for this process until the context is left.

  The lock is the system's, on `FOLDER/.lock`: it goes with its process, however that ends, and the
  file that stays behind means nothing. File systems that know no locks are not guarded.

  Args:
    folder: is made if need be.

  Raises:
    ValueError: another process holds it.
  """
  folder = expand(folder)
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / _FILE).open("a+", errors="replace") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      process = re.sub(r"\D", "", file.readline()) or "unknown"
      raise ValueError(
        f"{folder} is being written by process {process}: wait for it, or give another folder"
      ) from error
    except OSError:
      pass
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    yield
