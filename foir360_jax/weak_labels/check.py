"""Validates a configuration of the task "weak_labels"."""

from ml_collections import ConfigDict

from foir360_jax.saliency.build import NAMES
from foir360_jax.weak_labels.collect import COLLECTORS
from foir360_jax.weak_labels.erase import FILLS


def validate_weak_labels(config: ConfigDict) -> None:
  """Raises ValueError with one line for the first value that cannot work."""
  for field, known in (("saliency", NAMES), ("collector", COLLECTORS), ("fill", FILLS)):
    if config[field] not in known:
      raise ValueError(f"config.{field} must be one of {', '.join(known)}, not {config[field]!r}")
  for field, least in (
    *(("batch_size", 1), ("views_at_once", 1)),
    *(("grow_px", 0), ("max_erased", 0), ("max_erased_whole", 0)),
  ):
    if config[field] < least:
      raise ValueError(f"config.{field} must be at least {least}, not {config[field]}")
