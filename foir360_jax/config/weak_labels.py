"""The task "weak_labels": ranks without annotators; nothing is trained."""

from ml_collections import ConfigDict

from foir360_jax.saliency.build import NAMES, default_saliency_name
from foir360_jax.weak_labels.collect import COLLECTORS
from foir360_jax.weak_labels.erase import FILLS
from foir360_jax.weak_labels.program import Strategy


def weak_labels_config() -> ConfigDict:
  """Returns the defaults of the task "weak_labels"; unknown fields are refused by the lock."""
  config = ConfigDict()
  config.task = "weak_labels"
  config.saliency = default_saliency_name()
  config.update(Strategy()._asdict())  # its fields are explained there
  config.batch_size = 8  # panoramas that go through the program together
  config.overlays = True  # also draw a picture for each rank file
  return config.lock()


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
