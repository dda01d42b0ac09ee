"""Steps 1 and 2 of the weak labels: ranks the objects of every view, erasing the highest each time.

In each view: measure every object on the view's saliency, erase the object of the highest score,
compute the saliency of what is left, measure again, and so on; at last measure the places of all
objects in the bare scene, from which all of them are erased. Views do not wait for one another.
They lie in one pool, from which each turn of one compiled loop takes as many as the network gets at
a time, those with the most left to do first; a view is computed again only if an object was erased
in it.

Axes: P views (of one or of several panoramas), N objects (padded), h x w pixels, g x k cells of
`cell` x `cell` pixels, F measurements, K channels of the saliency model's `appearance`.
"""

from collections.abc import Callable
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.batch import Array
from foir360_jax.saliency import observe
from foir360_jax.saliency.alignment import interpolation_matrix
from foir360_jax.weak_labels.erase import FILLS, erase

MEASUREMENTS = ("log_mean", "log_peak")
"""Of an object in a view: its mean and its highest saliency, over the mean of the background.

The background, what no object covers, stays the same as objects are erased, while the mean of the
whole view does not.
"""

Saliency = Callable[[jax.Array], jax.Array]
_FLOOR = 1e-4  # of saliency over the background's, so that logarithms stay finite
_COVERED_WEIGHT = 0.02  # of covered cells in the background's mean, for views that have no other
_SEEN_SHARE = 0.25  # an object is seen by a view that holds this share of it,
_SEEN_OF_VIEW = 0.02  # or in which it fills this share: so are objects larger than a view


class Views(NamedTuple):
  """Views of one size, and where the objects are in them.

  Attributes:
    images: [P, h, w, 3] RGB in [0, 255].
    coverage: [P, N, g, k] share of each cell that the object covers; 0 in the padding.
    cell_areas: [P, g, k] solid angle of each cell in steradians, 0 for cells that do not count.
    object_areas: [P, N] solid angle of the whole object, of the panorama that the view is of.
    where: [P, N] bool, False for padding.
  """

  images: Array
  coverage: Array
  cell_areas: Array
  object_areas: Array
  where: Array


class History(NamedTuple):
  """Measurements of objects in views, [..., N, F] each; 0 where not seen.

  Attributes:
    first: before anything was erased.
    average: mean over all the times that the view was computed with the object in it.
    last: the last of these times: with all gone that was above the object.
    bare: of the object's place when all objects are gone: what was not the object's own.
  """

  first: Array
  average: Array
  last: Array
  bare: Array


class LocalRanks(NamedTuple):
  """Local ranks and scores of the objects of each view.

  Attributes:
    history: [P, N, F] each.
    order: [P, N] int32, the place at which it was erased, 0 = first; -1 where not seen.
    visibility: [P, N] in [0, 1], share of the object's solid angle in the view; 0 where not seen.
    appearance: [P, N, K] mean over the object, before anything was erased; 0 where not seen.
    evaluations: [] int32, how many views the saliency was computed of.
  """

  history: History
  order: Array
  visibility: Array
  appearance: Array
  evaluations: Array


class _Pool(NamedTuple):
  times: jax.Array  # [P] how often the saliency of the view was computed
  gone: jax.Array  # [P, N] bool: erased
  order: jax.Array  # [P, N]
  history: History  # frozen for objects that are gone, but for `bare`
  appearance: jax.Array  # [P, N, K]


def rank_views(
  views: Views,
  *,
  saliency: Saliency,
  choose: Callable[[Array, Array], jax.Array],
  fill: str = "pull_push",
  grow_px: int = 4,
  max_erased: int = 128,
  views_at_once: int = 8,
) -> LocalRanks:
  """Ranks the objects of every view by erasing the highest again and again.

  Args:
    views: the pool.
    saliency: [C, h, w, 3] -> [C, h, w], a density up to scale; its appearance is kept if it has
      one, see `saliency.observe`.
    choose: (log of the objects' solid angles [C, N], measurements [C, N, F] now) -> [C, N]; the
      highest is erased next.
    fill: what erased objects are replaced by, a name of `FILLS`.
    grow_px: pixels by which the hole reaches beyond the object.
    max_erased: objects erased one by one at most in a view; the rest are ordered by their scores
      then, and erased together for the bare scene. 0 is the method without any erasing, for which
      `bare` is `first`.
    views_at_once: views that the network gets at a time.

  Returns:
    See `LocalRanks`.

  Raises:
    ValueError: an unknown fill, or views whose cells are not squares of whole pixels.
  """
  if fill not in FILLS:
    raise ValueError(f"fill must be one of {', '.join(FILLS)}, not {fill!r}")
  num_views, height, width, _ = views.images.shape
  cell, rest = divmod(height, views.coverage.shape[2])
  if rest or views.coverage.shape[3] * cell != width:
    raise ValueError(
      f"views of {height} x {width} pixels do not divide into {views.coverage.shape[2:]} cells"
    )
  views_at_once = min(views_at_once, num_views)
  log_areas = jnp.log(jnp.maximum(views.object_areas, 1e-9))
  visibility = _visibility(views)
  seen = visibility > 0

  def work(pool: _Pool) -> jax.Array:
    """Remaining evaluations of each view, [P]."""
    count = seen.sum(-1)
    needed = 2 + jnp.minimum(count - 1, max_erased) if max_erased else 1
    return jnp.where(count > 0, needed, 0) - pool.times

  def turn(pool: _Pool) -> _Pool:
    amount, chosen = jax.lax.top_k(work(pool), views_at_once)
    view, view_seen, view_log_areas, state = jax.tree.map(
      lambda x: x[chosen], (views, seen, log_areas, pool)
    )
    score = choose(view_log_areas, state.history.last)
    score = jnp.where(view_seen & ~state.gone, score, -jnp.inf)
    erased = jax.nn.one_hot(score.argmax(-1), score.shape[-1], dtype=bool)
    erased &= (state.times > 0)[:, None]  # the first time nothing is erased
    # The last time all is erased, which is no longer the objects' own history.
    is_bare = ((amount == 1) & (state.times > 0))[:, None]
    erased &= ~is_bare
    gone = state.gone | erased
    image = _erase(view, gone | (view_seen & is_bare), cell, fill, grow_px)
    density, appearance = observe(saliency, image)
    density = einops.reduce(density, "c (g i) (k j) -> c g k", "mean", i=cell, j=cell)
    now = _measure(density, view, view_seen)
    times = state.times[:, None, None]
    old, stays = state.history, gone | is_bare
    updated = _Pool(
      times=state.times + 1,
      gone=gone,
      order=jnp.where(erased, state.times[:, None] - 1, state.order),
      history=jax.tree.map(
        lambda new, kept, keep: jnp.where(keep[..., None], kept, new),
        History(
          first=jnp.where(times == 0, now, old.first),
          average=(old.average * times + now) / (times + 1),
          last=now,
          bare=now,
        ),
        old,
        History(stays, stays, stays, bare=jnp.zeros_like(gone)),
      ),
      appearance=jnp.where(times == 0, _describe(appearance, view, view_seen), state.appearance),
    )

    def put(whole, part):
      is_active = (amount > 0).reshape(-1, *[1] * (part.ndim - 1))
      return whole.at[chosen].set(jnp.where(is_active, part, whole[chosen]))

    return jax.tree.map(put, pool, updated)

  measured = jnp.zeros((*seen.shape, len(MEASUREMENTS)))
  described = jax.eval_shape(lambda x: observe(saliency, x), views.images[:views_at_once])
  pool = _Pool(
    times=jnp.zeros(num_views, jnp.int32),
    gone=jnp.zeros_like(seen),
    order=jnp.full(seen.shape, -1, jnp.int32),
    history=History(*[measured] * 4),
    appearance=jnp.zeros((*seen.shape, described.appearance.shape[-1])),
  )
  pool = jax.lax.while_loop(lambda pool: (work(pool) > 0).any(), turn, pool)

  # What was never erased follows by its score.
  left = seen & ~pool.gone
  score = jnp.where(left, choose(log_areas, pool.history.last), -jnp.inf)
  place = jnp.argsort(jnp.argsort(-score, axis=-1), axis=-1) + pool.gone.sum(-1, keepdims=True)
  return LocalRanks(
    history=pool.history,
    order=jnp.where(left, place.astype(jnp.int32), pool.order),
    visibility=visibility,
    appearance=pool.appearance,
    evaluations=pool.times.sum(),
  )


def _visibility(views: Views) -> jax.Array:
  """The share of each object that a view holds, [P, N]; 0 where that is too little to judge it."""
  area = jnp.einsum("pngk,pgk->pn", views.coverage, views.cell_areas)
  enough = jnp.minimum(
    _SEEN_SHARE * views.object_areas,
    _SEEN_OF_VIEW * views.cell_areas.sum((-2, -1))[:, None],
  )
  share = area / jnp.maximum(views.object_areas, 1e-9)
  return jnp.where(views.where & (area > 0) & (area >= enough), jnp.minimum(share, 1.0), 0.0)


def _erase(view: Views, gone: jax.Array, cell: int, fill: str, grow_px: int) -> jax.Array:
  """The images [C, h, w, 3] without the objects that are gone."""

  def pixels(objects, least):
    covered = jnp.where(objects[..., None, None], view.coverage, 0.0).max(1) > least
    return einops.repeat(covered, "c g k -> c (g i) (k j)", i=cell, j=cell)

  kept = view.where & ~gone
  return jax.vmap(lambda *x: erase(*x, fill=FILLS[fill], grow_px=grow_px))(
    view.images, pixels(gone, 0.0), pixels(kept, 0.5)
  )


def _measure(density: jax.Array, view: Views, seen: jax.Array) -> jax.Array:
  """The measurements [C, N, F] of all objects on the density [C, g, k] of their views."""
  areas = view.cell_areas
  covered = jnp.where(view.where[..., None, None], view.coverage, 0.0).max(1)
  background = areas * (1 + _COVERED_WEIGHT - jnp.minimum(covered, 1.0))
  mean = (density * background).sum((-2, -1)) / background.sum((-2, -1))
  relative = jnp.maximum(density / jnp.maximum(mean, 1e-30)[:, None, None], _FLOOR)
  weights = view.coverage * areas[:, None]
  total = jnp.maximum(weights.sum((-2, -1)), 1e-12)
  within = jnp.einsum("cngk,cgk->cn", weights, relative) / total
  inside = weights >= 0.5 * weights.max((-2, -1), keepdims=True)
  peak = jnp.where(inside, relative[:, None], 0.0).max((-2, -1))
  measured = jnp.log(jnp.maximum(jnp.stack([within, peak], axis=-1), _FLOOR))
  return jnp.where(seen[..., None], measured, 0.0)


def _describe(appearance: jax.Array, view: Views, seen: jax.Array) -> jax.Array:
  """The means [C, N, K] of the appearance [C, a, b, K] over all objects of their views."""
  weights = view.coverage * view.cell_areas[:, None]
  # What each cell of the appearance has of an object: it is interpolated to the view's cells.
  for axis, fine, coarse in zip((2, 3), weights.shape[2:], appearance.shape[1:3], strict=True):
    places = (np.arange(fine) + 0.5) * (coarse / fine)
    matrix = interpolation_matrix(np.arange(coarse) + 0.5, places)
    weights = jnp.moveaxis(jnp.tensordot(weights, matrix, (axis, 0)), -1, axis)
  total = jnp.maximum(weights.sum((-2, -1)), 1e-12)[..., None]
  return jnp.where(seen[..., None], jnp.einsum("cnab,cabk->cnk", weights, appearance) / total, 0.0)
