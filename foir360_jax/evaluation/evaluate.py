"""How well a model ranks a test split, beside simple baselines and the ceiling of the labels.

Two questions are kept apart: how well are *given* true masks ranked, and how well do the model's
*own* masks and their order agree with the truth (SA-SOR, rule "irsr")? All that is chosen (the
confidence threshold, the fit of the linear baseline) is chosen on the validation split.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.evaluation.infer import infer, mask_measures
from foir360_jax.metrics import (
  Score,
  ScoreAccumulator,
  bootstrap_interval,
  rank_correlation,
  sa_sor_from_iou,
)
from foir360_jax.models import PanoRank
from foir360_jax.models.objective import cell_masks
from foir360_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class ImageResult:
  """One picture: n true objects, m candidates, T thresholds.

  Attributes:
    index: its place in the split.
    relevance: `[n]`. true_importance: `[n]` or None where the data set does not know it.
    given: scores `[n]` for the true masks, by ranker.
    iou: `[n, m]`. confidence: `[m]`. importance: `[T, m]`. own: scores `[m]` by baseline.
  """

  index: int
  relevance: np.ndarray
  true_importance: np.ndarray | None
  given: dict[str, np.ndarray]
  iou: np.ndarray
  confidence: np.ndarray
  importance: np.ndarray
  own: dict[str, np.ndarray]


def evaluate(
  model: PanoRank,
  validation: Iterable[Batch],
  test: Iterable[Batch],
  *,
  thresholds: Sequence[float],
  iou_threshold: float,
) -> tuple[dict[str, Any], list[ImageResult]]:
  """Chooses the threshold on `validation` and measures on `test`.

  Args:
    model: with the parameters to evaluate.
    validation: batches of `build_evaluation_batches`.
    test: the same, of the split that is reported.
    thresholds: confidence thresholds to choose from.
    iou_threshold: least overlap of a match, see `metrics.sa_sor`.

  Returns:
    a report of plain values (see `docs/metrics.md`), and the results per picture of the test split.
  """
  run = _compile(model, thresholds)
  tuning = list(_results(run, validation))
  coefficients = _fit_area_and_horizon(tuning)
  curve = [
    _mean([_own_score(r, t, "model", thresholds, iou_threshold) for r in tuning])
    for t in range(len(thresholds))
  ]
  best = int(np.nanargmax(curve)) if not np.isnan(curve).all() else 0
  results = [_with_linear(result, coefficients) for result in _results(run, test)]

  given = {
    name: [rank_correlation(r.relevance, r.given[name]) for r in results]
    for name in results[0].given
  }
  own = {
    name: [_own_score(r, best, name, thresholds, iou_threshold) for r in results]
    for name in ("model", *results[0].own)
  }
  kept = [r.confidence > thresholds[best] for r in results]
  report = {
    "images": len(results),
    "confidence_threshold": float(thresholds[best]),
    "validation_sa_sor_by_threshold": dict(zip(map(str, thresholds), curve, strict=True)),
    "given_masks": _summary(given),
    "own_masks": _summary(own)
    | {
      "iou_threshold": iou_threshold,
      "recall": float(
        np.mean(
          np.concatenate([_found(r, k, iou_threshold) for r, k in zip(results, kept, strict=True)])
        )
      ),
      "objects_per_image": float(np.mean([len(r.relevance) for r in results])),
      "predictions_per_image": float(np.mean([k.sum() for k in kept])),
    },
  }
  return report, results


def _compile(model: PanoRank, thresholds: Sequence[float]) -> Callable[[Batch], Any]:
  graphdef, state = nnx.split(model)
  compiled = jax.jit(functools.partial(infer, graphdef))

  def run(batch: Batch):
    masks = batch["masks"]
    given, own = compiled(state, batch, jnp.asarray(thresholds))
    measures = measure(masks)
    return jax.device_get((given, own, measures))

  measure = jax.jit(lambda packed: mask_measures(cell_masks(packed, 1)))
  return run


def _results(run, batches: Iterable[Batch]) -> Iterable[ImageResult]:
  for batch in batches:
    given, own, (log_area, horizon) = run(batch)
    for row in np.flatnonzero(batch["example_where"]):
      real = batch["where"][row]
      truth = batch.get("true_importance")
      truth = None if truth is None else truth[row][real]
      by_truth = {} if truth is None else {"ceiling": truth}
      iou = own.iou[row][real]
      result = ImageResult(
        index=int(batch["index"][row]),
        relevance=batch["relevance"][row][real],
        true_importance=truth,
        given={
          "model": given.importance[row][real],
          "rank_head_alone": given.head_scores[row][real],
          "area": log_area[row][real],
          "horizon": horizon[row][real],
        }
        | by_truth,
        iou=iou,
        confidence=own.confidence[row],
        importance=own.importance[row],
        own={"area": own.log_area[row], "horizon": own.horizon[row]}
        | ({} if truth is None else {"ceiling": _truth_of_candidates(iou, truth)}),
      )
      yield result


def _truth_of_candidates(iou: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """The true importance of the object that each candidate covers best; without one, the lowest."""
  if not len(truth):
    return np.zeros(iou.shape[1])
  return np.where(iou.max(0) > 0, truth[iou.argmax(0)], truth.min() - 1)


def _own_score(
  result: ImageResult, threshold: int, ranker: str, thresholds, iou_threshold
) -> Score:
  keep = result.confidence > thresholds[threshold]
  scores = result.importance[threshold] if ranker == "model" else result.own[ranker]
  return sa_sor_from_iou(
    result.iou[:, keep], result.relevance, scores[keep], iou_threshold=iou_threshold
  )


def _found(result: ImageResult, keep: np.ndarray, iou_threshold: float) -> np.ndarray:
  if not keep.any():
    return np.zeros(len(result.relevance), bool)
  return result.iou[:, keep].max(1) >= iou_threshold


def _fit_area_and_horizon(results: list[ImageResult]) -> np.ndarray:
  """Least squares of relevance on log area and horizon, within pictures."""
  columns, targets = [], []
  for result in results:
    features = np.stack([result.given["area"], result.given["horizon"]], axis=-1)
    columns.append(features - features.mean(0) if len(features) else features)
    targets.append(result.relevance - (result.relevance.mean() if len(features) else 0))
  return np.linalg.lstsq(np.concatenate(columns), np.concatenate(targets), rcond=None)[0]


def _with_linear(result: ImageResult, coefficients: np.ndarray) -> ImageResult:
  def add(scores):
    linear = coefficients[0] * scores["area"] + coefficients[1] * scores["horizon"]
    return scores | {"area_and_horizon": linear}

  return dataclasses.replace(result, given=add(result.given), own=add(result.own))


def _mean(scores: list[Score]) -> float:
  return ScoreAccumulator().add(*scores).summary()["mean"]


def _summary(scores: dict[str, list[Score]]) -> dict[str, Any]:
  """Mean, interval and image counts of each ranker, and the share of the gap closed."""
  report: dict[str, Any] = {}
  for name, values in scores.items():
    low, high = bootstrap_interval(values)
    report[name] = ScoreAccumulator().add(*values).summary() | {"interval_95": [low, high]}
  if "ceiling" in report:
    names = ("area", "horizon", "area_and_horizon")
    baseline = max(report[name]["mean"] for name in names)
    room = report["ceiling"]["mean"] - baseline
    report["gap_closed"] = (report["model"]["mean"] - baseline) / room if room > 0 else None
  return report
