"""Places the number of each object on a picture: inside its mask, or beside it if that is tiny.

Between the masks and `overlay`, which draws what is placed here. Axes: masks [N, H, W]; points are
(x, y) in pixels.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import cv2
import numpy as np

from foir360_jax.files.id_map_file import topmost


@dataclasses.dataclass(frozen=True)
class Label:
  """One number: the centre and the height of its text, and the point of the object it stands for.

  `anchor` differs from `centre` where the object has no room and a leader line joins the two.
  """

  centre: tuple[int, int]
  anchor: tuple[int, int]
  size: float


def place_labels(
  masks: np.ndarray, aspects: Sequence[float], min_size: float, max_size: float
) -> list[Label]:
  """Places one label an object, in the order given, so that none covers an earlier one.

  A label goes to the centre of the largest circle in the visible part of its mask that earlier
  labels leave free (the pole of inaccessibility; of an object cut by the seam that is the roomier
  piece). Where this circle is smaller than the smallest text, the label goes beside the object.

  Args:
    masks: [N, H, W] bool, most important first; where they overlap the smaller one is on top.
    aspects: N widths of the texts as multiples of their height.
    min_size: height of the smallest text in pixels.
    max_size: height of the largest.

  Returns:
    N labels, inside the picture as far as it has room.

  Example:
    >>> masks = np.zeros([1, 100, 200], bool)
    >>> masks[0, 20:61, 30:71] = True
    >>> place_labels(masks, [0.7], 12, 30)[0].centre
    (50, 40)
  """
  top = topmost(masks)
  covered = top >= 0
  blocked = np.zeros(masks.shape[1:], bool)
  labels = []
  for index, aspect in enumerate(aspects):
    centre, radius = _pole(top == index, blocked)
    if radius >= min_size / 2:
      # 2 would put the text's corners on the circle; the smallest text may pass over it.
      size = float(np.clip(1.6 * radius / math.hypot(1, aspect), min_size, max_size))
      label = Label(centre, centre, size)
    else:
      anchor, radius = _pole(masks[index])
      centre = _beside(anchor, radius, aspect, min_size, blocked, covered)
      label = Label(centre, anchor, min_size)
    labels.append(label)
    blocked[_box(label.centre, aspect, label.size, margin=0.3)] = True
  return labels


def _pole(mask: np.ndarray, blocked: np.ndarray | None = None) -> tuple[tuple[int, int], float]:
  """Returns the centre (x, y) and the radius of the largest free circle in a mask; radius 0: none.

  Of equally good centres, as along a wall, it is the one next to the centroid.
  """
  rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
  if not len(rows):
    return (0, 0), 0.0
  crop = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
  free = mask[crop] if blocked is None else mask[crop] & ~blocked[crop]
  distance = cv2.distanceTransform(np.pad(free, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
  distance = distance[1:-1, 1:-1]
  radius = float(distance.max())
  y, x = np.nonzero(distance >= 0.9 * radius)
  inside_y, inside_x = np.nonzero(mask[crop])
  best = np.argmin((y - inside_y.mean()) ** 2 + (x - inside_x.mean()) ** 2)
  return (int(x[best] + columns[0]), int(y[best] + rows[0])), radius


def _box(
  centre: tuple[int, int], aspect: float, size: float, *, margin: float
) -> tuple[slice, slice]:
  """Returns the rows and columns that a text covers, widened by `margin` heights."""
  half_width, half_height = (aspect / 2 + margin) * size, (0.5 + margin) * size
  rows = slice(max(0, round(centre[1] - half_height)), max(0, round(centre[1] + half_height) + 1))
  columns = slice(max(0, round(centre[0] - half_width)), max(0, round(centre[0] + half_width) + 1))
  return rows, columns


def _beside(
  anchor: tuple[int, int],
  radius: float,
  aspect: float,
  size: float,
  blocked: np.ndarray,
  covered: np.ndarray,
) -> tuple[int, int]:
  """Returns the cheapest centre around the anchor: near, off other labels, off other objects."""
  height, width = blocked.shape
  margin_x, margin_y = (aspect / 2 + 0.3) * size, 0.8 * size
  best, lowest = anchor, math.inf
  for ring, turn in itertools.product(range(8), range(16)):
    reach, angle_rad = radius + (1.3 + 0.6 * ring) * size, (turn - 4) * math.tau / 16
    x = round(anchor[0] + (reach + aspect * size / 2) * math.cos(angle_rad))
    y = round(anchor[1] + reach * math.sin(angle_rad))
    inside = margin_x <= x < width - margin_x and margin_y <= y < height - margin_y
    box = _box((x, y), aspect, size, margin=0.3)
    if not inside:
      continue
    cost = ring + 4 * covered[box].mean() + 100 * blocked[box].mean()
    if cost < lowest:
      best, lowest = (x, y), cost
  return best
