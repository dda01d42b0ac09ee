"""The fields that every configuration has, with their defaults.

A file in `configs/` calls `base_config()`, changes what it wants and returns it; the command line
may override any field (`--config.optimizer.learning_rate=1e-3`). Only the entry points and the
`build_*` functions see a ConfigDict: below them values travel as plain arguments.

Which entry points, the field `task` says: "ranking" trains PanoRank and starts from `base_config`,
"fixation" trains the readout of the learned saliency and starts from `fixation_config`,
"segmenter" trains the small segmenter and starts from `segmenter_config`,
"weak_labels" ranks without annotators, trains nothing and starts from `weak_labels_config`.
Nothing is imported here: what values may be is checked where they are used (`check.py` in `train`,
`saliency.fixations`, `segment.training` and `weak_labels`).
"""

from foir360_jax.config.fixation import fixation_config
from foir360_jax.config.ranking import base_config, full_config
from foir360_jax.config.segmenter import segmenter_config
from foir360_jax.config.weak_labels import weak_labels_config

__all__ = [
  "base_config",
  "fixation_config",
  "full_config",
  "segmenter_config",
  "weak_labels_config",
]
