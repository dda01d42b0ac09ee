r"""Ranks without annotators for a folder of panoramas with masks.

python -m foir360_jax.main --config=configs/weak_labels.py --mode=weak_labels \
  --input=SCENES --output=OUT
python datasets/prepare.py --dataset=rank360/weak --manual_dir=SCENES --ranks_dir=OUT

Needs the extra `pretrained`; `--saliency=spectral` needs nothing. A stopped run goes on by the same
command.
"""

from foir360_jax.config import weak_labels_config


def get_config():
  """The settings that are measured in docs/results.md."""
  return weak_labels_config()
