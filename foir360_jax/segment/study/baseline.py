"""The plain way from candidates to objects, beside which the merge is measured.

Non-maximum suppression on the sphere: candidates from the best on, those cut by a view's border at
.6 of their score; one that overlaps a kept one by IoU .5, or that is cut and lies three quarters
inside one, is dropped. Nothing is joined.
"""

from typing import NamedTuple

import numpy as np

from foir360_jax.metrics import crop_masks, mask_iou
from foir360_jax.segment.merge import Candidates
from foir360_jax.sphere import pixel_areas, solid_angle

SAME, CONTAINED, CUT_SCORE = 0.5, 0.75, 0.6


class Overlaps(NamedTuple):
  """Of all candidates: solid angles [N], those that pairs share [N, N]."""

  areas: np.ndarray
  shared: np.ndarray


def unpack(bits: np.ndarray, height: int) -> np.ndarray:
  """Masks [N, H, 2 H] bool of packed ones."""
  pixels = np.unpackbits(bits, axis=-1, count=2 * height * height)
  return pixels.reshape(-1, height, 2 * height).view(bool)


def candidate_overlaps(masks: np.ndarray) -> Overlaps:
  """Overlaps of masks [N, H, 2 H] bool."""
  if not len(masks):
    return Overlaps(np.zeros(0), np.zeros((0, 0)))
  areas = solid_angle(masks)
  cropped = crop_masks(masks)
  iou = mask_iou(cropped, cropped, pixel_areas(masks.shape[1])[:, :1])
  return Overlaps(areas, iou / (1 + iou) * (areas[:, None] + areas))


def suppress(candidates: Candidates, overlaps: Overlaps) -> tuple[np.ndarray, np.ndarray]:
  """Indices of the candidates that are kept, best first, and their scores."""
  scores = candidates.scores * np.where(candidates.touches_border, CUT_SCORE, 1.0)
  areas, shared = overlaps
  kept: list[int] = []
  for index in np.argsort(-scores, kind="stable"):
    both = shared[index, kept]
    same = both > SAME * (areas[index] + areas[kept] - both)
    inside = candidates.touches_border[index] & (both > CONTAINED * areas[index])
    if not (same | inside).any():
      kept.append(int(index))
  return np.array(kept, int), scores[kept]
