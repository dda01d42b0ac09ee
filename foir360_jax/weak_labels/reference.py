"""Reference implementation of steps 1 and 2: view by view, object by object.

What `local.rank_views` computes, for its tests and as its opponent in the benchmark. Slow. Axes: N
objects, h x w pixels, g x k cells.
"""

from collections.abc import Callable

import jax
import numpy as np

from foir360_jax.batch import Array
from foir360_jax.saliency import observe
from foir360_jax.weak_labels.erase import FILLS, erase
from foir360_jax.weak_labels.local import MEASUREMENTS, History, LocalRanks, Saliency, Views


def rank_views_plainly(
  views: Views,
  *,
  saliency: Saliency,
  choose: Callable[[Array, Array], Array],
  fill: str = "pull_push",
  grow_px: int = 4,
  max_erased: int = 128,
) -> LocalRanks:
  """Arguments and result as of `rank_views`, in NumPy."""
  views = jax.tree.map(np.asarray, views)
  num_views, num_objects = views.where.shape
  shape = num_views, num_objects, len(MEASUREMENTS)
  history = History(*(np.zeros(shape, np.float32) for _ in History._fields))
  order = np.full((num_views, num_objects), -1, np.int32)
  visibility = np.zeros((num_views, num_objects), np.float32)
  seen = jax.eval_shape(lambda x: observe(saliency, x), views.images[:1])
  appearance = np.zeros((num_views, num_objects, seen.appearance.shape[-1]), np.float32)
  evaluations = 0
  for view in range(num_views):
    image, coverage, cell_areas, object_areas, where = (np.asarray(x[view]) for x in views)
    for number in np.flatnonzero(where).tolist():
      visibility[view, number] = _visibility(coverage[number], cell_areas, object_areas[number])
    objects = [number for number in range(num_objects) if visibility[view, number] > 0]
    left = list(objects)
    gone: list[int] = []
    background = cell_areas * (1.02 - np.minimum(coverage[where].max(0), 1))

    def measure(seen):
      density, channels = (np.asarray(x)[0] for x in observe(saliency, seen[None]))
      measured = [_measure(density, part, cell_areas, background) for part in coverage]  # noqa: B023
      return np.array(measured), channels

    while left:
      seen = _without(image, coverage, where, gone, fill, grow_px) if gone else image
      measured, channels = measure(seen)
      evaluations += 1
      for number in left:
        if not gone:
          appearance[view, number] = _describe(channels, coverage[number], cell_areas)
          history.first[view, number] = history.bare[view, number] = measured[number]
        mean = history.average[view, number]
        history.average[view, number] = mean + (measured[number] - mean) / (len(gone) + 1)
        history.last[view, number] = measured[number]
      log_areas = np.log(np.maximum(object_areas, 1e-9))
      scores = np.asarray(choose(log_areas, history.last[view]))
      ranking = sorted(left, key=lambda number: -scores[number])  # noqa: B023
      if len(left) == 1 or len(gone) == max_erased:
        for place, number in enumerate(ranking):
          order[view, number] = len(gone) + place
        break
      order[view, ranking[0]] = len(gone)
      gone.append(ranking[0])
      left.remove(ranking[0])
    if objects and max_erased:
      bare, _ = measure(_without(image, coverage, where, objects, fill, grow_px))
      evaluations += 1
      history.bare[view, objects] = bare[objects]
  return LocalRanks(history, order, visibility, appearance, np.asarray(evaluations, np.int32))


def _visibility(coverage: np.ndarray, cell_areas: np.ndarray, object_area: float) -> float:
  area = float((coverage * cell_areas).sum())
  enough = min(0.25 * object_area, 0.02 * float(cell_areas.sum()))
  return min(area / max(object_area, 1e-9), 1.0) if area > 0 and area >= enough else 0.0


def _without(image, coverage, where, gone, fill, grow_px) -> np.ndarray:
  """The image without the objects that are gone; the others are never part of a hole."""
  cell = image.shape[0] // coverage.shape[1]
  hole, kept = np.zeros(image.shape[:2], bool), np.zeros(image.shape[:2], bool)
  for number in np.flatnonzero(where):
    covered = np.repeat(np.repeat(coverage[number], cell, 0), cell, 1)
    if number in gone:
      hole |= covered > 0
    else:
      kept |= covered > 0.5
  return np.asarray(erase(image, hole, kept, fill=FILLS[fill], grow_px=grow_px))


def _measure(density, coverage, cell_areas, background) -> np.ndarray:
  """[F] measurements of one object on the density [h, w] of its view."""
  if not coverage.any():
    return np.zeros(len(MEASUREMENTS))
  rows, columns = coverage.shape
  cell = density.shape[0] // rows
  cells = density.reshape(rows, cell, columns, cell).mean((1, 3), dtype=np.float64)
  relative = np.maximum(cells / ((cells * background).sum() / background.sum()), 1e-4)
  weights = coverage.astype(np.float64) * cell_areas
  mean = (weights * relative).sum() / weights.sum()
  peak = relative[weights >= 0.5 * weights.max()].max()
  return np.log(np.array([mean, peak]))


def _describe(channels, coverage, cell_areas) -> np.ndarray:
  """[K] mean over one object of the channels [a, b, K], looked up at the centre of each cell."""
  total, weight = np.zeros(channels.shape[-1]), 0.0
  for row, column in zip(*np.nonzero(coverage), strict=True):
    share = float(coverage[row, column]) * float(cell_areas[row, column])
    value = channels.astype(np.float64)
    for place, cells in zip((row, column), coverage.shape, strict=True):
      at = np.clip((place + 0.5) * len(value) / cells - 0.5, 0, len(value) - 1)
      low = int(at)
      high = min(low + 1, len(value) - 1)
      value = value[low] * (1 - (at - low)) + value[high] * (at - low)  # this axis is gone
    total, weight = total + share * value, weight + share
  return total / max(weight, 1e-12)
