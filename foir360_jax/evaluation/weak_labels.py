"""How well ranks without annotators agree with people.

The method beside simple baselines and beside itself without one of its parts, on pictures that
neither the readout nor the object score has seen: the test parts of `fixations/crowd` (people) and
of `synthetic360/128x256` (a stated rule), and, with `--scenes`, any folder of ranked panoramas.
Given masks throughout. SA-SOR (rule "irsr"), the share of pairs in the right order, and the paired
difference between the method and each of the others, all with 95 % bootstrap intervals.

  python -m foir360_jax.evaluation.weak_labels --data_dir=data --out=weak_labels.json
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from foir360_jax.evaluation.object_score import PANORAMAS
from foir360_jax.evaluation.weak_examples import FACES, measure_folder, measure_prepared
from foir360_jax.formats import write_atomically
from foir360_jax.formats.json_file import without_nan
from foir360_jax.metrics import (
  Score,
  ScoreAccumulator,
  bootstrap_interval,
  paired_bootstrap_interval,
  pairwise_agreement,
  rank_correlation,
)
from foir360_jax.saliency.build import NAMES, build_saliency
from foir360_jax.weak_labels.examples import Example
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.variants import VARIANTS, strengths

BASELINES: dict[str, Callable[[Example], np.ndarray]] = {
  "area": lambda example: example.pixels,
  "solid_angle": lambda example: example.scene.area,
  "horizon": lambda example: -np.abs(example.scene.elevation),
  "saliency_sum": lambda example: example.saliency_sum,
}
OF_PHOTOGRAPHS: dict[str, Callable[[Example], np.ndarray]] = {
  # Where photographers put what matters; a panorama has no middle, so it is no rival there.
  "middle_of_photograph": lambda example: -np.hypot(*example.place.T),
}
POLAR_SINE = np.sin(np.radians(45))

SPLITS = {
  "test": {FACES: "test", PANORAMAS: "test"},
  "tune": {FACES: "tune", PANORAMAS: "validation[100:200]"},
}


def main():
  """Measures, prints the tables, writes the JSON."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data_dir", default="data", help="folder of the prepared data sets")
  parser.add_argument("--out", required=True, help="JSON file for all figures")
  parser.add_argument("--saliency", default="learned", choices=NAMES)
  parser.add_argument(
    "--split",
    default="test",
    choices=SPLITS,
    help="judge on test; on the faces of tune the score is fitted",
  )
  parser.add_argument("--scenes", help="also a folder of ranked panoramas, of any format")
  parser.add_argument(
    "--groups",
    default=".*",
    help="regular expression: what begins an id of --scenes and is its group",
  )
  arguments = parser.parse_args()
  try:
    report = measure_and_judge(arguments)
  except (ValueError, re.error) as error:
    sys.exit(f"error: {error}")
  write_atomically(
    arguments.out, (json.dumps(without_nan(report), indent=2, allow_nan=False) + "\n").encode()
  )
  print(f"wrote {arguments.out}")


def measure_and_judge(arguments: argparse.Namespace) -> dict[str, Any]:
  """The figures of all sources; prints each table when it is there."""
  name = arguments.saliency
  scores = {variant: ObjectScore.load(name, variant) for variant in VARIANTS}
  method = {
    "saliency": build_saliency(name),
    "strategy": Strategy(),
    "object_score": scores["full"],
  }
  report = {"saliency": name, "split": arguments.split, "sources": {}}
  for source, split in SPLITS[arguments.split].items():
    examples = measure_prepared(source, arguments.data_dir, split, **method)
    report["sources"][source] = judge(examples, scores)
    print(table(source, report["sources"][source]), flush=True)
  if arguments.scenes:
    examples = measure_folder(arguments.scenes, **method)
    groups = [group_of(example.name, arguments.groups) for example in examples]
    report["sources"][arguments.scenes] = judge(examples, scores, groups)
    print(table(pathlib.Path(arguments.scenes).name, report["sources"][arguments.scenes]))
  return report


def group_of(name: str, pattern: str) -> str:
  """What the pattern finds at the start of an id; an id without it is a group by itself.

  >>> group_of("choir_3", r".*(?=_)"), group_of("room", r".*(?=_)")
  ('choir', 'room')
  """
  found = re.match(pattern, name)
  return found.group() if found else name


def judge(
  examples: Sequence[Example],
  scores: dict[str, ObjectScore],
  groups: Sequence[str] | None = None,
) -> dict[str, Any]:
  """Figures of every ranker on one source.

  Args:
    examples: the pictures, measured.
    scores: the coefficients of each variant.
    groups: the group of each picture, if whole groups are to be resampled.

  Returns:
    `pictures`, `groups`, and `rankers`: for each its SA-SOR and pairwise agreement, that of pairs
    with a small object (smaller than the median of all objects here) and with one more than 45
    degrees from the horizon, and `gain`: SA-SOR of the method minus that of the ranker.
  """
  small = np.median(np.concatenate([example.scene.area for example in examples]))
  subsets = {
    "pairs": lambda example: np.ones(len(example.relevance), bool),
    "pairs_small": lambda example: example.scene.area < small,
    "pairs_polar": lambda example: np.abs(example.scene.elevation) > POLAR_SINE,
  }
  values = {
    name: [strengths(example, scores[name], variant) for example in examples]
    for name, variant in VARIANTS.items()
  }
  photographs = any(example.place.any() for example in examples)
  baselines = BASELINES | (OF_PHOTOGRAPHS if photographs else {})
  values |= {name: [ranker(e) for e in examples] for name, ranker in baselines.items()}
  correlations = {
    name: _scores(rank_correlation, examples, of_ranker) for name, of_ranker in values.items()
  }
  rankers = {}
  for name, of_ranker in values.items():
    gain = paired_bootstrap_interval(correlations["full"], correlations[name], groups=groups)
    rankers[name] = {
      "sa_sor": _summary(correlations[name]),
      "gain": {"mean": gain.mean, "interval_95": [gain.low, gain.high]},
    }
    for subset, chosen in subsets.items():
      agreement = [
        _agreement(example, value, chosen(example))
        for example, value in zip(examples, of_ranker, strict=True)
      ]
      rankers[name][subset] = _summary(agreement)
  return {
    "pictures": len(examples),
    "groups": len(set(groups)) if groups else len(examples),
    "objects": int(sum(len(example.relevance) for example in examples)),
    "small_sr": float(small),
    "rankers": rankers,
  }


def table(name: str, figures: dict[str, Any]) -> str:
  """The figures of a source as a Markdown table."""
  head = f"{name}: {figures['pictures']} pictures, {figures['objects']} objects"
  lines = [
    f"| {head} | SA-SOR | the method minus it | pairs | with a small object | near a pole |",
    "|---|---|---|---|---|---|",
  ]
  for ranker, row in figures["rankers"].items():
    gain = row["gain"]
    low, high = gain["interval_95"]
    sa_sor = row["sa_sor"]
    means = (row[subset]["mean"] for subset in ("pairs", "pairs_small", "pairs_polar"))
    pairs = " | ".join("-" if np.isnan(mean) else f"{mean:.3f}" for mean in means)
    difference = "" if ranker == "full" else f"{gain['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
    lines.append(
      f"| {ranker.replace('_', ' ')} | {sa_sor['mean']:.3f} [{sa_sor['interval_95'][0]:.3f},"
      f" {sa_sor['interval_95'][1]:.3f}] | {difference} | {pairs} |"
    )
  return "\n".join(lines)


def _scores(metric, examples: Sequence[Example], values: Sequence[np.ndarray]) -> list[Score]:
  return [metric(e.relevance, value) for e, value in zip(examples, values, strict=True)]


def _agreement(example: Example, values: np.ndarray, chosen: np.ndarray) -> Score:
  """The share of ordered pairs with an object of `chosen` that are in the right order."""
  if chosen.all():
    return pairwise_agreement(example.relevance, values)
  pairs = chosen[:, None] | chosen
  better = (example.relevance[:, None] > example.relevance) & pairs
  if not better.any():
    return Score(float("nan"), "skipped")
  return Score(float((0.5 + 0.5 * np.sign(values[:, None] - values))[better].mean()), "used")


def _summary(scores: Sequence[Score]) -> dict[str, Any]:
  return ScoreAccumulator().add(*scores).summary() | {
    "interval_95": list(bootstrap_interval(scores))
  }


if __name__ == "__main__":
  main()
