"""PanoRank that ranks provided masks, without detection: the ranking part of configs/tiny.py.

foir360 prepare --dataset=synthetic360/64x128_repeats --data_dir=data
foir360 train --config=configs/rank_masks.py --workdir=runs/rank_masks

The scores in parallel and the recurrent module are trained together here; by
--config.loss.recurrent=0 or --config.loss.rank_ground_truth=0 one of them alone.
"""

from foir360_jax.config import base_config


def get_config():
  """Steps, not minutes, so that runs differ in nothing but what is changed."""
  config = base_config()
  config.data.name = "synthetic360/64x128_repeats"
  config.data.height = 64
  config.model.mask_stride = 2
  for term in ("heat", "foreground", "object", "mask_dice", "mask_entropy", "category"):
    config.loss[term] = 0.0
  config.loss.rank_predicted = 0.0
  config.train.steps = 1000
  return config
