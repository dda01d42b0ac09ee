"""What a folder of weak labels says of itself: a later run goes on, and never mixes settings.

`weak_labels.json` beside `ranks/` holds everything on which the ranks depend.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from foir360_jax.files import write_atomically
from foir360_jax.files.json_file import read_json
from foir360_jax.saliency import LearnedSaliency
from foir360_jax.weak_labels.rank import WeakRanker

SETTINGS_FILE = "weak_labels.json"
_SPEED_ONLY = ("views_at_once",)  # of the strategy: these change no rank


def settings_of(ranker: WeakRanker) -> dict[str, Any]:
  """Returns all that the ranks of a ranker depend on, as JSON values.

  The saliency is its name, with its parameters where it has some, and the SHA-256 of its weights.

  Raises:
    ValueError: a saliency without a name of its own, which cannot be told from another.
  """
  saliency = ranker.saliency
  name = getattr(saliency, "__name__", type(saliency).__name__)
  if name in ("<lambda>", "partial"):
    raise ValueError(
      f"the saliency is a {name}, which cannot be told from another; give a function with a name,"
      " or a dataclass, whose parameters are kept with the results"
    )
  if dataclasses.is_dataclass(saliency):
    name = repr(saliency)
  elif isinstance(saliency, LearnedSaliency):
    name += f"(enlargement={saliency.readout.enlargement:.6g}, enlarges={saliency.enlarges})"
  weights = [x for x in jax.tree.leaves(saliency) if isinstance(x, jax.Array | np.ndarray)]
  digest = hashlib.sha256()
  for array in map(np.asarray, weights):
    digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
  strategy = {k: v for k, v in ranker.strategy._asdict().items() if k not in _SPEED_ONLY}
  settings = {
    "saliency": name,
    "saliency_sha256": digest.hexdigest(),
    "strategy": strategy,
    "object_score": ranker.object_score.to_json(),
    "version": _version(),
  }
  return json.loads(json.dumps(settings))


def claim_output(
  output: pathlib.Path, settings: Mapping[str, Any], ids: Iterable[str], *, overwrite: bool
) -> set[str]:
  """Makes a folder ready for results of these settings.

  Args:
    output: the folder; made if need be.
    settings: of this run.
    ids: of the panoramas of this run.
    overwrite: remove the results that these panoramas have already; all results, if they are of
      other settings.

  Returns:
    The ids that have a result already.

  Raises:
    ValueError: there are results of other settings and `overwrite` is False, or results that
      nobody knows the settings of; nothing is changed then.
  """
  file = output / SETTINGS_FILE
  if output.exists() and not output.is_dir():
    raise ValueError(f"{output} is a file; give a folder as --output")
  there = {path.stem for path in (output / "ranks").glob("*.json")}
  done = there.intersection(ids)
  if there and not file.is_file():
    raise ValueError(
      f"{output / 'ranks'}: its {len(there)} rank files are not of weak labels ({SETTINGS_FILE} is"
      " not beside it), and are never overwritten; give another --output"
    )
  difference = _first_difference(file, settings) if there else ""
  if difference and not overwrite:
    raise ValueError(
      f"{file}: {difference}; results of both must not mix: give another --output, or --overwrite"
      f" to remove the {len(there)} that are there"
    )
  if overwrite:  # stopped in the midst of it, what is left still is of the settings in the file
    for scene_id in there if difference else done:
      rank_file, overlay = result_files(output, scene_id)
      rank_file.unlink()
      overlay.unlink(missing_ok=True)
    done = set()
  write_atomically(file, (json.dumps(settings, indent=2) + "\n").encode())
  return done


def result_files(output: pathlib.Path, scene_id: str) -> tuple[pathlib.Path, pathlib.Path]:
  """Returns the rank file and the overlay of a panorama."""
  return output / "ranks" / f"{scene_id}.json", output / "overlays" / f"{scene_id}.png"


def _version() -> str:
  try:
    return importlib.metadata.version("foir360_jax")
  except importlib.metadata.PackageNotFoundError:  # run from its folder, not installed
    return "unknown"


def _first_difference(file: pathlib.Path, settings: Mapping[str, Any]) -> str:
  """Says which setting in the file is another, or "" where none is."""
  try:
    old = read_json(file, ValueError)
  except ValueError:
    old = None
  if not isinstance(old, dict):
    return "does not say the settings any more"
  old, new = _flat(old), _flat(settings)
  for name in [*new, *old]:
    if old.get(name) != new.get(name):
      return f"{name} was {old.get(name)!r:.80}, now it is {new.get(name)!r:.80}"
  return ""


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns {"strategy.fill": value}."""
  flat = {}
  for name, value in settings.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat
