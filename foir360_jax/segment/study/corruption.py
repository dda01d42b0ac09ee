"""What segmenters do wrong, done to true masks: candidates of views for choosing how to merge.

Masks of a view are dropped, jittered, split, found in part, in groups and where there is nothing,
and take wrong categories. Axes as in `segment.study.scenes`.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from foir360_jax.segment.merge import Candidates
from foir360_jax.segment.study.scenes import CATEGORIES, masks_in_view
from foir360_jax.segment.view_masks import to_sphere
from foir360_jax.segment.views import View
from foir360_jax.sphere import pixel_areas, pixels_from_directions, view_directions

VIEW_SIDE = 160
_LEAST_PX = 25  # of an object in a view
_SMALL_PX = 80
_BANK_SIDE = 2 * VIEW_SIDE
_LEAST_SHARE = 0.01  # of an object that a view must see


@dataclasses.dataclass(frozen=True)
class Corruption:
  """How often what goes wrong, in a view.

  Attributes:
    dropped: share of objects that are missed; more where they are small or barely seen.
    jitter_px: range of the outlines' error in pixels of the view, less for small objects.
    correlation: share of the outlines' variance that is the same in all views.
    split: share found in two pieces.
    part: share of which a part is found as well.
    group: share found together with another object as well.
    false: masks of nothing a view.
    wrong_category: share.
    flat_score: scores of the flat panorama are multiplied by this; 1 where views are alike.
  """

  dropped: float = 0.2
  jitter_px: tuple[float, float] = (1.0, 3.0)
  correlation: float = 0.0
  split: float = 0.1
  part: float = 0.08
  group: float = 0.03
  false: float = 0.4
  wrong_category: float = 0.15
  flat_score: float = 1.0


def small_views(views: Sequence[View], side: int = VIEW_SIDE) -> tuple[View, ...]:
  """The same views with few pixels."""
  return tuple(
    dataclasses.replace(view, size=(side, 2 * side if view.is_flat else side)) for view in views
  )


def exact_candidates(
  masks: np.ndarray, categories: Sequence[str], views: Sequence[View], least_px: int = 12
) -> Candidates:
  """What a segmenter without faults finds: what each view sees, of `least_px` pixels at least."""
  found = []
  for number, view in enumerate(views):
    seen = masks_in_view(masks, view)
    for index in np.flatnonzero(seen.sum(axis=(1, 2)) >= least_px):
      found.append((number, 0.9, categories[int(index)], seen[index]))
  return _candidates(found, views, masks.shape[1])


def corrupted_candidates(
  rng: np.random.Generator,
  masks: np.ndarray,
  categories: Sequence[str],
  views: Sequence[View],
  corruption: Corruption | None = None,
) -> Candidates:
  """What a segmenter with faults finds.

  Args:
    rng: source of all chance.
    masks: [N, H, 2 H] bool.
    categories: N names.
    views: with few pixels, see `small_views`.
    corruption: default `Corruption()`.
  """
  c = corruption or Corruption()
  height = masks.shape[1]
  areas = pixel_areas(height)
  noise = _Noise(rng, height)
  solid_angles = np.einsum("nhw,hw->n", masks, areas)
  found: list[tuple[int, float, str, np.ndarray]] = []
  for number, view in enumerate(views):
    pitch = view.pixels_per_radian
    seen = masks_in_view(masks, view)
    common = noise.common_in(view) if c.correlation else None
    present = []
    for index in np.flatnonzero(seen.sum(axis=(1, 2)) >= _LEAST_PX):
      pixels = seen[index].sum()
      visible = min(1.0, pixels / (solid_angles[index] * pitch**2))
      if visible >= _LEAST_SHARE:
        present.append((index, seen[index], pixels, visible))
    for index, mask, pixels, visible in present:
      small = pixels < _SMALL_PX
      if rng.random() < c.dropped + 0.4 * (visible < 0.15) + 0.3 * small:
        continue
      wrong = rng.random() < c.wrong_category
      category = str(rng.choice(CATEGORIES)) if wrong else categories[int(index)]
      score = rng.beta(6, 2.5) * (0.6 + 0.4 * visible) * (0.7 if small else 1)
      score *= c.flat_score if view.is_flat else 1
      radius = rng.uniform(*c.jitter_px) * min(1, np.sqrt(pixels) / 20)
      jittered = noise.jitter(mask, radius, common, c.correlation)
      if not jittered.any():
        continue
      if rng.random() < c.split:
        side = _half_plane(rng, jittered, rng.uniform(0.3, 0.7))
        found += [(number, 0.8 * score, category, jittered & half) for half in (side, ~side)]
      else:
        found.append((number, score, category, jittered))
      if rng.random() < c.part:
        other = category if rng.random() < 0.5 else str(rng.choice(CATEGORIES))
        part = jittered & _half_plane(rng, jittered, rng.uniform(0.3, 0.6))
        found.append((number, score * rng.uniform(0.4, 0.9), other, part))
      if rng.random() < c.group and len(present) > 1:
        companion, its_mask = present[rng.integers(len(present))][:2]
        if companion != index:
          found.append((number, score * rng.uniform(0.4, 0.9), category, jittered | its_mask))
    for _ in range(rng.poisson(c.false)):
      mask = noise.blob(view.size)
      found.append((number, rng.beta(3, 6), str(rng.choice(CATEGORIES)), mask))
  return _candidates([f for f in found if f[3].sum() >= 20], views, height)


def _candidates(
  found: Sequence[tuple[int, float, str, np.ndarray]], views: Sequence[View], height: int
) -> Candidates:
  packed, kept = [np.zeros((0, -(-height * height // 4)), np.uint8)], []
  for one in found:
    bits = to_sphere(one[3][None], views[one[0]], height)
    if bits.any():
      packed.append(bits)
      kept.append(one)
  return Candidates(
    masks=np.concatenate(packed),
    scores=np.array([score for _, score, _, _ in kept], np.float32),
    categories=tuple(category for _, _, category, _ in kept),
    touches_border=np.array([_is_cut(mask, views[number]) for number, *_, mask in kept], bool),
    view=np.array([number for number, *_ in kept], np.int32),
  )


def _is_cut(mask: np.ndarray, view: View) -> bool:
  """Whether the border of its view cuts a mask; the poles' rows of the flat panorama do not."""
  sides = mask[:, 0].any() or mask[:, -1].any()
  return bool(sides or not view.is_flat and (mask[0].any() or mask[-1].any()))


def _half_plane(rng: np.random.Generator, mask: np.ndarray, share: float) -> np.ndarray:
  """What lies on one side of a line that cuts off a share of a mask."""
  angle = rng.uniform(0, 2 * np.pi)
  y, x = np.indices(mask.shape)
  along = x * np.cos(angle) + y * np.sin(angle)
  return along < np.quantile(along[mask], share)


class _Noise:
  """Smooth noise of unit variance: pictures of it, and one on the sphere."""

  def __init__(self, rng: np.random.Generator, height: int):
    self._rng = rng
    self._bank = [
      _smooth(rng.standard_normal((_BANK_SIDE, _BANK_SIDE)), blur)
      for blur in (3, 6, 10)
      for _ in range(4)
    ]
    wide = np.pad(rng.standard_normal((height, 2 * height)), ((0, 0), (64, 64)), mode="wrap")
    self._sphere = _smooth(wide, height / 40)[:, 64:-64].astype(np.float32)

  def picture(self, size: tuple[int, int], coarse: bool = False) -> np.ndarray:
    """Noise [h, w]; `coarse` leaves the finest scale out."""
    noise = self._bank[self._rng.integers(4 if coarse else 0, len(self._bank))]
    shift = tuple(self._rng.integers(0, _BANK_SIDE, 2))
    return np.roll(noise, shift, (0, 1))[: size[0], : size[1]]

  def common_in(self, view: View) -> np.ndarray:
    """The noise on the sphere as a view [h, w] sees it."""
    height = len(self._sphere)
    if view.is_flat:
      turned = np.roll(self._sphere, -round(view.lon_rad / np.pi * height), axis=1)
      return cv2.resize(turned, view.size[::-1], interpolation=cv2.INTER_AREA)
    directions = view_directions(view.lon_rad, view.lat_rad, view.fov_deg, view.size)
    row, column = pixels_from_directions(directions, height)
    rows, columns = np.round(row).astype(int), np.round(column).astype(int)
    return self._sphere[np.clip(rows, 0, height - 1), columns % (2 * height)]

  def jitter(
    self, mask: np.ndarray, radius: float, common: np.ndarray | None, correlation: float
  ) -> np.ndarray:
    """Moves the outline of a mask by about `radius` pixels."""
    inside = mask.astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    distance = distance - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3)
    own, offset = self.picture(mask.shape), self._rng.normal()
    if common is not None:
      own = np.sqrt(1 - correlation) * own + np.sqrt(correlation) * common
    return distance + radius * (0.7 * own + 0.25 * offset) > 0

  def blob(self, size: tuple[int, int]) -> np.ndarray:
    """A mask [h, w] of nothing."""
    y, x = np.indices(size)
    radius = self._rng.uniform(6, 30)
    centre = self._rng.uniform(0, size[1]), self._rng.uniform(0, size[0])
    reach = np.hypot(x - centre[0], y - centre[1]) + 0.3 * radius * self.picture(size, coarse=True)
    return reach < radius


def _smooth(noise: np.ndarray, blur: float) -> np.ndarray:
  noise = cv2.GaussianBlur(noise, (0, 0), blur)
  return noise / noise.std()
