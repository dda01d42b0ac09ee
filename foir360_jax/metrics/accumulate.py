"""Means over a data set, with the status of each image.

Metrics differ most in which images they leave out, so a mean never travels without these counts.
"""

from typing import Literal, NamedTuple

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


def counted_value(score: Score) -> float:
  """What an image adds to the sum: its value if that is used, else 0."""
  return score.value if score.status == "used" else 0.0
