"""Validates a configuration of the task "fixation"."""

from ml_collections import ConfigDict

from foir360_jax.saliency.readout import CELL


def is_trained_on(config: ConfigDict) -> bool:
  """Whether pictures that are evaluated are among those that are trained on."""

  def parts(split: str) -> set[str]:
    return {part.split("[")[0].strip() for part in split.split("+")}

  return not parts(config.evaluate.split).isdisjoint(parts(config.data.train_split))


def validate_fixation(config: ConfigDict) -> None:
  """Raises ValueError with one line for the first value that cannot work."""
  data = config.data
  if not data.names or len(data.names) != len(data.degrees):
    raise ValueError("config.data.names must be one or more, and .degrees needs a value for each")
  if is_trained_on(config) and not data.folds:
    raise ValueError(
      f"config.evaluate.split {config.evaluate.split} is part of config.data.train_split"
      f" {data.train_split}; evaluate on another, or set config.data.folds to 3 and each picture is"
      " measured by a readout that has not seen it"
    )
  for field in ("height", "width"):
    if data[field] < 32 or data[field] % CELL:
      raise ValueError(
        f"config.data.{field} must be divisible by {CELL} (the readout's cells) and at least 32,"
        f" not {data[field]}"
      )
  if not data.windows or not all(0 < share < 2 for share in data.windows):
    raise ValueError(
      f"config.data.windows must be one or more numbers between 0 and 2, not {data.windows}"
    )
  if data.folds < 0 or data.folds == 1:
    raise ValueError(f"config.data.folds must be 0, or 2 or more, not {data.folds}")
  if not config.model.channels or min(config.model.channels) < 1:
    raise ValueError(
      f"config.model.channels must be one or more numbers of channels, not {config.model.channels}"
    )
  if not 1 <= config.model.enlargement <= 4:
    raise ValueError(f"config.model.enlargement must be in [1, 4], not {config.model.enlargement}")
  for field in ("height", "width"):
    enlarged = data[field] * config.model.enlargement
    if abs(enlarged - CELL * round(enlarged / CELL)) > 1e-6:
      raise ValueError(
        f"config.data.{field} times config.model.enlargement must be divisible by {CELL}, and"
        f" {data[field]} * {config.model.enlargement:.4g} = {enlarged:.4g} is not"
      )
  if not config.model.sharpness > 0:
    raise ValueError(f"config.model.sharpness must be above 0, not {config.model.sharpness}")
  if not 0 <= config.model.dropout < 1:
    raise ValueError(f"config.model.dropout must be in [0, 1), not {config.model.dropout}")
  for section in ("data", "evaluate"):
    if config[section].batch_size < 1:
      raise ValueError(
        f"config.{section}.batch_size must be at least 1, not {config[section].batch_size}"
      )
