"""Mask logits of a coarse map -> masks of the size of a picture, at the cost of what they cover.

On the host: most objects take a small part of a panorama, and a pixel can only be on an object if a
cell that it is interpolated from is. Axes: Q masks, a map [h, 2 h] of P cells, pictures [H, 2 H].
"""

import functools

import numpy as np
from scipy import sparse

from foir360_jax.models.cells import map_height
from foir360_jax.sphere.resample import resize_matrices


def full_size_masks(mask_logits: np.ndarray, height: int) -> np.ndarray:
  """The same masks as of `models.mask_head.picture_masks`, each computed where it may be.

  Args:
    mask_logits: `[Q, P]` float32.
    height: H.

  Returns:
    bool `[Q, H, 2 H]`.
  """
  old_height = map_height(mask_logits.shape[-1])
  maps = mask_logits.reshape(-1, old_height, 2 * old_height)
  if height == old_height:
    return maps > 0
  rows, columns = _weights(old_height, height)
  masks = np.zeros((len(maps), height, 2 * height), bool)
  for mask, logits in zip(masks, maps, strict=True):
    if height > old_height:  # the row beyond a pole is the outermost one, half a turn on
      beyond = np.roll(logits[[0, -1]], old_height, axis=-1)
      logits = np.concatenate([beyond[:1], logits, beyond[1:]])
    on_object = (logits > 0).astype(np.float32)
    # Weights are not negative: elsewhere no logit is above 0. Lists of rows and columns rather than
    # a box, for which the seam would be a special case.
    new_rows = np.flatnonzero(rows @ on_object.max(axis=1))
    new_columns = np.flatnonzero(columns @ on_object.max(axis=0))
    narrow = (columns[new_columns] @ logits.T).T
    mask[np.ix_(new_rows, new_columns)] = rows[new_rows] @ np.ascontiguousarray(narrow) > 0
  return masks


@functools.lru_cache(maxsize=4)  # the pictures of a folder often are of one size
def _weights(old_height: int, height: int) -> tuple[sparse.csr_array, sparse.csr_array]:
  """The matrices of `resize_panorama`: next to all of their weights are 0."""
  rows, columns = resize_matrices(old_height, height)
  return sparse.csr_array(rows.astype(np.float32)), sparse.csr_array(columns.astype(np.float32))
