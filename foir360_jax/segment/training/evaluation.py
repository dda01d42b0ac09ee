"""How well a segmenter finds the objects of pictures: recall, precision, calibration.

An object is found where some proposal, of the best so many of its picture, has an IoU of 0.5 or
more with it, both at the picture's own resolution; crowds are not asked for. A proposal is right
where it is matched: best first, each to the free object with which its IoU is highest, from 0.5 on.
One that lies in a crowd by more than half is neither right nor wrong. Axes: K proposals, N objects.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from foir360_jax.segment.small.segmenter import SmallSegmenter
from foir360_jax.segment.small.weights import Calibration
from foir360_jax.segment.training.pictures import LabelledPicture

SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}
"""Pixels of an object at the picture's own resolution: from one up to below the other, COCO's."""

DEFINITION = (
  "recall: share of objects with which one of a picture's best proposals has an IoU of 0.5 (0.75),"
  " at the picture's resolution, crowds left out; intervals: 90 % bootstrap over pictures"
)
_RIGHT, _WRONG, _NEITHER = 1, 0, -1


class Measured(NamedTuple):
  """What was found in one picture.

  Attributes:
    iou: [N] the best of each object, among the proposals that count.
    areas: [N] pixels of the objects.
    scores: [K] of all proposals, by falling score.
    right: [K] int: 1, 0, or -1 for neither.
  """

  iou: np.ndarray
  areas: np.ndarray
  scores: np.ndarray
  right: np.ndarray


def measure(
  segmenter: SmallSegmenter,
  pictures: Sequence[LabelledPicture],
  max_proposals: int,
  show: Callable[[float, float], None] | None = None,
) -> list[Measured]:
  """Looks at pictures with a segmenter.

  Args:
    segmenter: all that it finds is taken, whatever the score.
    pictures: with their objects.
    max_proposals: best ones of a picture that count for recall.
    show: takes the number of pictures that are done, and of all.
  """
  results = []
  for number, picture in enumerate(pictures):
    found = segmenter(picture.image, confidence=0.0)
    masks = [mask for _, _, mask, _ in found]
    scores = np.array([score for score, _, _, _ in found], np.float32)
    objects, crowds = ([x.mask() for x in part] for part in (picture.objects, picture.crowds))
    iou = mask_iou(masks, objects)
    best = iou[:max_proposals].max(0, initial=0.0)
    areas = np.array([mask.sum() for mask in objects], np.float64)
    results.append(Measured(best, areas, scores, _judge(iou, _share_within(masks, crowds))))
    if show:
      show(number + 1, len(pictures))
  return results


def mask_iou(masks: Sequence[np.ndarray], objects: Sequence[np.ndarray]) -> np.ndarray:
  """[K, N] intersection over union of bool masks [h, w]."""
  both, areas, sizes = _overlaps(masks, objects)
  return both / np.maximum(areas[:, None] + sizes - both, 1)


def _share_within(masks: Sequence[np.ndarray], crowds: Sequence[np.ndarray]) -> np.ndarray:
  """[K] the largest share of each mask that lies in one of some regions."""
  both, areas, _ = _overlaps(masks, crowds)
  return (both / np.maximum(areas[:, None], 1)).max(1, initial=0.0)


def _overlaps(
  first: Sequence[np.ndarray], second: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Pixels of [K, N] intersections, of the first masks [K] and of the second ones [N]."""
  if not len(first) or not len(second):
    return np.zeros((len(first), len(second))), _areas(first), _areas(second)
  a, b = (np.array([m.ravel() for m in masks], np.float32) for masks in (first, second))
  return a @ b.T, a.sum(1), b.sum(1)


def _areas(masks: Sequence[np.ndarray]) -> np.ndarray:
  return np.array([mask.sum() for mask in masks], np.float64)


def _judge(iou: np.ndarray, in_crowd: np.ndarray) -> np.ndarray:
  free = np.ones(iou.shape[1], bool)
  right = np.empty(len(iou), np.int64)
  for row, overlaps in enumerate(iou):
    left = np.where(free, overlaps, 0.0)
    if left.max(initial=0.0) >= 0.5:
      free[left.argmax()] = False
      right[row] = _RIGHT
    else:
      right[row] = _NEITHER if in_crowd[row] > 0.5 else _WRONG
  return right


def summarize(results: Sequence[Measured], confidence: float, seed: int = 0) -> dict[str, Any]:
  """Figures over pictures; each `[value, lower, upper]` with a 90 % interval has a bootstrap's.

  Args:
    results: of pictures.
    confidence: the default one, at which proposals are counted.
    seed: of the bootstrap.
  """
  draws = np.random.default_rng(seed).integers(len(results), size=(2000, len(results)))
  summary: dict[str, Any] = {"pictures": len(results)}

  def ratio(parts: Iterator[tuple[float, float]]) -> list[float]:
    table = np.array(list(parts), np.float64)
    sums = table[draws].sum(1)
    values = sums[:, 0] / np.maximum(sums[:, 1], 1)
    lower, upper = np.quantile(values, (0.05, 0.95))
    value = table[:, 0].sum() / max(table[:, 1].sum(), 1)
    return [round(float(x), 4) for x in (value, lower, upper)]

  for level in (0.5, 0.75):
    summary[f"recall@{level:g}"] = ratio(((r.iou >= level).sum(), len(r.iou)) for r in results)
  for name, (least, most) in SIZES.items():
    of_size = [(r.areas >= least) & (r.areas < most) for r in results]
    pairs = list(zip(results, of_size, strict=True))
    summary[f"recall@0.5 {name}"] = ratio((((r.iou >= 0.5) & s).sum(), s.sum()) for r, s in pairs)
    summary[f"objects {name}"] = int(sum(s.sum() for s in of_size))
  given = [r._replace(right=r.right[r.scores >= confidence]) for r in results]
  summary["confidence"] = confidence
  summary["precision"] = ratio(((r.right == 1).sum(), (r.right >= 0).sum()) for r in given)
  summary["recall at confidence"] = ratio(((r.right == 1).sum(), len(r.iou)) for r in given)
  summary["masks a picture"] = ratio((len(r.right), 1) for r in given)
  summary["proposals a picture"] = ratio((len(r.scores), 1) for r in results)
  summary["calibration"] = _reliability(results)
  return summary


def _reliability(results: Sequence[Measured]) -> list[dict[str, float]]:
  """Mean score, share of right ones and number of proposals, in tenths of the score."""
  scores, right = _pooled(results)
  rows = []
  for tenth in range(10):
    inside = (scores >= tenth / 10) & (scores < (tenth + 1) / 10 + (tenth == 9))
    if inside.any():
      score, share = float(scores[inside].mean()), float(right[inside].mean())
      row = {"score": score, "right": share, "proposals": int(inside.sum())}
      rows.append({name: round(value, 4) for name, value in row.items()})
  return rows


def _pooled(results: Sequence[Measured]) -> tuple[np.ndarray, np.ndarray]:
  scores = np.concatenate([r.scores for r in results])
  right = np.concatenate([r.right for r in results])
  return scores[right >= 0], right[right >= 0].astype(np.float64)


def fit_calibration(results: Sequence[Measured]) -> Calibration:
  """The slope and offset of log odds under which what was right is most likely (Platt, 1999).

  The default confidence is the tenth at which precision and recall, the first of which counts twice
  (F with beta 0.5), are best: many views of a panorama are looked at, and false masks add up.
  """
  scores, right = _pooled(results)
  clipped = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
  odds = np.log(clipped / (1 - clipped))

  def surprise(x: np.ndarray) -> float:
    z = x[0] * odds + x[1]
    return float((np.logaddexp(0, z) - right * z).mean())

  slope, offset = scipy.optimize.minimize(surprise, np.array([1.0, 0.0]), method="Nelder-Mead").x
  calibration = Calibration(float(slope), float(offset))
  objects = sum(len(r.iou) for r in results)
  tenths = np.arange(1, 10) / 10
  calibrated = calibration(scores)
  given = [calibrated >= tenth for tenth in tenths]
  # (1 + b^2) P R / (b^2 P + R) with b = 1/2 in terms of counts.
  f = [1.25 * right[kept].sum() / max(kept.sum() + 0.25 * objects, 1) for kept in given]
  return calibration._replace(confidence=float(tenths[int(np.argmax(f))]))


def table(summary: Mapping[str, Any]) -> str:
  """The summary as lines."""
  lines = [f"{summary['pictures']} pictures"]
  for name, value in summary.items():
    if isinstance(value, list) and name != "calibration":
      lines.append(f"{name:22} {value[0]:6.3f}  [{value[1]:.3f}, {value[2]:.3f}]")
  lines += ["score   right   proposals"]
  for row in summary["calibration"]:
    lines.append(f"{row['score']:.3f}   {row['right']:.3f}   {row['proposals']:6d}")
  return "\n".join(lines)
