"""The task "fixation": the readout of human fixations behind the learned saliency."""

from ml_collections import ConfigDict


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
  # pictures that a readout has not seen. See `weak_labels.study.fit_object_score`.
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
