"""Ranking losses over pairs of objects. Axes: [..., N], the objects of a list last.

The arguments mean the same as in `listwise.py`. The loss of a list is the sum over its pairs, so
`jnp.mean` is the mean over lists (rax takes it over pairs; sums over everything agree).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from foir360_jax.losses.masking import ReduceFn, mask_lists, reduce_terms


def pairwise_logistic_loss(
  scores: ArrayLike,
  labels: ArrayLike,
  *,
  where: ArrayLike | None = None,
  weights: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Logistic loss of every pair of objects whose order is known (RankNet).

      loss = sum_{i, j: labels_i > labels_j} log(1 + exp(scores_j - scores_i))

  Source: Burges et al., Learning to rank using gradient descent, ICML 2005.

  Args:
    scores: [..., N].
    labels: [..., N]; only their order counts; equal labels make no pair.
    where: Broadcastable to [..., N] bool.
    weights: Broadcastable to [..., N]: a pair weighs as much as its more important object.
    reduce_fn: Reduction over lists, or None.

  Returns:
    A scalar, or one loss a list, [...].

  Raises:
    ValueError: if the shapes of scores and labels differ.

  >>> round(float(pairwise_logistic_loss(jnp.array([2.0, 1.0]), jnp.array([0.0, 1.0]))), 4)
  1.3133
  """
  scores, labels, where = mask_lists(scores, labels, where)
  # [..., i, j]: object i should come before object j.
  lead = scores[..., :, None] - scores[..., None, :]
  is_pair = labels[..., :, None] > labels[..., None, :]
  is_pair |= jnp.isnan(lead)  # NaN must reach the loss, also where it makes no pair
  is_pair &= where[..., None, :]
  terms = jnp.sum(jax.nn.softplus(-lead), axis=-1, where=is_pair)
  return reduce_terms(terms, where=where, weights=weights, reduce_fn=reduce_fn)
