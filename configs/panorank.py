"""PanoRank in full, on 360Rank: 512x1024, 128 objects, EfficientNet-Lite0 with public weights.

foir360 prepare --dataset=rank360/human --manual_dir=FOLDER --data_dir=data
foir360 train --config=configs/panorank.py --workdir=runs/panorank

Needs a GPU. To fine-tune from any other run: --config.init_from=RUN.
What a step takes of memory is printed before the first one; --config.data.batch_size lowers it.
Not trained to the end yet: 360Rank could not be had, and no GPU was at hand.
"""

from foir360_jax.config import full_config


def get_config():
  """The sizes of published models of its kind; README tells what smaller ones reach."""
  config = full_config()
  config.model.encoder = "sphere_efficientnet_lite0"
  config.encoder_weights = "package"
  config.model.sphere_from_stride = 16
  config.optimizer.learning_rate = 2e-4
  config.optimizer.encoder_rate = 0.1
  return config
