"""The plain way from candidates to objects, beside which the merge is measured.

Non-maximum suppression on the sphere: candidates from the best on, those cut by a view's border at
.6 of their score; one that overlaps a kept one by IoU .5, or that is cut and lies three quarters
inside one, is dropped. Nothing is joined.
"""

import numpy as np

from foir360_jax.segment.merge import Candidates

SAME, CONTAINED, CUT_SCORE = 0.5, 0.75, 0.6


def unpack(bits: np.ndarray, height: int) -> np.ndarray:
  """Masks [N, H, 2 H] bool of packed ones [N, P / 8]."""
  pixels = np.unpackbits(bits, axis=-1, count=2 * height * height)
  return pixels.reshape(-1, height, 2 * height).view(bool)


def suppress(candidates: Candidates, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Drops what repeats a better one.

  Args:
    candidates: N of them.
    shared: [N, N] solid angles that pairs share, see `PackedMasks.overlaps`.

  Returns:
    Indices of those that are kept, best first; their scores.
  """
  scores = candidates.scores * np.where(candidates.touches_border, CUT_SCORE, 1.0)
  areas = np.diag(shared)
  kept: list[int] = []
  for index in np.argsort(-scores, kind="stable").tolist():
    both = shared[index, kept]
    same = both > SAME * (areas[index] + areas[kept] - both)
    inside = candidates.touches_border[index] & (both > CONTAINED * areas[index])
    if not (same | inside).any():
      kept.append(index)
  return np.array(kept, int), scores[kept]
