"""The readout of human fixations behind the learned saliency, on crowd and osie.

foir360 prepare --dataset=fixations/crowd --manual_dir=FOLDER --data_dir=data
foir360 prepare --dataset=fixations/osie --manual_dir=FOLDER --data_dir=data
foir360 train --config=configs/fixation.py --workdir=runs/fixation_tune

Trains on the part `train` and reports on `tune`, by which the
settings were chosen: 234 pictures, without the centre bias (as the readout is used) and with it,
NSS 2.60 and 2.66, CC 0.779 and 0.801, AUC-Judd 0.894 and 0.897; on crowd alone 2.14 and 2.19, 0.791
and 0.817, 0.871 and 0.874.

The weights that are committed as foir360_jax/saliency/fixation_readout.safetensors were then
trained on both parts, together with three readouts that each did without a third of the pictures
(see `weak_labels.study.fit_object_score`); each picture is reported by the one that has not seen
it:

foir360 train --config=configs/fixation.py --workdir=runs/fixation \
  --config.data.train_split=train+tune --config.data.folds=3

`foir360 evaluate --config.evaluate.split=test` (and these flags) opens `test`, which was done once
for this readout: NSS 2.73, CC 0.784, AUC-Judd 0.896, on crowd alone 2.03, 0.764, 0.862
(docs/results.md).
"""

from foir360_jax.config import fixation_config


def get_config():
  """25 minutes on two CPU cores, 11 of them for the features, which take 5.3 GB of memory.

  With the three readouts more and both parts 80 minutes beside other work, and 7.3 GB.
  """
  return fixation_config()
