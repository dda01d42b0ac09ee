"""PanoRank on the full synthetic set: the figures that README and docs/results.md report.

foir360 prepare --dataset=synthetic360/128x256 --data_dir=data
foir360 train --config=configs/synthetic.py --workdir=runs/synthetic
"""

from foir360_jax.config import base_config


def get_config():
  """An hour of training on two CPU cores; see README for what it reaches."""
  config = base_config()
  config.data.name = "synthetic360/128x256"
  config.data.height = 128
  config.model.mask_stride = 4
  # The finest level only feeds the next one here, and costs the most.
  config.model.widths = (16, 48, 72, 96)
  config.model.blocks = (0, 1, 1, 1)
  config.model.decoder_layers = 3
  config.train.steps = 30000
  config.train.minutes = 60.0
  config.train.checkpoint_every = 1000
  return config
