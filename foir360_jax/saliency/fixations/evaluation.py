"""Evaluates saliency models on held-out fixations, beside two simple models.

Everything is measured at the working size of the pictures, [h, w], to which the fixations are
scaled: NSS and AUC-Judd against the fixations, CC, KL and SIM against their density, which is
blurred by one degree of visual angle. Each viewer's first fixation is left out. See
`metrics.fixation` for the formulas; each is computed for each picture, then averaged.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from foir360_jax.metrics import Score, ScoreAccumulator, bootstrap_interval
from foir360_jax.metrics.fixation import auc_judd, cc, kl_divergence, nss, similarity
from foir360_jax.saliency import LearnedSaliency, SpectralResidual
from foir360_jax.saliency.fixations.pictures import FixatedPicture
from foir360_jax.saliency.fixations.training import CentreBias

METRICS = ("nss", "cc", "auc_judd", "kl", "sim")
MODELS = ("learned", "learned_with_bias", "centre_prior", "spectral_residual")
DEFINITION = (
  "at the working size; without each viewer's first fixation; density: blurred by one degree;"
  " means over pictures"
)
TOGETHER = "together"


def saliency_maps(
  model: LearnedSaliency,
  bias: CentreBias,
  pictures: Sequence[FixatedPicture],
  *,
  data_set: int,
  prior_px: float,
  batch_size: int,
) -> Iterable[dict[str, np.ndarray]]:
  """Yields for each picture the maps [h, w] of all `MODELS`.

  Args:
    model: the learned model, which has no centre bias.
    bias: what the readout was trained beside; `learned_with_bias` multiplies it back in.
    pictures: of one size.
    data_set: the number of their data set, for the bias.
    prior_px: standard deviation of the centre prior, from `fit_centre_prior`.
    batch_size: pictures that are computed at once.
  """
  if not pictures:
    return
  height, width = pictures[0].image.shape[:2]
  x, y = (2 * (np.arange(n, dtype=np.float32) + 0.5) / n - 1 for n in (width, height))
  habit = np.exp(np.asarray(bias(x[None], y[None], np.array([data_set])))[0])
  prior = np.exp(-((x * width / 2) ** 2 + (y[:, None] * height / 2) ** 2) / (2 * prior_px**2))
  spectral = SpectralResidual()
  for start in range(0, len(pictures), batch_size):
    images = np.stack([picture.image for picture in pictures[start : start + batch_size]])
    padding = [(0, batch_size - len(images)), *[(0, 0)] * 3]  # always the same shape
    learned, residual = jax.device_get([run(np.pad(images, padding)) for run in (model, spectral)])
    for row in range(len(images)):
      yield dict(
        zip(MODELS, (learned[row], learned[row] * habit, prior, residual[row]), strict=True)
      )


def score_maps(
  maps: Mapping[str, np.ndarray], picture: FixatedPicture
) -> dict[str, dict[str, Score]]:
  """Scores one picture: {model: {metric: score}}.

  Args:
    maps: {model: [h, w]}, not negative.
    picture: of that size.
  """
  x, y, density = picture.x, picture.y, picture.density()
  return {
    name: {
      "nss": nss(saliency, x, y),
      "cc": cc(saliency, density),
      "auc_judd": auc_judd(saliency, x, y),
      "kl": kl_divergence(saliency, density),
      "sim": similarity(saliency, density),
    }
    for name, saliency in maps.items()
  }


def fit_centre_prior(pictures: Sequence[FixatedPicture]) -> float:
  """The standard deviation, in pixels, of the isotropic Gaussian about the centre that fits best.

  That is the root of the mean squared distance along an axis; that the picture ends is ignored.
  """
  squares = [
    (coordinates - length / 2) ** 2
    for picture in pictures
    for coordinates, length in zip((picture.y, picture.x), picture.image.shape[:2], strict=True)
  ]
  return float(np.sqrt(np.concatenate(squares).mean()))


def summarize(scores: Mapping[str, Sequence[dict[str, dict[str, Score]]]]) -> dict[str, Any]:
  """Means and bootstrap intervals over pictures.

  Args:
    scores: {data set: what `score_maps` gave for each of its pictures}.

  Returns:
    {data set: {"pictures": n, model: {metric: {"mean", "interval_95", counts}}}}, and the same of
    all pictures as "together".
  """
  everything = [row for rows in scores.values() for row in rows]
  return {
    name: {"pictures": len(rows)}
    | {model: {metric: _summary(rows, model, metric) for metric in METRICS} for model in MODELS}
    for name, rows in {**scores, TOGETHER: everything}.items()
  }


def _summary(
  rows: Sequence[dict[str, dict[str, Score]]], model: str, metric: str
) -> dict[str, Any]:
  scores = [row[model][metric] for row in rows]
  interval = list(bootstrap_interval(scores))
  return ScoreAccumulator().add(*scores).summary() | {"interval_95": interval}


def table(summary: Mapping[str, Any]) -> str:
  """The report as text: a block for each data set, a line for each model."""
  lines = []
  for name, block in summary.items():
    titles = "".join(f"{metric:>23}" for metric in METRICS)
    lines.append(f"{name + ', ' + str(block['pictures']) + ' pictures':28}{titles}")
    for model in MODELS:
      cells = "".join(f"{_cell(block[model][metric]):>23}" for metric in METRICS)
      lines.append(f"  {model.replace('_', ' '):26}{cells}")
  return "\n".join(lines)


def _cell(entry: Mapping[str, Any]) -> str:
  low, high = entry["interval_95"]
  if math.isnan(entry["mean"]):
    return "-"
  return f"{entry['mean']:.3f} [{low:.3f}, {high:.3f}]"
