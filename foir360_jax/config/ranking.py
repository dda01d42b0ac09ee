"""The task "ranking": PanoRank, its data, training and evaluation."""

from ml_collections import ConfigDict

from foir360_jax.data import Augmentation
from foir360_jax.models.encoders import ENCODERS
from foir360_jax.models.encoders.build import PANOSWIN, SMALL
from foir360_jax.models.mask_head import AFFINITY_CHANNELS


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
  config.model.drop_path = 0.0  # stochastic depth of panoswin_tiny: its last block's share
  config.model.feature_channels = 48
  config.model.pixel_layers = 1  # of the transformer on the coarsest level
  config.model.mask_channels = 32
  config.model.num_queries = 48
  config.model.decoder_layers = 1  # in which queries look at the scene, each at another scale
  config.model.num_categories = 12
  config.model.mask_stride = 2  # of the fine map, on which objects are found and described
  config.model.mask_detail = 2  # masks have as many pixels along each side of its cells
  config.model.surround = True  # the rank head also pools around each mask
  config.model.told_categories = False  # given masks bring their categories, and it ranks by them
  config.model.compute_dtype = "float32"  # of encoder and pixel decoder; or "bfloat16"
  config.model.remat = False  # the backward pass computes blocks again: on a GPU less memory

  # Public weights that the encoder starts from: "package" (sphere_efficientnet_lite0, the extra
  # `pretrained`) or a file (ResNet-50 of torchvision, Swin of timm); "": random ones.
  config.encoder_weights = ""
  # Folder of a run whose averaged parameters training starts from, as far as their shapes agree.
  config.init_from = ""

  config.loss = ConfigDict()  # the ranking loss and the weights of the terms of models/objective.py
  config.loss.ranking = "listmle"
  config.loss.points = 0  # on the sphere at which masks are compared; 0: in every cell
  # Share of the steps of the recurrent module that go on from its own pick, at the end of training.
  config.loss.own_picks = 1.0
  # Share of the true masks whose categories a model with told_categories is told in training.
  config.loss.told_share = 0.8
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
  config.optimizer.layer_decay = 1.0  # ... and for each of its blocks from the last one down
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
  # By how much the recurrent module must prefer an object to stopping; -100: it never stops.
  config.evaluate.stop_margins = (-100.0, -6.0, -4.0, -3.0, -2.0, -1.0, 0.0)
  config.evaluate.choose_by = "sa_sor"  # of validation; "f1": what finds every object best
  config.evaluate.turns = 1  # mean over this number of copies of a picture, each turned further
  config.evaluate.sheet_images = 8

  config.benchmark = ConfigDict()
  config.benchmark.rounds = 15  # in which the contestants of a race take turns
  config.benchmark.budget_s = 20.0  # a race starts no further round after this many seconds
  return config.lock()


def full_config() -> ConfigDict:
  """Returns `base_config` at the sizes of published models, on 360Rank: what both recipes share.

  512x1024, up to 128 objects, for a GPU.
  """
  config = base_config()
  config.data.name = "rank360/human"
  config.data.train_split = "train[:90%]"
  config.data.validation_split = "train[90%:]"
  config.data.height = 512
  config.data.max_objects = 128
  config.data.num_threads = 16

  config.model.last_stride = 32
  config.model.mask_stride = 4
  config.model.mask_detail = 1
  config.model.feature_channels = 256
  config.model.mask_channels = 64
  config.model.pixel_layers = 6
  config.model.decoder_layers = 9
  config.model.num_queries = 128
  config.model.num_categories = 65
  config.model.compute_dtype = "bfloat16"
  config.model.remat = True
  config.loss.points = 12544

  config.optimizer.layer_decay = 0.9
  config.optimizer.warmup_steps = 500
  config.optimizer.weight_decay = 0.05
  config.optimizer.b2 = 0.999
  config.train.steps = 30000
  config.train.ema_decay = 0.999
  config.train.checkpoint_every = 1000
  config.evaluate.batch_size = 4
  config.evaluate.turns = 2
  return config


def validate_ranking(config: ConfigDict) -> None:
  """Raises ValueError with one line for the first value that cannot work."""
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
  if model.mask_detail not in (1, 2, 4) or model.mask_detail > model.mask_stride:
    raise ValueError(
      f"config.model.mask_detail must be 1, 2 or 4 and at most {model.mask_stride}"
      f" (config.model.mask_stride), not {model.mask_detail}"
    )
  if config.model.mask_channels <= AFFINITY_CHANNELS:
    raise ValueError(
      f"config.model.mask_channels must be above {AFFINITY_CHANNELS} (the channels of likeness and"
      f" the foreground), not {config.model.mask_channels}"
    )
  if config.model.num_queries < config.data.max_objects:
    raise ValueError(
      "config.model.num_queries must be at least config.data.max_objects"
      f" ({config.data.max_objects}), not {config.model.num_queries}"
    )
  cells = 2 * (min((data.height, *data.train_heights)) // model.mask_stride) ** 2
  if model.num_queries > cells:
    raise ValueError(
      f"config.model.num_queries must be at most {cells}, the cells of the smallest picture, not"
      f" {model.num_queries}"
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
  if config.evaluate.batch_size < 1:
    raise ValueError(
      f"config.evaluate.batch_size must be at least 1, not {config.evaluate.batch_size}"
    )
  if not 0 < config.evaluate.iou_threshold <= 1:
    raise ValueError(
      f"config.evaluate.iou_threshold must be in (0, 1], not {config.evaluate.iou_threshold}"
    )
  if not config.evaluate.stop_margins:
    raise ValueError("config.evaluate.stop_margins must be one or more numbers, -100 for no stop")
  if config.evaluate.choose_by not in ("sa_sor", "f1"):
    raise ValueError(
      f"config.evaluate.choose_by must be sa_sor or f1, not {config.evaluate.choose_by!r}"
    )
  if config.evaluate.turns < 1:
    raise ValueError(f"config.evaluate.turns must be at least 1, not {config.evaluate.turns}")
  if config.loss.points < 0:
    raise ValueError(f"config.loss.points must be 0 (all cells) or more, not {config.loss.points}")
  if config.model.compute_dtype not in ("float32", "bfloat16"):
    raise ValueError(
      f"config.model.compute_dtype must be float32 or bfloat16, not {config.model.compute_dtype!r}"
    )
  if not 0 <= config.model.drop_path < 1:
    raise ValueError(f"config.model.drop_path must be in [0, 1), not {config.model.drop_path}")
  if config.model.drop_path and config.model.encoder != PANOSWIN:
    raise ValueError(f"config.model.drop_path is of {PANOSWIN}: leave it 0")
  if not 0 < config.optimizer.layer_decay <= 1:
    raise ValueError(
      f"config.optimizer.layer_decay must be in (0, 1], not {config.optimizer.layer_decay}"
    )
  if not 0 <= config.loss.own_picks <= 1:
    raise ValueError(f"config.loss.own_picks must be in [0, 1], not {config.loss.own_picks}")
  if not 0 < config.loss.told_share <= 1:
    raise ValueError(f"config.loss.told_share must be in (0, 1], not {config.loss.told_share}")


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
