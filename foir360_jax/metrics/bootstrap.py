"""Bootstrap intervals: of a mean, and of the paired difference of two rankers.

Images differ much more than rankers do, so the intervals of two means overlap even where one ranker
is better on nearly every image. Pairing takes the images' own difficulty out.
"""

from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np

from foir360_jax.metrics.accumulate import COUNTED, Score, counted_value

_DRAWS_AT_ONCE = 2**18  # stays in the cache, and small where there are many images


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


class PairedDifference(NamedTuple):
  """The mean of a - b over the images on which both count, and its interval.

  Attributes:
    mean: positive where a has the higher scores; NaN if no image counts.
    low: lower end of the interval; NaN, like `high`, if fewer than two images or groups count.
    high: its upper end. 0 outside [low, high]: the difference is not chance.
    count: number of images.
  """

  mean: float
  low: float
  high: float
  count: int  # type: ignore[assignment]  # hides tuple.count


def paired_bootstrap_interval(
  scores_a: Iterable[Score],
  scores_b: Iterable[Score],
  *,
  groups: Iterable[Hashable] | None = None,
  confidence: float = 0.95,
  num_resamples: int = 2000,
  seed: int = 0,
) -> PairedDifference:
  """The difference of the means of two rankers and its percentile bootstrap interval.

  An image that does not count for one of them is left out of both means, so that both are over the
  same images. With groups, whole groups are drawn, and the mean is over the images drawn: images of
  one video are alike, and to draw them one by one would make the interval too narrow.
  Sources: Efron & Tibshirani, An introduction to the bootstrap, 1993, section 13.3; for groups
  Davison & Hinkley, Bootstrap methods and their application, 1997, section 3.8.

  Args:
    scores_a: One score an image.
    scores_b: The other ranker's, of the same images in the same order.
    groups: The group of each image, such as the name of its video; None: each is its own. With
      fewer than some 20 groups percentile intervals are too narrow.
    confidence: Share of the resampled differences inside the interval, in (0, 1).
    num_resamples: Number of data sets drawn.
    seed: The same seed gives the same interval.

  Returns:
    The difference a - b.

  Raises:
    ValueError: if the lengths differ, or confidence or num_resamples is out of range.

  >>> better = [Score(0.5, "used"), Score(0.75, "used"), Score(float("nan"), "skipped")]
  >>> worse = [Score(0.25, "used"), Score(0.5, "used"), Score(1.0, "used")]
  >>> paired_bootstrap_interval(better, worse)
  PairedDifference(mean=0.25, low=0.25, high=0.25, count=2)
  """
  scores_a, scores_b = list(scores_a), list(scores_b)
  groups = list(range(len(scores_a)) if groups is None else groups)
  if not len(scores_a) == len(scores_b) == len(groups):
    raise ValueError(
      f"{len(scores_a)} and {len(scores_b)} scores in {len(groups)} groups: give one an image each"
    )
  if not 0 < confidence < 1 or num_resamples < 1:
    raise ValueError(
      f"confidence must be in (0, 1) and num_resamples at least 1, not {confidence} and"
      f" {num_resamples}"
    )
  totals, counts = totals_of_groups(
    (counted_value(a) - counted_value(b), group)
    for a, b, group in zip(scores_a, scores_b, groups, strict=True)
    if a.status in COUNTED and b.status in COUNTED
  )
  count = int(counts.sum())
  mean = float(totals.sum() / count) if count else float("nan")
  if totals.size < 2:
    return PairedDifference(mean, float("nan"), float("nan"), count)
  means = resampled_means(totals, counts, num_resamples=num_resamples, seed=seed)
  return PairedDifference(mean, *percentile_interval(means, confidence), count)


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
