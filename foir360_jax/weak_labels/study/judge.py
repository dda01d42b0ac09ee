"""Scores of rankers on examples, and paired differences to the method.

The method is compared with itself without one of its parts and with simple baselines.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from foir360_jax.metrics import (
  Score,
  ScoreAccumulator,
  bootstrap_interval,
  paired_bootstrap_interval,
  pairwise_agreement,
  rank_correlation,
)
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.study.examples import Example
from foir360_jax.weak_labels.study.variants import VARIANTS, strengths

BASELINES: dict[str, Callable[[Example], np.ndarray]] = {
  "area": lambda example: example.pixels,
  "solid_angle": lambda example: np.asarray(example.scene.area),
  "horizon": lambda example: -np.abs(example.scene.elevation),
  "saliency_sum": lambda example: example.saliency_sum,
}
OF_PHOTOGRAPHS: dict[str, Callable[[Example], np.ndarray]] = {
  # Where photographers put what matters; a panorama has no middle, so it is no rival there.
  "middle_of_photograph": lambda example: -np.hypot(*example.place.T),
}
POLAR_SINE = np.sin(np.radians(45))


def values_of(
  examples: Sequence[Example], scores: Mapping[str, ObjectScore]
) -> dict[str, list[np.ndarray]]:
  """What every variant thinks of the objects of each picture, by its coefficients `scores`."""
  return {name: strengths(examples, scores[name], variant) for name, variant in VARIANTS.items()}


def judge(
  examples: Sequence[Example],
  values: Mapping[str, Sequence[np.ndarray]],
  groups: Sequence[str] | None = None,
) -> dict[str, Any]:
  """Figures of every ranker on one source.

  Args:
    examples: the pictures, measured.
    values: of each ranker, of each picture's objects; of the method as "full".
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
  photographs = any(example.place.any() for example in examples)
  baselines = BASELINES | (OF_PHOTOGRAPHS if photographs else {})
  values = {**values, **{name: [rank(e) for e in examples] for name, rank in baselines.items()}}
  correlations = {
    name: _scores(rank_correlation, examples, of_ranker) for name, of_ranker in values.items()
  }
  rankers = {}
  for name, of_ranker in values.items():
    gain = paired_bootstrap_interval(correlations["full"], correlations[name], groups=groups)
    rankers[name] = {
      "sa_sor": _summary(correlations[name], groups),
      "gain": {"mean": gain.mean, "interval_95": [gain.low, gain.high]},
    }
    for subset, chosen in subsets.items():
      agreement = [
        _agreement(example, value, chosen(example))
        for example, value in zip(examples, of_ranker, strict=True)
      ]
      rankers[name][subset] = _summary(agreement, groups)
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


def _summary(scores: Sequence[Score], groups: Sequence[str] | None) -> dict[str, Any]:
  return ScoreAccumulator().add(*scores).summary() | {
    "interval_95": list(bootstrap_interval(scores, groups=groups))
  }
