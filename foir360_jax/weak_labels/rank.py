"""WeakRanker: from a panorama and its objects to their ranks, without training.

On the host: checks, measures and pads what `program` then ranks. Axes: N objects, H rows, W = 2 H
columns.
"""

from collections.abc import Sequence

import jax
import numpy as np

from foir360_jax.compilation import keep_compiled_programs
from foir360_jax.files.panorama_file import is_panorama, stretch_with_masks
from foir360_jax.saliency.build import build_saliency
from foir360_jax.saliency.weights import separate_weights
from foir360_jax.scenes import RankedObjects
from foir360_jax.sphere import centroid_direction, solid_angle
from foir360_jax.weak_labels.collect import COLLECTORS
from foir360_jax.weak_labels.local import Saliency
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import (
  DEFAULT_STRATEGY,
  DescribedScene,
  Strategy,
  WeakRanks,
  rank_scenes,
)
from foir360_jax.weak_labels.views import pack_objects

OBJECT_COUNTS = (8, 16, 32, 64, 128)
"""Panoramas are padded to the next of these numbers of objects; each compiles once."""


def fitted_variant(strategy: Strategy) -> str:
  """The name of the coefficients that were fitted for a strategy, of `variants.VARIANTS`.

  Those of the whole method serve where more than one part of it is changed, or another one.

  >>> fitted_variant(Strategy(collector="borda")), fitted_variant(Strategy(fill="mean"))
  ('borda', 'full')
  """
  default = DEFAULT_STRATEGY
  changed = []
  if strategy.collector != default.collector:
    changed.append(strategy.collector)
  if strategy.max_erased == strategy.max_erased_whole == 0:
    changed.append("without_erasing")
  if not strategy.tangent_views:
    changed.append("without_views")
  return changed[0] if len(changed) == 1 else "full"


class WeakRanker:
  """Ranks provided masks of panoramas without annotators or training.

  It compiles once a size of panoramas and padded number of objects (`OBJECT_COUNTS`). To build one
  turns JAX's compilation cache on for the whole process, unless the user decided on it: see
  `compilation.keep_compiled_programs`.

  Args:
    saliency: a local saliency model or its name, see `saliency.build_saliency`.
    strategy: how to go about it.
    object_score: coefficients; None: the committed ones for this saliency, those for "learned"
      where it is no name, and for this strategy, see `fitted_variant`. With the whole method, a
      model without an appearance gets those that were fitted without one; there are no such ones
      for a part of the method, of which those of the appearance are left out.

  Raises:
    ValueError: an unknown name, or weights that are not installed.

  >>> ranker = WeakRanker("spectral", strategy=Strategy(max_erased=0, max_erased_whole=0))
  >>> panorama = np.full((64, 128, 3), 100, np.uint8)
  >>> masks = np.zeros((2, 64, 128), bool)
  >>> masks[0, 28:36, 60:68], masks[1, 28:36, 10:14] = True, True
  >>> panorama[masks[0]] = 255
  >>> ranker(panorama, masks).ids.tolist()
  [1, 2]
  """

  def __init__(
    self,
    saliency: Saliency | str = "learned",
    *,
    strategy: Strategy = DEFAULT_STRATEGY,
    object_score: ObjectScore | None = None,
  ):
    if strategy.collector not in COLLECTORS:
      raise ValueError(
        f"collector must be one of {', '.join(COLLECTORS)}, not {strategy.collector!r}"
      )
    keep_compiled_programs()
    self.strategy = strategy
    name = saliency if isinstance(saliency, str) else "learned"
    self.saliency = build_saliency(saliency) if isinstance(saliency, str) else saliency
    if object_score is None:
      variant = fitted_variant(strategy)
      if variant == "full" and not hasattr(self.saliency, "observe"):
        variant = "without_appearance"
      object_score = ObjectScore.load(name, variant)
    self.object_score = object_score
    self._weights, rebuild = separate_weights(self.saliency)

    def rank(weights, scenes: DescribedScene) -> WeakRanks:
      return rank_scenes(
        scenes,
        saliency=rebuild(weights),
        strategy=self.strategy,
        object_score=self.object_score,
      )

    self._rank = jax.jit(rank)

  def __call__(
    self,
    panorama: np.ndarray,
    masks: np.ndarray,
    *,
    categories: Sequence[str] | None = None,
    ids: Sequence[int] | None = None,
    image: str = "",
  ) -> RankedObjects:
    """Ranks the objects of one panorama.

    Args:
      panorama: [H, W, 3] uint8 RGB, W = 2 H but for a few rows (`is_panorama`).
      masks: [N, H, W] bool, at least one pixel each; may overlap; N <= 128.
      categories: N names; None: unknown.
      ids: N different numbers, 0 or more; None: 1 ... N.
      image: name of the picture file.

    Returns:
      The objects in the order of their importance, not of `masks`: with the default ids, the first
      is `masks[ranked.ids[0] - 1]`.

    Raises:
      ValueError: shapes, types or values that do not fit together.
    """
    scene = describe_scene(panorama, masks)
    result = jax.device_get(self.rank(jax.tree.map(lambda x: x[None], scene)))
    return ranked_objects(result, 0, panorama, masks, categories=categories, ids=ids, image=image)

  def rank(self, scenes: DescribedScene) -> WeakRanks:
    """Ranks a batch: scenes of one size and one padded number of objects, stacked."""
    return self._rank(self._weights, scenes)


def rank_objects(
  panorama: np.ndarray, masks: np.ndarray, *, saliency: Saliency | str = "learned"
) -> RankedObjects:
  """Ranks the objects of one panorama; see `WeakRanker`, which compiles once for many."""
  return WeakRanker(saliency)(panorama, masks)


def describe_scene(panorama: np.ndarray, masks: np.ndarray) -> DescribedScene:
  """Measures and packs the objects of a panorama; arguments as of `WeakRanker`.

  Raises:
    ValueError: shapes or types that do not fit, an empty mask, or too many objects.
  """
  panorama, masks = np.asarray(panorama), np.asarray(masks)
  if (
    panorama.dtype != np.uint8
    or panorama.ndim != 3
    or panorama.shape[2] != 3
    or not is_panorama(*panorama.shape[:2])
  ):
    raise ValueError(
      f"panorama must be uint8 [H, 2 H, 3], not {panorama.dtype} {list(panorama.shape)}"
    )
  if masks.dtype != bool or masks.shape[1:] != panorama.shape[:2]:
    raise ValueError(
      f"masks must be bool [N, {panorama.shape[0]}, {panorama.shape[1]}] like the panorama,"
      f" not {masks.dtype} {list(masks.shape)}"
    )
  panorama, masks = stretch_with_masks(panorama, masks)
  count = len(masks)
  padded = next((number for number in OBJECT_COUNTS if number >= count), None)
  if padded is None:
    raise ValueError(f"{count} objects are more than {OBJECT_COUNTS[-1]}; rank the largest alone")
  if not masks.any(axis=(1, 2)).all():
    raise ValueError("an object has no pixel; leave such objects out")
  area, elevation = np.zeros(padded, np.float32), np.zeros(padded, np.float32)
  area[:count] = solid_angle(masks)
  if count:
    elevation[:count] = centroid_direction(masks)[:, 2]
  packed = pack_objects(masks)
  words = -(-padded // 32)
  packed = np.pad(packed, ((0, 0), (0, 0), (0, words - packed.shape[-1])))
  return DescribedScene(panorama, packed, area, elevation, np.arange(padded) < count)


def ranked_objects(
  result: WeakRanks, index: int, panorama: np.ndarray, masks: np.ndarray, **names
) -> RankedObjects:
  """The objects of panorama `index` of a batch's result, which lies on the host."""
  count = len(masks)
  return RankedObjects.from_masks(
    panorama,
    masks,
    np.asarray(result.importance[index, :count]),
    agreement=np.asarray(result.agreement[index, :count]),
    **names,
  )
