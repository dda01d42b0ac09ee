"""The task "segmenter": the small segmenter of ordinary pictures."""

from ml_collections import ConfigDict


def segmenter_config() -> ConfigDict:
  """Returns the defaults of the task "segmenter"; unknown fields are refused by the lock."""
  config = ConfigDict()
  config.task = "segmenter"
  config.seed = 0

  config.data = ConfigDict()
  config.data.data_dir = "data/coco_small"  # the folder of pictures
  config.data.annotations = ""  # a COCO instances JSON; "": ann.json in the folder
  config.data.licences = "all"  # "free": train on pictures alone that may be used for anything
  config.data.batch_size = 8
  config.data.max_objects = 48  # of a canvas; of more, drawn ones are ignored

  config.augmentation = ConfigDict()  # see segment.training.augmentation.Settings
  config.augmentation.size = 384
  config.augmentation.working_pixels = 512 * 512
  config.augmentation.scales = (0.55, 1.3)
  config.augmentation.mosaic = 0.3
  config.augmentation.paste = 0.4
  config.augmentation.blur = 0.3
  config.augmentation.colour = 0.8

  config.model = ConfigDict()  # see segment.small.network.SmallNetwork
  config.model.channels = 64
  config.model.mask_channels = 32

  config.loss = ConfigDict()
  config.loss.places = 24  # of a canvas whose masks are computed
  config.loss.objectness = 1.0  # weights of the terms
  config.loss.mask = 2.0
  config.loss.quality = 0.5

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_steps = 50
  config.optimizer.weight_decay = 0.05
  config.optimizer.b2 = 0.99
  config.optimizer.clip_norm = 5.0
  config.optimizer.encoder_rate = 0.2  # of the learning rate, for the encoder

  # First the head alone, on canvases that pass through the encoder once: these many a picture.
  config.head = ConfigDict()
  config.head.canvases = 5
  config.head.learning_rate = 2e-3
  config.head.steps = 1200
  config.head.minutes = 0.0

  config.train = ConfigDict()  # as in base_config; then all that is trained, on ever new canvases
  config.train.steps = 700
  config.train.minutes = 0.0
  config.train.ema_decay = 0.998
  config.train.mode = "jit"
  config.train.log_every = 50
  config.train.checkpoint_every = 100
  config.train.keep_checkpoints = 1

  config.evaluate = ConfigDict()
  config.evaluate.split = "validation"  # "test" for final figures only
  config.evaluate.proposals = 128  # that are looked at
  config.evaluate.max_proposals = 60  # of a picture that count for recall
  config.evaluate.overlap = 0.6  # IoU from which on a proposal repeats a better one
  return config.lock()
