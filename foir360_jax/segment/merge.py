"""From candidates on the sphere to one mask an object.

1. Candidates of one object are found by what pairs share on the part of the sphere that both of
   their views see (`segment.signed_graph`, on packed bits: `segment.packed_overlap`).
2. The views that see a pixel vote on it (`segment.votes`), so one that sees an object whole
   overrules pieces, and pieces make up what none sees whole.
3. An object's score is what the views that see it say of it on average, those that miss it
   included, beside the best of them. So it does not matter how many views there are, nor that some
   kinds score lower than others.
4. Surroundings are taken out (`segment.surroundings`), then duplicates, groups and parts.

The method is this project's own; greedy additive edge contraction is by Keuper et al. 2015,
"Efficient Decomposition of Image and Mesh Graphs by Lifted Multicuts". Axes: N candidates, V views,
K objects; h x 2 h of the working height, H x 2 H of the panorama, row 0 north-most.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from foir360_jax.segment.packed_overlap import PackedMasks
from foir360_jax.segment.signed_graph import contract, pair_weights
from foir360_jax.segment.surroundings import (
  Surroundings,
  SurroundingsSettings,
  gather,
  surroundings_reason,
)
from foir360_jax.segment.votes import Fading, SoftMask, pack_soft, soft_to_mask, vote


class Candidates(NamedTuple):
  """Masks that a segmenter found in views, on the sphere.

  Attributes:
    masks: [N, P / 8] uint8, `np.packbits(mask.reshape(N, -1), axis=-1)`, P = 2 h h.
    scores: [N] float32 in [0, 1].
    categories: N names, "" where there is none.
    touches_border: [N] bool, whether the border of its view has cut it.
    view: [N] int32, index into the views.
  """

  masks: np.ndarray
  scores: np.ndarray
  categories: tuple[str, ...]
  touches_border: np.ndarray
  view: np.ndarray


class MergedObjects(NamedTuple):
  """Objects, best first.

  Attributes:
    masks: [K, H, 2 H] bool.
    scores: [K] float32 in [0, 1].
    categories: K names, "" where there is none.
    support: [K] float32, the share of the views that see it which found it.
    whole: [K] bool, whether a view saw it whole.
    area_sr: [K] float32, solid angles in steradians.
    members: K index arrays into the candidates.
    surroundings: what was taken for surroundings and left out.
  """

  masks: np.ndarray
  scores: np.ndarray
  categories: tuple[str, ...]
  support: np.ndarray
  whole: np.ndarray
  area_sr: np.ndarray
  members: tuple[np.ndarray, ...]
  surroundings: Surroundings


@dataclasses.dataclass(frozen=True)
class MergeSettings:
  """How candidates become objects. The numbers were chosen on made-up scenes with faults.

  Attributes:
    agree: a pair speaks for one object where the intersection over union on what both views see is
      above this share of what errors of outlines leave of it, and against it below.
    outline_px: that error, in pixels of the coarser view.
    other_category: what is taken from that where categories differ.
    least_common: where the part to compare is below this share of the smaller candidate, a pair
      says nothing.
    piece: the vote of a candidate that a border has cut, where a whole one votes 1.
    fineness: ... and by its view's pixels a radian to this power.
    fade_deg: width of the border of a view in which its vote falls.
    cut_score: the score of a candidate that a border has cut is multiplied by this.
    support: share of an object's score that is the mean of all views that see it; the rest is that
      of the best view.
    seen: a view has a say on an object where this share of it lies in the view, by the square of
      the share.
    sure_px: ... and by the object's diameter in the view, below this many pixels.
    least_support: objects found by a smaller share of the views that see them are dropped.
    least_score: objects of a lower score are dropped.
    same: intersection over union from which the weaker of two objects is a duplicate.
    part: share inside a stronger object from which an object is a part of it.
    cut_part: the same of objects that no view saw whole.
    lone: a part of another category goes, too, if its support is below this share of the other's.
    group: an object is a group where smaller ones of its category cover this share of it.
    surroundings: what is taken for surroundings; None: nothing is.
  """

  agree: float = 0.35
  outline_px: float = 1.0
  other_category: float = 0.15
  least_common: float = 0.05
  piece: float = 0.6
  fineness: float = 0.5
  fade_deg: float = 4.0
  cut_score: float = 0.6
  support: float = 0.5
  seen: float = 0.3
  sure_px: float = 32.0
  least_support: float = 0.2
  least_score: float = 0.1
  same: float = 0.5
  part: float = 0.7
  cut_part: float = 0.5
  lone: float = 0.4
  group: float = 0.7
  surroundings: SurroundingsSettings | None = SurroundingsSettings()


def merge(
  candidates: Candidates,
  fields: np.ndarray,
  pixels_per_radian: np.ndarray,
  height: int,
  *,
  settings: MergeSettings | None = None,
  full_height: int | None = None,
  max_objects: int | None = None,
) -> MergedObjects:
  """Makes one mask an object.

  Args:
    candidates: at the working height.
    fields: [V, P / 8] uint8, what each view sees.
    pixels_per_radian: [V], how fine each view is at its centre.
    height: h, the working height.
    settings: default `MergeSettings()`.
    full_height: H, rows of the masks that are returned, at least h; h by default.
    max_objects: the best that are returned; None: all.

  Raises:
    ValueError: shapes do not belong together.
  """
  p = settings or MergeSettings()
  full_height = height if full_height is None else full_height
  _check(candidates, fields, pixels_per_radian, height, full_height)
  masks = PackedMasks(candidates.masks, height)
  bits = np.ascontiguousarray(fields)
  views, fading = _prepared(bits.tobytes(), bits.shape, height, p.fade_deg)
  fine = np.asarray(pixels_per_radian, np.float64)
  kept = np.flatnonzero(masks.areas > 0)
  if not len(kept):
    return _no_objects(full_height, height)
  found = _Found(candidates, masks, views, fine, fading, p)
  groups = found.groups(kept)
  objects = _Objects(found, groups, p)
  chosen, surroundings = objects.choose()
  order = sorted(chosen, key=lambda k: (-objects.scores[k], k))[:max_objects]
  full = [soft_to_mask(objects.soft[k], full_height, height) for k in order]
  index = np.array(order, int)
  return MergedObjects(
    masks=np.array(full, bool).reshape(-1, full_height, 2 * full_height),
    scores=objects.scores[index].astype(np.float32),
    categories=tuple(objects.categories[k] for k in order),
    support=objects.support[index].astype(np.float32),
    whole=objects.whole[index],
    area_sr=objects.masks.areas[index].astype(np.float32),
    members=tuple(objects.members[k] for k in order),
    surroundings=surroundings,
  )


@functools.lru_cache(maxsize=2)  # panoramas of one size have the same views
def _prepared(
  fields: bytes, shape: tuple[int, ...], height: int, fade_deg: float
) -> tuple[PackedMasks, Fading]:
  views = PackedMasks(np.frombuffer(fields, np.uint8).reshape(shape), height)
  return views, Fading(views, fade_deg)


class _Found:
  """Candidates and views, and which candidates belong together."""

  def __init__(
    self,
    candidates: Candidates,
    masks: PackedMasks,
    views: PackedMasks,
    fine: np.ndarray,
    fading: Fading,
    settings: MergeSettings,
  ):
    self.settings = settings
    self.masks, self.views, self.fine, self.fading = masks, views, fine, fading
    self.view = np.asarray(candidates.view, int)
    self.cut = np.asarray(candidates.touches_border, bool)
    self.scores = np.asarray(candidates.scores, np.float64)
    self.categories = candidates.categories
    names, numbers = np.unique(np.array(self.categories, object).astype(str), return_inverse=True)
    self.category = np.where(names[numbers] == "", -1, numbers)
    self.in_views = masks.overlaps_with(views)

  def groups(self, kept: np.ndarray) -> list[np.ndarray]:
    """Candidates of one object each, of those `kept`."""
    p, view = self.settings, self.view[kept]
    category = self.category[kept]
    named = category >= 0
    differ = (category[:, None] != category) & named[:, None] & named
    weights = pair_weights(
      self.masks.overlaps()[np.ix_(kept, kept)],
      self.in_views[np.ix_(kept, view)],
      self.masks.outlines_rad()[kept],
      p.outline_px / self.fine[view],
      differ,
      agree=p.agree,
      other_category=p.other_category,
      least_common=p.least_common,
    )
    label = contract(weights)
    order = np.argsort(label, kind="stable")
    return np.split(kept[order], np.flatnonzero(np.diff(label[order])) + 1)

  def support_of(
    self, groups: list[np.ndarray], areas: np.ndarray, in_views: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Of objects: the share of views that found them, and the mean score of views, [K] each.

    A view's weight is by how much of the object it sees, and how fine.
    """
    p = self.settings
    best = np.zeros((len(groups), len(self.fine)))  # of each view's candidates
    hit = np.zeros((len(groups), len(self.fine)), bool)
    for index, group in enumerate(groups):
      np.maximum.at(best[index], self.view[group], self.scores[group])
      hit[index, self.view[group]] = True
    diameter_rad = 4 * np.sqrt(areas / (4 * np.pi))  # of a disc of that solid angle
    share = np.minimum(in_views / np.maximum(areas[:, None], 1e-12), 1)
    size = np.minimum(diameter_rad[:, None] * self.fine / p.sure_px, 1)
    say = np.where((share >= p.seen) & (size > 0.2), share**2 * size, 0)
    total = say.sum(axis=1)
    known = total > 0
    total = np.where(known, total, 1)
    support = np.where(known, (hit * say).sum(axis=1) / total, 1)
    mean = np.where(known, (best * say).sum(axis=1) / total, best.max(axis=1))
    return support, mean


class _Objects:
  """What the groups of candidates look like as objects."""

  def __init__(self, found: _Found, groups: list[np.ndarray], settings: MergeSettings):
    p = self.settings = settings
    # What a single view found needs no votes to know that too few agree.
    alone = np.array([len(group) == 1 for group in groups])
    first = np.array([group[0] for group in groups])
    support, _ = found.support_of(groups, found.masks.areas[first], found.in_views[first])
    groups = [g for g, lone, s in zip(groups, alone, support, strict=True)
              if not lone or s >= p.least_support]  # fmt: skip
    self.members = [np.sort(group) for group in groups]
    weight = found.scores * np.where(found.cut, p.piece, 1) * found.fine[found.view] ** p.fineness
    weight = np.maximum(weight, 1e-6)
    self.soft: list[SoftMask] = [
      vote(found.masks, group, found.view[group], weight[group], found.fading)
      for group in self.members
    ]
    self.masks = pack_soft(self.soft, found.masks.height)
    self.in_views = self.masks.overlaps_with(found.views)
    self.support, mean = found.support_of(self.members, self.masks.areas, self.in_views)
    cut_score = found.scores * np.where(found.cut, p.cut_score, 1)
    best = np.array([cut_score[group].max() for group in self.members])
    self.scores = best ** (1 - p.support) * mean**p.support
    self.whole = np.array([not found.cut[group].all() for group in self.members], bool)
    self.categories, self.category = [], np.full(len(groups), -1)
    for index, group in enumerate(self.members):
      named = found.category[group] >= 0
      totals = np.bincount(found.category[group][named], found.scores[group][named])
      self.category[index] = totals.argmax() if len(totals) else -1
      name = found.categories[group[found.category[group] == self.category[index]][0]]
      self.categories.append(name)
    self.found = found

  def choose(self) -> tuple[list[int], Surroundings]:
    """The objects that stay, and what was taken for surroundings."""
    p = self.settings
    shared = self.masks.overlaps()
    areas = np.maximum(self.masks.areas, 1e-12)
    inside = shared / areas[:, None]  # share of i that is inside j
    iou = shared / np.maximum(areas[:, None] + areas - shared, 1e-12)
    alike = (self.category[:, None] == self.category) | (self.category < 0)
    ok = (self.masks.areas > 0) & (self.support >= p.least_support)
    ok &= self.scores >= p.least_score
    reasons: dict[int, str] = {}
    if p.surroundings is not None:
      for k in np.flatnonzero(ok).tolist():
        views = self.found.view[self.members[k]]
        reason = surroundings_reason(
          self.masks, k, views, self.found.fading.weights, p.surroundings
        )
        if reason:
          reasons[k] = reason
    for k in reasons:
      ok[k] = False
      ok &= self.whole | (inside[:, k] < p.part)  # pieces of it
    self._drop_groups(ok, shared, inside, alike)
    rank = self.scores * np.where(self.whole, 1, 0.8)
    kept: list[int] = []
    for k in sorted(np.flatnonzero(ok).tolist(), key=lambda k: (-rank[k], k)):
      d = np.array(kept, int)
      within = inside[k, d] >= (p.part if self.whole[k] else p.cut_part)
      weak = ~self.whole[k] | (self.support[k] < p.lone * self.support[d])
      if np.any((iou[k, d] >= p.same) | within & (alike[k, d] | weak)):
        continue
      if self.whole[k]:  # a weaker object that was seen whole swallows its own parts
        mine = alike[k, d] & (inside[d, k] >= p.part) & ~self.whole[d]
        kept = d[~mine].tolist()
      kept.append(k)
    return kept, gather(self.masks, reasons, self.scores, self.categories)

  def _drop_groups(
    self, ok: np.ndarray, shared: np.ndarray, inside: np.ndarray, alike: np.ndarray
  ) -> None:
    """Drops what is no object, but several of its category that were found, too."""
    areas = self.masks.areas
    for k in np.argsort(-areas, kind="stable"):
      if not ok[k]:
        continue
      smaller = ok & self.whole & alike[:, k] & (inside[:, k] >= 0.8) & (areas < 0.75 * areas[k])
      smaller &= self.scores >= 0.6 * self.scores[k]
      parts = np.flatnonzero(smaller).tolist()
      parts = [
        i
        for i in parts
        if not any(j != i and inside[i, j] > 0.5 and areas[j] > areas[i] for j in parts)
      ]
      if len(parts) >= 2 and shared[parts, k].sum() >= self.settings.group * areas[k]:
        ok[k] = False


def _no_objects(full_height: int, height: int) -> MergedObjects:
  empty = PackedMasks(np.zeros((0, -(-height * height // 4)), np.uint8), height)
  return MergedObjects(
    masks=np.zeros((0, full_height, 2 * full_height), bool),
    scores=np.zeros(0, np.float32),
    categories=(),
    support=np.zeros(0, np.float32),
    whole=np.zeros(0, bool),
    area_sr=np.zeros(0, np.float32),
    members=(),
    surroundings=gather(empty, {}, np.zeros(0), ()),
  )


def _check(
  candidates: Candidates,
  fields: np.ndarray,
  pixels_per_radian: np.ndarray,
  height: int,
  full_height: int,
) -> None:
  count = len(candidates.masks)
  lengths = {len(values) for values in candidates}
  if lengths != {count}:
    raise ValueError(
      f"candidates have fields of {sorted(lengths)} entries; give one an object each"
    )
  if len(fields) != len(pixels_per_radian):
    raise ValueError(f"{len(fields)} fields, but {len(pixels_per_radian)} pixels_per_radian")
  if count and not 0 <= np.min(candidates.view) <= np.max(candidates.view) < len(fields):
    raise ValueError(f"candidates are of views up to {np.max(candidates.view)} of {len(fields)}")
  if full_height < height:
    raise ValueError(f"full_height is {full_height}, below the working height {height}")
