"""What a folder of results says of itself: a later run goes on, and never mixes settings.

`settings.json` beside the results holds everything on which they depend. A result counts as done
when its last file is there, so that one is written last.
"""

import importlib.metadata
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from foir360_jax.files import write_atomically
from foir360_jax.files.json_file import read_json
from foir360_jax.files.picture_folder import same_form

SETTINGS_FILE = "settings.json"
_EARLIER_FILE = "weak_labels.json"
"""What weak labels called it, up to version 0.1; it did not name the command."""


class ResultFiles(NamedTuple):
  """Where the results of a panorama are.

  Attributes:
    last: folder and suffix of the file that is written last and tells that the panorama is done.
    others: those of the files that are written before it.
  """

  last: tuple[str, str] = ("ranks", ".json")
  others: tuple[tuple[str, str], ...] = (("overlays", ".png"),)

  def done(self, output: pathlib.Path) -> set[str]:
    """Returns the ids that have a result."""
    folder, suffix = self.last
    names = (path.name.removesuffix(suffix) for path in (output / folder).glob(f"*{suffix}"))
    return {same_form(name) for name in names}

  def of(self, output: pathlib.Path, scene_id: str) -> tuple[pathlib.Path, ...]:
    """Returns the files of a panorama, the last one first."""
    return tuple(
      output / folder / f"{scene_id}{suffix}" for folder, suffix in (self.last, *self.others)
    )


RANKED = ResultFiles()
"""`ranks/ID.json`, written after `overlays/ID.png`."""


def package_version() -> str:
  """Returns the version of this package: a setting, since each may rank otherwise."""
  try:
    return importlib.metadata.version("foir360_jax")
  except importlib.metadata.PackageNotFoundError:  # run from its folder, not installed
    return "unknown"


def claim_output(
  output: pathlib.Path,
  settings: Mapping[str, Any],
  ids: Iterable[str],
  *,
  overwrite: bool,
  files: ResultFiles = RANKED,
) -> set[str]:
  """Makes a folder ready for results of these settings.

  Args:
    output: the folder.
    settings: of this run, JSON values.
    ids: of the panoramas of this run.
    overwrite: remove the results that these panoramas have already; all results, if they are of
      other settings that the folder knows. Where nobody knows them, the results of other panoramas
      stay, and the folder says nothing of its settings.
    files: where the results are.

  Returns:
    The ids that have a result already.

  Raises:
    ValueError: there are results of other or unknown settings and `overwrite` is False; no result
      is changed then.
  """
  settings = json.loads(json.dumps(settings))
  there = files.done(output)
  done = there.intersection(ids)
  file, old = _old_settings(output)
  where = output / files.last[0]
  if there and file is None and not overwrite:
    raise ValueError(
      f"{where}: nobody knows the settings of its {len(there)} results ({SETTINGS_FILE} is not"
      " beside it); give another --output, or --overwrite to replace those of the panoramas that"
      " are given"
    )
  difference = _first_difference(old, settings) if there and file else ""
  if difference and not overwrite:
    raise ValueError(
      f"{file}: {difference}; results of both must not mix: give another --output, or --overwrite"
      f" to remove the {len(there)} that are there"
    )
  if overwrite:  # stopped in the midst of it, what is left still is of the settings in the file
    for scene_id in there if difference else done:
      for path in files.of(output, scene_id):
        path.unlink(missing_ok=True)
    done = set()
  if file is None and files.done(output):  # of unknown settings, and not of these panoramas
    return done
  write_atomically(output / SETTINGS_FILE, (json.dumps(settings, indent=2) + "\n").encode())
  (output / _EARLIER_FILE).unlink(missing_ok=True)
  return done


def _old_settings(output: pathlib.Path) -> tuple[pathlib.Path | None, Any]:
  """The file in which a folder has its settings and what it says; (None, None) without one."""
  for name in (SETTINGS_FILE, _EARLIER_FILE):
    file = output / name
    if not file.is_file():
      continue
    try:
      settings = read_json(file, ValueError)
    except ValueError:
      settings = None
    if name == _EARLIER_FILE and isinstance(settings, dict):
      settings = {"command": "weak-labels"} | settings
    return file, settings
  return None, None


def _first_difference(old: Any, new: Mapping[str, Any]) -> str:
  """Says which of the settings is another, or "" where none is."""
  if not isinstance(old, dict):
    return "does not say the settings any more"
  old, new = _flat(old), _flat(new)
  for name in [*new, *old]:
    if old.get(name) != new.get(name):
      return f"{name} was {old.get(name)!r:.80}, now it is {new.get(name)!r:.80}"
  return ""


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns {"strategy.fill": value}."""
  flat: dict[str, Any] = {}
  for name, value in settings.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat
