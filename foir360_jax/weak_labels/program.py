"""The weak labels as one compiled program for a batch of panoramas of one size.

views -> local ranks by erasing (`local`) -> collector. Axes: B panoramas, N objects (padded),
V perspective views and the whole panorama, H rows, W = 2 H columns.
"""

import functools
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp

from foir360_jax.batch import Array
from foir360_jax.saliency import for_panoramas, for_parts
from foir360_jax.weak_labels.collect import COLLECTORS, Collected
from foir360_jax.weak_labels.local import LocalRanks, Saliency, Views, rank_views
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.views import (
  ViewPlan,
  cell_areas,
  coverage_views,
  coverage_whole,
  plan_views,
  render_views,
  render_whole,
)

CELL = 4  # pixels of a view's cell along each side


class Strategy(NamedTuple):
  """Settings of the method; plain values, so that programs are compiled once for each.

  Attributes:
    collector: a name of `COLLECTORS`.
    fill: a name of `FILLS`, what erased objects are replaced by.
    grow_px: pixels by which a hole reaches beyond the erased object.
    max_erased: objects erased at most in a view; 0: no erasing.
    max_erased_whole: the same on the whole panorama, whose saliency costs more.
    tangent_views: False leaves the whole panorama as the only view.
    views_at_once: views that the network gets at a time.
  """

  collector: str = "bradley_terry"
  fill: str = "pull_push"
  grow_px: int = 4
  max_erased: int = 8
  max_erased_whole: int = 8
  tangent_views: bool = True
  views_at_once: int = 8


DEFAULT_STRATEGY = Strategy()
METHOD_VERSION = 1
"""Is raised whenever the same settings give other ranks: they must not mix with earlier ones."""


class DescribedScene(NamedTuple):
  """What the compiled program needs of a panorama with N padded objects.

  Attributes:
    panorama: [H, 2 H, 3] uint8 RGB.
    packed: [H, 2 H, N / 32] uint32, see `views.pack_objects`.
    area: [N] solid angle in steradians; 0 in the padding.
    elevation: [N] sine of the centroid's latitude; 0 in the padding.
    where: [N] bool.
  """

  panorama: Array
  packed: Array
  area: Array
  elevation: Array
  where: Array


class WeakRanks(NamedTuple):
  """The result of the compiled program, for a batch.

  Attributes:
    strength: [B, N] log odds; 0 in the padding.
    importance: [B, N] in (0, 1); 0 in the padding.
    agreement: [B, N] in [0, 1], the share of comparisons that agree with the final order.
    connected: [B, N] bool, see `collect.Collected`.
    evaluations: [] how many views the saliency was computed of.
  """

  strength: Array
  importance: Array
  agreement: Array
  connected: Array
  evaluations: Array


def rank_scenes(
  scenes: DescribedScene, *, saliency: Saliency, strategy: Strategy, object_score: ObjectScore
) -> WeakRanks:
  """Ranks a batch of scenes, stacked along a leading axis B; the compiled program."""
  plan = plan_views(scenes.panorama.shape[1])
  scenes = jax.tree.map(jnp.asarray, scenes)
  local = local_ranks(
    tangent_pool(scenes, plan) if strategy.tangent_views else None,
    whole_pool(scenes, plan),
    saliency=saliency,
    strategy=strategy,
    object_score=object_score,
  )
  collected = collect_ranks(local, scenes, object_score=object_score, collector=strategy.collector)
  importance = object_score.importance(collected.strength)
  return WeakRanks(
    strength=collected.strength,
    importance=jnp.where(scenes.where, importance, 0.0),
    agreement=collected.agreement,
    connected=collected.connected,
    evaluations=local.evaluations,
  )


def local_ranks(
  tangent: Views | None,
  whole: Views,
  *,
  saliency: Saliency,
  strategy: Strategy,
  object_score: ObjectScore,
  panoramic: bool = True,
) -> LocalRanks:
  """Steps 1 and 2 on all views: fields [B, V + 1, N, ...], the whole panorama last.

  Args:
    tangent: the pool of the perspective views, V of each panorama after the other; None for none.
    whole: the pool of the panoramas.
    saliency: the local saliency model.
    strategy: how to go about it.
    object_score: gives the local scores by which objects are erased.
    panoramic: whether the wholes are panoramas; False: photographs, which have edges.
  """
  rank = functools.partial(
    rank_views,
    choose=object_score.erasing_score,
    fill=strategy.fill,
    grow_px=strategy.grow_px,
  )
  batch = len(whole.images)
  of_whole = rank(
    whole,
    saliency=for_panoramas(saliency) if panoramic else saliency,
    max_erased=strategy.max_erased_whole,
    views_at_once=max(1, strategy.views_at_once // 4),
  )
  parts = [of_whole]
  if tangent is not None:
    parts.insert(
      0,
      rank(
        tangent,
        saliency=for_parts(saliency),
        max_erased=strategy.max_erased,
        views_at_once=strategy.views_at_once,
      ),
    )
  split = [
    jax.tree.map(lambda x: einops.rearrange(x, "(b v) ... -> b v ...", b=batch), part[:-1])
    for part in parts
  ]
  history, order, visibility, appearance = jax.tree.map(
    lambda *x: jnp.concatenate(x, axis=1), *split
  )
  evaluations = functools.reduce(jnp.add, (part.evaluations for part in parts))
  return LocalRanks(history, order, visibility, appearance, evaluations)


def collect_ranks(
  local: LocalRanks, scenes: DescribedScene, *, object_score: ObjectScore, collector: str
) -> Collected:
  """Step 3, for a batch: fields [B, N]. Of the scenes no pictures are used."""
  log_area = jnp.log(jnp.maximum(scenes.area, 1e-9))
  scores = object_score.local_score(log_area, scenes.elevation, local.history, local.appearance)
  prior = object_score.prior_score(log_area, scenes.elevation)
  weight = object_score.view_weight(scores.shape[1])[:, None]
  collect = functools.partial(COLLECTORS[collector], prior_weight=object_score.prior_weight)
  return jax.vmap(collect)(scores, weight * local.visibility, local.order, prior, scenes.where)


def tangent_pool(scenes: DescribedScene, plan: ViewPlan) -> Views:
  """The perspective views of all panoramas as one pool."""
  num_objects, num_views = scenes.where.shape[1], len(plan.lon_rad)

  def of_one(scene: DescribedScene) -> Views:
    return Views(
      images=render_views(scene.panorama, plan),
      coverage=coverage_views(scene.packed, plan, num_objects, CELL),
      cell_areas=jnp.asarray(cell_areas(plan, CELL)[0]),
      object_areas=jnp.broadcast_to(scene.area, (num_views, num_objects)),
      where=jnp.broadcast_to(scene.where, (num_views, num_objects)),
    )

  return _pool(jax.lax.map(of_one, scenes))


def whole_pool(scenes: DescribedScene, plan: ViewPlan) -> Views:
  """The whole panoramas as one pool."""
  num_objects = scenes.where.shape[1]

  def of_one(scene: DescribedScene) -> Views:
    return Views(
      images=render_whole(scene.panorama, plan)[None],
      coverage=coverage_whole(scene.packed, plan, num_objects, CELL)[None],
      cell_areas=jnp.asarray(cell_areas(plan, CELL)[1])[None],
      object_areas=scene.area[None],
      where=scene.where[None],
    )

  return _pool(jax.lax.map(of_one, scenes))


def _pool(batch: Views) -> Views:
  return jax.tree.map(lambda x: einops.rearrange(x, "b v ... -> (b v) ..."), batch)
