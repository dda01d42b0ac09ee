"""The readout of human fixations behind the learned saliency, on crowd and osie.

python datasets/prepare.py --dataset=fixations/crowd --manual_dir=FOLDER --data_dir=data
python datasets/prepare.py --dataset=fixations/osie --manual_dir=FOLDER --data_dir=data
python -m foir360_jax.main --config=configs/fixation.py --workdir=runs/fixation

Needs the extra `pretrained`. Trains on the part `train` and reports on `tune`, by which the
settings were chosen; `--mode=evaluate --config.evaluate.split=test` opens `test`. It gives the
weights that are committed as foir360_jax/saliency/fixation_readout.safetensors.

Reached on `test`, 213 pictures, without the centre bias (as it is used) and with it: NSS 2.57 and
2.59, CC 0.760 and 0.774, AUC-Judd 0.891 and 0.895; on crowd alone 1.88 and 1.94, 0.723 and 0.760,
0.850 and 0.859.
"""

from foir360_jax.config import fixation_config


def get_config():
  """Ten minutes on two CPU cores, most of it for the features; 2 GB of memory."""
  return fixation_config()
