"""Run lengths read in part: they go down the columns, so a few columns cost little.

A panorama has some forty objects of a few columns each, and decoding them is most of the work of
reading it. Axes: masks [H, W].
"""

import numpy as np

from foir360_jax.scenes import RunLengths


def column(run_lengths: RunLengths, index: int) -> np.ndarray:
  """Returns one column of a mask, [H] bool.

  >>> column(RunLengths.from_mask(np.eye(3, dtype=bool)), 1).tolist()
  [False, True, False]
  """
  height = run_lengths.height
  pixels = np.arange(index * height, (index + 1) * height)
  return np.searchsorted(np.cumsum(run_lengths.runs()), pixels, side="right") % 2 == 1


def decode(run_lengths: RunLengths) -> np.ndarray:
  """Returns the mask [H, W] bool: `RunLengths.mask`, but only the object's columns are unrolled."""
  height, width = run_lengths.height, run_lengths.width
  runs = run_lengths.runs()
  is_object = np.arange(len(runs)) % 2 == 1
  first = runs[0] // height
  runs[0] -= first * height
  end = runs[: len(runs) // 2 * 2].sum()  # of the object, in pixels from its first column
  columns = -(-end // height)
  if not is_object[-1]:
    runs[-1] = columns * height - end
  mask = np.zeros([height, width], bool)
  mask[:, first : first + columns] = np.repeat(is_object, runs).reshape(columns, height).T
  return mask
