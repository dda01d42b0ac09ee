r"""PanoRank in full with PanoSwin tiny, on 360Rank: configs/panorank.py with another encoder.

foir360 prepare --dataset=rank360/human --manual_dir=FOLDER --data_dir=data
foir360 train --config=configs/panoswin.py --workdir=runs/panoswin \
  --config.encoder_weights=FILE

FILE is timm's Swin tiny (`.safetensors` or `.pth`). Without it the encoder starts from random
parameters; then also give --config.optimizer.layer_decay=1, for its stem has all to learn. The
learning rates are those of the papers of Swin and PanoSwin. Needs a GPU. Not trained to the end
yet: 360Rank could not be had, and no GPU was at hand.
"""

from foir360_jax.config import full_config


def get_config():
  """Attention in windows of 8, stochastic depth 0.2, layer-wise learning rates."""
  config = full_config()
  config.model.encoder = "panoswin_tiny"
  config.model.drop_path = 0.2
  config.optimizer.learning_rate = 1e-4
  return config
