"""How well merged objects are the true ones: found, found twice, or nothing."""

from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import cKDTree

from foir360_jax.sphere import pixel_areas, pixel_directions

THIN_PX = 8
"""Objects that are less across count as found from a lower intersection over union on."""


class Judgement(NamedTuple):
  """Of one scene.

  Attributes:
    iou: [N] of each true object with the best result.
    thin: [N] bool, less than 8 pixels across.
    right: [K] bool, results that are the best for an object, with an IoU of .25 at least.
    duplicate: [K] bool, others that are mostly of an object.
    false: [K] bool, the rest.
  """

  iou: np.ndarray
  thin: np.ndarray
  right: np.ndarray
  duplicate: np.ndarray
  false: np.ndarray

  @property
  def found(self) -> np.ndarray:
    """[N] bool: at IoU .9, thin objects at .75."""
    return self.iou >= np.where(self.thin, 0.75, 0.9)


def judge(results: np.ndarray, masks: np.ndarray) -> Judgement:
  """Compares results [K, H, 2 H] with true masks [N, H, 2 H], both bool, by solid angle."""
  areas = pixel_areas(masks.shape[1]).ravel()
  true = masks.reshape(len(masks), -1).astype(np.float32)
  found = results.reshape(len(results), -1).astype(np.float32)
  shared = (true * areas) @ found.T
  of_true, of_found = true @ areas, found @ areas
  iou = shared / np.maximum(of_true[:, None] + of_found - shared, 1e-12)
  right = np.zeros(len(results), bool)
  if shared.size:
    right[iou.argmax(axis=1)[iou.max(axis=1) >= 0.25]] = True
  inside = shared / np.maximum(of_found, 1e-12)
  of_object = (iou.max(axis=0, initial=0) >= 0.1) | (inside.max(axis=0, initial=0) >= 0.5)
  return Judgement(
    iou=iou.max(axis=1, initial=0),
    thin=np.array([across_px(mask) < THIN_PX for mask in masks], bool),
    right=right,
    duplicate=~right & of_object,
    false=~right & ~of_object,
  )


def across_px(mask: np.ndarray) -> float:
  """The diameter of the largest disc on the sphere inside a mask [H, 2 H], in pixels' heights."""
  height = len(mask)
  wide = np.pad(mask, ((0, 0), (1, 1)), mode="wrap").astype(np.uint8)
  around = cv2.dilate(wide, np.ones((3, 3), np.uint8))[:, 1:-1].astype(bool) & ~mask
  directions = pixel_directions(height)
  if not mask.any() or not around.any():
    return float(2 * height * mask.all())
  chord, _ = cKDTree(directions[around]).query(directions[mask])
  pixels = 2 * np.arcsin(np.minimum(chord.max() / 2, 1)) * height / np.pi
  return float(2 * pixels - 1)  # what is around begins half a pixel before its centres
