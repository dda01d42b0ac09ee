"""Compares two ways to train, each with several seeds: the command `foir360 compare-runs`.

  foir360 compare-runs --a runs/weak/* --b runs/human/* --out=FILE.json

Reads what evaluation wrote into the runs' folders (`metrics.json`, `per_image.jsonl`) and prints
the mean of each way with its deviation over the runs, the gap a - b, and what simple baselines
reach. The gap's interval is a paired bootstrap over pictures, of scores averaged over each way's
runs: so it tells of other pictures, and the deviation of other seeds.
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from foir360_jax.evaluation.baselines import TITLES
from foir360_jax.metrics import (
  Score,
  ScoreAccumulator,
  bootstrap_interval,
  paired_bootstrap_interval,
)
from foir360_jax.metrics.accumulate import SKIPPED

BASELINES = TITLES | {"ceiling": "ceiling (noiseless importance)"}
_SAME = ("data", "split", "validation_split", "height", "images", "yaw_augmentation")
# On ground-truth masks, baselines depend on the data alone, but for the rounding of two machines.
_TOLERANCE = 1e-3


class Run(NamedTuple):
  """An evaluated run: its folder, `metrics.json`, and the lines of `per_image.jsonl`."""

  folder: pathlib.Path
  report: dict[str, Any]
  rows: list[dict[str, Any]]


def compare(
  a: Sequence[pathlib.Path], b: Sequence[pathlib.Path], *, key: str = "ground_truth_masks/model"
) -> dict[str, Any]:
  """Compares two groups of evaluated runs.

  Args:
    a: folders of the runs of one way, one or more.
    b: those of the other.
    key: the score: a name of a line of `per_image.jsonl`.

  Returns:
    Plain values but for NaN: `data`, `split`, `images`, `key`; `a` and `b` with `runs`, the `means`
    of each run, their `mean` and `deviation` (sample standard deviation; NaN of one run); `gap`
    (a - b) with `mean`, `interval_95` and `images` that count; `baselines` with `mean` and
    `interval_95` (averaged over all runs, which matters on predicted masks only).

  Raises:
    ValueError: a run was not evaluated, lacks the score, is named twice, or was evaluated on other
      data than the first.
  """
  groups = {"a": [read_run(folder) for folder in a], "b": [read_run(folder) for folder in b]}
  runs = [*groups["a"], *groups["b"]]
  _check_comparable(runs, key)
  part = key.partition("/")[0]
  averaged = {name: _average(members, key) for name, members in groups.items()}
  gap = paired_bootstrap_interval(averaged["a"], averaged["b"])
  report = {name: runs[0].report[name] for name in ("data", "split", "images")} | {"key": key}
  for name, members in groups.items():
    means = [_mean(_scores(run, key)) for run in members]
    report[name] = {
      "runs": [str(run.folder) for run in members],
      "means": means,
      "mean": float(np.mean(means)),
      "deviation": float(np.std(means, ddof=1)) if len(means) > 1 else float("nan"),
    }
  report["gap"] = {"mean": gap.mean, "interval_95": [gap.low, gap.high], "images": gap.count}
  report["baselines"] = {}
  for name in BASELINES:
    if f"{part}/{name}" in runs[0].rows[0]:
      scores = _average(runs, f"{part}/{name}")
      interval = list(bootstrap_interval(scores))
      report["baselines"][name] = {"mean": _mean(scores), "interval_95": interval}
  return report


def table(report: Mapping[str, Any]) -> str:
  """Returns the figures as text."""
  lines = [f"{report['key']} on {report['data']}, {report['split']}: {report['images']} images"]
  for name in ("a", "b"):
    runs = report[name]["runs"]
    lines.append(f"{name}: {runs[0]}{f' and {len(runs) - 1} more' if len(runs) > 1 else ''}")
  lines.append(f"{'':34}{'mean':>8}{'deviation of runs':>20}  each run")
  for name in ("a", "b"):
    group, deviation = report[name], report[name]["deviation"]
    spread = "-" if np.isnan(deviation) else f"{deviation:.3f}"
    each = " ".join(f"{mean:.3f}" for mean in group["means"])
    lines.append(f"{name:34}{group['mean']:>8.3f}{spread:>20}  {each}")
  lines.append(f"{'':34}{'mean':>8}{'95 % interval':>20}")
  gap = report["gap"]
  low, high = gap["interval_95"]
  title = f"a - b, on {gap['images']} images"
  lines.append(f"{title:34}{gap['mean']:>+8.3f}{f'[{low:+.3f}, {high:+.3f}]':>20}")
  for name, figures in report["baselines"].items():
    low, high = figures["interval_95"]
    interval = f"[{low:.3f}, {high:.3f}]"
    lines.append(f"{BASELINES[name]:34}{figures['mean']:>8.3f}{interval:>20}")
  return "\n".join(lines)


def read_run(folder: pathlib.Path) -> Run:
  """Reads what evaluation wrote into a run's folder.

  Raises:
    ValueError: it did not, or the files are broken or do not belong together.
  """
  content = []
  for name in ("metrics.json", "per_image.jsonl"):
    file = folder / name
    if not file.is_file():
      raise ValueError(f"{file}: missing; evaluate the run by foir360 evaluate")
    try:
      lines = file.read_text().splitlines()
      lines = ["\n".join(lines)] if file.suffix == ".json" else lines
      content.append([json.loads(line) for line in lines])
    except ValueError as error:
      raise ValueError(f"{file}: is broken ({error}); evaluate the run again") from None
  run = Run(folder, content[0][0], content[1])
  if "given_masks" in run.report:
    raise ValueError(
      f"{folder / 'metrics.json'}: is of version 0.1.0, whose scores have other names; evaluate the"
      " run again (foir360 evaluate)"
    )
  if run.report.get("images") != len(run.rows) or not run.rows:
    raise ValueError(f"{folder}: metrics.json and per_image.jsonl differ; evaluate the run again")
  return run


def _check_comparable(runs: Sequence[Run], key: str) -> None:
  """Raises ValueError where runs were not evaluated on the same pictures in the same way."""
  first = runs[0]
  known = [name for name in first.rows[0] if "/" in name]
  if key not in known:
    raise ValueError(f"{first.folder}: has no score {key!r}; it has {', '.join(known)}")
  part = key.partition("/")[0]
  seen = set()
  for run in runs:
    if run.folder.resolve() in seen:
      raise ValueError(f"{run.folder}: is named twice; give each run once")
    seen.add(run.folder.resolve())
    same: dict[str, tuple[Any, Any]] = {
      name: (run.report.get(name), first.report.get(name)) for name in _SAME
    }
    same["iou_threshold"] = _iou_threshold(run), _iou_threshold(first)
    if part == "predicted_masks":
      same["chosen_by"] = run.report.get("chosen_by"), first.report.get("chosen_by")
    same["pictures"] = [row["index"] for row in run.rows], [row["index"] for row in first.rows]
    for name, (own, other) in same.items():
      if own != other:
        values = "others" if name == "pictures" else f"{own!r}, not {other!r} as"
        raise ValueError(
          f"{run.folder}: was evaluated otherwise than {first.folder} ({name}: {values} there);"
          " evaluate both alike"
        )
    if run.rows[0].keys() != first.rows[0].keys():
      raise ValueError(f"{run.folder}: has other scores than {first.folder}; evaluate both anew")
    if part != "ground_truth_masks":
      continue
    for name in BASELINES:  # the content, where names and numbers agree
      baseline = f"ground_truth_masks/{name}"
      if baseline in first.rows[0] and not np.allclose(
        _mean(_scores(run, baseline)),
        _mean(_scores(first, baseline)),
        atol=_TOLERANCE,
        rtol=0,
        equal_nan=True,
      ):
        raise ValueError(
          f"{run.folder}: was evaluated on other data than {first.folder} ({baseline} differs);"
          " evaluate both alike"
        )


def _iou_threshold(run: Run) -> float | None:
  return run.report.get("predicted_masks", {}).get("iou_threshold")


def _scores(run: Run, key: str) -> list[Score]:
  """One score a picture; null stands for one that the metric leaves out."""
  values = [row[key] for row in run.rows]
  return [SKIPPED if value is None else Score(float(value), "used") for value in values]


def _average(runs: Sequence[Run], key: str) -> list[Score]:
  """Each picture's score averaged over runs; left out where one of them leaves it out."""
  pictures = zip(*(_scores(run, key) for run in runs), strict=True)
  return [
    SKIPPED
    if SKIPPED.status in {score.status for score in of_runs}
    else Score(float(np.mean([score.value for score in of_runs])), "used")
    for of_runs in pictures
  ]


def _mean(scores: Sequence[Score]) -> float:
  return ScoreAccumulator().add(*scores).summary()["mean"]


if __name__ == "__main__":  # alias of `foir360 compare-runs`; gone in the next release
  from foir360_jax.cli.command import start

  sys.argv.insert(1, "compare-runs")
  start()
