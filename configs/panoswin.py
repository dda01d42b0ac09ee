r"""PanoRank in full with PanoSwin tiny, on 360Rank: configs/panorank.py with another encoder.

python datasets/prepare.py --dataset=rank360/human --manual_dir=FOLDER --data_dir=data
python -m foir360_jax.main --config=configs/panoswin.py --workdir=runs/panoswin \
  --config.encoder_weights=FILE

FILE is timm's Swin tiny (`.safetensors` or `.pth`). Without it the encoder starts from random
parameters; then also give --config.optimizer.layer_decay=1, for its stem has all to learn. The
learning rates are those of the papers of Swin and PanoSwin. Needs a GPU. Not trained to the end
yet: 360Rank could not be had, and no GPU was at hand.
"""

from foir360_jax.config import base_config


def get_config():
  """Attention in windows of 8, stochastic depth 0.2, layer-wise learning rates."""
  config = base_config()
  config.data.name = "rank360/human"
  config.data.train_split = "train[:90%]"
  config.data.validation_split = "train[90%:]"
  config.data.height = 512
  config.data.max_objects = 128
  config.data.batch_size = 8
  config.data.num_threads = 16

  config.model.encoder = "panoswin_tiny"
  config.model.drop_path = 0.2
  config.model.last_stride = 32
  config.model.mask_stride = 4
  config.model.feature_channels = 256
  config.model.mask_channels = 64
  config.model.pixel_layers = 6
  config.model.decoder_layers = 9
  config.model.num_queries = 128
  config.model.num_categories = 65
  config.model.compute_dtype = "bfloat16"
  config.model.remat = True
  config.loss.points = 12544

  config.optimizer.learning_rate = 1e-4
  config.optimizer.layer_decay = 0.9
  config.optimizer.warmup_steps = 500
  config.optimizer.weight_decay = 0.05
  config.optimizer.b2 = 0.999
  config.optimizer.clip_norm = 1.0
  config.train.steps = 30000
  config.train.ema_decay = 0.999
  config.train.checkpoint_every = 1000
  config.evaluate.batch_size = 4
  config.evaluate.turns = 2
  return config
