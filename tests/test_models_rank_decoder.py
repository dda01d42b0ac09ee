"""Descriptors, rank decoder and recurrent module: padding cannot leak, both ways to pick agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models.cells import flat_directions
from foir360_jax.models.descriptors import Appearance, Descriptors
from foir360_jax.models.rank_decoder import Ranking

HEIGHT = 16  # of the fine map; the picture has twice as many rows
CHANNELS = 16


def draw_appearance(rng, batch_size=2):
  return Appearance(
    rng.normal(size=(batch_size, HEIGHT, 2 * HEIGHT, CHANNELS)).astype(np.float32),
    rng.random((batch_size, 2 * HEIGHT, 4 * HEIGHT, 3)).astype(np.float32),
  )


def draw_masks(rng, batch_size=2, num_objects=5):
  """Discs of whole cells."""
  centres = rng.normal(size=(batch_size, num_objects, 3))
  centres /= np.linalg.norm(centres, axis=-1, keepdims=True)
  cosine = np.einsum("bnx,px->bnp", centres, np.asarray(flat_directions(HEIGHT)))
  radius_rad = rng.uniform(0.25, 0.5, (batch_size, num_objects, 1))
  return (cosine > np.cos(radius_rad)).astype(np.float32)


@pytest.fixture(scope="module")
def rank(tiny_model):
  graphdef, state = nnx.split(tiny_model.rank_decoder)

  @jax.jit
  def rank(state, appearance, masks, where):
    decoder = nnx.merge(graphdef, state)
    ranking = decoder(appearance, masks, where)
    return ranking, decoder.recurrent(ranking, where)

  return lambda *arguments: jax.device_get(rank(state, *arguments))


@pytest.fixture(scope="module")
def ranked(rank):
  """Two scenes of five and three objects, and what the decoder makes of them."""
  rng = np.random.default_rng(0)
  appearance, masks = draw_appearance(rng), draw_masks(rng)
  where = np.array([[True] * 5, [True, False, True, True, False]])
  return (appearance, masks, where), rank(appearance, masks, where)


def assert_same_for_objects(result, expected, where):
  np.testing.assert_allclose(result.scores[where], expected.scores[where], atol=1e-5)
  np.testing.assert_allclose(result.tokens[where], expected.tokens[where], atol=1e-4)
  np.testing.assert_allclose(
    result.category_logits[where], expected.category_logits[where], atol=1e-4
  )


def test_garbage_in_the_padding_changes_no_object(rank, ranked):
  (appearance, masks, where), (expected, (order, _)) = ranked
  assert np.ptp(expected.scores[where]) > 1e-2
  garbage = np.where(where[..., None], masks, np.random.default_rng(1).random(masks.shape))
  result, (new_order, _) = rank(appearance, garbage.astype(np.float32), where)
  assert_same_for_objects(result, expected, where)
  assert new_order.tolist() == order.tolist()


def test_more_padding_changes_no_object(rank, ranked):
  (appearance, masks, where), (expected, (order, _)) = ranked
  more = np.ones((2, 4, masks.shape[-1]), np.float32)
  result, (new_order, _) = rank(
    appearance, np.concatenate([masks, more], 1), np.pad(where, ((0, 0), (0, 4)))
  )
  assert_same_for_objects(Ranking(*(x[:, :5] for x in result)), expected, where)
  for example, count in enumerate(where.sum(-1)):
    assert new_order[example, :count].tolist() == order[example, :count].tolist()


def test_permuted_objects_are_ranked_alike(rank, ranked):
  (appearance, masks, where), (expected, (order, _)) = ranked
  permutation = np.random.default_rng(2).permutation(5)
  result, (new_order, _) = rank(appearance, masks[:, permutation], where[:, permutation])
  expected = Ranking(*(x[:, permutation] for x in expected))
  assert_same_for_objects(result, expected, where[:, permutation])
  for example, count in enumerate(where.sum(-1)):
    assert permutation[new_order[example, :count]].tolist() == order[example, :count].tolist()


def test_an_object_is_compared_with_the_others_of_its_own_scene_alone(rank, ranked):
  (appearance, masks, where), (expected, _) = ranked
  fewer = where.copy()
  fewer[0, 4] = False
  result, _ = rank(appearance, masks, fewer)
  assert np.abs(result.scores[0, :4] - expected.scores[0, :4]).max() > 1e-4
  np.testing.assert_allclose(result.scores[1, where[1]], expected.scores[1, where[1]], atol=1e-6)


def test_empty_masks_and_scenes_without_objects_give_finite_values(rank, ranked):
  (appearance, masks, where), _ = ranked
  where = where.copy()
  where[1] = False
  result, (order, logits) = rank(appearance, np.zeros_like(masks), where)
  for value in (*result, logits):
    assert np.isfinite(value).all()
  assert sorted(order[1].tolist()) == list(range(5))


def test_the_picks_are_a_permutation_with_the_padding_last(ranked):
  (_, _, where), (_, (order, _)) = ranked
  for example in range(2):
    assert sorted(order[example].tolist()) == list(range(5))
    picked = where[example, order[example]]
    assert picked.tolist() == sorted(picked.tolist(), reverse=True)


def test_every_pick_is_the_highest_of_those_left(ranked):
  (_, _, where), (_, (order, logits)) = ranked
  for example in range(2):
    left = set(np.flatnonzero(where[example]).tolist())
    for step in range(where[example].sum()):
      best = max(left, key=lambda number: logits[example, step, number])
      assert order[example, step] == best
      left.remove(best)


def random_ranking(rng, where):
  tokens = jnp.asarray(rng.normal(size=(*where.shape, 64)), jnp.float32)
  return Ranking(jnp.asarray(rng.normal(size=where.shape), jnp.float32), None, tokens)


def test_all_steps_at_once_give_the_logits_of_one_after_the_other(tiny_model):
  rng = np.random.default_rng(3)
  where = jnp.array([[True] * 6, [False, True, True, False, True, False], [False] * 6])
  ranking = random_ranking(rng, where)
  graphdef, state = nnx.split(tiny_model.rank_decoder.recurrent)

  @jax.jit
  def both(state):
    recurrent = nnx.merge(graphdef, state)
    order, logits = recurrent(ranking, where)
    return order, logits, recurrent.forced(ranking, where, order)

  order, logits, forced = jax.device_get(both(state))
  in_order = np.take_along_axis(logits, order[:, None], axis=2)
  np.testing.assert_allclose(forced, in_order, rtol=1e-5, atol=1e-5)
  corrections = forced[0, 0] - ranking.scores[0, order[0]]
  assert np.ptp(corrections) > 1e-3, "the module says nothing of its own"


def test_the_formula_of_the_recurrent_module_written_out(tiny_model):
  rng = np.random.default_rng(4)
  where = np.array([[True, True, True, False, True]])
  ranking, order = random_ranking(rng, where), np.array([[2, 0, 4, 1, 3]])
  recurrent = tiny_model.rank_decoder.recurrent
  forced = np.asarray(recurrent.forced(ranking, where, order))[0]
  scores, tokens = ranking.scores[0], ranking.tokens[0]
  for step in range(4):
    picked = order[0, :step]
    mean = tokens[picked].mean(0) if step else np.zeros(64)
    last = tokens[picked[-1]] if step else np.zeros(64)
    query = recurrent.query(jnp.concatenate([mean, last, jnp.array([step / 4])]))
    for place in range(5):
      number = order[0, place]
      if place < step or not where[0, number]:
        assert forced[step, place] < -1e8
      else:
        expected = scores[number] + recurrent.key(tokens[number]) @ query / 8
        np.testing.assert_allclose(forced[step, place], expected, rtol=1e-4, atol=1e-5)


def test_without_corrections_the_recurrent_module_picks_by_score(tiny_model):
  where = jnp.asarray(np.random.default_rng(5).random((3, 6)) < 0.7)
  ranking = random_ranking(np.random.default_rng(6), where)
  recurrent = nnx.clone(tiny_model.rank_decoder.recurrent)
  recurrent.query.layers[-1].kernel[...] *= 0
  recurrent.query.layers[-1].bias[...] *= 0
  order = np.asarray(recurrent(ranking, where)[0])
  for example, count in enumerate(where.sum(-1)):
    scores = np.where(where[example], ranking.scores[example], -np.inf)
    assert order[example, :count].tolist() == np.argsort(-scores)[:count].tolist()


def far_from(masks, height):
  """Pixels of the picture more than two cells away from every mask."""
  near = (masks > 0).any(1).reshape(-1, height, 2 * height)
  for _ in range(2):
    row = np.roll(near[:, [0, -1]], height, axis=2)
    padded = np.concatenate([row[:, :1], near, row[:, 1:]], axis=1)
    padded = padded | np.roll(padded, 1, 2) | np.roll(padded, -1, 2)
    near = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
  return ~np.repeat(np.repeat(near, 2, 1), 2, 2)


@pytest.mark.parametrize("surround", [True, False])
def test_what_lies_outside_the_masks_counts_only_with_surround(draw_parameters, surround):
  describe = draw_parameters(lambda: Descriptors(CHANNELS, 8, surround=surround, rngs=nnx.Rngs(0)))
  rng = np.random.default_rng(7)
  appearance, masks = draw_appearance(rng, 1), draw_masks(rng, 1, 2)
  outside = far_from(masks, HEIGHT)[..., None]
  assert 0.2 < outside.mean() < 0.95
  repainted = Appearance(
    np.where(outside[:, ::2, ::2], appearance.features + 1, appearance.features),
    np.where(outside, 1 - appearance.image, appearance.image),
  )
  run = jax.jit(lambda appearance: describe(appearance, masks))
  change = np.abs(run(appearance) - run(repainted))
  if surround:
    assert change.max(-1).min() > 1e-2
  else:
    assert change.max() == 0


def test_no_gradient_flows_into_the_masks(tiny_model):
  rng = np.random.default_rng(8)
  appearance, masks = draw_appearance(rng, 1), draw_masks(rng, 1, 2)
  describe = tiny_model.rank_decoder.describe
  gradient = jax.jit(jax.grad(lambda masks: describe(appearance, masks).sum()))(masks)
  assert not gradient.any()
