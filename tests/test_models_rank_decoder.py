"""Descriptors and rank decoder: padding cannot leak, objects are compared within their scene."""

import jax
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models import parameter_keys
from foir360_jax.models.cells import flat_directions, pool_cells
from foir360_jax.models.descriptors import (
  Appearance,
  Descriptors,
  _colour_moments,
  _pool,
)
from foir360_jax.models.rank_decoder import Ranking
from foir360_jax.sphere import pixel_areas

HEIGHT = 16  # of the fine map; the picture has twice as many rows
CHANNELS = 16


def draw_appearance(rng, batch_size=2):
  return Appearance(
    rng.normal(size=(batch_size, HEIGHT, 2 * HEIGHT, CHANNELS)).astype(np.float32),
    rng.random((batch_size, 2 * HEIGHT, 4 * HEIGHT, 3)).astype(np.float32),
  )


def draw_masks(rng, batch_size=2, num_objects=5, height=HEIGHT):
  """Discs of whole cells of a map of this height."""
  centres = rng.normal(size=(batch_size, num_objects, 3))
  centres /= np.linalg.norm(centres, axis=-1, keepdims=True)
  cosine = np.einsum("bnx,px->bnp", centres, np.asarray(flat_directions(height)))
  radius_rad = rng.uniform(0.25, 0.5, (batch_size, num_objects, 1))
  return (cosine > np.cos(radius_rad)).astype(np.float32)


@pytest.fixture(scope="module")
def rank(tiny_model):
  graphdef, state = nnx.split(tiny_model.rank_decoder)

  @jax.jit
  def rank(state, appearance, masks, where):
    decoder = nnx.merge(graphdef, state)
    ranking = decoder(appearance, masks, where)
    return ranking, decoder.recurrent(ranking.candidates(), where).order

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
  (appearance, masks, where), (expected, order) = ranked
  assert np.ptp(expected.scores[where]) > 1e-2
  garbage = np.where(where[..., None], masks, np.random.default_rng(1).random(masks.shape))
  result, new_order = rank(appearance, garbage.astype(np.float32), where)
  assert_same_for_objects(result, expected, where)
  assert new_order.tolist() == order.tolist()


def test_more_padding_changes_no_object(rank, ranked):
  (appearance, masks, where), (expected, order) = ranked
  more = np.ones((2, 4, masks.shape[-1]), np.float32)
  result, new_order = rank(
    appearance, np.concatenate([masks, more], 1), np.pad(where, ((0, 0), (0, 4)))
  )
  assert_same_for_objects(Ranking(*(x[:, :5] for x in result)), expected, where)
  for example, count in enumerate(where.sum(-1)):
    assert new_order[example, :count].tolist() == order[example, :count].tolist()


def test_permuted_objects_are_ranked_alike(rank, ranked):
  (appearance, masks, where), (expected, order) = ranked
  permutation = np.random.default_rng(2).permutation(5)
  result, new_order = rank(appearance, masks[:, permutation], where[:, permutation])
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
  result, order = rank(appearance, np.zeros_like(masks), where)
  for value in result:
    assert np.isfinite(value).all()
  assert sorted(order[1].tolist()) == list(range(5))


def far_from(masks, height):
  """Pixels of the picture more than two cells away from every mask."""
  near = (masks > 0).any(1).reshape(-1, height, 2 * height)
  for _ in range(2):
    row = np.roll(near[:, [0, -1]], height, axis=2)
    padded = np.concatenate([row[:, :1], near, row[:, 1:]], axis=1)
    padded = padded | np.roll(padded, 1, 2) | np.roll(padded, -1, 2)
    near = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
  return ~np.repeat(np.repeat(near, 2, 1), 2, 2)


@pytest.mark.parametrize("context", [True, False])
def test_what_lies_outside_the_masks_counts_only_with_context(draw_parameters, context):
  describe = draw_parameters(
    lambda: Descriptors(CHANNELS, 8, context=context, rngs=parameter_keys(0))
  )
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
  if context:
    assert change.max(-1).min() > 1e-2
  else:
    assert change.max() == 0


def test_colours_are_pooled_over_the_pixels_of_a_mask():
  rng = np.random.default_rng(10)
  image = draw_appearance(rng, 1).image
  masks = draw_masks(rng, 1, 3, height=2 * HEIGHT)
  masks[0, 1, : 5 * HEIGHT], masks[0, 2, -5 * HEIGHT :] = 1, 1  # over either pole, too
  pool = jax.jit(lambda masks, image: _pool(masks, _colour_moments(image, 2 * HEIGHT)))
  pooled = np.asarray(pool(masks, image))
  colours = 4 * (image[0].astype(np.float64) - 0.5)
  areas = pixel_areas(2 * HEIGHT)
  for mask, (*_, differences, mean, square) in zip(
    masks[0].reshape(3, 2 * HEIGHT, 4 * HEIGHT), pooled[0].reshape(3, 3, 3), strict=True
  ):
    total, moments = 0.0, np.zeros((3, 3))
    for row, column in np.argwhere(mask):
      here = colours[row, column]
      beside = [(row, column - 1), (row, (column + 1) % (4 * HEIGHT))]
      for other in (row - 1, row + 1):
        inside = 0 <= other < 2 * HEIGHT  # beyond a pole lies the same row, half a turn on
        beside.append((other, column) if inside else (row, (column + 2 * HEIGHT) % (4 * HEIGHT)))
      differences_here = sum(np.abs(colours[place] - here) for place in beside)
      moments += areas[row, column] * np.stack([differences_here, here, here**2])
      total += areas[row, column]
    np.testing.assert_allclose([differences, mean, square], moments / total, rtol=1e-3, atol=1e-3)


def test_mirrored_and_upturned_panoramas_have_the_same_differences():
  """So an object is as busy at its western and northern edges as at the others."""
  rng = np.random.default_rng()
  image = rng.random((1, 8, 16, 3), np.float32)
  differences = np.asarray(_colour_moments(image, 8))[..., :3]
  for axis in (1, 2):
    flipped = np.asarray(_colour_moments(np.flip(image, axis), 8))[..., :3]
    np.testing.assert_allclose(np.flip(flipped, axis), differences, atol=1e-5)


def test_a_pixel_at_a_pole_is_pooled_as_any_other():
  """Small as it is on the sphere, a mean over it is what it holds."""
  rng = np.random.default_rng()
  maps = rng.random((1, 128, 256, 3), np.float32)
  masks = np.zeros((1, 2, 128 * 256), np.float32)
  masks[0, 0, 77] = 1 / 16
  pooled = np.asarray(jax.jit(_pool)(masks, maps))
  np.testing.assert_allclose(pooled[0, 0], maps[0, 0, 77], rtol=1e-5)
  assert not pooled[0, 1].any()  # an empty one


def test_masks_of_the_same_cells_but_other_pixels_are_other_objects(draw_parameters):
  describe = draw_parameters(lambda: Descriptors(CHANNELS, 8, context=True, rngs=parameter_keys(0)))
  rng = np.random.default_rng(11)
  appearance = draw_appearance(rng, 1)
  cells = draw_masks(rng, 1, 4).reshape(1, 4, HEIGHT, 2 * HEIGHT)
  pixels = cells.repeat(2, axis=2).repeat(2, axis=3)
  western, eastern = (
    (pixels * (np.arange(4 * HEIGHT) % 2 == side)).astype(np.float32).reshape(1, 4, -1)
    for side in (0, 1)
  )
  pool = jax.jit(lambda masks: pool_cells(masks, 2))
  np.testing.assert_array_equal(pool(western), pool(eastern))
  run = jax.jit(lambda masks: describe(appearance, masks))
  assert np.abs(run(western) - run(eastern)).max(-1).min() > 1e-2


def test_no_gradient_flows_into_the_masks(tiny_model):
  rng = np.random.default_rng(8)
  appearance, masks = draw_appearance(rng, 1), draw_masks(rng, 1, 2)
  describe = tiny_model.rank_decoder.describe
  gradient = jax.jit(jax.grad(lambda masks: describe(appearance, masks).sum()))(masks)
  assert not gradient.any()


def test_categories_that_are_given_take_the_place_of_predicted_ones(tiny_model):
  rng = np.random.default_rng(9)
  where = np.array([[True] * 5])
  tokens = rng.normal(size=(1, 5, 64)).astype(np.float32)
  graphdef, state = nnx.split(tiny_model.rank_decoder)

  @jax.jit
  def compare(state, *category):
    return nnx.merge(graphdef, state).compare(tokens, where, *category).scores

  seen = compare(state)
  np.testing.assert_allclose(compare(state, np.full((1, 5), -1)), seen, atol=1e-5)
  told = compare(state, np.array([[3, 3, 3, 5, 7]]))
  other = compare(state, np.array([[3, 4, 3, 5, 7]]))
  assert np.abs(told - seen).max() > 1e-3 and np.abs(told - other)[0, 1] > 1e-4
  one = compare(state, np.array([[3, -1, -1, -1, -1]]))  # the others as they look
  assert np.abs(one - seen)[0, 0] > 1e-4


@pytest.mark.parametrize("height", [HEIGHT // 2, 3 * HEIGHT // 2, 4 * HEIGHT])
def test_masks_whose_pixels_fit_neither_cells_nor_picture_are_refused(draw_parameters, height):
  describe = draw_parameters(lambda: Descriptors(CHANNELS, 8, context=True, rngs=parameter_keys(0)))
  rng = np.random.default_rng(12)
  with pytest.raises(ValueError, match=f"masks have {height} rows: with a picture of {2 * HEIGHT}"):
    describe(draw_appearance(rng, 1), draw_masks(rng, 1, 2, height=height))
