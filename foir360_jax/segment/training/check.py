"""Validates a configuration of the task "segmenter"."""

from ml_collections import ConfigDict

from foir360_jax.segment.small.network import CELL
from foir360_jax.segment.training.pictures import PARTS


def validate_segmenter(config: ConfigDict) -> None:
  """Raises ValueError with one line for the first value that cannot work."""
  data, augmentation, evaluate = config.data, config.augmentation, config.evaluate
  if data.licences not in ("all", "free"):
    raise ValueError(f"config.data.licences must be all or free, not {data.licences!r}")
  if evaluate.split not in PARTS:
    raise ValueError(
      f"config.evaluate.split must be one of {', '.join(PARTS)}, not {evaluate.split!r}"
    )
  if augmentation.size < CELL or augmentation.size % CELL:
    raise ValueError(
      f"config.augmentation.size must be a multiple of {CELL}, not {augmentation.size}"
    )
  low, high = augmentation.scales
  if not 0 < low < high:
    raise ValueError(
      "config.augmentation.scales must be two numbers above 0, the smaller one first, not"
      f" {tuple(augmentation.scales)}"
    )
  for field in ("mosaic", "paste", "blur", "colour"):
    if not 0 <= augmentation[field] <= 1:
      raise ValueError(f"config.augmentation.{field} must be in [0, 1], not {augmentation[field]}")
  if not 0 < evaluate.overlap <= 1:
    raise ValueError(f"config.evaluate.overlap must be in (0, 1], not {evaluate.overlap}")
  places = sum((augmentation.size // stride) ** 2 for stride in (8, 16, 32))
  counts = {
    "data.batch_size": data.batch_size,
    "data.max_objects": data.max_objects,
    "augmentation.working_pixels": augmentation.working_pixels,
    "model.channels": config.model.channels,
    "model.mask_channels": config.model.mask_channels,
    "loss.places": config.loss.places,
    "evaluate.proposals": evaluate.proposals,
    "evaluate.max_proposals": evaluate.max_proposals,
  }
  for name, count in counts.items():
    if count < 1:
      raise ValueError(f"config.{name} must be at least 1, not {count}")
  if config.loss.places > places:
    raise ValueError(
      f"config.loss.places must be at most {places}, the places of config.augmentation.size"
      f" {augmentation.size}, not {config.loss.places}"
    )
