"""The check of a configuration, whatever its task, and of the command that it was given to."""

from ml_collections import ConfigDict

from foir360_jax.saliency.fixations.check import validate_fixation
from foir360_jax.segment.training.check import validate_segmenter
from foir360_jax.train.check import validate_ranking
from foir360_jax.train.parallel import MODES
from foir360_jax.weak_labels.check import validate_weak_labels

_COMMAND_OF = {"weak_labels": "foir360 weak-labels"}


def validate(config: ConfigDict) -> None:
  """Raises ValueError with one line for the first value that cannot work."""
  checks = {
    "ranking": validate_ranking,
    "fixation": validate_fixation,
    "segmenter": validate_segmenter,
    "weak_labels": validate_weak_labels,
  }
  if config.task not in checks:
    raise ValueError(f"config.task must be one of {', '.join(checks)}, not {config.task!r}")
  if "train" in config and config.train.mode not in MODES:
    raise ValueError(
      f"config.train.mode must be one of {', '.join(MODES)}, not {config.train.mode!r}"
    )
  checks[config.task](config)


def need_task(config: ConfigDict, command: str, *tasks: str) -> None:
  """Raises ValueError with one line where a command does not serve the task of a configuration."""
  if config.task not in tasks:
    raise ValueError(
      f"foir360 {command} is for a --config of the task {' or '.join(tasks)}, not {config.task};"
      f" give one of configs/ that is, or {_COMMAND_OF.get(config.task, 'another command')}"
    )
