"""The rule by which an object of synthetic360 is important, and the annotators' noise on top.

importance = SIZE z(log solid angle) + CONTRAST z(contrast) - LATITUDE z(|latitude|)
             - COMMONNESS z(share of its class among the objects) - OCCLUSION z(hidden share)

with z(x) = (x - mean) / deviation by fixed constants, measured once over 1,000 scenes. Contrast
does not compare colours across the object's edge: it compares the *luminance* and the *texture*
(mean luminance difference of neighbouring pixels that both lie inside) of the object with those of
a wide neighbourhood, a cap of at least 25 degrees around it. Which class an object has is shown by
its outline alone.
"""

import numpy as np

from foir360_jax.sphere import pixel_areas, pixel_directions
from synthetic360.scene import RenderedScene

FEATURES = ("log_area", "contrast", "distance_from_horizon", "commonness", "occlusion")
WEIGHTS = np.array([0.40, 0.75, -0.32, -0.50, -0.30])
MEANS = np.array([-2.60, 1.30, 0.355, 0.47, 0.07])
DEVIATIONS = np.array([0.755, 0.92, 0.29, 0.27, 0.13])
NOISE = 0.33  # deviation of the annotators' noise, on the scale of the weights
LUMINANCE = np.array([0.299, 0.587, 0.114])
# The neighbourhood's radius is the larger of 25 degrees and 3 object radii.
CAP_DEG, CAP_RADII = 25.0, 3.0
LUMINANCE_SCALE, TEXTURE_SCALE = 0.12, 0.03  # typical differences of each kind, out of 1


def scene_features(scene: RenderedScene) -> np.ndarray:
  """Returns [N, 5], the columns named in FEATURES (area in sr, angles in radians)."""
  height = scene.image.shape[0]
  areas = pixel_areas(height).astype(np.float64)
  directions = pixel_directions(height).astype(np.float64)
  latitude = np.arcsin(directions[..., 2])
  luminance = scene.image @ LUMINANCE / 255
  rows = []
  for mask, category, occlusion in zip(scene.masks, scene.category, scene.occlusion, strict=True):
    area = areas[mask].sum()
    rows.append(
      (
        np.log(area),
        _contrast(luminance, mask, directions, areas),
        np.abs((areas * latitude)[mask].sum() / area),
        np.mean(scene.category == category),
        occlusion,
      )
    )
  return np.array(rows).reshape(-1, len(FEATURES))


def _contrast(luminance, mask, directions, areas) -> float:
  centre = (areas[mask, None] * directions[mask]).sum(0)
  centre /= np.linalg.norm(centre)
  radius = np.sqrt(areas[mask].sum() / np.pi)
  cap = np.cos(min(max(np.deg2rad(CAP_DEG), CAP_RADII * radius), np.pi))
  around = (directions @ centre > cap) & ~mask
  level = abs(_mean(luminance, mask, areas) - _mean(luminance, around, areas))
  texture = abs(_texture(luminance, mask, areas) - _texture(luminance, around, areas))
  return level / LUMINANCE_SCALE + texture / TEXTURE_SCALE


def _mean(values, mask, areas) -> float:
  return (areas * values)[mask].sum() / areas[mask].sum()


def _texture(luminance, mask, areas) -> float:
  """Mean difference of neighbours east and south of each other that both lie in the mask."""
  total, weight = 0.0, 1e-9
  east = mask & np.roll(mask, -1, 1)
  total += (areas * np.abs(luminance - np.roll(luminance, -1, 1)))[east].sum()
  weight += areas[east].sum()
  south = mask[:-1] & mask[1:]
  total += (areas[:-1] * np.abs(luminance[:-1] - luminance[1:]))[south].sum()
  weight += areas[:-1][south].sum()
  return total / weight


def true_importance(features: np.ndarray, *, commonness: bool = True) -> np.ndarray:
  """The rule: features [N, 5] -> importance [N], unbounded, deviation about 1.

  Args:
    features: the columns named in FEATURES.
    commonness: whether it counts how common an object's class is.
  """
  weights = WEIGHTS if commonness else np.where(np.array(FEATURES) == "commonness", 0.0, WEIGHTS)
  return ((features - MEANS) / DEVIATIONS) @ weights


def annotate(
  features: np.ndarray, rng: np.random.Generator, *, commonness: bool = True
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the true importance and what the annotators say, both [N] in (0, 1)."""
  clean = true_importance(features, commonness=commonness)
  noisy = clean + rng.normal(size=clean.shape) * NOISE
  return _squash(clean), _squash(noisy)


def _squash(importance: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-importance))
