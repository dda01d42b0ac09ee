"""Pictures by the names that annotations give them, which need not be those of the files.

Below `folder`; the formats whose files name their pictures use it.
"""

import collections
import contextlib
import pathlib
from collections.abc import Iterable, Sequence

from foir360_jax.files.listing import any_spelling, list_entries, list_folders, same_form
from foir360_jax.files.picture_file import SUFFIXES, UNREAD_SUFFIXES

_ALL_SUFFIXES = (*SUFFIXES, *UNREAD_SUFFIXES)


class PictureFinder:
  """Finds pictures by the names that annotations give them, in the first folder that has them.

  A name may lack its suffix, and be spelt in other capital letters or another Unicode form than the
  file. What only looks like a picture (a broken link, a kind that is not read) is found, too:
  reading it says what is wrong; that of a kind that is not read only where it was not converted.
  Folders are listed once, when they are first looked into.

  Args:
    folders: where pictures may lie, the most likely first.
  """

  def __init__(self, folders: Iterable[pathlib.Path]):
    self._folders = tuple(dict.fromkeys(folders))
    self._listed: dict[pathlib.Path, dict[str, list[pathlib.Path]]] = {}
    self._folders_in: dict[pathlib.Path, dict[str, pathlib.Path]] = {}

  def find(self, name: str) -> pathlib.Path | None:
    """Returns the picture of a name, None where no folder has it.

    Raises:
      ValueError: the name leads out of the folder.
    """
    relative = inside_folder(name)
    names = [relative.name] if relative.suffix.lower() in SUFFIXES else []
    stem = relative.name if names else without_suffix(relative.name)
    spelt = [(name, any_spelling(name)) for name in names]
    spelling_of_stem = any_spelling(stem)
    spelt += [(stem + suffix, spelling_of_stem + suffix) for suffix in _ALL_SUFFIXES]
    for folder in self._folders:
      pictures = self._list(folder / relative.parent)
      for candidate, spelling in spelt if pictures else ():
        found = pictures.get(spelling, ())
        if found:
          return next((path for path in found if path.name == candidate), found[0])
    return None

  def require(self, name: str) -> pathlib.Path:
    """Returns `find`, or raises a ValueError that says where it looked."""
    path = self.find(name)
    if path is None:
      raise ValueError(self.missing(name))
    return path

  def has_any(self, names: Iterable[str]) -> bool:
    """Whether at least one of the pictures named is there."""
    for name in names:
      with contextlib.suppress(ValueError):  # reading that scene will raise it
        if self.find(name):
          return True
    return False

  def missing(self, name: str) -> str:
    """Returns half a line on a picture that is not there: where it was looked for."""
    root = pathlib.Path(*_shared_parts([folder.parts for folder in self._folders]))
    places = [str(folder.relative_to(root)) for folder in self._folders]
    inside = ", ".join("the folder itself" if place == "." else place for place in places)
    return f"picture {name} is not in {root}: looked for in {inside}; put it in one of them"

  def _list(self, folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the pictures of a folder by `any_spelling` of their names."""
    if folder not in self._listed:
      by_name = collections.defaultdict(list)
      for path in list_entries(self._as_spelt(folder)):
        if path.suffix.lower() in _ALL_SUFFIXES and (path.is_file() or path.is_symlink()):
          by_name[any_spelling(path.name)].append(path)
      self._listed[folder] = by_name
    return self._listed[folder]

  def _as_spelt(self, folder: pathlib.Path) -> pathlib.Path:
    """Returns a folder by its spelling on disk; no parent is listed for each that is not there."""
    if folder.is_dir() or folder == folder.parent:
      return folder
    parent = self._as_spelt(folder.parent)
    if parent not in self._folders_in:
      self._folders_in[parent] = {any_spelling(path.name): path for path in list_folders(parent)}
    return self._folders_in[parent].get(any_spelling(folder.name), parent / folder.name)


def without_suffix(name: str) -> str:
  """Returns a picture's name without its suffix, so that equal names compare equal.

  A dot inside a name is no suffix; see `listing` on the Unicode form.

  >>> without_suffix("train/a.b.JPG"), without_suffix("a.b")
  ('train/a.b', 'a.b')
  """
  name = same_form(name.replace("\\", "/"))
  stem, _, suffix = name.rpartition(".")
  return stem if f".{suffix.lower()}" in _ALL_SUFFIXES else name


def inside_folder(name: str) -> pathlib.PurePosixPath:
  """Returns a file's name as a path, or raises ValueError where it leads out of its folder."""
  relative = pathlib.PurePosixPath(name.replace("\\", "/"))
  leaves = pathlib.PureWindowsPath(name).drive or relative.is_absolute() or ".." in relative.parts
  if leaves or not relative.name or "\0" in name:
    raise ValueError(f"{name!r:.80} is no name of a file inside the folder; give the name alone")
  return relative


def _shared_parts(paths: Sequence[Sequence[str]]) -> list[str]:
  """Returns the parts with which all paths begin."""
  shared = []
  for parts in zip(*paths, strict=False):
    if len(set(parts)) > 1:
      break
    shared.append(parts[0])
  return shared
