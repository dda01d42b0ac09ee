"""Baseline rankers: measures of masks, and linear fits of them.

Scores are a mapping of rankers' names to `[n]` for the n objects of a picture.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from foir360_jax.evaluation.measures import MaskMeasures

Scores = dict[str, np.ndarray]

LINEAR = {
  "area_and_horizon": ("area", "horizon"),
  "area_horizon_contrast": ("area", "horizon", "contrast"),
}
TITLES = {
  "area": "by area",
  "horizon": "by distance from the horizon",
  "contrast": "by contrast with a ring around",
  "area_and_horizon": "by area, horizon; fitted",
  "area_horizon_contrast": "by area, horizon, contrast; fitted",
}
"""All of them; the fits are made on the validation split."""


def measure_scores(measures: MaskMeasures) -> Scores:
  """The measures by the names of `TITLES`."""
  return {
    "area": np.asarray(measures.log_area),
    "horizon": np.asarray(measures.horizon),
    "contrast": np.asarray(measures.contrast),
  }


def fit_linear(pictures: Iterable[tuple[Mapping[str, np.ndarray], np.ndarray]]) -> Scores:
  """Least squares of relevance on measures, within pictures.

  Args:
    pictures: scores by the measures, and the relevance `[n]`, of each.

  Returns:
    the coefficients of each of `LINEAR`.
  """
  pictures = [(scores, relevance) for scores, relevance in pictures if len(relevance)]
  target = np.concatenate([[0.0], *(relevance - relevance.mean() for _, relevance in pictures)])
  coefficients = {}
  for name, measures in LINEAR.items():
    features = [np.stack([s[m] for m in measures], axis=-1) for s, _ in pictures]
    rows = [np.zeros((1, len(measures))), *(f - f.mean(0) for f in features)]
    coefficients[name] = np.linalg.lstsq(np.concatenate(rows), target, rcond=None)[0]
  return coefficients


def with_linear(scores: Scores, coefficients: Mapping[str, np.ndarray]) -> Scores:
  """Adds the scores of the linear fits."""
  return scores | {
    name: np.stack([scores[measure] for measure in measures], axis=-1) @ coefficients[name]
    for name, measures in LINEAR.items()
  }
