"""The report of `foir360 score GT PRED`: any system's predictions against the truth.

GT and PRED are folders of ranked objects in any format of `scenes.FORMATS`; pictures are matched
by id. What the figures mean is in docs/metrics.md.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from foir360_jax.evaluation.score.folders import ScoredImage, Source, score_scenes
from foir360_jax.files.json_file import ESCAPES, without_nan
from foir360_jax.metrics import (
  Score,
  ScoreAccumulator,
  average_precision,
  bootstrap_average_precision,
  bootstrap_interval,
)
from foir360_jax.scenes import SceneError, SceneFolder

_NAMED = 10  # ids that a message names; the JSON names all
_COUNTS = ("images_used", "images_skipped", "images_undefined", "images_counted_zero")


def score_folders(
  truth: Source,
  predictions: Source,
  *,
  split: str | None = None,
  count_missing: bool = False,
  workers: int = 1,
  weighted: bool = False,
  iou_thresholds: Sequence[float] = (),
  num_resamples: int = 1000,
  show: Callable[[float, float], None] | None = None,
) -> dict[str, Any]:
  """Scores all pictures of a folder of truth and sums them up.

  Args:
    truth: the folder of the true objects.
    predictions: the folder of the predicted ones.
    split: score only this split of `truth`; None: all.
    count_missing: count pictures without a prediction as if nothing was found in them.
    workers: processes.
    weighted: see `PairScorer`.
    iou_thresholds: see `PairScorer`.
    num_resamples: data sets drawn for the bootstrap intervals.
    show: takes the number of pictures that are scored, and of all; see `cli.progress`.

  Returns:
    The report, plain values but for NaN; see docs/metrics.md.

  Raises:
    SceneError: a folder cannot be opened, there is no such split, or predictions are missing.
  """
  true_scenes, predicted_scenes = truth.open(), predictions.open()
  ids = _ids(true_scenes, split)
  missing = [scene_id for scene_id in ids if scene_id not in predicted_scenes.records]
  surplus = [scene_id for scene_id in predicted_scenes.ids if scene_id not in true_scenes.records]
  if missing and not count_missing:
    others = f" (only in predictions: {_named(surplus)})" if surplus else ""
    raise SceneError(
      f"{predictions.path}: {len(missing)} of {len(ids)} pictures have no prediction: "
      f"{_named(missing)}{others}; add them, or count them as empty by --missing=empty"
    )
  images, bad = [], []
  for scene_id, result in score_scenes(
    truth,
    predictions,
    ids,
    workers=workers,
    weighted=weighted,
    iou_thresholds=iou_thresholds,
  ):
    if isinstance(result, ScoredImage):
      images.append(result)
    else:
      bad.append({"id": scene_id, "reason": result})
    if show:
      show(len(images) + len(bad), len(ids))
  by_confidence = any(image.num_predictions for image in images) and all(
    image.matches_by_confidence is not None for image in images
  )
  return {
    "truth": {"path": truth.path, "format": true_scenes.format, "split": split},
    "predictions": {"path": predictions.path, "format": predicted_scenes.format},
    "images": len(ids),
    "images_scored": len(images),
    "objects": sum(image.matches.num_objects for image in images),
    "predicted_objects": sum(image.num_predictions for image in images),
    "bad": bad,
    "missing": missing,
    "only_in_predictions": surplus,
    "notes": [
      *(f"truth: {note}" for note in true_scenes.notes),
      *(f"prediction: {note}" for note in predicted_scenes.notes),
    ],
    "num_resamples": num_resamples,
    "metrics": _means(images, num_resamples),
    "average_precision_by": "detection_confidence" if by_confidence else "importance",
    "average_precision": _average_precision(images, num_resamples, by_confidence),
    "per_image": [_row(image) for image in images],
  }


def table(report: Mapping[str, Any]) -> str:
  """Returns the report as text."""
  head = ("used", "skipped", "undefined", "as zero")
  lines = [f"{'mean over images':24}{'[95 % interval]':>24}" + "".join(f"{h:>10}" for h in head)]
  for name, mean in report["metrics"].items():
    counts = "".join(f"{mean[count]:>10}" for count in _COUNTS)
    lines.append(f"{name:24}{_cell(mean['mean'], mean['interval_95']):>24}{counts}")
  lines.append(f"over all objects, by {report['average_precision_by'].replace('_', ' ')}")
  for name, figure in report["average_precision"].items():
    lines.append(f"{name:24}{_cell(figure['value'], figure['interval_95']):>24}")
  bad, missing, surplus = (report[key] for key in ("bad", "missing", "only_in_predictions"))
  lines.append(
    f"{report['images_scored']} of {report['images']} images scored: {report['objects']} true "
    f"objects, {report['predicted_objects']} predicted"
  )
  if bad:
    lines.append(f"{len(bad)} not scored: {_named([entry['id'] for entry in bad])}")
  if missing:
    lines.append(f"{len(missing)} without a prediction, counted as empty: {_named(missing)}")
  if surplus:
    lines.append(f"{len(surplus)} only among the predictions, passed over: {_named(surplus)}")
  single = [row for row in report["per_image"] if row["objects"] == 1]
  zero = [
    name
    for name in report["metrics"]
    if any(row["scores"][name]["status"] == "counted_zero" for row in single)
  ]
  if zero:
    lines.append(
      f"{len(single)} with one true object, which has no order: SeqRank's rule ({', '.join(zero)})"
      f" counts them as 0, the others leave them out: {_named([row['id'] for row in single])}"
    )
  lines += [f"note: {note}" for note in report["notes"]]
  noted = [row["id"] for row in report["per_image"] if row["notes"]]
  if noted:
    lines.append(f"{len(noted)} with notes, see the JSON: {_named(noted)}")
  return "\n".join(lines)


def to_json(report: Mapping[str, Any]) -> bytes:
  """Returns the report as JSON, one line a picture; NaN, which JSON does not have, is null."""
  clean = without_nan(report)
  rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in clean.pop("per_image"))
  head = json.dumps(clean, indent=2, ensure_ascii=False, allow_nan=False)
  return f'{head[:-2]},\n  "per_image": [\n{rows}\n]}}\n'.encode(errors=ESCAPES)


def _ids(scenes: SceneFolder, split: str | None) -> tuple[str, ...]:
  if split is not None and split not in scenes.splits:
    known = ", ".join(scenes.splits) or "none"
    raise SceneError(f"{scenes.path}: has no split {split!r}; it has {known}")
  ids = scenes.ids if split is None else tuple(scenes.splits[split])
  if not ids:
    raise SceneError(f"{scenes.path}: there is no picture to score; give the folder of the truth")
  return ids


def _means(images: Sequence[ScoredImage], num_resamples: int) -> dict[str, Any]:
  """Mean, interval and image counts of each metric."""
  means = {}
  for name in images[0].scores if images else ():
    scores = [image.scores[name] for image in images]
    interval = list(bootstrap_interval(scores, num_resamples=num_resamples))
    means[name] = ScoreAccumulator().add(*scores).summary() | {"interval_95": interval}
  return means


def _average_precision(
  images: Sequence[ScoredImage], num_resamples: int, by_confidence: bool
) -> dict[str, Any]:
  found = [image.matches_by_confidence if by_confidence else image.matches for image in images]
  matches = [match for match in found if match is not None]
  values = average_precision(matches)
  lows, highs = bootstrap_average_precision(matches, num_resamples=num_resamples)
  return {
    name: {"value": value, "interval_95": [low, high]}
    for name, value, low, high in zip(values._fields, values, lows, highs, strict=True)
  }


def _row(image: ScoredImage) -> dict[str, Any]:
  def entry(score: Score) -> dict[str, Any]:
    return {"value": float(score.value), "status": score.status}

  return {
    "id": image.id,
    "objects": image.matches.num_objects,
    "predicted_objects": image.num_predictions,
    "notes": list(image.notes),
    "scores": {name: entry(score) for name, score in image.scores.items()},
  }


def _cell(value: float, interval: Sequence[float]) -> str:
  return "-" if np.isnan(value) else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _named(ids: Sequence[str]) -> str:
  more = len(ids) - _NAMED
  return ", ".join(ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")
