"""What is no object but what is around them: rules on the sphere, each with its reason.

- "nadir": covers most of a small disc around the nadir. There is what carries the camera (tripod,
  logo, operator, roof of a car) or the floor it stands on; an object beside it does not cover it.
- "overhead": covers the zenith and reaches far down from it, as sky and ceilings do and a lamp does
  not.
- "around": goes most of the way around the camera away from the poles, or covers two fifths of all
  directions, as floors, walls and skies do. An object can be larger than a view, but one that
  stands on both sides of the camera and before it is what the camera is in.
- "open": large, and much of its outline is nothing but the borders of the views that found it: no
  view saw where it ends. An object that is larger than a view ends somewhere, and some view that
  found it saw that; a wall was cut out of a view.

Axes: K objects, V views, h x 2 h of the working height; row 0 north-most.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from foir360_jax.segment.packed_overlap import PackedMasks
from foir360_jax.sphere import pixel_directions

_CELLS = 64  # rows of the grid on which outlines are looked at


@dataclasses.dataclass(frozen=True)
class SurroundingsSettings:
  """From when on something is taken for surroundings; 0, or 1 for shares, turns a rule off.

  Attributes:
    nadir_deg: radius of the disc around the nadir of which it covers half.
    overhead_sr: solid angle of what covers such a disc around the zenith.
    around: share of all longitudes that it covers within `around_lat_deg` of the horizon.
    around_lat_deg: see `around`; nearer to a pole every object is wide.
    around_sr: solid angle of what is "around" wherever it is.
    open_sr: least solid angle of what is "open".
    open: share of its outline that is borders of views.
  """

  nadir_deg: float = 4.0
  overhead_sr: float = 1.2
  around: float = 0.65
  around_lat_deg: float = 50.0
  around_sr: float = 5.0
  open_sr: float = 0.15
  open: float = 0.3


class Surroundings(NamedTuple):
  """What was taken out.

  Attributes:
    reasons: S of "nadir", "overhead", "around" and "open".
    scores: [S] float32, as of objects.
    categories: S names.
    area_sr: [S] float32.
    masks: [S, P / 8] uint8, at the working height.
  """

  reasons: tuple[str, ...]
  scores: np.ndarray
  categories: tuple[str, ...]
  area_sr: np.ndarray
  masks: np.ndarray


def surroundings_reason(
  masks: PackedMasks,
  index: int,
  views: np.ndarray,
  depth: np.ndarray,
  settings: SurroundingsSettings,
) -> str:
  """Why an object is taken for surroundings: "nadir", "overhead", "around", "open", or "".

  Args:
    masks: K objects.
    index: which of them.
    views: [n] the views that found it.
    depth: [V, h, 2 h] uint8, how deep pixels lie inside of each view: 255 away from its border, 0
      beyond it.
    settings: the rules.
  """
  p, height, area = settings, masks.height, masks.areas[index]
  if p.nadir_deg and masks.end_row[index] == height:
    if _share_of_cap(masks, index, p.nadir_deg, south=True) > 0.5:
      return "nadir"
  if p.overhead_sr and p.nadir_deg and area >= p.overhead_sr and masks.first_row[index] == 0:
    if _share_of_cap(masks, index, p.nadir_deg, south=False) > 0.5:
      return "overhead"
  first, end = (round(height * (0.5 + side * p.around_lat_deg / 180)) for side in (-1, 1))
  columns = np.bitwise_count(np.bitwise_or.reduce(masks.words[index, first:end], axis=0)).sum()
  if p.around < 1 and columns >= p.around * 2 * height or 0 < p.around_sr <= area:
    return "around"
  if p.open < 1 and area >= p.open_sr and _open_share(masks, index, views, depth) >= p.open:
    return "open"
  return ""


def _share_of_cap(masks: PackedMasks, index: int, radius_deg: float, south: bool) -> float:
  """The share that a mask covers of the cap around a pole, whose rows are about alike."""
  height = masks.height
  rows = max(1, round(radius_deg / 180 * height))
  part = slice(height - rows, height) if south else slice(0, rows)
  counts = np.bitwise_count(masks.words[index, part]).sum(axis=1, dtype=int)
  weights = pixel_directions(height)[part, 0, :2]
  weights = np.hypot(weights[:, 0], weights[:, 1])
  return float(counts @ weights / weights.sum() / (2 * height))


def _open_share(masks: PackedMasks, index: int, views: np.ndarray, depth: np.ndarray) -> float:
  """The share of a mask's outline that lies at the borders of all views that found it."""
  height = masks.height
  everywhere = slice(0, height), np.arange(masks.words.shape[2])
  mask = masks.pixels(index, *everywhere)[:, : 2 * height]
  rows = min(_CELLS, height)
  size = (2 * rows, rows)
  cells = (cv2.resize(mask * 255, size, interpolation=cv2.INTER_AREA) > 127).astype(np.uint8)
  around = np.pad(np.pad(cells, ((0, 0), (1, 1)), mode="wrap"), ((1, 1), (0, 0)), mode="edge")
  inner = cv2.erode(around, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
  outline = (cells == 1) & (inner == 0)
  if not outline.any():
    return 0.0
  deepest = np.max([_cells(depth[view], rows) for view in np.unique(views)], axis=0)
  weights = np.sin((np.arange(rows) + 0.5) * np.pi / rows)[:, None] * outline
  return float((weights * (deepest < 255)).sum() / weights.sum())


def _cells(depth: np.ndarray, rows: int) -> np.ndarray:
  return cv2.resize(depth, (2 * rows, rows), interpolation=cv2.INTER_NEAREST)


def gather(
  masks: PackedMasks,
  reasons: dict[int, str],
  scores: np.ndarray,
  categories: Sequence[str],
) -> Surroundings:
  """What was taken out, of K objects, by why; the highest scores first."""
  chosen = sorted(reasons, key=lambda index: (-scores[index], index))
  height = masks.height
  bits = np.zeros((len(chosen), -(-height * height // 4)), np.uint8)
  everywhere = slice(0, height), np.arange(masks.words.shape[2])
  for row, index in zip(bits, chosen, strict=True):
    row[:] = np.packbits(masks.pixels(index, *everywhere)[:, : 2 * height])
  return Surroundings(
    reasons=tuple(reasons[index] for index in chosen),
    scores=np.array([scores[index] for index in chosen], np.float32),
    categories=tuple(categories[index] for index in chosen),
    area_sr=np.array([masks.areas[index] for index in chosen], np.float32),
    masks=bits,
  )
