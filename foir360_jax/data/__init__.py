"""Input pipeline: prepared TFDS data -> source, transforms, augment, loader -> padded batches.

Only reads: `datasets/` writes, and the files on disk are all that the two share. Axes and keys of a
batch: `foir360_jax.batch.Batch`; of an example: `foir360_jax.data.source`.
"""

from foir360_jax.data.augment import Augmentation, augment
from foir360_jax.data.colour import change_colours, colour_matrix, reorder_channels
from foir360_jax.data.loader import (
  build_evaluation_batches,
  build_training_batches,
  evaluation_batches,
  training_batches,
)
from foir360_jax.data.rotation import flip_longitude, roll_columns, rotate
from foir360_jax.data.source import PreparedSource, open_source
from foir360_jax.data.transforms import pad_objects, resample, select_objects

__all__ = [
  "Augmentation",
  "PreparedSource",
  "augment",
  "build_evaluation_batches",
  "build_training_batches",
  "change_colours",
  "colour_matrix",
  "evaluation_batches",
  "flip_longitude",
  "open_source",
  "pad_objects",
  "reorder_channels",
  "resample",
  "roll_columns",
  "rotate",
  "select_objects",
  "training_batches",
]
