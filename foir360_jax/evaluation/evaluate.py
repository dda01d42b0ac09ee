"""Evaluates a model on a test split, beside baselines and the ceiling of the labels.

Two questions are kept apart: how well are ground-truth masks ranked, and how well do predicted
masks and their order agree with the truth (SA-SOR, rule "irsr")? All that is tuned (the detection
thresholds, the fits of the linear baselines) is tuned on the validation split.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.batch import HostBatch
from foir360_jax.evaluation.baselines import TITLES, fit_linear, measure_scores, with_linear
from foir360_jax.evaluation.infer import PredictedMasks, infer, measure_ground_truth
from foir360_jax.evaluation.measures import MaskMeasures
from foir360_jax.evaluation.recall_by_place import recall_by_place
from foir360_jax.inference.decision import Decision, choose
from foir360_jax.metrics import (
  Score,
  ScoreAccumulator,
  bootstrap_interval,
  f1_at_iou,
  found_at_iou,
  rank_correlation,
  recall_at_iou,
  sa_sor_from_iou,
)
from foir360_jax.models import PanoRank


@dataclasses.dataclass(frozen=True)
class ImageResult:
  """One picture: n true objects, m candidates, T thresholds.

  Attributes:
    index: its place in the split.
    relevance: `[n]`.
    ground_truth: scores `[n]` of the ground-truth masks, by ranker.
    on_seam: `[n]` bool, whether the ground-truth mask is cut by the seam.
    iou: `[n, m]`; m = 0 where the model does not detect, as in the next four.
    confidence: `[m]` of the detections.
    importance: `[T, m]`.
    stop_margin: `[T, m]`, see `models.Order`.
    predicted: scores `[m]` of the candidates, by baseline.
    scores: what the picture contributes to the report, by "ground_truth_masks/RANKER",
      "predicted_masks/RANKER", "recall" and "f1" (the first alone, where the model does not
      detect); empty before the threshold is chosen.
  """

  index: int
  relevance: np.ndarray
  ground_truth: dict[str, np.ndarray]
  on_seam: np.ndarray
  iou: np.ndarray
  confidence: np.ndarray
  importance: np.ndarray
  stop_margin: np.ndarray
  predicted: dict[str, np.ndarray]
  scores: dict[str, Score] = dataclasses.field(default_factory=dict)


def evaluate(
  model: PanoRank,
  validation: Iterable[HostBatch],
  test: Iterable[HostBatch],
  *,
  thresholds: Sequence[float],
  stop_margins: Sequence[float],
  iou_threshold: float,
  choose_by: str = "sa_sor",
  categories: Sequence[int] | None = None,
  yaw_augmentation: int = 1,
  detects: bool = True,
) -> tuple[dict[str, Any], list[ImageResult]]:
  """Tunes the thresholds on `validation` and evaluates on `test`.

  Args:
    model: with the parameters to evaluate.
    validation: batches of `build_evaluation_batches`.
    test: the same, of the split that is reported.
    thresholds: confidence thresholds to choose from.
    stop_margins: margins of the recurrent module to choose from; see `Decision`.
    iou_threshold: least overlap of a match, see `metrics.sa_sor`.
    choose_by: of `CRITERIA`, whose mean over `validation` the decision is to make the largest.
    categories: the model's number of each of the data's categories, -1 for those that it does not
      know; None: they are numbered alike.
    yaw_augmentation: number of rotated copies of a picture to average, see `PanoRank.encode`.
    detects: False for a model that ranks provided masks only: no predicted masks are evaluated.

  Returns:
    a report of plain values (see `docs/metrics.md`), and the results per picture of the test split.
  """
  run = _compile(model, thresholds, yaw_augmentation, detects)
  validation, test = (_renumbered(batches, categories) for batches in (validation, test))
  tuning = list(_results(run, validation))
  coefficients = fit_linear((result.ground_truth, result.relevance) for result in tuning)

  def score(criterion: str, level: int, stop_margin: float) -> float:
    decision = Decision(thresholds[level], stop_margin)
    return _mean([CRITERIA[criterion](r, level, decision, iou_threshold) for r in tuning])

  decision, level = Decision(yaw_augmentation=yaw_augmentation), None
  if detects:
    choices = {
      criterion: choose(thresholds, stop_margins, functools.partial(score, criterion))
      for criterion in CRITERIA
    }
    level, stop_margin, _ = choices[choose_by]
    decision = Decision(float(thresholds[level]), stop_margin, yaw_augmentation)
  results = []
  for result in _results(run, test):
    ground_truth, predicted = (
      with_linear(scores, coefficients) for scores in (result.ground_truth, result.predicted)
    )
    result = dataclasses.replace(result, ground_truth=ground_truth, predicted=predicted)
    results.append(_scored(result, level, decision, iou_threshold))
  report = {
    "images": len(results),
    "yaw_augmentation": yaw_augmentation,
    "condition_on_categories": model is not None and model.condition_on_categories,
    "ground_truth_masks": _summary(results, "ground_truth_masks"),
  }
  if level is None:
    return report, results
  kept = [_kept(result, level, decision) for result in results]
  found = [
    (
      found_at_iou(result.iou[:, keep], iou_threshold),
      result.ground_truth["horizon"],
      result.on_seam,
    )
    for result, keep in zip(results, kept, strict=True)
  ]
  of_predicted = {
    "iou_threshold": iou_threshold,
    "recall": _mean([result.scores["recall"] for result in results]),
    "f1": _mean([result.scores["f1"] for result in results]),
    "objects_per_image": float(np.mean([len(result.relevance) for result in results])),
    "predictions_per_image": float(np.mean([keep.sum() for keep in kept])),
    "recall_by_place": recall_by_place(found),
  }
  report |= {
    **decision._asdict(),
    "chosen_by": choose_by,
    "validation_by_stop_margin_and_threshold": {
      criterion: curves for criterion, (_, _, curves) in choices.items()
    },
    "predicted_masks": _summary(results, "predicted_masks") | of_predicted,
  }
  return report, results


def _compile(
  model: PanoRank, thresholds: Sequence[float], yaw_augmentation: int, detects: bool
) -> Callable[[HostBatch], Any]:
  graphdef, state = nnx.split(model)
  infer_batch = jax.jit(
    functools.partial(infer, graphdef, yaw_augmentation=yaw_augmentation, detects=detects)
  )
  measure = jax.jit(measure_ground_truth)

  def run(batch: HostBatch) -> Any:
    scores = infer_batch(state, batch, jnp.asarray(thresholds))
    return jax.device_get((*scores, measure(batch["masks"], batch["image"])))

  return run


def _renumbered(
  batches: Iterable[HostBatch], categories: Sequence[int] | None
) -> Iterable[HostBatch]:
  if categories is None:
    return batches
  numbers = np.array([*categories, -1], np.int32)  # -1 stays what it is
  return (batch | {"category": numbers[batch["category"]]} for batch in batches)


def _results(
  run: Callable[[HostBatch], Any], batches: Iterable[HostBatch]
) -> Iterable[ImageResult]:
  for batch in batches:
    ground_truth, predicted, measures = run(batch)
    for row in np.flatnonzero(batch["example_where"]):
      real = batch["where"][row]
      ground_truth_scores = {
        "model": ground_truth.importance[row][real],
        "rank_head_alone": ground_truth.head_scores[row][real],
        **measure_scores(MaskMeasures(*(values[row][real] for values in measures.measures))),
      }
      truth = None
      if "true_importance" in batch:
        truth = ground_truth_scores["ceiling"] = batch["true_importance"][row][real]
      yield ImageResult(
        index=int(batch["index"][row]),
        relevance=batch["relevance"][row][real],
        ground_truth=ground_truth_scores,
        on_seam=measures.on_seam[row][real],
        **_of_candidates(predicted, int(row), real, truth),
      )


def _of_candidates(
  predicted: PredictedMasks | None, row: int, real: np.ndarray, truth: np.ndarray | None
) -> dict[str, Any]:
  """The fields of an `ImageResult` on its candidates; none, where the model does not detect."""
  if predicted is None:
    none = np.zeros((1, 0))
    iou = np.zeros((np.count_nonzero(real), 0))
    scores = measure_scores(MaskMeasures(none[0], none[0], none[0]))
    return dict(iou=iou, confidence=none[0], importance=none, stop_margin=none, predicted=scores)
  overlap = np.asarray(predicted.iou[row])[real]
  scores = measure_scores(MaskMeasures(*(values[row] for values in predicted.measures)))
  if truth is not None:
    scores["ceiling"] = _truth_of_candidates(overlap, truth)
  return dict(
    iou=overlap,
    confidence=predicted.confidence[row],
    importance=predicted.importance[row],
    stop_margin=predicted.stop_margin[row],
    predicted=scores,
  )


def _truth_of_candidates(iou: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Importance of the object that each candidate overlaps most; below all if it overlaps none."""
  if not len(truth):
    return np.zeros(iou.shape[1])
  # Any overlap will do: under the rule "irsr" false positives at the end of the list would lift all
  # matched objects above the missed ones, which costs more than to rank them in between.
  return np.where(iou.max(0) > 0, truth[iou.argmax(0)], truth.min() - 1)


def _kept(result: ImageResult, level: int, decision: Decision) -> np.ndarray:
  """Bool `[m]`: candidates that pass; `level` is the index of the confidence threshold."""
  return decision.keeps(result.confidence, result.stop_margin[level])


def _scored(
  result: ImageResult, level: int | None, decision: Decision, iou_threshold: float
) -> ImageResult:
  """Adds the scores; of ground-truth masks alone where `level` is None."""
  scores = {
    f"ground_truth_masks/{name}": rank_correlation(result.relevance, values)
    for name, values in result.ground_truth.items()
  }
  if level is None:
    return dataclasses.replace(result, scores=scores)
  keep = _kept(result, level, decision)
  scores["recall"] = recall_at_iou(result.iou[:, keep], iou_threshold)
  scores["f1"] = _detected(result, level, decision, iou_threshold)
  for name in ("model", *result.predicted):
    scores[f"predicted_masks/{name}"] = _ranked(result, level, decision, iou_threshold, name)
  return dataclasses.replace(result, scores=scores)


def _ranked(
  result: ImageResult, level: int, decision: Decision, iou_threshold: float, ranker: str = "model"
) -> Score:
  """SA-SOR of the candidates that are objects, by one of their rankers."""
  keep = _kept(result, level, decision)
  scores = result.importance[level] if ranker == "model" else result.predicted[ranker]
  return sa_sor_from_iou(
    result.iou[:, keep], result.relevance, scores[keep], iou_threshold=iou_threshold
  )


def _detected(result: ImageResult, level: int, decision: Decision, iou_threshold: float) -> Score:
  """F1 of the candidates that are objects."""
  return f1_at_iou(result.iou[:, _kept(result, level, decision)], iou_threshold)


CRITERIA = {"sa_sor": _ranked, "f1": _detected}
"""What the decision may be chosen by: how well predicted masks are ranked, or detected."""


def _mean(scores: list[Score]) -> float:
  return ScoreAccumulator().add(*scores).summary()["mean"]


def _summary(results: list[ImageResult], part: str) -> dict[str, Any]:
  """Mean, interval and image counts of each ranker, and the share of the gap closed."""
  report: dict[str, Any] = {}
  for key in results[0].scores:
    prefix, _, name = key.partition("/")
    if prefix == part:
      scores = [result.scores[key] for result in results]
      interval = list(bootstrap_interval(scores))
      report[name] = ScoreAccumulator().add(*scores).summary() | {"interval_95": interval}
  if "ceiling" in report:
    baseline = max(report[name]["mean"] for name in TITLES)
    room = report["ceiling"]["mean"] - baseline
    report["gap_closed"] = (report["model"]["mean"] - baseline) / room if room > 0 else None
  return report
