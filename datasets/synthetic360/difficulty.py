"""How hard synthetic360 is: the ceiling of its labels, and what simple rankers reach.

`foir360 prepare --dataset=synthetic360/64x128 --data_dir=data --difficulty` prints the
table. Linear fits are made on the validation split and measured on the test split.
"""

import cv2
import numpy as np
import tensorflow_datasets as tfds

from foir360_jax.metrics import ScoreAccumulator, bootstrap_interval, rank_correlation
from synthetic360.repeats import as_if_no_repeats

_RING = 32  # the ring around a mask is height / 32 pixels wide


def report(builder: tfds.core.DatasetBuilder) -> str:
  """Returns the table of mean rank correlations (SA-SOR of the true masks) over the test split."""
  validation = [_features(example) for example in builder.as_data_source("validation")]
  test = [_features(example) for example in builder.as_data_source("test")]
  rows = [("ceiling: the rule without the annotators' noise", [f["true_importance"] for f in test])]
  if builder.builder_config.repeats:  # what is lost by who values each object by itself
    plain = [as_if_no_repeats(f["true_importance"], f["category"]) for f in test]
    rows.append(("the rule without noise, as if nothing were a repeat", plain))
  for title, names in (
    ("area", ["area"]),
    ("distance from the horizon", ["horizon"]),
    ("area and distance from the horizon, best linear fit", ["area", "horizon"]),
    ("the same and colour contrast to a ring", ["area", "horizon", "ring_mean"]),
    ("the same and texture contrast to a ring", ["area", "horizon", "ring_mean", "ring_deviation"]),
  ):
    weights = _fit(validation, names)
    rows.append((title, [_columns(f, names) @ weights for f in test]))
  counts = [len(f["importance"]) for f in test]
  lines = [f"{builder.info.full_name}, test split, SA-SOR of the true masks ranked by"]
  for title, scores in rows:
    values = [rank_correlation(f["importance"], s) for f, s in zip(test, scores, strict=True)]
    low, high = bootstrap_interval(values)
    mean = ScoreAccumulator().add(*values).summary()["mean"]
    lines.append(f"  {title:52} {mean:.3f} [{low:.3f}, {high:.3f}]")
  lines.append(
    f"  objects a panorama: median {np.median(counts):g}, {min(counts)} to {max(counts)}"
  )
  return "\n".join(lines)


def _features(example: dict) -> dict[str, np.ndarray]:
  image = example["image"] / 255.0
  masks = np.unpackbits(example["masks"], axis=-1, count=image.shape[1]).astype(bool)
  elevation = (image.shape[0] / 2 - 0.5 - np.arange(image.shape[0])) * np.pi / image.shape[0]
  weights = np.cos(elevation)[:, None] * np.ones(image.shape[1])
  horizon = [np.abs(np.average(elevation[np.nonzero(m)[0]], weights=weights[m])) for m in masks]
  rings = np.array([_ring_contrast(image, mask) for mask in masks]).reshape(-1, 2)
  return {
    "importance": example["importance"],
    "true_importance": example["true_importance"],
    "category": example["category"],
    "area": np.log(example["solid_angle_sr"]),
    "horizon": np.array(horizon),
    "ring_mean": rings[:, 0],
    "ring_deviation": rings[:, 1],
  }


def _ring_contrast(image: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
  """Differences of the colours' mean and deviation between a mask and a ring around it."""
  size = max(1, image.shape[0] // _RING)
  wrapped = np.concatenate([mask[:, -size:], mask, mask[:, :size]], axis=1).astype(np.uint8)
  dilated = cv2.dilate(wrapped, np.ones((2 * size + 1, 2 * size + 1), np.uint8))[:, size:-size]
  inside, ring = image[mask], image[(dilated > 0) & ~mask]
  if not len(ring):
    return 0.0, 0.0
  return (
    float(np.linalg.norm(inside.mean(0) - ring.mean(0))),
    float(np.abs(inside.std(0) - ring.std(0)).mean()),
  )


def _columns(features: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
  return np.stack([features[name] for name in names], axis=-1)


def _fit(examples: list[dict], names: list[str]) -> np.ndarray:
  """Least squares within panoramas: differences between panoramas do not matter to an order."""
  columns = np.concatenate([_columns(f, names) - _columns(f, names).mean(0) for f in examples])
  targets = np.concatenate([f["importance"] - f["importance"].mean() for f in examples])
  return np.linalg.lstsq(columns, targets, rcond=None)[0]
