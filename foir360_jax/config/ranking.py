"""The task "ranking": PanoRank, its data, training and evaluation."""

from ml_collections import ConfigDict


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
  config.model.encoder = "sphere_small"  # or another of foir360_jax.models.encoders.ENCODERS
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
  config.model.context = True  # the rank head also pools around each mask
  config.model.condition_on_categories = False  # of masks that are provided with theirs
  config.model.compute_dtype = "float32"  # of encoder and pixel decoder; or "bfloat16"
  config.model.remat = False  # the backward pass computes blocks again: on a GPU less memory

  # Public weights that the encoder starts from: "package" (sphere_efficientnet_lite0; it is
  # installed) or a file (ResNet-50 of torchvision, Swin of timm); "": random ones.
  config.encoder_weights = ""
  # Folder of a run whose averaged parameters training starts from, as far as their shapes agree.
  config.init_from = ""

  config.loss = ConfigDict()  # the ranking loss and the weights of the terms of `objective`
  config.loss.ranking = "listmle"
  config.loss.points = 0  # on the sphere at which masks are compared; 0: in every cell
  # Share of the steps of the recurrent module that continue from its own pick, at the end of
  # training (scheduled sampling: Bengio et al., NeurIPS 2015).
  config.loss.scheduled_sampling = 1.0
  # Share of ground-truth masks whose categories it is conditioned on in training: below 1, so that
  # it learns to do without.
  config.loss.conditioning_rate = 0.8
  config.loss.heat = 1.0
  config.loss.foreground = 2.0
  config.loss.object = 0.5
  config.loss.mask_dice = 2.0
  config.loss.mask_entropy = 1.0
  config.loss.category = 0.1
  config.loss.rank_ground_truth = 0.5
  config.loss.rank_predicted = 0.5
  config.loss.recurrent = 0.5
  config.loss.rank_category = 0.5

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 2e-3
  config.optimizer.encoder_rate = 1.0  # factor of it for the encoder, below 1 for public weights
  config.optimizer.layer_decay = 1.0  # ... and for each of its blocks from the last one down
  config.optimizer.warmup_steps = 50
  config.optimizer.weight_decay = 0.02  # of the kernels of layers
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
  config.evaluate.confidence_thresholds = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
  # By how much the recurrent module must prefer an object to stopping; -100: it never stops.
  config.evaluate.stop_margins = (-100.0, -6.0, -4.0, -3.0, -2.0, -1.0, 0.0)
  config.evaluate.choose_by = "sa_sor"  # of validation; "f1": best detection
  config.evaluate.yaw_augmentation = 1  # copies, each rotated further, that are averaged
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
  config.evaluate.yaw_augmentation = 2
  return config
