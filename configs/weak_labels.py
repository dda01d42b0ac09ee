r"""Ranks without annotators for a folder of panoramas with masks.

foir360 weak-labels --config=configs/weak_labels.py \
  --input=SCENES --output=OUT
foir360 prepare --dataset=rank360/weak --manual_dir=SCENES --ranks_dir=OUT

A stopped run goes on by the same command.
"""

from foir360_jax.config import weak_labels_config


def get_config():
  """The settings that are measured in docs/results.md."""
  return weak_labels_config()
