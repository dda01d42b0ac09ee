r"""PanoRank on weak labels, its true ranks hidden: one run of `launch/weak_training.sh`.

bash launch/weak_training.sh

which also trains it on true ranks of the same pictures and masks, with several seeds of each:

foir360 train --config=configs/weak_training.py --workdir=RUN \
  --config.data.data_dir=FOLDER --config.data.name=rank360/human --config.seed=1
"""

from foir360_jax.config import base_config


def get_config():
  """The model of configs/tiny.py; steps, not minutes, so that runs differ in nothing but labels."""
  config = base_config()
  config.data.name = "rank360/weak"
  config.data.train_split = "train[:90%]"
  config.data.validation_split = "train[90%:]"
  config.data.test_split = "train[90%:]"  # the figures are made on another data set, see the script
  config.data.height = 64
  config.model.mask_stride = 2
  config.train.steps = 2000
  return config
