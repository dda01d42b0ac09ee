"""The pictures of a folder and their ids: one rule for all commands.

The id of a picture is its name without suffix, in Unicode's composed form (see `listing`).
"""

import pathlib
from typing import NamedTuple

from foir360_jax.files.listing import list_entries, same_form
from foir360_jax.files.picture_file import SUFFIXES, UNREAD_SUFFIXES, PictureError, printable

_NAMED = 5  # names that a line holds


class Listing(NamedTuple):
  """What lies in a folder.

  Attributes:
    pictures: the pictures by their ids, sorted; an error in place of two that have one id. Also
      what only looks like a picture (a broken link, a kind that is not read): reading says so.
    others: names of other files and of subfolders, which are passed over; hidden ones are not here.
  """

  pictures: dict[str, pathlib.Path | PictureError]
  others: tuple[str, ...]

  def named_others(self) -> str:
    """Names what is passed over, in short."""
    more = len(self.others) - _NAMED
    return ", ".join(self.others[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def list_pictures(folder: pathlib.Path) -> Listing:
  """Lists a folder by the suffixes of names; a folder that is not there is empty."""
  paths = list_entries(folder)
  others = [path for path in paths if path.is_dir() or not _looks_like_picture(path)]
  found: dict[str, list[pathlib.Path]] = {}
  # What is not read comes last: a raw file beside its JPEG has a line, but does not stand against
  # it.
  for path in sorted(set(paths).difference(others), key=lambda path: (not _is_read(path), path)):
    name = picture_id(path.name)
    if not _is_read(path) and name in found:
      name = printable(same_form(path.name))
    found.setdefault(name, []).append(path)
  pictures: dict[str, pathlib.Path | PictureError] = {}
  for name, files in sorted(found.items()):
    pictures[name] = files[0]
    if len(files) > 1:
      pictures[name] = PictureError(
        f"{folder}: {' and '.join(printable(file.name) for file in files)} would have the same"
        f" results, {name}; rename all but one"
      )
  return Listing(pictures, tuple(printable(path.name) + "/" * path.is_dir() for path in others))


def picture_id(name: str) -> str:
  """Returns the id of a picture's file name.

  >>> picture_id("kitchen.v2.JPG"), picture_id("u\u0308ber.png") == "\u00fcber"
  ('kitchen.v2', True)
  """
  return printable(same_form(pathlib.PurePath(name).stem))


def _is_read(path: pathlib.Path) -> bool:
  return path.suffix.lower() in SUFFIXES


def _looks_like_picture(path: pathlib.Path) -> bool:
  return _is_read(path) or path.suffix.lower() in UNREAD_SUFFIXES
