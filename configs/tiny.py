"""PanoRank on small synthetic panoramas: what the quickstart trains.

foir360 prepare --dataset=synthetic360/64x128 --data_dir=data
foir360 train --config=configs/tiny.py --workdir=runs/tiny

It reaches, in 6 minutes on two CPU cores (1,012 steps), an SA-SOR of 0.778 on ground-truth masks
and 0.543 on predicted ones (test split); what the model's parts are worth is in docs/choices.md.
"""

from foir360_jax.config import base_config


def get_config():
  """Six minutes of training on two CPU cores; see README for what it reaches."""
  config = base_config()
  config.data.name = "synthetic360/64x128"
  config.data.height = 64
  config.model.mask_stride = 2
  config.train.steps = 4000
  config.train.minutes = 6.0
  return config
