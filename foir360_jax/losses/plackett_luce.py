"""Listwise losses under the Plackett-Luce model (objects are chosen one after the other).

Axes: [..., N], the objects of a list last; inside this module they are sorted by falling label, so
that what is left to choose from is the rest of the list. The arguments mean the same as in
`softmax.py`. Only the order of the labels counts, and no loss can be differentiated by them.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from foir360_jax.losses.masking import (
  PaddedLists,
  ReduceFn,
  mask_lists,
  reduce_lists,
  weighted_sum,
)
from foir360_jax.losses.order import descending_order


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
  the value is deterministic, but then depends on that order; `plackett_luce_loss` does not.
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
  lists = mask_lists(scores, labels, where, weights)
  chosen = _sort_by_label(lists)
  peaks, log_sums = _log_sum_of_rest(chosen.scores)
  terms = (peaks - chosen.scores) + log_sums
  return reduce_lists(weighted_sum(chosen.weights, terms), lists, reduce_fn)


def plackett_luce_loss(
  scores: ArrayLike,
  labels: ArrayLike,
  *,
  ties: str = "breslow",
  where: ArrayLike | None = None,
  weights: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Negative log likelihood of an order with ties, whatever the order of the list.

  Objects with equal labels are a group G of size n; R is the group and all below it, from which the
  group is chosen. The two ways to treat the group are those of the Cox model of survival:

      breslow: loss = sum_G  sum_{i in G} (log(sum_{j in R} exp(scores_j)) - scores_i)
      efron:   loss = sum_G (sum_{l = 0}^{n-1} log(sum_{j in R} exp(scores_j)
                                                   - l/n sum_{j in G} exp(scores_j))
                             - sum_{i in G} scores_i)

  Breslow puts each chosen object back; Efron takes out the average one of its group, which is
  closer to the mean over all orders within the group. Without ties both are `listmle_loss`. With
  weights, each step of Efron's sum weighs as much as the group's objects on average.
  Sources: Breslow, Covariance analysis of censored survival data, Biometrics 1974; Efron, The
  efficiency of Cox's likelihood function for censored data, JASA 1977.

  Args:
    scores: [..., N].
    labels: [..., N]; only their order, and which are equal, counts.
    ties: "breslow" or "efron".
    where: Broadcastable to [..., N] bool.
    weights: Broadcastable to [..., N]: the weight of the step that chooses the object.
    reduce_fn: Reduction over lists, or None.

  Returns:
    A scalar, or one loss a list, [...].

  Raises:
    ValueError: if the shapes of scores and labels differ, or `ties` is neither of the two.

  >>> round(float(plackett_luce_loss(jnp.zeros(2), jnp.ones(2))), 4)  # 2 log(2)
  1.3863
  >>> round(float(plackett_luce_loss(jnp.zeros(2), jnp.ones(2), ties="efron")), 4)  # log(2)
  0.6931
  """
  if ties not in ("breslow", "efron"):
    raise ValueError(f"ties must be 'breslow' or 'efron', not {ties!r}")
  lists = mask_lists(scores, labels, where, weights)
  chosen = _sort_by_label(lists)
  index = jax.lax.broadcasted_iota(jnp.int32, chosen.labels.shape, chosen.labels.ndim - 1)
  # A group begins where the label changes, or the padding begins.
  changes = (jnp.diff(chosen.labels) != 0) | (chosen.where[..., :-1] != chosen.where[..., 1:])
  edge = jnp.ones_like(chosen.where[..., :1])
  begins = jnp.concatenate([edge, changes], axis=-1)
  ends = jnp.concatenate([changes, edge], axis=-1)
  axis = index.ndim - 1
  first = jax.lax.cummax(jnp.where(begins, index, 0), axis=axis)
  last = jax.lax.cummin(jnp.where(ends, index, index.shape[-1]), axis=axis, reverse=True)

  peaks, log_sums = (
    jnp.take_along_axis(array, first, axis=-1) for array in _log_sum_of_rest(chosen.scores)
  )
  terms = (peaks - chosen.scores) + log_sums
  if ties == "efron":

    def group_sum(values):
      return jnp.take_along_axis(_decayed_sums(~begins, values), last, axis=-1)

    share = group_sum(jnp.exp(-terms))  # of the group in what it is chosen from
    size = (last - first + 1).astype(share.dtype)
    terms += group_sum(jnp.log1p(-(index - first) / size * share)) / size
  return reduce_lists(weighted_sum(chosen.weights, terms), lists, reduce_fn)


def _sort_by_label(lists: PaddedLists) -> PaddedLists:
  """Sorts the objects by falling label, the padding last."""
  order = descending_order(lists.labels, lists.where)
  return PaddedLists(*(jnp.take_along_axis(array, order, axis=-1) for array in lists))


@jax.custom_jvp
def _log_sum_of_rest(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
  """log(sum_{j >= i} exp(scores_j)) in two parts, that large scores lose no digits: a maximum, +.

  The maximum counts as constant, for what is subtracted in one part is added in the other: only the
  sum of both has the right derivative.
  """
  return _parts_and_slopes(scores)[0]


@_log_sum_of_rest.defjvp
def _log_sum_of_rest_jvp(scores, tangents):
  parts, (keep, slopes) = _parts_and_slopes(*scores)
  log_sum_tangents = _decayed_sums(keep, slopes * tangents[0], reverse=True)
  return parts, (jnp.zeros_like(parts[0]), log_sum_tangents)


def _parts_and_slopes(scores):
  """The two parts, and the derivatives of their sum by that of the next place and by the score."""
  peaks = jax.lax.cummax(scores, axis=scores.ndim - 1, reverse=True)
  decay = jnp.exp(_next(peaks) - peaks)
  exponentials = jnp.exp(scores - peaks)
  sums = _decayed_sums(decay, exponentials, reverse=True)
  return (peaks, jnp.log(sums)), (decay * _next(sums) / sums, exponentials / sums)


def _next(array: jax.Array) -> jax.Array:
  """The entry after each; the last one stays."""
  return jnp.concatenate([array[..., 1:], array[..., -1:]], axis=-1)


def _decayed_sums(decay: jax.Array, values: jax.Array, reverse: bool = False) -> jax.Array:
  """sums_i = decay_i sums_{i - 1} + values_i; in reverse, i + 1 for i - 1."""
  sums = _one_by_one if jax.default_backend() == "cpu" else _by_doubling
  return sums(decay.astype(values.dtype), values, reverse)


def _one_by_one(decay: jax.Array, values: jax.Array, reverse: bool) -> jax.Array:
  """Quickest on the CPU, where a step costs nothing but its arithmetic."""

  def step(total, place):
    total = place[0] * total + place[1]
    return total, total

  places = jnp.moveaxis(decay, -1, 0), jnp.moveaxis(values, -1, 0)
  _, sums = jax.lax.scan(step, jnp.zeros_like(values[..., 0]), places, reverse=reverse)
  return jnp.moveaxis(sums, 0, -1)


def _by_doubling(decay: jax.Array, values: jax.Array, reverse: bool) -> jax.Array:
  """log2(N) steps, for accelerators, where each step costs the start of its kernels."""

  def join(earlier, later):
    return earlier[0] * later[0], later[0] * earlier[1] + later[1]

  pair = (decay, values)
  return jax.lax.associative_scan(join, pair, reverse=reverse, axis=values.ndim - 1)[1]
