"""From the scores of single images to the mean over a data set and the images it is from.

Metrics differ most in which images they leave out, so a mean never travels without these counts.
"""

from collections.abc import Hashable, Iterable
from typing import Literal, NamedTuple

import numpy as np

Status = Literal["used", "skipped", "counted_zero", "undefined"]


class Score(NamedTuple):
  """The value of a metric for one image, and how the image enters the mean.

  - "used": the value counts.
  - "skipped": the rule leaves this image out; the value is NaN.
  - "counted_zero": the metric gives no number, which its rule counts as 0; the value is 0.
  - "undefined": the metric has no result and its rule no answer to that; NaN, left out.
  """

  value: float
  status: Status


SKIPPED = Score(float("nan"), "skipped")
COUNTED: tuple[Status, ...] = ("used", "counted_zero")
_DRAWS_AT_ONCE = 2**18  # stays in the cache, and small where there are many images


class ScoreAccumulator(NamedTuple):
  """A sum of scores and the number of images behind it.

  All fields add up, so accumulators of batches, devices or processes merge; as a tuple of numbers
  it passes through `jax.tree.map` and the collectives as it is.

  >>> scores = [Score(0.5, "used"), Score(0.0, "counted_zero"), Score(float("nan"), "skipped")]
  >>> ScoreAccumulator().add(*scores).summary()["mean"]
  0.25
  """

  total: float = 0.0
  images_used: int = 0
  images_skipped: int = 0
  images_undefined: int = 0
  images_counted_zero: int = 0

  def add(self, *scores: Score) -> "ScoreAccumulator":
    """Returns the accumulator with these scores added.

    Raises:
      ValueError: if a status is not one of `Status`.
    """
    sums = self._asdict()
    for score in scores:
      if (field := f"images_{score.status}") not in sums:
        raise ValueError(
          f"status must be used, skipped, counted_zero or undefined, not {score.status!r}"
        )
      sums[field] += 1
      sums["total"] += counted_value(score)
    return ScoreAccumulator(**sums)

  def merge(self, *others: "ScoreAccumulator") -> "ScoreAccumulator":
    """Returns the accumulator of all images of this one and the others."""
    return ScoreAccumulator(*map(sum, zip(self, *others, strict=True)))

  def summary(self) -> dict[str, float | int]:
    """Returns `mean` (NaN if no image counts) and the four numbers of images."""
    count = self.images_used + self.images_counted_zero
    counts = {name: int(number) for name, number in self._asdict().items() if name != "total"}
    return {"mean": float(self.total / count) if count else float("nan"), **counts}


def bootstrap_interval(
  scores: Iterable[Score],
  *,
  groups: Iterable[Hashable] | None = None,
  confidence: float = 0.95,
  num_resamples: int = 2000,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns the percentile bootstrap interval of the mean score, resampling the images.

  Images that are left out of the mean are left out here. With groups, whole groups are drawn, as in
  `paired_bootstrap_interval`.
  Source: Efron & Tibshirani, An introduction to the bootstrap, 1993, section 13.3.

  Args:
    scores: One score an image.
    groups: The group of each image, such as the name of its video; None: each is its own.
    confidence: Share of resampled means inside the interval, in (0, 1).
    num_resamples: Number of data sets drawn.
    seed: The same seed gives the same interval.

  Returns:
    (low, high); (NaN, NaN) if no image counts, or only those of one group.

  Raises:
    ValueError: if there is not one group for each score.

  >>> bootstrap_interval([Score(0.5, "used")] * 9)
  (0.5, 0.5)
  """
  scores = list(scores)
  if groups is None:
    totals, counts = np.array([counted_value(s) for s in scores if s.status in COUNTED]), None
  else:
    groups = list(groups)
    if len(groups) != len(scores):
      raise ValueError(f"{len(scores)} scores in {len(groups)} groups: give one an image each")
    totals, counts = totals_of_groups(
      (counted_value(score), group)
      for score, group in zip(scores, groups, strict=True)
      if score.status in COUNTED
    )
  if totals.size < (1 if groups is None else 2):
    return float("nan"), float("nan")
  means = resampled_means(totals, counts, num_resamples=num_resamples, seed=seed)
  return percentile_interval(means, confidence)


def totals_of_groups(
  values: Iterable[tuple[float, Hashable]],
) -> tuple[np.ndarray, np.ndarray]:
  """Sum and number [u] of the values of each of u groups, in the order of their first values."""
  places: dict[Hashable, int] = {}
  summed, place_of = [], []
  for value, group in values:
    summed.append(value)
    place_of.append(places.setdefault(group, len(places)))
  units = np.array(place_of, int)
  return np.bincount(units, summed), np.bincount(units)


def counted_value(score: Score) -> float:
  """What an image adds to the sum: its value if that is used, else 0."""
  return score.value if score.status == "used" else 0.0


def resampled_means(
  totals: np.ndarray, counts: np.ndarray | None = None, *, num_resamples: int, seed: int
) -> np.ndarray:
  """Means of data sets of the same number of units, drawn from these with replacement.

  Args:
    totals: [u] sum of the values of each unit: an image, or a group of them.
    counts: [u] number of values in it; None: one each.
    num_resamples: Number of data sets drawn.
    seed: The same seed gives the same means.

  Returns:
    [num_resamples].
  """
  rng, means = np.random.default_rng(seed), []
  rows = max(1, _DRAWS_AT_ONCE // totals.size)
  for start in range(0, num_resamples, rows):
    draws = rng.integers(totals.size, size=(min(rows, num_resamples - start), totals.size))
    number = totals.size if counts is None else counts[draws].sum(axis=1)
    means.append(totals[draws].sum(axis=1) / number)
  return np.concatenate([np.zeros(0), *means])


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
  """(low, high) with the share `confidence` of the values [R] between them, tails of equal size."""
  low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
  return float(low), float(high)
