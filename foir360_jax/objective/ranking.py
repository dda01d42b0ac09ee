"""Ranking terms: the order of the ground-truth masks, and of the predicted ones.

The rank decoder gets one list a scene with the ground-truth masks, and where the model learns to
detect a second one, as at inference: the candidates of the query decoder, of which those that are
matched to an object have its importance, and the others are to be left over when the recurrent
module stops.

Axes: B scenes, R lists (B, or 2 B with the second ones behind), L places in a list, N objects,
Q candidates (Q >= N).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from foir360_jax.batch import Terms
from foir360_jax.models.random_streams import CONDITIONING, SCHEDULED_SAMPLING, stream
from foir360_jax.models.rank_decoder import RankDecoder
from foir360_jax.models.recurrent_ranking import Candidates
from foir360_jax.models.sphere_attention import BLOCKED
from foir360_jax.objective.segmentation import Match, category_term

_CANDIDATE = 0.1  # detection confidence of a candidate that training shows to the rank decoder
_MATCH_IOU = 0.3  # a candidate that overlaps its object less than this is none


class RankingLists(NamedTuple):
  """What is to be ordered.

  Attributes:
    where: `[R, L]`, objects and other candidates.
    is_object: `[R, L]`.
    relevance: `[R, L]`; 0 for what is no object.
    category: `[R, L]`; -1 where unknown, and for what is no object.
    confidence: `[R, L]` of the detection; 1 for ground-truth masks.
    ends: `[R]`: is stopping to be learnt after the objects?
  """

  where: jax.Array
  is_object: jax.Array
  relevance: jax.Array
  category: jax.Array
  confidence: jax.Array
  ends: jax.Array


def ground_truth_lists(where: jax.Array, relevance: jax.Array, category: jax.Array) -> RankingLists:
  """The lists of the ground-truth masks, all arguments `[B, N]`; what lies in the padding goes."""
  return RankingLists(
    where=where,
    is_object=where,
    relevance=jnp.where(where, relevance, 0.0),
    category=jnp.where(where, category, -1),
    confidence=jnp.ones(where.shape),
    ends=jnp.zeros(len(where), bool),
  )


def add_predicted(ground_truth: RankingLists, match: Match, confidence: jax.Array) -> RankingLists:
  """Adds the lists of the candidates; all lists become Q long.

  Args:
    ground_truth: of N objects.
    match: the candidate of each object.
    confidence: `[B, Q]`, 0 for duplicates.
  """
  batch_size, num_objects = ground_truth.where.shape
  rows = jnp.arange(batch_size)[:, None]

  is_matched = ground_truth.where & (match.iou >= _MATCH_IOU)

  def of_candidates(values):  # unmatched objects and padding have a candidate, too: it gets 0
    values = jnp.where(is_matched, values, jnp.zeros((), values.dtype))
    return jnp.zeros(confidence.shape, values.dtype).at[rows, match.query].add(values)

  is_object = of_candidates(is_matched.astype(jnp.int32)) > 0
  predicted = RankingLists(
    where=is_object | ((confidence > _CANDIDATE) & ~match.unknown),
    is_object=is_object,
    relevance=of_candidates(ground_truth.relevance),
    category=of_candidates(ground_truth.category + 1) - 1,
    confidence=confidence,
    ends=jnp.ones(batch_size, bool),
  )
  longer = ((0, 0), (0, confidence.shape[1] - num_objects))
  nothing = (False, False, 0.0, -1, 1.0, False)  # in the order of the fields
  return RankingLists(
    *(
      jnp.concatenate([x if x.ndim == 1 else jnp.pad(x, longer, constant_values=fill), y])
      for x, y, fill in zip(ground_truth, predicted, nothing, strict=True)
    )
  )


def ranking_terms(
  decoder: RankDecoder,
  tokens: jax.Array,
  lists: RankingLists,
  *,
  ranking_loss: Callable[..., jax.Array],
  num_objects: int,
  seed: jax.Array,
  scheduled_sampling: jax.Array | None,
  conditioning_rate: float = 0.0,
) -> Terms:
  """Terms `rank_ground_truth`, `recurrent`, `rank_category`, and of second lists `rank_predicted`.

  Args:
    decoder: scores and picks.
    tokens: `[R, L, C]` of its `describe`.
    lists: of the same places.
    ranking_loss: of `losses.build_mean_ranking_loss`, for the scores.
    num_objects: the most objects that a list may have, N.
    seed: `[B]`.
    scheduled_sampling: share of the steps at which the recurrent module continues from its own pick
      rather than from the ground truth (Bengio et al., NeurIPS 2015), in [0, 1]; None: 0, which
      costs less.
    conditioning_rate: share of the ground-truth masks on whose categories the decoder is
      conditioned, in [0, 1]; below 1, so that it learns to do without.
  """
  categories = _conditioning(lists, seed, conditioning_rate) if conditioning_rate else None
  ranking = decoder.compare(tokens, lists.where, categories)
  candidates = ranking.candidates(lists.confidence)
  real = lists.is_object.any(-1)
  losses = ranking_loss(ranking.scores, lists.relevance, where=lists.is_object)
  batch_size = len(seed)
  terms = {"rank_ground_truth": (losses[:batch_size].sum(), real[:batch_size].sum())}
  if len(losses) > batch_size:
    terms["rank_predicted"] = (losses[batch_size:].sum(), real[batch_size:].sum())

  cost, num_steps = _step_costs(decoder, candidates, lists, num_objects, seed, scheduled_sampling)
  terms["recurrent"] = ((cost / jnp.maximum(num_steps, 1)).sum(), (num_steps > 0).sum())
  terms["rank_category"] = category_term(ranking.category_logits, lists.category)
  return terms


def _conditioning(lists: RankingLists, seed: jax.Array, share: float) -> jax.Array:
  """The categories `[R, L]` of a share of the ground-truth masks; -1 elsewhere."""
  places = lists.category.shape[1]
  chance = jax.vmap(lambda one: jax.random.uniform(stream(one, CONDITIONING), (places,)))(seed)
  chance = jnp.tile(chance, (len(lists.category) // len(seed), 1))
  return jnp.where(lists.ends[:, None] | (chance > share), -1, lists.category)


def _step_costs(
  decoder, candidates: Candidates, lists: RankingLists, num_objects: int, seed, scheduled_sampling
) -> tuple[jax.Array, jax.Array]:
  """Negative log likelihood `[R]` of the best pick at every step, and the number of steps."""
  # Best first, everything else behind: the place of each object in the true order, which goes on
  # from the first of equals; any of them is a right pick.
  order = jnp.lexsort((-lists.relevance, ~lists.is_object), axis=-1)
  place = jnp.argsort(order, axis=-1)
  if scheduled_sampling is not None:
    order = _mixed_order(decoder, candidates, lists, place, num_objects, seed, scheduled_sampling)
  order = order[:, :num_objects]

  num_steps = num_objects + 1
  logits, stop = decoder.recurrent.forced(candidates, lists.where, order, num_steps)
  rows = jnp.arange(order.shape[0])[:, None]
  picked_at = jnp.full(place.shape, num_steps).at[rows, order].set(jnp.arange(num_objects))
  steps = jnp.arange(num_steps)
  left = lists.is_object[:, None] & (picked_at[:, None] >= steps[:, None])
  relevance = jnp.where(left, lists.relevance[:, None], -jnp.inf)
  is_best = left & (relevance == relevance.max(-1, keepdims=True))  # [R, T, L]
  wanted = jax.nn.logsumexp(jnp.where(is_best, logits, BLOCKED), axis=-1)

  ends = lists.ends[:, None]
  stop = jnp.where(ends, stop, BLOCKED)
  everything = jnp.logaddexp(jax.nn.logsumexp(logits, axis=-1), stop)
  counts = lists.is_object.sum(-1, keepdims=True)
  at_end = steps == counts
  cost = everything - jnp.where(at_end & ends, stop, wanted)
  asked = (steps < counts) | (at_end & ends)
  return jnp.where(asked, cost, 0.0).sum(-1), asked.sum(-1)


def _mixed_order(
  decoder, candidates, lists, place, num_objects, seed, scheduled_sampling
) -> jax.Array:
  """An order `[R, N]` that at some steps goes on from the module's own pick among the objects."""
  lists_each = len(place) // len(seed)

  def obeys(one):
    return ~jax.random.bernoulli(
      stream(one, SCHEDULED_SAMPLING), scheduled_sampling, (lists_each, num_objects)
    )

  obey = jnp.moveaxis(jax.vmap(obeys)(seed), 1, 0).reshape(-1, num_objects)
  picks = decoder.recurrent(
    jax.lax.stop_gradient(candidates),
    lists.is_object,
    num_steps=num_objects,
    given=-place.astype(candidates.scores.dtype),
    obey=obey,
  )
  return picks.order
