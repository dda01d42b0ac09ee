"""Fits the object score's coefficients to pictures whose order is known.

Logistic regression on pairs: of two objects that a view sees together, the terms of their local
scores say how likely the one is ranked above the other; likewise the prior's terms, on all pairs.
A picture's pairs together weigh 1, weighted among themselves by visibility, and each data set as
much as the others, or as it is given for local scores.

People look at the middle of a photograph more than at its edges. What an object looks like to the
backbone tells where in the photograph it is, so coefficients would learn that habit. Terms for the
place in the photograph are fitted beside them, explain it away, and are dropped: a panorama has no
such middle.

Axes: V views, n objects, K terms, M pairs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from scipy.special import expit

from foir360_jax.weak_labels.object_score import (
  LOCAL_TERMS,
  PRIOR_TERMS,
  SALIENCY_SUM,
  ObjectScore,
  local_terms,
  prior_terms,
)
from foir360_jax.weak_labels.study.examples import Example
from foir360_jax.weak_labels.study.variants import Variant, strengths

_RIDGE = 1e-3  # of the mean loss, on standardised terms;
_APPEARANCE_RIDGE = 3e-2  # more on these many, of which each says little,
_HABIT_RIDGE = 1e-6  # and none on what is to be explained away
PRIOR_WEIGHTS = (0.03, 0.1, 0.3, 1.0)
WHOLE_WEIGHTS = (0.5, 1.0, 2.0, 4.0)
Coefficients = tuple[float, ...]
Pairs = Callable[[Example], tuple[np.ndarray, np.ndarray]]
NUM_HABITS = 3  # terms of the place in a photograph


def fit_object_score(
  train: Mapping[str, Sequence[Example]],
  tune: Mapping[str, Sequence[Example]],
  variant: Variant,
  *,
  local_weights: Mapping[str, float] | None = None,
) -> ObjectScore:
  """Fits local scores and prior on `train`, chooses the weights of prior and views on `tune`.

  Args:
    train: examples by data set, measured with a score that erases by `SALIENCY_SUM`.
    tune: other examples by data set.
    variant: which of the measurements are used, and how.
    local_weights: what data sets of `train` count for the local scores, those that are not named
      nothing; None: all alike. For the prior all count alike.

  Returns:
    The coefficients, rounded to four digits.
  """
  views = {
    name: [example._replace(local=variant.restrict(example.local)) for example in part]
    for name, part in train.items()
  }

  def fitted(pairs: Pairs, known: int, shares: Mapping[str, float]) -> Coefficients:
    sets = [[pairs(example) for example in views[name]] for name in shares]
    ridges = np.full(sets[0][0][0].shape[1], _APPEARANCE_RIDGE)
    ridges[:known], ridges[-NUM_HABITS:] = _RIDGE, _HABIT_RIDGE
    coefficients = _logistic(sets, ridges, list(shares.values()))[:-NUM_HABITS]
    return tuple(float(f"{value:.4g}") for value in coefficients)

  known, alike = len(LOCAL_TERMS), dict.fromkeys(views, 1.0)
  of_views, of_whole = (
    fitted(functools.partial(_local_pairs, views=part), known, local_weights or alike)
    for part in (slice(0, -1), slice(-1, None))
  )
  prior = fitted(_prior_pairs, len(PRIOR_TERMS), alike)
  coefficients = SALIENCY_SUM, of_views[:known], of_whole[:known], prior
  appearance = of_views[known:], of_whole[known:]
  weights = WHOLE_WEIGHTS if variant.has_views and variant.collector else (1.0,)
  candidates = [
    ObjectScore(*coefficients, prior_weight, whole_weight, 1.0, 0.0, *appearance)
    for prior_weight in PRIOR_WEIGHTS
    for whole_weight in weights
  ]
  losses = [
    np.mean([_loss(part, score, variant) for part in tune.values()]) for score in candidates
  ]
  score = candidates[int(np.argmin(losses))]
  slope, intercept = _fit_importance(
    [
      [(s, e.relevance) for s, e in zip(strengths(part, score, variant), part, strict=True)]
      for part in train.values()
    ]
  )
  return score._replace(slope=slope, intercept=intercept)


def _loss(examples: Sequence[Example], score: ObjectScore, variant: Variant) -> float:
  """The share of an example's pairs in the wrong order, ties by half; the mean over examples."""
  losses = []
  for example, strength in zip(examples, strengths(examples, score, variant), strict=True):
    better = example.relevance[:, None] > example.relevance
    wrong = 0.5 - 0.5 * np.sign(strength[:, None] - strength)
    losses.append(wrong[better].mean() if better.any() else 0.0)
  return float(np.mean(losses))


def _local_pairs(example: Example, views: slice) -> tuple[np.ndarray, np.ndarray]:
  """Differences of terms [M, K] of pairs in their true order in `views`, and weights [M], sum 1."""
  history, _, visibility, appearance, _ = jax.tree.map(
    lambda x: x[views] if x.ndim else x, example.local
  )
  known = np.asarray(local_terms(np.log(example.scene.area), example.scene.elevation, history))
  habit = np.broadcast_to(_habit_terms(example), (*known.shape[:2], NUM_HABITS))
  terms = np.concatenate([known, appearance, habit], axis=-1)
  better = example.relevance[:, None] > example.relevance
  weights = visibility[:, :, None] * visibility[:, None] * better
  view, first, second = np.nonzero(weights)
  return terms[view, first] - terms[view, second], _normalised(weights[view, first, second])


def _prior_pairs(example: Example) -> tuple[np.ndarray, np.ndarray]:
  known = np.asarray(prior_terms(np.log(example.scene.area), example.scene.elevation))
  terms = np.concatenate([known, _habit_terms(example)], axis=-1)
  first, second = np.nonzero(example.relevance[:, None] > example.relevance)
  return terms[first] - terms[second], _normalised(np.ones(len(first)))


def _habit_terms(example: Example) -> np.ndarray:
  """[n, NUM_HABITS] how far out in its photograph an object is; as the fixations' `CentreBias`."""
  x, y = example.place.T
  return np.stack([x**2, y**2, y], axis=-1)


def _normalised(weights: np.ndarray) -> np.ndarray:
  return weights / max(weights.sum(), 1e-12)


def _logistic(
  sets: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]],
  ridges: np.ndarray,
  shares: Sequence[float],
) -> np.ndarray:
  """Coefficients [K] that give the differences [M, K] of each picture the highest likelihood.

  Each set of pictures counts by its share of all.
  """
  parts = [
    (differences, weights * share / (len(pictures) * sum(shares)))
    for pictures, share in zip(sets, shares, strict=True)
    for differences, weights in pictures
  ]
  differences = np.concatenate([part for part, _ in parts]).astype(np.float64)
  weights = np.concatenate([part for _, part in parts]).astype(np.float64)
  scale = np.sqrt(weights @ differences**2 / max(weights.sum(), 1e-12))
  used = scale > 1e-9  # a term that is the same for all objects has no coefficient
  scaled, ridges = differences[:, used] / scale[used], ridges[used]
  if not used.any():
    return np.zeros(len(scale))
  coefficients = np.zeros(used.sum())
  for _ in range(50):
    wrong = expit(-scaled @ coefficients)
    gradient = scaled.T @ (weights * wrong) - ridges * coefficients
    curvature = (scaled * (weights * wrong * (1 - wrong))[:, None]).T @ scaled
    step = np.linalg.solve(curvature + np.diag(ridges), gradient)
    coefficients += step / max(1.0, np.abs(step).max())
    if np.abs(step).max() < 1e-9:
      break
  result = np.zeros(len(scale))
  result[used] = coefficients / scale[used]
  return result


def _fit_importance(
  sets: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]],
) -> tuple[float, float]:
  """Slope and intercept of the sigmoid that comes nearest to (n - rank + 1) / n."""
  strength, targets, shares = [], [], []
  for pictures in sets:
    for values, relevance in pictures:
      order = (relevance[:, None] >= relevance).mean(1)
      strength.append(values)
      targets.append(order)
      shares.append(np.full(len(values), 1 / (len(values) * len(pictures))))
  terms = np.stack([np.concatenate(strength), np.ones(sum(map(len, strength)))], axis=-1)
  target, weights = np.concatenate(targets), np.concatenate(shares)
  coefficients = np.zeros(2)
  for _ in range(50):
    mean = expit(terms @ coefficients)
    gradient = terms.T @ (weights * (target - mean))
    curvature = (terms * (weights * mean * (1 - mean))[:, None]).T @ terms
    step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
    coefficients += step / max(1.0, np.abs(step).max())
  slope, intercept = (float(f"{value:.4g}") for value in coefficients)
  return slope, intercept
