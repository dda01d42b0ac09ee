"""The softmax loss. Axes: [..., N], objects last.

Labels are relevance: higher = more important. `where`, `weights` and `reduce_fn` mean the same in
every ranking loss; `masking.py` implements them once:

- `where` is False for padding; lists without any object are skipped by the mean.
- `weights` multiply the term of each object, before the terms of a list are added up.
- `reduce_fn` reduces over lists; None returns one loss a list, [...], 0 for empty ones.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from foir360_jax.losses.masking import ReduceFn, mask_lists, reduce_lists
from foir360_jax.losses.one_pass import differentiable


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

  Labels are not normalised: lists whose labels add up to more weigh more. The loss can be
  differentiated by the labels, too.
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
  lists = mask_lists(scores, labels, where, weights)
  losses = _cross_entropy(lists.scores, lists.plain_weights * lists.labels, lists.where)
  return reduce_lists(losses, lists, reduce_fn)


@differentiable
def _cross_entropy(scores, mass, where):
  # Bounded, so that a mass of 0 costs nothing, in the padding and far below the highest score.
  largest = jnp.finfo(scores.dtype).max
  shifted = jnp.maximum(scores - jnp.max(scores, axis=-1, keepdims=True), -largest)
  bound = largest / (2 * scores.shape[-1])  # masses can be added up
  mass = jnp.clip(mass, -bound, bound)
  # The padding's are 0 already; said again, XLA's CPU backend computes each exponential once.
  exponentials = jnp.where(where, jnp.exp(shifted), 0.0)
  total = jnp.sum(exponentials, axis=-1, keepdims=True)
  total = jnp.where(total > 0, total, 1.0)  # an empty list
  costs = jnp.log(total) - shifted  # without the maximum, large scores lose no digits
  gradient = exponentials * (jnp.sum(mass, axis=-1, keepdims=True) / total) - mass
  return jnp.sum(mass * costs, axis=-1), [gradient, costs, None]
