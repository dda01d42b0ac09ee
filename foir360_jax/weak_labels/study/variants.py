"""Ablations: the method without one of its parts, from the same measurements.

A variant is fitted by itself (`fit`), so that it makes the best of what it has. Axes: V views, the
whole picture last; n objects, padded to N inside.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.batch import Array
from foir360_jax.weak_labels.local import History, LocalRanks
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import DescribedScene, collect_ranks
from foir360_jax.weak_labels.study.examples import Example

_PADDED = 32  # to a multiple of this number,
_AT_ONCE = 32  # always so many examples: few programs are compiled


class Variant(NamedTuple):
  """One form of the method.

  Attributes:
    erases: False: only the measurements before anything was erased count.
    has_views: False: the whole picture is the only view.
    collector: a name of `collect.COLLECTORS`, or "" for none: an object keeps its local score from
      the view that sees most of it, of equals the first: a part of the picture before the whole.
    has_appearance: False: of an object no more counts than its saliency, size and place.
  """

  erases: bool = True
  has_views: bool = True
  collector: str = "bradley_terry"
  has_appearance: bool = True

  def restrict(self, local: LocalRanks) -> LocalRanks:
    """What this variant may use of the measurements, fields [V, n, ...]."""
    history, order, visibility, appearance, evaluations = local
    if not self.erases:
      history = History(*[history.first] * len(history))
    if not self.has_views:
      history, order, visibility, appearance = jax.tree.map(
        lambda x: x[-1:], (history, order, visibility, appearance)
      )
    if not self.has_appearance:
      appearance = appearance[..., :0]
    return LocalRanks(history, order, visibility, appearance, evaluations)


VARIANTS = {
  "full": Variant(),
  "without_erasing": Variant(erases=False),
  "without_views": Variant(has_views=False),
  "without_collector": Variant(collector=""),
  "without_appearance": Variant(has_appearance=False),
  "plackett_luce": Variant(collector="plackett_luce"),
  "mean": Variant(collector="mean"),
  "borda": Variant(collector="borda"),
}


def strengths(
  examples: Sequence[Example], score: ObjectScore, variant: Variant
) -> list[np.ndarray]:
  """The strength [n] of each object of each example by this variant with these coefficients."""
  groups: dict[int, list[int]] = {}
  for index, example in enumerate(examples):
    groups.setdefault(-(-len(example.relevance) // _PADDED) * _PADDED, []).append(index)
  results: list[np.ndarray] = [np.zeros(0)] * len(examples)
  for size, members in groups.items():
    for start in range(0, len(members), _AT_ONCE):
      chunk = members[start : start + _AT_ONCE]
      filled = chunk + chunk[-1:] * (_AT_ONCE - len(chunk))
      padded = [_pad(examples[index], variant, size) for index in filled]
      batch = jax.tree.map(lambda *x: np.stack(x), *padded)
      strength = np.asarray(_strengths(*batch, score, variant.collector))
      for index, row in zip(chunk, strength, strict=False):
        results[index] = row[: len(examples[index].relevance)]
  return results


def _pad(example: Example, variant: Variant, size: int):
  """What `_strengths` needs of an example, with `size` objects."""
  local, scene = variant.restrict(example.local), example.scene
  padding = size - len(example.relevance)

  def pad(x: Array, axis: int) -> np.ndarray:
    return np.pad(x, [(0, padding) if a == axis else (0, 0) for a in range(x.ndim)])

  described = tuple(pad(x, 0) for x in (scene.area, scene.elevation, scene.where))
  return jax.tree.map(lambda x: pad(x, 1), tuple(local[:-1])), described


@functools.partial(jax.jit, static_argnames="collector")
def _strengths(measured, described, score: ObjectScore, collector: str) -> jax.Array:
  area, elevation, where = described
  nothing = np.zeros(0)
  scene = DescribedScene(nothing, nothing, area, elevation, where)
  history, order, visibility, appearance = measured
  local = LocalRanks(history, order, visibility, appearance, evaluations=nothing)
  if collector:
    return collect_ranks(local, scene, object_score=score, collector=collector).strength
  log_area = jnp.log(jnp.maximum(scene.area, 1e-9))
  scores = score.local_score(log_area, scene.elevation, local.history, local.appearance)
  best = local.visibility.argmax(1, keepdims=True)
  return jnp.take_along_axis(scores, best, axis=1)[:, 0]
