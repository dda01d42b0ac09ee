"""How good masks of a panorama are, frame by frame and in all.

Overlaps are by solid angle. Axes: n true objects, m masks found, best first; H x 2 H pixels.

- *recall*: the share of all true objects that have a mask of their own with IoU >= .5 or .75, by
  the one-to-one matching that finds the most;
- *by size*: recall of objects with the solid angle of a disc of less than 5 degrees across, of 5 to
  15, and of more;
- *masks a frame*: precision cannot be measured where only some objects are annotated, so this
  stands beside each recall;
- *masks an object*: a mask is *of* an object if at least half of it lies inside the object and it
  covers at least a tenth of the object, so that a mask with IoU >= .5 is, and a ball in a hand is
  not; how many masks are of an object, on average over the objects found at IoU .5. 1 is what it
  should be, more are duplicates and pieces;
- *best K*: recall with the K best masks of each frame alone;
- *nadir first*: the share of frames whose first mask covers half of the cap of 5 degrees around the
  nadir, where a tripod, an operator or a logo is; in the order of scores and in that of solid
  angle.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from foir360_jax.metrics import found_at_iou, mask_iou
from foir360_jax.metrics.bootstrap import percentile_interval, resampled_means, totals_of_groups
from foir360_jax.sphere import pixel_areas, solid_angle

IOUS = (0.5, 0.75)
SIZES_DEG = (5.0, 15.0)
SIZE_NAMES = ("below 5 deg", "5 to 15", "above 15")
INSIDE, COVERS = 0.5, 0.1
NADIR_DEG = 5.0
_RESAMPLES = 2000


class FrameFigures(NamedTuple):
  """Figures of one frame.

  Attributes:
    found: [len(IOUS), n] bool, with all masks.
    found_by_best: [K, len(IOUS), n] bool, with the best masks of each number asked for.
    size: [n] int, into which of the classes of size between `SIZES_DEG` each object falls.
    masks_of: [n] int, masks that are of each object.
    masks: m.
    nadir_first: by score and by solid angle; None where there is no mask.
  """

  found: np.ndarray
  found_by_best: np.ndarray
  size: np.ndarray
  masks_of: np.ndarray
  masks: int
  nadir_first: tuple[bool, bool] | None


class Compared(NamedTuple):
  """Masks of a frame beside the truth.

  Attributes:
    iou: [n, m] by solid angle.
    true_areas: [n] in steradians.
    areas: [m] in steradians.
    at_nadir: [m] bool, whether a mask covers half of the cap around the nadir.
  """

  iou: np.ndarray
  true_areas: np.ndarray
  areas: np.ndarray
  at_nadir: np.ndarray

  def of(self, indices: np.ndarray) -> "Compared":
    """Of some of the masks, in that order."""
    return Compared(
      self.iou[:, indices], self.true_areas, self.areas[indices], self.at_nadir[indices]
    )


def compare(truth: np.ndarray, masks: np.ndarray) -> Compared:
  """Compares masks [m, H, 2 H] bool with the truth, [n, H, 2 H] bool."""
  height = masks.shape[1]
  pixels = pixel_areas(height)[:, :1]
  cap = max(1, round(NADIR_DEG / 180 * height))
  covered = (masks[:, -cap:] * pixels[-cap:]).sum((1, 2))
  return Compared(
    iou=mask_iou(truth, masks, pixels) if len(truth) else np.zeros((0, len(masks))),
    true_areas=solid_angle(truth) if len(truth) else np.zeros(0),
    areas=solid_angle(masks) if len(masks) else np.zeros(0),
    at_nadir=covered >= 0.5 * pixels[-cap:].sum() * 2 * height,
  )


def measure_frame(compared: Compared, best: Sequence[int] = (8,)) -> FrameFigures:
  """The figures of a frame.

  Args:
    compared: its masks, best first, beside the truth.
    best: numbers of masks for `found_by_best`.
  """
  iou, true_areas, areas, at_nadir = compared
  shared = iou / (1 + iou) * (true_areas[:, None] + areas)
  is_of = (shared >= INSIDE * areas - 1e-9) & (shared >= COVERS * true_areas[:, None])
  first = (bool(at_nadir[0]), bool(at_nadir[areas.argmax()])) if len(areas) else None
  return FrameFigures(
    found=_found(iou),
    found_by_best=np.array([_found(iou[:, :number]) for number in best]).reshape(
      len(best), len(IOUS), len(iou)
    ),
    size=np.digitize(np.degrees(2 * np.arccos(1 - true_areas / (2 * np.pi))), SIZES_DEG),
    masks_of=is_of.sum(axis=1),
    masks=len(areas),
    nadir_first=first,
  )


def summarise(
  frames: Sequence[FrameFigures],
  groups: Sequence[str],
  videos: Sequence[str],
  best: Sequence[int] = (8,),
) -> dict[str, Any]:
  """Figures over frames, with 95 % bootstrap intervals that draw whole videos.

  Args:
    frames: one a frame.
    groups: the group of each.
    videos: the video of each; its own name where it stands alone.
    best: as of `measure_frame`.

  Returns:
    JSON values: `frames`, `objects`; lists by `IOUS`: `recall`, of each of `groups`, of `sizes` and
    of the `best` of each number; `masks_a_frame`, `masks_an_object`, `nadir_first` (by score, by
    solid angle). Each is a `mean` with its `interval_95`.
  """
  recall = [_share([f.found[i] for f in frames], videos) for i in range(len(IOUS))]
  of_best = {
    str(number): [_share([f.found_by_best[k][i] for f in frames], videos) for i in range(len(IOUS))]
    for k, number in enumerate(best)
  }
  by_size = {
    name: [_share([f.found[i, f.size == size] for f in frames], videos) for i in range(len(IOUS))]
    for size, name in enumerate(SIZE_NAMES)
  }
  by_group = {}
  for group in dict.fromkeys(groups):
    chosen = [index for index, name in enumerate(groups) if name == group]
    own = [videos[index] for index in chosen]
    by_group[group] = [
      _share([frames[index].found[i] for index in chosen], own) for i in range(len(IOUS))
    ]
  masks = _share([np.array([f.masks]) for f in frames], videos)
  of_object = _share([f.masks_of[f.found[0]] for f in frames], videos)
  nadir = [
    _share([np.array([f.nadir_first[i]] if f.nadir_first else []) for f in frames], videos)
    for i in range(2)
  ]
  return {
    "frames": len(frames),
    "objects": int(sum(f.found.shape[1] for f in frames)),
    "recall": recall,
    "groups": by_group,
    "sizes": by_size,
    "best": of_best,
    "masks_a_frame": masks,
    "masks_an_object": of_object,
    "nadir_first": nadir,
  }


def table(rows: Sequence[tuple[str, dict[str, Any]]], title: str) -> str:
  """Summaries as a Markdown table, one a row: its name and its figures."""
  _, first = rows[0]
  groups = list(first["groups"]) if len(first["groups"]) > 1 else []
  numbers = list(first["best"])
  head = f"{title}: {first['frames']} frames, {first['objects']} objects"
  names = [head, "recall .5 / .75", *groups, *SIZE_NAMES, "masks a frame", "masks an object"]
  names += [*(f"best {number}" for number in numbers), "nadir first (score, size)"]
  lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
  for name, figures in rows:
    cells = [name, _with_interval(figures["recall"])]
    cells += [_pair(figures["groups"][group]) for group in groups]
    cells += [_pair(figures["sizes"][size]) for size in SIZE_NAMES]
    cells += [f"{figures['masks_a_frame']['mean']:.1f}"]
    cells += [f"{figures['masks_an_object']['mean']:.2f}"]
    cells += [_pair(figures["best"][number]) for number in numbers]
    cells += [", ".join(f"{value['mean']:.2f}" for value in figures["nadir_first"])]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


def _found(iou: np.ndarray) -> np.ndarray:
  return np.array([found_at_iou(iou, threshold) for threshold in IOUS]).reshape(len(IOUS), len(iou))


def _share(values: Sequence[np.ndarray], videos: Sequence[str]) -> dict[str, Any]:
  """The mean over all values of all frames, and its interval."""
  pairs = [
    (float(value), video)
    for of_frame, video in zip(values, videos, strict=True)
    for value in of_frame
  ]
  totals, counts = totals_of_groups(pairs)
  if not len(totals):
    return {"mean": float("nan"), "interval_95": [float("nan")] * 2}
  means = resampled_means(totals, counts, num_resamples=_RESAMPLES, seed=0)
  return {
    "mean": float(totals.sum() / counts.sum()),
    "interval_95": list(percentile_interval(means, 0.95)),
  }


def _pair(values: Sequence[dict[str, Any]]) -> str:
  return " / ".join(f"{value['mean']:.3f}" for value in values)


def _with_interval(values: Sequence[dict[str, Any]]) -> str:
  return " / ".join(
    f"{value['mean']:.3f} [{value['interval_95'][0]:.2f}, {value['interval_95'][1]:.2f}]"
    for value in values
  )
