"""Validates a configuration of any task."""

from ml_collections import ConfigDict

from foir360_jax.saliency.fixations.check import validate_fixation
from foir360_jax.train.check import validate_ranking
from foir360_jax.train.parallel import MODES
from foir360_jax.weak_labels.check import validate_weak_labels


def validate(config: ConfigDict) -> None:
  """Raises ValueError with one line for the first value that cannot work."""
  checks = {
    "ranking": validate_ranking,
    "fixation": validate_fixation,
    "weak_labels": validate_weak_labels,
  }
  if config.task not in checks:
    raise ValueError(f"config.task must be one of {', '.join(checks)}, not {config.task!r}")
  if "train" in config and config.train.mode not in MODES:
    raise ValueError(
      f"config.train.mode must be one of {', '.join(MODES)}, not {config.train.mode!r}"
    )
  checks[config.task](config)
