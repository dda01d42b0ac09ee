"""Ranking losses over whole lists. Axes: [..., N], the objects of a list last.

Labels are relevance: higher = more important. `where`, `weights` and `reduce_fn` mean the same in
every ranking loss; `masking.py` implements them once:

- `where` is False for padding; lists without any object are skipped by the mean.
- `weights` multiply the term of each object, before the terms of a list are added up.
- `reduce_fn` reduces over lists; None returns one loss a list, [...], 0 for empty ones.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from foir360_jax.losses.masking import ReduceFn, mask_lists, reduce_terms


def softmax_loss(
  scores: ArrayLike,
  labels: ArrayLike,
  *,
  where: ArrayLike | None = None,
  weights: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Cross entropy between the labels and the softmax of the scores (as in ListNet and in rax).

      loss = - sum_i labels_i log(exp(scores_i) / sum_j exp(scores_j))

  Labels are not normalised: lists whose labels add up to more weigh more.
  Source: Cao et al., Learning to rank: from pairwise approach to listwise approach, ICML 2007.

  Args:
    scores: [..., N].
    labels: [..., N], not negative.
    where: Broadcastable to [..., N] bool.
    weights: Broadcastable to [..., N].
    reduce_fn: Reduction over lists, or None.

  Returns:
    A scalar, or one loss a list, [...].

  Raises:
    ValueError: if the shapes of scores and labels differ.

  >>> round(float(softmax_loss(jnp.array([2.0, 1.0, 3.0]), jnp.array([1.0, 0.0, 0.0]))), 4)
  1.4076
  """
  scores, labels, where = mask_lists(scores, labels, where)
  terms = -labels * jax.nn.log_softmax(scores, axis=-1)
  return reduce_terms(terms, where=where, weights=weights, reduce_fn=reduce_fn)


def listmle_loss(
  scores: ArrayLike,
  labels: ArrayLike,
  *,
  where: ArrayLike | None = None,
  weights: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Negative log likelihood of the true order under the Plackett-Luce model (ListMLE).

  With the objects sorted by falling label, each is chosen among those not yet chosen:

      loss = sum_i log(sum_{j >= i} exp(scores_j)) - scores_i

  Objects with equal labels keep the order in which they stand in the list (the sort is stable), so
  the value is deterministic, but then depends on that order.
  Source: Xia et al., Listwise approach to learning to rank: theory and algorithm, ICML 2008.

  Args:
    scores: [..., N].
    labels: [..., N]; only their order counts.
    where: Broadcastable to [..., N] bool.
    weights: Broadcastable to [..., N]: the weight of the step that chooses the object.
    reduce_fn: Reduction over lists, or None.

  Returns:
    A scalar, or one loss a list, [...].

  Raises:
    ValueError: if the shapes of scores and labels differ.

  >>> round(float(listmle_loss(jnp.array([2.0, 1.0, 3.0]), jnp.array([1.0, 0.0, 2.0]))), 4)
  0.7209
  """
  scores, labels, where = mask_lists(scores, labels, where)
  order = jnp.lexsort((-labels, ~where), axis=-1)  # the padding last

  def sort(array: ArrayLike) -> jax.Array:
    return jnp.take_along_axis(jnp.broadcast_to(array, scores.shape), order, axis=-1)

  chosen = sort(scores)
  terms = jax.lax.cumlogsumexp(chosen, axis=chosen.ndim - 1, reverse=True) - chosen
  weights = None if weights is None else sort(weights)
  return reduce_terms(terms, where=sort(where), weights=weights, reduce_fn=reduce_fn)
