"""Paths as people write them: the one rule for `~`, whatever they are given to.

Imports the standard library alone, for the command line needs it before all else.
"""

import os
import pathlib


def expand(path: str | os.PathLike) -> pathlib.Path:
  """Returns a path with the folder of a user in place of a leading `~` or `~NAME`.

  Shells leave it as it is behind `=`, and configurations are read by none.

  Raises:
    ValueError: there is no such user, after whom nobody wants a folder named `~NAME`.

  >>> expand("runs/tiny"), expand("~/runs").is_absolute()
  (PosixPath('runs/tiny'), True)
  """
  expanded = os.path.expanduser(path)
  if expanded.startswith("~"):
    name = expanded.partition(os.sep)[0]
    raise ValueError(f"{name} is no user's folder; write ./{name} for what has this name")
  return unambiguous(pathlib.Path(expanded))


def unambiguous(path: pathlib.Path) -> pathlib.Path:
  """Returns a path that `expand` leaves as it is: an absolute one for the file `./~NAME`."""
  return path.absolute() if str(path).startswith("~") else path
