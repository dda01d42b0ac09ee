"""The terms of the order against plain loops: lists with candidates, stopping, own picks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.losses import build_mean_ranking_loss
from foir360_jax.models.rank_decoder import RankDecoder
from foir360_jax.models.recurrent_ranking import Candidates
from foir360_jax.objective.ranking import (
  _conditioning,
  add_predicted,
  ground_truth_lists,
  ranking_terms,
)
from foir360_jax.objective.segmentation import Match

CHANNELS, OBJECTS, CANDIDATES = 64, 4, 7
LISTMLE = build_mean_ranking_loss("listmle")
WHERE = np.array([[True, True, False, True], [True, True, True, True], [False] * 4])
FOUND = np.where(WHERE, 0.9, 0.0)  # IoU with the matched candidates


@pytest.fixture(scope="module")
def decoder(draw_parameters):
  return draw_parameters(lambda: RankDecoder(4, CHANNELS, 5, context=False, rngs=nnx.Rngs(0)))


def draw(rng):
  relevance = rng.random(WHERE.shape).astype(np.float32)
  category = rng.integers(0, 5, WHERE.shape)
  matched = np.stack([rng.permutation(CANDIDATES)[:OBJECTS] for _ in WHERE])
  confidence = rng.random((len(WHERE), CANDIDATES)).astype(np.float32)
  confidence[:, :2] = 0, 0.05  # a duplicate, and one that nobody would show
  return relevance, category, Match(matched, FOUND, np.zeros(confidence.shape, bool)), confidence


def test_candidates_take_the_place_of_the_objects_that_they_found():
  rng = np.random.default_rng(0)
  relevance, category, match, confidence = draw(rng)
  iou = np.where(WHERE, rng.uniform(0.31, 1, WHERE.shape), 0)
  iou[1, 2] = 0.2  # matched, but hardly: it is not found
  unknown = rng.random(confidence.shape) < 0.3
  lists = add_predicted(
    ground_truth_lists(WHERE, relevance, category), Match(match.query, iou, unknown), confidence
  )
  for b in range(len(WHERE)):
    for place in range(CANDIDATES):
      real = place < OBJECTS and WHERE[b, place]
      assert lists.where[b, place] == lists.is_object[b, place] == real
      assert lists.relevance[b, place] == (relevance[b, place] if real else 0)
      assert lists.category[b, place] == (category[b, place] if real else -1)
      assert lists.confidence[b, place] == 1
      owners = [n for n in range(OBJECTS) if iou[b, n] > 0.3 and match.query[b, n] == place]
      row = len(WHERE) + b
      assert lists.is_object[row, place] == bool(owners)
      shown = confidence[b, place] > 0.1 and not unknown[b, place]
      assert lists.where[row, place] == (bool(owners) or shown)
      assert lists.relevance[row, place] == (relevance[b, owners[0]] if owners else 0)
      assert lists.category[row, place] == (category[b, owners[0]] if owners else -1)
      assert lists.confidence[row, place] == confidence[b, place]
  assert lists.ends.tolist() == [False] * 3 + [True] * 3


@pytest.fixture(scope="module")
def terms_of(decoder):
  graphdef, state = nnx.split(decoder)

  @jax.jit
  def run(state, tokens, lists, seed, scheduled_sampling):
    return ranking_terms(
      nnx.merge(graphdef, state),
      tokens,
      lists,
      ranking_loss=LISTMLE,
      num_objects=OBJECTS,
      seed=seed,
      scheduled_sampling=scheduled_sampling,
    )

  return lambda *arguments: jax.device_get(run(state, *arguments))


def step_by_step(decoder, tokens, lists, follow_own):
  """The mean cost of each list's steps, one after the other; `follow_own(row, step)`."""
  ranking = decoder.compare(tokens, lists.where)
  total = 0.0
  for row in range(len(lists.where)):
    left = set(np.flatnonzero(lists.where[row]).tolist())
    objects = {index for index in left if lists.is_object[row, index]}
    picked, costs = [], []
    while objects or lists.ends[row]:
      candidates = ranking.candidates(lists.confidence)
      candidates = Candidates(*(x[row : row + 1] for x in candidates))
      picks = decoder.recurrent(
        candidates,
        lists.where[row : row + 1],
        num_steps=len(picked) + 1,
        given=-jnp.array([[picked.index(i) if i in picked else 99.0 for i in range(CANDIDATES)]]),
        obey=jnp.ones((1, len(picked) + 1), bool),
      )
      assert picks.order[0, : len(picked)].tolist() == picked
      logits = np.asarray(picks.logits[0, -1], np.float64)
      stop = float(picks.stop[0, -1])
      options = [logits[index] for index in left] + ([stop] if lists.ends[row] else [])
      everything = np.log(np.sum(np.exp(options)))
      if not objects:
        costs.append(everything - stop)
        break
      highest = max(lists.relevance[row, index] for index in objects)
      best = [index for index in sorted(objects) if lists.relevance[row, index] == highest]
      costs.append(everything - np.log(np.sum(np.exp(logits[best]))))
      chosen = best[0]
      if follow_own(row, len(picked)):
        chosen = max(objects, key=lambda index, logits=logits: logits[index])
      picked.append(chosen)
      objects.remove(chosen)
      left.remove(chosen)
    if costs:
      total += np.mean(costs)
  return total


@pytest.mark.parametrize(("scheduled_sampling", "levels"), [(0.0, None), (1.0, None), (0.0, 2)])
def test_the_cost_of_the_picks_is_that_of_a_loop(decoder, terms_of, scheduled_sampling, levels):
  """With few levels of relevance several objects are the best, and any of them may be picked."""
  rng = np.random.default_rng(1)
  relevance, category, match, confidence = draw(rng)
  if levels:
    relevance = np.ceil(relevance * levels)
  lists = add_predicted(ground_truth_lists(WHERE, relevance, category), match, confidence)
  tokens = jnp.asarray(rng.normal(size=(6, CANDIDATES, CHANNELS)), jnp.float32)
  terms = terms_of(tokens, lists, jnp.arange(3, dtype=jnp.uint32), jnp.float32(scheduled_sampling))
  expected = step_by_step(decoder, tokens, lists, lambda *_: scheduled_sampling == 1)
  assert terms["recurrent"][0] == pytest.approx(expected, rel=1e-3)
  assert terms["recurrent"][1] == 5  # the third scene has no object, but candidates to stop before
  assert terms["rank_ground_truth"][1] == terms["rank_predicted"][1] == 2


def test_scheduled_sampling_changes_what_is_learnt(terms_of):
  rng = np.random.default_rng(2)
  relevance, category, match, confidence = draw(rng)
  lists = add_predicted(ground_truth_lists(WHERE, relevance, category), match, confidence)
  tokens = jnp.asarray(rng.normal(size=(6, CANDIDATES, CHANNELS)), jnp.float32)
  seed = jnp.arange(3, dtype=jnp.uint32)
  costs = [
    terms_of(tokens, lists, seed, jnp.float32(share))["recurrent"][0] for share in (0.0, 0.5, 1.0)
  ]
  assert len(set(map(float, costs))) == 3


def test_garbage_in_the_padding_changes_no_term(terms_of):
  rng = np.random.default_rng(3)
  relevance, category, match, confidence = draw(rng)
  tokens = rng.normal(size=(6, CANDIDATES, CHANNELS)).astype(np.float32)
  seed = jnp.arange(3, dtype=jnp.uint32)

  def terms(tokens, relevance, category):
    lists = add_predicted(ground_truth_lists(WHERE, relevance, category), match, confidence)
    return terms_of(tokens, lists, seed, jnp.float32(0.5)), np.asarray(lists.where)

  plain, where = terms(tokens, relevance, category)
  garbage = np.where(where[..., None], tokens, 1e3).astype(np.float32)
  other, _ = terms(garbage, np.where(WHERE, relevance, 9).astype(np.float32), category * WHERE)
  for name, value in plain.items():
    np.testing.assert_allclose(other[name], value, rtol=1e-5, err_msg=name)


def test_without_second_lists_there_is_nothing_found(decoder):
  rng = np.random.default_rng(4)
  relevance, category, *_ = draw(rng)
  tokens = jnp.asarray(rng.normal(size=(3, OBJECTS, CHANNELS)), jnp.float32)
  terms = ranking_terms(
    decoder,
    tokens,
    ground_truth_lists(WHERE, relevance, category),
    ranking_loss=LISTMLE,
    num_objects=OBJECTS,
    seed=jnp.arange(3, dtype=jnp.uint32),
    scheduled_sampling=None,
  )
  assert set(terms) == {"rank_ground_truth", "recurrent", "rank_category"}
  assert terms["recurrent"][1] == 2


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_model_is_conditioned_on_categories_of_ground_truth_masks_alone(decoder, share):
  rng = np.random.default_rng(5)
  relevance, category, match, confidence = draw(rng)
  tokens = jnp.asarray(rng.normal(size=(6, CANDIDATES, CHANNELS)), jnp.float32)
  graphdef, state = nnx.split(decoder)

  @jax.jit
  def terms(state, category):
    return ranking_terms(
      nnx.merge(graphdef, state),
      tokens,
      add_predicted(ground_truth_lists(WHERE, relevance, category), match, confidence),
      ranking_loss=LISTMLE,
      num_objects=OBJECTS,
      seed=jnp.arange(3, dtype=jnp.uint32),
      scheduled_sampling=None,
      conditioning_rate=share,
    )

  first, second = terms(state, category), terms(state, (category + 1) % 5)
  assert abs(first["rank_ground_truth"][0] - second["rank_ground_truth"][0]) > 1e-3
  np.testing.assert_allclose(first["rank_predicted"], second["rank_predicted"], rtol=1e-6)


def test_the_conditioning_rate_is_the_share_of_objects_with_categories():
  category = np.zeros((200, OBJECTS), np.int32)
  lists = ground_truth_lists(np.ones((200, OBJECTS), bool), np.zeros((200, OBJECTS)), category)
  for share in (0.3, 1.0):
    told = _conditioning(lists, jnp.arange(200, dtype=jnp.uint32), share) >= 0
    assert abs(told.mean() - share) < 0.05
