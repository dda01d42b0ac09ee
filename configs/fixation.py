"""The readout of human fixations behind the learned saliency, on crowd and osie.

python datasets/prepare.py --dataset=fixations/crowd --manual_dir=FOLDER --data_dir=data
python datasets/prepare.py --dataset=fixations/osie --manual_dir=FOLDER --data_dir=data
python -m foir360_jax.main --config=configs/fixation.py --workdir=runs/fixation

Needs the extra `pretrained`. Trains on the part `train` and reports on `tune`, by which the
settings were chosen; `--mode=evaluate --config.evaluate.split=test` opens `test`.
"""

from foir360_jax.config import fixation_config


def get_config():
  """Ten minutes on two CPU cores, most of it for the features; 2 GB of memory."""
  return fixation_config()
