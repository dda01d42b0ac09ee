"""A run's settings, `config.json`: loading, saving, comparing with those of now."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from foir360_jax.files import write_atomically
from foir360_jax.files.json_file import read_json

_FILE = "config.json"
RENAMED_FIELDS = {
  "model.surround": "model.context",
  "model.told_categories": "model.condition_on_categories",
  "loss.own_picks": "loss.scheduled_sampling",
  "loss.told_share": "loss.conditioning_rate",
  "loss.rank_true": "loss.rank_ground_truth",
  "loss.rank_found": "loss.rank_predicted",
  "evaluate.score_thresholds": "evaluate.confidence_thresholds",
  "evaluate.turns": "evaluate.yaw_augmentation",
}
"""Fields of the configuration in version 0.1.0, and their names since."""


class Change(NamedTuple):
  """A setting that differs from the run's."""

  field: str  # "model.widths"
  old: Any  # JSON values, so a tuple is a list here
  new: Any


def settings_file(workdir: pathlib.Path) -> pathlib.Path:
  """Where the settings of the run in `workdir` are."""
  return workdir / _FILE


def save_settings(workdir: pathlib.Path, settings: Mapping[str, Any]) -> None:
  """Writes what the run in `workdir` is trained with, JSON values."""
  write_atomically(settings_file(workdir), (json.dumps(settings, indent=2) + "\n").encode())


def load_settings(workdir: pathlib.Path) -> dict[str, Any] | None:
  """What the run in `workdir` was trained with, by today's names; None where no run is.

  Raises:
    ValueError: the file is no JSON, or holds no settings.
  """
  file = settings_file(workdir)
  if not file.is_file():
    return None
  settings = read_json(file, ValueError)
  if not isinstance(settings, dict):
    raise ValueError(f"{file}: holds no settings of a run; give the --workdir of a training")
  for old, new in RENAMED_FIELDS.items():
    section, _, name = old.partition(".")
    fields = settings.get(section)
    if isinstance(fields, dict) and name in fields:
      fields[new.partition(".")[2]] = fields.pop(name)
  return settings


def first_change(
  trained: Mapping[str, Any], given: Mapping[str, Any], fields: Iterable[str]
) -> Change | None:
  """The first of some fields whose value differs from the run's; None: all agree.

  A field that the run does not have is newer than the run, and counts as what is given.

  Args:
    trained: of `load_settings`.
    given: the settings of now; tuples are as good as lists.
    fields: full names, as "seed" or "model.widths".

  >>> trained = {"seed": 0, "model": {"widths": [8, 16]}}
  >>> given = {"seed": 0, "model": {"widths": (8, 32), "remat": True}}
  >>> first_change(trained, given, ["seed", "model.remat", "model.widths"])
  Change(field='model.widths', old=[8, 16], new=[8, 32])
  """
  given = json.loads(json.dumps(given))
  for field in fields:
    *sections, name = field.split(".")
    old, new = trained, given
    for section in sections:
      old, new = old.get(section, {}), new[section]
    if old.get(name, new[name]) != new[name]:
      return Change(field, old[name], new[name])
  return None
