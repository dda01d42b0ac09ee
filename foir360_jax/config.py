"""The fields that every configuration has, with their defaults, and the check of their values.

A file in `configs/` calls `base_config()`, changes what it wants and returns it; the command line
may override any field (`--config.optimizer.learning_rate=1e-3`). Only the entry points and the
`build_*` functions see a ConfigDict: below them values travel as plain arguments.
"""

from ml_collections import ConfigDict

from foir360_jax.data import Augmentation
from foir360_jax.train.parallel import MODES


def base_config() -> ConfigDict:
  """Returns the defaults; unknown fields are refused by the lock."""
  config = ConfigDict()
  config.seed = 0

  config.data = ConfigDict()
  config.data.name = "synthetic360/64x128"  # TFDS name, with the builder config
  config.data.data_dir = "data"
  config.data.train_split = "train"
  config.data.validation_split = "validation"
  config.data.test_split = "test"
  config.data.height = 64  # model input; panoramas of another size are resampled to it
  # If any, each training batch has one of these heights instead, and each height compiles once.
  config.data.train_heights = ()
  config.data.max_objects = 40  # objects are padded to this number
  config.data.batch_size = 8  # over all devices
  config.data.num_threads = 2
  config.data.augment = ConfigDict()  # the fields of foir360_jax.data.Augmentation
  config.data.augment.yaw = True  # roll by a random number of columns
  config.data.augment.mirror = True
  # Changes latitudes, on which importance may depend (in synthetic360 it does).
  config.data.augment.rotation_deg = 0.0  # largest angle, about a random axis
  # The rest changes the luminance, on which importance may depend (in synthetic360 it does).
  config.data.augment.permute_colours = False
  config.data.augment.brightness = 0.0  # largest change, as a share of the range
  config.data.augment.contrast = 0.0  # factor within 1 +- this, as for saturation
  config.data.augment.saturation = 0.0
  config.data.augment.hue_deg = 0.0

  config.model = ConfigDict()
  config.model.widths = (24, 48, 72, 96)  # channels at strides 2, 4, 8, 16
  config.model.blocks = (1, 1, 1, 1)  # residual blocks on each level, after it is reached
  config.model.sphere_from_stride = 4  # coarser levels use spherical convolution, finer ones planar
  config.model.feature_channels = 48
  config.model.mask_channels = 32
  config.model.num_queries = 48
  config.model.decoder_layers = 1
  config.model.num_categories = 12
  config.model.mask_stride = 2
  config.model.surround = True  # the rank head also pools around each mask

  config.loss = ConfigDict()  # the ranking loss and the weights of the terms of models/objective.py
  config.loss.ranking = "listmle"
  config.loss.heat = 1.0
  config.loss.foreground = 2.0
  config.loss.object = 0.5
  config.loss.mask_dice = 2.0
  config.loss.mask_entropy = 1.0
  config.loss.category = 0.1
  config.loss.rank_true = 0.5
  config.loss.rank_found = 0.5
  config.loss.recurrent = 0.5
  config.loss.rank_category = 0.5

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 2e-3
  config.optimizer.warmup_steps = 50
  config.optimizer.weight_decay = 0.02
  config.optimizer.b2 = 0.99
  config.optimizer.clip_norm = 1.0

  config.train = ConfigDict()
  config.train.steps = 1500
  config.train.minutes = 0.0  # > 0: the run also ends after this wall time, without compilation
  config.train.ema_decay = 0.99  # of the averaged parameters, which are evaluated
  config.train.mode = "jit"
  config.train.log_every = 50
  config.train.checkpoint_every = 500
  config.train.keep_checkpoints = 2

  config.evaluate = ConfigDict()
  config.evaluate.batch_size = 20
  config.evaluate.iou_threshold = 0.5
  config.evaluate.score_thresholds = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
  config.evaluate.sheet_images = 8

  config.benchmark = ConfigDict()
  config.benchmark.rounds = 15  # in which the contestants of a race take turns
  config.benchmark.budget_s = 20.0  # a race starts no further round after this many seconds
  return config.lock()


def validate(config: ConfigDict) -> None:
  """Raises ValueError with one line for the first value that cannot work."""
  data = config.data
  for field, heights in (("height", (data.height,)), ("train_heights", data.train_heights)):
    for height in heights:
      if height % 16 or height < 48:
        raise ValueError(
          f"config.data.{field} must be divisible by 16 (four stride-2 stages) and at least 48,"
          f" not {height}"
        )
  Augmentation(**data.augment)  # checks its values itself
  if config.train.mode not in MODES:
    raise ValueError(
      f"config.train.mode must be one of {', '.join(MODES)}, not {config.train.mode!r}"
    )
  if config.model.mask_stride not in (2, 4):
    raise ValueError(f"config.model.mask_stride must be 2 or 4, not {config.model.mask_stride}")
  if config.model.num_queries < config.data.max_objects:
    raise ValueError(
      "config.model.num_queries must be at least config.data.max_objects"
      f" ({config.data.max_objects}), not {config.model.num_queries}"
    )
  for field in ("batch_size", "max_objects"):
    if config.data[field] < 1:
      raise ValueError(f"config.data.{field} must be at least 1, not {config.data[field]}")
  if config.benchmark.rounds < 1:
    raise ValueError(f"config.benchmark.rounds must be at least 1, not {config.benchmark.rounds}")
  if not len(config.model.widths) == len(config.model.blocks) == 4:
    raise ValueError("config.model.widths and .blocks need a value for each of the four strides")
  if config.model.feature_channels % 4:
    raise ValueError(
      "config.model.feature_channels must be divisible by the 4 heads of attention, not"
      f" {config.model.feature_channels}"
    )
  thresholds = config.evaluate.score_thresholds
  if not thresholds or not all(0 <= threshold < 1 for threshold in thresholds):
    raise ValueError(
      f"config.evaluate.score_thresholds must be one or more numbers in [0, 1), not {thresholds}"
    )
