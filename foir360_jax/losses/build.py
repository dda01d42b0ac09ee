"""Builds the ranking loss that a configuration names."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from foir360_jax.losses.approx_ndcg import approx_ndcg_loss
from foir360_jax.losses.pairwise import (
  lambdarank_loss,
  pairwise_hinge_loss,
  pairwise_logistic_loss,
)
from foir360_jax.losses.plackett_luce import listmle_loss, plackett_luce_loss
from foir360_jax.losses.softmax import softmax_loss


def _one(labels: jax.Array, where: jax.Array) -> jax.Array:
  return jnp.ones(labels.shape[:-1])


def _objects(labels: jax.Array, where: jax.Array) -> jax.Array:
  return where.sum(-1)


def _pairs(labels: jax.Array, where: jax.Array) -> jax.Array:
  known = jnp.where(where, labels, jnp.nan)  # of a NaN nothing is greater
  return (known[..., None, :] > known[..., None]).sum((-1, -2))


def _mass(labels: jax.Array, where: jax.Array) -> jax.Array:
  return jnp.where(where, labels, 0).sum(-1)


# Each loss, and the number (or mass) of what it adds up over a list.
_RANKING_LOSSES = {
  "approx_ndcg": (approx_ndcg_loss, _one),
  "lambdarank": (lambdarank_loss, _one),
  "listmle": (listmle_loss, _objects),
  "pairwise_hinge": (pairwise_hinge_loss, _pairs),
  "pairwise_logistic": (pairwise_logistic_loss, _pairs),
  "plackett_luce": (plackett_luce_loss, _objects),
  "softmax": (softmax_loss, _mass),
}


def build_ranking_loss(name: str) -> Callable[..., jax.Array]:
  """Returns the ranking loss `(scores, labels, *, where, weights, reduce_fn)` of that name.

  Raises:
    ValueError: if there is no such loss.

  >>> build_ranking_loss("listmle").__name__
  'listmle_loss'
  """
  if name not in _RANKING_LOSSES:
    raise ValueError(f"ranking loss must be one of {', '.join(_RANKING_LOSSES)}, not {name!r}")
  return _RANKING_LOSSES[name][0]


def build_mean_ranking_loss(name: str) -> Callable[..., jax.Array]:
  """Returns the loss of that name as one mean a list, `(scores, labels, *, where) -> [...]`.

  Over the picks (ListMLE, Plackett-Luce), the pairs of different labels (pairwise losses) or the
  labels' sum (softmax: the cross-entropy of normalised labels); those of NDCG are of one size as
  they are. So long lists weigh as much as short ones in training, and a loss can be exchanged for
  another without being drowned by what is trained beside it. 0 for lists of which nothing is known.

  Raises:
    ValueError: if there is no such loss.

  >>> scores, labels = jnp.array([2.0, 1.0, 0.0]), jnp.array([0.0, 1.0, 1.0])
  >>> mean = build_mean_ranking_loss("pairwise_logistic")(scores, labels, where=labels >= 0)
  >>> round(float(mean), 3)  # of two pairs: log(1 + e), log(1 + e^2)
  1.72
  """
  loss, size = build_ranking_loss(name), _RANKING_LOSSES[name][1]

  def mean(scores: jax.Array, labels: jax.Array, *, where: jax.Array) -> jax.Array:
    count = size(labels, where)
    return loss(scores, labels, where=where, reduce_fn=None) / jnp.where(count > 0, count, 1)

  return mean
