"""The task "fixation": the readout of human fixations behind the learned saliency."""

from ml_collections import ConfigDict

from foir360_jax.saliency.readout import CELL


def fixation_config() -> ConfigDict:
  """Returns the defaults of the task "fixation"; unknown fields are refused by the lock."""
  config = ConfigDict()
  config.task = "fixation"
  config.seed = 0

  config.data = ConfigDict()
  config.data.names = ("fixations/crowd", "fixations/osie")  # TFDS names
  # One degree of visual angle as a share of the width of their pictures: the blur of fixations.
  config.data.degrees = (26 / 1024, 24 / 800)
  config.data.data_dir = "data"
  config.data.train_split = "train"
  # Above 0, so many readouts more are trained, each without one part of the pictures: to measure
  # pictures that a readout has not seen. See `evaluation.object_score`.
  config.data.folds = 0
  config.data.height = 336  # to which all pictures are brought; figures are measured at it
  config.data.width = 448
  # Sides of the views of each training picture as shares of its own, one view each. Above 1 the
  # mirror image of the picture is around it.
  config.data.windows = (1.0, 1.0, 0.7, 1.4, 0.85)
  config.data.batch_size = 16

  config.model = ConfigDict()
  config.model.enlargement = 12 / 7  # of pictures, for the backbone: its maps are coarse
  config.model.channels = (128, 64)  # of the hidden layers
  # Exponent of the density at use: the centre bias, which is dropped there, had sharpened it.
  config.model.sharpness = 1.3
  config.model.dropout = 0.5  # share of the first one's channels that a view does without

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 3e-3
  config.optimizer.warmup_steps = 20
  config.optimizer.weight_decay = 0.3
  config.optimizer.b2 = 0.99
  config.optimizer.clip_norm = 1.0

  config.train = ConfigDict()  # as in base_config
  config.train.steps = 1500
  config.train.minutes = 0.0
  config.train.ema_decay = 0.99
  config.train.mode = "jit"
  config.train.log_every = 50
  config.train.checkpoint_every = 500
  config.train.keep_checkpoints = 1

  config.evaluate = ConfigDict()
  config.evaluate.split = "tune"  # "test" for final figures only
  config.evaluate.batch_size = 8
  config.evaluate.sheet_pictures = 4  # of each data set
  return config.lock()


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
