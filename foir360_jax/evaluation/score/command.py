"""Scores the predictions of any system: `python -m foir360_jax.evaluation.score GT PRED`.

GT and PRED are folders of ranked objects in any format of `scenes.FORMATS`; pictures are matched
by id. Prints a table, with `--out=FILE.json` also writes the same with the scores of each picture.
What the figures mean is in docs/metrics.md.
"""

import argparse
import concurrent.futures.process
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foir360_jax.evaluation.score.folders import ScoredImage, Source, score_scenes
from foir360_jax.files import write_atomically
from foir360_jax.files.json_file import without_nan
from foir360_jax.metrics import (
  Score,
  ScoreAccumulator,
  average_precision,
  bootstrap_average_precision,
  bootstrap_interval,
)
from foir360_jax.scenes import FORMATS, SceneError, SceneFolder

_NAMED = 10  # ids that a message names; the JSON names all
_COUNTS = ("images_used", "images_skipped", "images_undefined", "images_counted_zero")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command.

  Returns:
    The exit code: 0; 1 where pictures could not be scored, unless `--skip_bad` and others could;
    2 where it did not come to that, or the report could not be written.
  """
  parser = _parser()
  flags = parser.parse_args(argv)
  if flags.out and not flags.out.name.endswith(".json"):
    parser.error(f"--out={flags.out}: the report is JSON; give a name that ends in .json")
  truth = Source(flags.gt, flags.gt_format, flags.gt_rank_field)
  predictions = Source(flags.pred, flags.pred_format, flags.pred_rank_field)
  try:
    report = score_folders(
      truth,
      predictions,
      split=flags.split,
      count_missing=flags.missing == "empty",
      workers=flags.workers,
      weighted=flags.weighted,
      iou_thresholds=flags.iou_threshold,
      num_resamples=flags.resamples,
    )
  except concurrent.futures.process.BrokenProcessPool:
    print(
      "error: a process was ended, probably for want of memory; try --workers=1", file=sys.stderr
    )
    return 2
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  for bad in report["bad"]:
    print(f"not scored: {bad['reason']}", file=sys.stderr)
  print(table(report))
  if flags.out:
    try:
      write_atomically(flags.out, to_json(report))
    except OSError as error:
      print(f"error: --out={flags.out}: cannot be written ({error.strerror})", file=sys.stderr)
      return 2
  return 1 if report["bad"] and not (flags.skip_bad and report["images_scored"]) else 0


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
    "num_resamples": num_resamples,
    "metrics": _means(images, num_resamples),
    "average_precision": _average_precision(images, num_resamples),
    "per_image": [_row(image) for image in images],
  }


def table(report: Mapping[str, Any]) -> str:
  """Returns the report as text."""
  head = ("used", "skipped", "undefined", "as zero")
  lines = [f"{'mean over images':24}{'[95 % interval]':>24}" + "".join(f"{h:>10}" for h in head)]
  for name, mean in report["metrics"].items():
    counts = "".join(f"{mean[count]:>10}" for count in _COUNTS)
    lines.append(f"{name:24}{_cell(mean['mean'], mean['interval_95']):>24}{counts}")
  lines.append("over all objects")
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
  noted = [row["id"] for row in report["per_image"] if row["notes"]]
  if noted:
    lines.append(f"{len(noted)} with notes, see the JSON: {_named(noted)}")
  return "\n".join(lines)


def to_json(report: Mapping[str, Any]) -> bytes:
  """Returns the report as JSON, one line a picture; NaN, which JSON does not have, is null."""
  clean = without_nan(report)
  rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in clean.pop("per_image"))
  head = json.dumps(clean, indent=2, ensure_ascii=False, allow_nan=False)
  return f'{head[:-2]},\n  "per_image": [\n{rows}\n]}}\n'.encode()


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m foir360_jax.evaluation.score",
    description="Scores predicted masks and ranks against true ones: see docs/metrics.md.",
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("gt", metavar="GT", help="Folder with the true objects (of JSON formats also the file).")
  add("pred", metavar="PRED", help="Folder with the predictions, as --mode=predict writes, or any.")
  for name, whose in (("gt", "GT"), ("pred", "PRED")):
    add(f"--{name}_format", choices=tuple(FORMATS), help=f"Format of {whose}; else recognised.")
    add(
      f"--{name}_rank_field",
      metavar="[-]NAME",
      help=f"{whose} in COCO: the field that orders the objects, lower first; -NAME: higher first.",
    )
  add("--split", help="Score only this split of GT.")
  add("--missing", choices=("error", "empty"), default="error", help="Ids that PRED lacks.")
  add("--skip_bad", action="store_true", help="Exit with 0 although files could not be scored.")
  add("--weighted", action="store_true", help="Also weight pixels by solid angle (2:1 only).")
  add(
    "--iou_threshold",
    type=_overlap,
    action="append",
    default=[],
    metavar="IOU",
    help="Also compute SA-SOR and recall at this overlap; may be repeated.",
  )
  add("--workers", type=_positive, default=2, help="Processes (2).")
  add("--resamples", type=_positive, default=1000, help="Data sets drawn for an interval (1000).")
  add("--out", type=pathlib.Path, metavar="FILE.json", help="Where to write the report.")
  return parser


def _overlap(text: str) -> float:
  value = float(text)
  if not 0 < value <= 1:
    raise argparse.ArgumentTypeError(f"{text} is no overlap; give a number in (0, 1]")
  return value


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f"{text} is too few; give 1 or more")
  return value


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


def _average_precision(images: Sequence[ScoredImage], num_resamples: int) -> dict[str, Any]:
  matches = [image.matches for image in images]
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


if __name__ == "__main__":
  sys.exit(main())
