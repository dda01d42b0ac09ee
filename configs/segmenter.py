"""The small segmenter of ordinary pictures, on coco_small.

foir360 train --config=configs/segmenter.py --workdir=runs/segmenter \
  --config.data.data_dir=FOLDER_WITH_ann.json
"""

from foir360_jax.config import segmenter_config


def get_config():
  """40 minutes on two CPU cores, and 5 GB of memory."""
  return segmenter_config()
