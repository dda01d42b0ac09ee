"""Mask AP and AR over all objects of a data set, class-free, as COCO computes them.

Two steps: `match_masks` reduces an image to a kilobyte, `average_precision` reads those of all
images. Axes: n true objects, m predictions, T = 10 overlap thresholds 0.50, 0.55 ... 0.95, D the
predictions of all images by falling score.

Source: Lin et al., Microsoft COCO, ECCV 2014, and its program pycocotools (all areas, no crowds).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALL_LEVELS = np.linspace(0, 1, 101)


class MaskMatches(NamedTuple):
  """What AP needs of one image.

  Attributes:
    num_objects: The number of true objects.
    scores: [d] confidences, falling; d = at most `max_detections`.
    is_match: [T, d] bool, whether the prediction finds an object of its own at each threshold.
  """

  num_objects: int
  scores: np.ndarray
  is_match: np.ndarray


class AveragePrecision(NamedTuple):
  """AP and AR, means over the ten thresholds, and AP at the thresholds 0.5 and 0.75; in [0, 1]."""

  ap: float
  ap_50: float
  ap_75: float
  ar: float


def match_masks(
  iou: ArrayLike, pred_scores: ArrayLike, *, max_detections: int = 100
) -> MaskMatches:
  """Matches the predictions of one image, the most confident first, with what is left of objects.

  A prediction takes the object that it overlaps most among those that no better one has; the last
  of equal overlaps, as in COCO.

  Args:
    iou: [n, m], as from `mask_iou(true_masks, predicted_masks)`.
    pred_scores: [m] confidences that this is an object. Sorted stably: the first of equals leads.
    max_detections: Predictions beyond the most confident ones are left out.

  Returns:
    The matches at each threshold.

  Raises:
    ValueError: if the lengths do not agree or a value is NaN.
  """
  iou, scores = np.asarray(iou, float), np.asarray(pred_scores, float)
  if scores.ndim != 1 or iou.ndim != 2 or iou.shape[1] != scores.size:
    raise ValueError(f"iou {iou.shape} must be [objects, {scores.size} scores]")
  if np.isnan(iou).any() or np.isnan(scores).any():
    raise ValueError("NaN in iou or pred_scores: pass real predictions only, no padding")
  order = np.argsort(-scores, kind="stable")[:max_detections]
  num_objects, rows = len(iou), np.arange(len(IOU_THRESHOLDS))
  is_match = np.zeros((rows.size, order.size), bool)
  is_free = np.ones((rows.size, num_objects), bool)
  for place in np.flatnonzero((iou[:, order] >= IOU_THRESHOLDS[0]).any(axis=0)):
    left = np.where(is_free, iou[:, order[place]], -1)
    best = num_objects - 1 - left[:, ::-1].argmax(axis=1)
    is_hit = left[rows, best] >= IOU_THRESHOLDS
    is_match[:, place] = is_hit
    is_free[rows[is_hit], best[is_hit]] = False
  return MaskMatches(num_objects, scores[order], is_match)


def average_precision(matches: Sequence[MaskMatches]) -> AveragePrecision:
  """AP and AR of a data set.

  AP is the mean over 101 levels of recall of the highest precision at this recall or more; AR is
  the recall of all kept predictions.

  Args:
    matches: One for each image, of `match_masks`; also of the images without objects.

  Returns:
    All NaN without any true object.

  >>> average_precision([match_masks([[0.6, 0.0], [0.0, 0.8]], [0.3, 0.9])]).ar
  0.5
  """
  is_match, _, num_objects = _pool(matches)
  return _summarize(is_match, np.ones(is_match.shape[1]), num_objects.sum())


def bootstrap_average_precision(
  matches: Sequence[MaskMatches],
  *,
  confidence: float = 0.95,
  num_resamples: int = 1000,
  seed: int = 0,
) -> tuple[AveragePrecision, AveragePrecision]:
  """Returns the percentile bootstrap intervals (low, high) of AP and AR, resampling the images.

  `bootstrap_interval` is for means over images, which AP is not. NaN if there are no objects.

  Args:
    matches: One for each image, of `match_masks`.
    confidence: Share of the resampled values inside the interval, in (0, 1).
    num_resamples: Number of data sets drawn.
    seed: The same seed gives the same interval.
  """
  is_match, image, num_objects = _pool(matches)
  rng, num_images = np.random.default_rng(seed), len(matches)
  draws = (
    np.bincount(rng.integers(num_images, size=num_images), minlength=num_images)
    for _ in range(num_resamples if num_images else 0)
  )
  resampled = [_summarize(is_match, draw[image], draw @ num_objects) for draw in draws]
  values = np.array([value for value in resampled if not np.isnan(value.ap)])
  if not values.size:
    return _UNDEFINED, _UNDEFINED
  tail = (1 - confidence) / 2
  low, high = np.quantile(values, [tail, 1 - tail], axis=0).tolist()
  return AveragePrecision(*low), AveragePrecision(*high)


_UNDEFINED = AveragePrecision(*[float("nan")] * 4)


def _pool(matches: Sequence[MaskMatches]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Matches [T, D] and image indices [D] by falling score, and the objects of each image."""
  empty = MaskMatches(0, np.zeros(0), np.zeros((len(IOU_THRESHOLDS), 0), bool))
  order = np.argsort(-np.concatenate([m.scores for m in (empty, *matches)]), kind="stable")
  is_match = np.concatenate([m.is_match for m in (empty, *matches)], axis=1)[:, order]
  image = np.repeat(np.arange(len(matches)), [m.scores.size for m in matches])[order]
  return is_match, image, np.array([m.num_objects for m in matches], int)


def _summarize(is_match: np.ndarray, weights: np.ndarray, num_objects: int) -> AveragePrecision:
  """AP where each prediction [D] stands for `weights` equal ones."""
  if not num_objects:
    return _UNDEFINED
  precisions, recalls = [], []
  num_predictions = np.cumsum(weights)
  for row in is_match:
    hits = np.flatnonzero(row)  # precision is highest, and recall reaches a level, at hits only
    num_hits = np.cumsum(weights[hits])
    recall = num_hits / num_objects
    precision = num_hits / (num_predictions[hits] + np.spacing(1))
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    precisions.append(highest[np.searchsorted(recall, _RECALL_LEVELS)].mean())
    recalls.append(recall[-1] if hits.size else 0.0)
  by_threshold = np.array(precisions)
  return AveragePrecision(
    float(by_threshold.mean()),
    float(by_threshold[0]),
    float(by_threshold[5]),
    float(np.mean(recalls)),
  )
