"""Prepared TFDS data on disk -> padded batches: source, transforms, augment, loader, in this order.

Only reads: `datasets/` writes, and the files on disk are all that the two share. Axes and keys of a
batch: `foir360_jax.types.Batch`; of an example: `foir360_jax.data.source`.
"""

from foir360_jax.data.augment import augment, flip_longitude, reorder_channels, roll_columns
from foir360_jax.data.loader import (
  build_evaluation_batches,
  build_training_batches,
  evaluation_batches,
  training_batches,
)
from foir360_jax.data.source import PreparedSource, open_source
from foir360_jax.data.transforms import (
  pack_masks,
  pad_objects,
  resample,
  select_objects,
  unpack_masks,
)

__all__ = [
  "PreparedSource",
  "augment",
  "build_evaluation_batches",
  "build_training_batches",
  "evaluation_batches",
  "flip_longitude",
  "open_source",
  "pack_masks",
  "pad_objects",
  "reorder_channels",
  "resample",
  "roll_columns",
  "select_objects",
  "training_batches",
  "unpack_masks",
]
