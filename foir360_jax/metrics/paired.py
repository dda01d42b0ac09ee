"""Which of two rankers is better: the difference of their means over the same images.

Images differ much more than rankers do, so the intervals of two means overlap even where one ranker
is better on nearly every image. Pairing takes the images' own difficulty out.
"""

from collections.abc import Hashable, Iterable
from typing import NamedTuple

from foir360_jax.metrics.accumulate import (
  COUNTED,
  Score,
  counted_value,
  percentile_interval,
  resampled_means,
  totals_of_groups,
)


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
