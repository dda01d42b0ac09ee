"""What a folder's labels look like in numbers: for the report, of the records that can be built.

Axes: M objects of all records together, n objects of one record.
"""

import collections
import dataclasses

import numpy as np

from foir360_jax.metrics import spearman
from rank360.review import Review


@dataclasses.dataclass(frozen=True)
class Statistics:
  """The labels of the good records.

  Attributes:
    splits: number of records of each split.
    categories: number of objects of each category, most frequent first.
    objects_per_image: [records].
    rank_counts: {rank: number of objects}.
    tied_objects: objects that share a rank with another of their picture.
    importance: [M].
    lat_deg: [M] latitude of the objects' centres.
    area_sr: [M].
    by_latitude: Spearman's rho of importance and nearness to the horizon, of each record with
      something to order.
    by_area: the same of importance and solid angle.
  """

  splits: dict[str, int]
  categories: dict[str, int]
  objects_per_image: np.ndarray
  rank_counts: dict[int, int]
  tied_objects: int
  importance: np.ndarray
  lat_deg: np.ndarray
  area_sr: np.ndarray
  by_latitude: np.ndarray
  by_area: np.ndarray


def measure_labels(review: Review) -> Statistics:
  """Returns the statistics of a folder."""
  good = review.good
  items = [item for record in good for item in record.scene.objects]
  tied, by_latitude, by_area = 0, [], []
  for record in good:
    objects = record.scene.objects
    shared = collections.Counter(item.rank for item in objects)
    tied += sum(count for count in shared.values() if count > 1)
    importance = [item.importance for item in objects]
    for values, scores in (
      (by_latitude, -np.abs(record.bfov_deg[:, 1])),
      (by_area, record.area_sr),
    ):
      score = spearman(importance, scores)
      if score.status in ("used", "counted_zero"):
        values.append(score.value)
  boxes = [record.bfov_deg for record in good]
  return Statistics(
    splits=dict(sorted(collections.Counter(record.split for record in good).items())),
    categories=dict(
      collections.Counter(item.category or "unknown" for item in items).most_common()
    ),
    objects_per_image=np.array([len(record.scene.objects) for record in good], int),
    rank_counts=dict(sorted(collections.Counter(item.rank for item in items).items())),
    tied_objects=tied,
    importance=np.array([item.importance for item in items], float),
    lat_deg=np.concatenate([np.zeros([0, 4]), *boxes])[:, 1],
    area_sr=np.concatenate([np.zeros(0), *(record.area_sr for record in good)]),
    by_latitude=np.array(by_latitude),
    by_area=np.array(by_area),
  )
