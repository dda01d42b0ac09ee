"""What lies in a folder, without what systems put there; names found however they are spelt.

Hidden files (`.DS_Store`, the `._NAME` that macOS leaves beside a NAME), `Thumbs.db` and the like
are nobody's data. Folders and files that people made on Windows or macOS may be spelt `Images`, and
macOS and some programs write "ü" as two characters: these are one name all the same.
"""

import pathlib
import unicodedata

from foir360_jax.paths import unambiguous

_LEFT_BY_SYSTEMS = ("__macosx", "@eadir", "desktop.ini", "ehthumbs.db", "thumbs.db")


def is_hidden(path: pathlib.PurePath) -> bool:
  """Whether a file or folder is hidden, or is one that systems leave behind.

  >>> [is_hidden(pathlib.PurePath(name)) for name in ("x/._a.jpg", "Thumbs.db", "a.jpg")]
  [True, True, False]
  """
  return path.name.startswith(".") or path.name.lower() in _LEFT_BY_SYSTEMS


def list_entries(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns what lies in a folder and is not hidden, sorted; [] where there is no such folder."""
  if not folder.is_dir():
    return []
  return sorted(unambiguous(path) for path in folder.iterdir() if not is_hidden(path))


def list_files(folder: pathlib.Path, *suffixes: str) -> list[pathlib.Path]:
  """Returns the files of a folder that are not hidden, sorted; [] where there is no such folder.

  Args:
    folder: the folder, whose subfolders are not looked into.
    suffixes: which suffixes to take, in lower case as ".json"; files may have capital letters.
  """
  return [
    path
    for path in list_entries(folder)
    if (not suffixes or path.suffix.lower() in suffixes) and path.is_file()
  ]


def list_folders(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the subfolders of a folder that are not hidden, sorted."""
  return [path for path in list_entries(folder) if path.is_dir()]


def child(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns `folder / name`, or what is there under this name in another spelling."""
  exact = folder / name
  if exact.exists():
    return exact
  spelt = any_spelling(name)
  return next((path for path in list_entries(folder) if any_spelling(path.name) == spelt), exact)


def same_form(name: str) -> str:
  """Returns a name in Unicode's composed form (NFC), so that equal names compare equal."""
  return unicodedata.normalize("NFC", name)


def any_spelling(name: str) -> str:
  """Returns what is the same for all Unicode forms and capital letters of a name."""
  return same_form(name).lower()
