"""The fields that every configuration has, with their defaults, and the check of their values.

A file in `configs/` calls `base_config()`, changes what it wants and returns it; the command line
may override any field (`--config.optimizer.learning_rate=1e-3`). Only the entry points and the
`build_*` functions see a ConfigDict: below them values travel as plain arguments.

Which entry points, the field `task` says: "ranking" trains PanoRank and starts from `base_config`,
"fixation" trains the readout of the learned saliency and starts from `fixation_config`,
"weak_labels" ranks without annotators, trains nothing and starts from `weak_labels_config`.
"""

from ml_collections import ConfigDict

from foir360_jax.data import Augmentation
from foir360_jax.models.encoders import ENCODERS
from foir360_jax.models.encoders.build import PANOSWIN, SMALL
from foir360_jax.saliency.build import NAMES, default_saliency_name
from foir360_jax.saliency.readout import CELL
from foir360_jax.train.parallel import MODES
from foir360_jax.weak_labels.collect import COLLECTORS
from foir360_jax.weak_labels.erase import FILLS
from foir360_jax.weak_labels.program import Strategy


def base_config() -> ConfigDict:
  """Returns the defaults; unknown fields are refused by the lock."""
  config = ConfigDict()
  config.task = "ranking"
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
  config.model.encoder = SMALL  # or another of foir360_jax.models.encoders.ENCODERS
  config.model.widths = (24, 48, 72, 96)  # of sphere_small: channels at strides 2, 4, 8, 16
  config.model.blocks = (1, 1, 1, 1)  # residual blocks on each level, after it is reached
  config.model.sphere_from_stride = 4  # coarser levels use spherical convolution, finer ones planar
  config.model.last_stride = 16  # of the coarsest level that is used; 32 where the encoder has it
  config.model.feature_channels = 48
  config.model.mask_channels = 32
  config.model.num_queries = 48
  config.model.decoder_layers = 1
  config.model.num_categories = 12
  config.model.mask_stride = 2
  config.model.surround = True  # the rank head also pools around each mask

  # Public weights that the encoder starts from: "package" (sphere_efficientnet_lite0, the extra
  # `pretrained`) or a file (ResNet-50 of torchvision, Swin of timm); "": random ones.
  config.encoder_weights = ""
  # Folder of a run whose averaged parameters training starts from, as far as their shapes agree.
  config.init_from = ""

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
  config.optimizer.encoder_rate = 1.0  # factor of it for the encoder, below 1 for public weights
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
  config.data.height = 336  # to which all pictures are brought
  config.data.width = 448
  # Sides of the views of each training picture as shares of its own, one view each. Above 1 the
  # mirror image of the picture is around it.
  config.data.windows = (1.0, 1.0, 0.7, 1.4)
  config.data.batch_size = 16

  config.model = ConfigDict()
  config.model.channels = (64, 32)  # of the hidden layers
  config.model.dropout = 0.3  # share of the first one's channels that a view does without

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 3e-3
  config.optimizer.warmup_steps = 20
  config.optimizer.weight_decay = 0.1
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


def weak_labels_config() -> ConfigDict:
  """Returns the defaults of the task "weak_labels"; unknown fields are refused by the lock."""
  config = ConfigDict()
  config.task = "weak_labels"
  config.saliency = default_saliency_name()
  config.update(Strategy()._asdict())  # its fields are explained there
  config.batch_size = 8  # panoramas that go through the program together
  config.overlays = True  # also draw a picture for each rank file
  return config.lock()


def validate(config: ConfigDict) -> None:
  """Raises ValueError with one line for the first value that cannot work."""
  checks = {
    "ranking": _validate_ranking,
    "fixation": _validate_fixation,
    "weak_labels": _validate_weak_labels,
  }
  if config.task not in checks:
    raise ValueError(f"config.task must be one of {', '.join(checks)}, not {config.task!r}")
  if "train" in config and config.train.mode not in MODES:
    raise ValueError(
      f"config.train.mode must be one of {', '.join(MODES)}, not {config.train.mode!r}"
    )
  checks[config.task](config)


def _validate_fixation(config: ConfigDict) -> None:
  data = config.data
  if not data.names or len(data.names) != len(data.degrees):
    raise ValueError("config.data.names must be one or more, and .degrees needs a value for each")
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
  if not config.model.channels or min(config.model.channels) < 1:
    raise ValueError(
      f"config.model.channels must be one or more numbers of channels, not {config.model.channels}"
    )
  if not 0 <= config.model.dropout < 1:
    raise ValueError(f"config.model.dropout must be in [0, 1), not {config.model.dropout}")
  for section in ("data", "evaluate"):
    if config[section].batch_size < 1:
      raise ValueError(
        f"config.{section}.batch_size must be at least 1, not {config[section].batch_size}"
      )


def _validate_weak_labels(config: ConfigDict) -> None:
  for field, known in (("saliency", NAMES), ("collector", COLLECTORS), ("fill", FILLS)):
    if config[field] not in known:
      raise ValueError(f"config.{field} must be one of {', '.join(known)}, not {config[field]!r}")
  for field, least in (
    *(("batch_size", 1), ("views_at_once", 1)),
    *(("grow_px", 0), ("max_erased", 0), ("max_erased_whole", 0)),
  ):
    if config[field] < least:
      raise ValueError(f"config.{field} must be at least {least}, not {config[field]}")


def _validate_ranking(config: ConfigDict) -> None:
  data, model = config.data, config.model
  _validate_encoder(config)
  for field, heights in (("height", (data.height,)), ("train_heights", data.train_heights)):
    for height in heights:
      if height % model.last_stride or height < 3 * model.last_stride:
        raise ValueError(
          f"config.data.{field} must be divisible by {model.last_stride} (config.model.last_stride)"
          f" and at least {3 * model.last_stride}, not {height}"
        )
  Augmentation(**data.augment)  # checks its values itself
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


def _validate_encoder(config: ConfigDict) -> None:
  model = config.model
  if model.encoder not in ENCODERS:
    raise ValueError(
      f"config.model.encoder must be one of {', '.join(ENCODERS)}, not {model.encoder!r}"
    )
  strides = (16,) if model.encoder == SMALL else (16, 32)
  if model.last_stride not in strides:
    raise ValueError(
      f"config.model.last_stride must be {' or '.join(map(str, strides))} with {model.encoder}, not"
      f" {model.last_stride}"
    )
  if model.encoder in ("sphere_resnet50", PANOSWIN) and model.mask_stride == 2:
    raise ValueError(
      f"config.model.mask_stride must be 4 with {model.encoder}, whose first map has that stride"
    )
  if config.encoder_weights and model.encoder == SMALL:
    raise ValueError(f"config.encoder_weights: there are none for {SMALL}; leave them out")
