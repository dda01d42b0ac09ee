"""The recurrent ranking module: its formulas, both ways to run it, stopping, no second picks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models.recurrent_ranking import Candidates, RecurrentRanking, stop_margins

CHANNELS, CATEGORIES = 8, 3


@pytest.fixture(scope="module")
def recurrent(draw_parameters):
  module = draw_parameters(lambda: RecurrentRanking(CHANNELS, rngs=nnx.Rngs(0)))
  # Affinities that differ, so that what was picked matters.
  module.query.kernel[...] *= 3
  return module


@pytest.fixture(scope="module")
def run(recurrent):
  """Picks, and the logits of the same picks all at once."""
  graphdef, state = nnx.split(recurrent)

  @jax.jit
  def run(state, candidates, where):
    module = nnx.merge(graphdef, state)
    picks = module(candidates, where)
    num_objects = where.shape[1]
    return picks, module.forced(candidates, where, picks.order, num_objects + 1)

  return lambda *arguments: jax.device_get(run(state, *arguments))


def draw(rng, where):
  where = np.asarray(where)
  kinds = rng.dirichlet(np.full(CATEGORIES, 0.3), where.shape)
  return Candidates(
    jnp.asarray(rng.normal(size=where.shape), jnp.float32),
    jnp.asarray(rng.normal(size=(*where.shape, CHANNELS)), jnp.float32),
    jnp.asarray(kinds, jnp.float32),
    jnp.asarray(rng.exponential(size=where.shape), jnp.float32),
  )


WHERE = np.array([[True] * 6, [False, True, True, False, True, False], [False] * 6])


@pytest.fixture(scope="module")
def picked(run):
  candidates = draw(np.random.default_rng(3), WHERE)
  return candidates, *run(candidates, WHERE)


def in_float64(linear, x):
  return x @ np.asarray(linear.kernel[...], np.float64) + np.asarray(linear.bias[...], np.float64)


def perceptron(mlp, x):
  first, last = mlp.layers
  return in_float64(last, np.maximum(in_float64(first, x), 0))[0]


def written_out(recurrent, candidates, example, left, picked):
  """Logits of those left, and of stopping, by the formulas of the module."""
  scores, tokens, kinds, doubt = (np.asarray(x[example], np.float64) for x in candidates)
  scores = scores - float(recurrent.trust[...]) * doubt
  nothing = np.asarray(recurrent.nothing[...], np.float64)
  progress = np.log(1 + len(picked))
  logits = {}
  for i in left:
    numerator, denominator = nothing, 1.0
    for j in picked:
      product = in_float64(recurrent.query, tokens[i]) @ in_float64(recurrent.key, tokens[j])
      affinity = np.exp(8 * np.tanh(product / (8 * np.sqrt(CHANNELS))))
      numerator = numerator + affinity * in_float64(recurrent.value, tokens[j])
      denominator += affinity
    own = in_float64(recurrent.own, tokens[i])
    hidden = own + numerator / denominator
    hidden = hidden + progress * np.asarray(recurrent.progress[...], np.float64)
    kin = sum(kinds[i] @ kinds[j] for j in picked)
    hidden = np.maximum(hidden + np.log(1 + kin) * np.asarray(recurrent.kin[...], np.float64), 0)
    hidden = hidden - np.maximum(own + nothing, 0)
    logits[i] = scores[i] + (hidden @ np.asarray(recurrent.correct.kernel[...], np.float64))[0]
  mean = tokens[picked].mean(0) if picked else np.zeros(CHANNELS)
  return logits, perceptron(recurrent.stop, np.append(mean, progress))


def test_the_picks_and_their_logits_are_those_of_the_formulas(recurrent, picked):
  candidates, picks, _ = picked
  for example in range(2):
    left, before = set(np.flatnonzero(WHERE[example]).tolist()), []
    for step in range(WHERE[example].sum()):
      logits, stop = written_out(recurrent, candidates, example, left, before)
      for index, value in logits.items():
        assert picks.logits[example, step, index] == pytest.approx(value, rel=1e-4, abs=1e-4)
      assert picks.stop[example, step] == pytest.approx(stop, rel=1e-4, abs=1e-4)
      best = max(left, key=logits.__getitem__)
      assert picks.order[example, step] == best
      left.remove(best)
      before.append(best)
    _, stop = written_out(recurrent, candidates, example, left, before)
    at_once = picked[2][1]  # of stopping after the last object, which training asks for
    assert at_once[example, len(before)] == pytest.approx(stop, rel=1e-4, abs=1e-4)


def test_what_was_picked_changes_the_order_of_the_rest(picked):
  (scores, *_), picks, _ = picked
  corrections = picks.logits[0] - np.asarray(scores[0])
  possible = picks.logits[0] > -1e8
  last = corrections[4][possible[4]] - corrections[0][possible[4]]
  assert np.ptp(last) > 1e-2, "the module says nothing of its own"


def test_all_steps_at_once_give_the_logits_of_one_after_the_other(picked):
  _, picks, (logits, stop) = picked
  for example in range(2):
    steps = WHERE[example].sum()
    np.testing.assert_allclose(
      logits[example, :steps], picks.logits[example, :steps], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(stop[example, :steps], picks.stop[example, :steps], atol=1e-4)


def test_the_picks_are_a_permutation_with_the_padding_last(picked):
  _, picks, _ = picked
  for example in range(3):
    assert sorted(picks.order[example].tolist()) == list(range(6))
    real = WHERE[example, picks.order[example]].tolist()
    assert real == sorted(real, reverse=True)


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_nothing_is_picked_twice_however_large_the_numbers(run, scale):
  rng = np.random.default_rng(7)
  where = rng.random((4, 128)) < 0.8
  drawn = draw(rng, where)
  large = drawn._replace(
    scores=drawn.scores * scale, tokens=drawn.tokens * scale, doubt=drawn.doubt * scale
  )
  picks, (logits, stop) = run(large, where)
  for example in range(4):
    assert sorted(picks.order[example].tolist()) == list(range(128))
    count = where[example].sum()
    assert where[example, picks.order[example, :count]].all()
  assert np.isfinite(logits).all() and np.isfinite(stop).all()


def test_garbage_in_the_padding_changes_no_pick(run, picked):
  (scores, tokens, kinds, doubt), picks, _ = picked
  padding = ~WHERE
  rng = np.random.default_rng(8)
  garbage = Candidates(
    np.where(padding, 50.0, scores).astype(np.float32),
    np.where(padding[..., None], rng.normal(size=tokens.shape) * 9, tokens).astype(np.float32),
    np.where(padding[..., None], 5.0, kinds).astype(np.float32),
    np.where(padding, 7.0, doubt).astype(np.float32),
  )
  again, _ = run(garbage, WHERE)
  for example, count in enumerate(WHERE.sum(-1)):
    assert again.order[example, :count].tolist() == picks.order[example, :count].tolist()
    np.testing.assert_allclose(
      again.logits[example, :count][:, WHERE[example]],
      picks.logits[example, :count][:, WHERE[example]],
      atol=1e-5,
    )
    np.testing.assert_allclose(again.stop[example, :count], picks.stop[example, :count], atol=1e-5)


def test_without_corrections_it_picks_by_score_less_what_is_doubted(recurrent):
  plain = nnx.clone(recurrent)
  plain.correct.kernel[...] *= 0
  where = jnp.asarray(np.random.default_rng(5).random((3, 6)) < 0.7)
  candidates = draw(np.random.default_rng(6), where)
  order = np.asarray(plain(candidates, where).order)
  for example, count in enumerate(where.sum(-1)):
    scores = candidates.scores[example] - recurrent.trust[...] * candidates.doubt[example]
    scores = np.where(where[example], scores, -np.inf)
    assert order[example, :count].tolist() == np.argsort(-scores)[:count].tolist()


def test_gradients_reach_scores_and_tokens_through_what_was_read(recurrent):
  where = jnp.asarray(WHERE[:1])
  candidates = draw(np.random.default_rng(11), WHERE[:1])
  order = jnp.arange(6)[None]

  def wanted(candidates, step):
    logits, _ = recurrent.forced(candidates, where, order, 6)
    return logits[0, step, 5]

  first = jax.grad(wanted)(candidates, 0)
  assert first.scores[0, 5] == 1 and np.abs(first.scores[0, :5]).max() == 0
  assert np.abs(first.tokens).max() < 1e-6  # the first pick goes by score alone
  third = jax.grad(wanted)(candidates, 3)
  assert (np.abs(third.tokens[0]).max(-1) > 0).tolist() == [True, True, True, False, False, True]


def test_picks_of_its_own_kind_count_for_an_object_and_others_do_not(recurrent):
  """All alike but for their kinds: only those of the kind that was picked change."""
  module = nnx.clone(recurrent)
  module.value.kernel[...] *= 0  # nothing is read but the number
  tokens = jnp.ones((1, 6, CHANNELS))
  kinds = jax.nn.one_hot(jnp.array([[0, 1, 0, 1, 2, 0]]), CATEGORIES)
  where, order = jnp.ones((1, 6), bool), jnp.array([[0, 2]])
  nothing = jnp.zeros((1, 6))
  logits, _ = module.forced(Candidates(nothing, tokens, kinds, nothing), where, order, 3)
  _, one, two = np.asarray(logits[0]).round(4)
  assert one[1] == one[3] == one[4] != one[2] == one[5]
  assert two[1] == two[3] == two[4] != two[5] != one[5]


def test_untrained_it_picks_by_score():
  module = RecurrentRanking(CHANNELS, rngs=nnx.Rngs(3))
  candidates = draw(np.random.default_rng(12), np.ones((2, 9), bool))
  candidates = candidates._replace(doubt=jnp.zeros((2, 9)))
  order = module(candidates, jnp.ones((2, 9), bool)).order
  np.testing.assert_array_equal(order, np.argsort(-np.asarray(candidates.scores), axis=-1))


def test_it_obeys_a_given_order_where_it_is_told_to(recurrent):
  rng = np.random.default_rng(9)
  where = jnp.array([[True, True, False, True, True, True]])
  candidates = draw(rng, where)
  given = jnp.asarray(rng.normal(size=where.shape), jnp.float32)
  obey = np.array([[True, False, True, True]])
  picks = jax.device_get(
    recurrent(candidates, where, num_steps=4, given=given, obey=jnp.asarray(obey))
  )
  left = set(np.flatnonzero(where[0]).tolist())
  for step in range(4):
    wish = given[0] if obey[0, step] else picks.logits[0, step]
    assert picks.order[0, step] == max(left, key=lambda index, wish=wish: wish[index])
    left.remove(int(picks.order[0, step]))


@pytest.mark.parametrize("margin", [-0.5, 0.0, 1.2])
def test_margins_leave_the_objects_before_the_first_stop(picked, margin):
  _, picks, _ = picked
  margins = np.asarray(stop_margins(picks))
  for example, count in enumerate(WHERE.sum(-1)):
    kept = []
    for step in range(count):  # as one would stop in a loop
      index = picks.order[example, step]
      if picks.logits[example, step, index] - picks.stop[example, step] <= margin:
        break
      kept.append(index)
    found = np.flatnonzero((margins[example] > margin) & WHERE[example])
    assert sorted(kept) == found.tolist()
  assert 0 < (margins[WHERE] > 1.2).sum() < WHERE.sum(), "this margin must divide them"
