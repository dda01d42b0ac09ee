"""PanoRank as a whole: turning the panorama turns what it sees; duplicates; the order it gives."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models import PanoRank
from foir360_jax.models.cells import cell_masks
from foir360_jax.models.places import find_peaks
from foir360_jax.models.query_decoder import Queries

TURN = 16  # columns: one cell of the coarsest map


@pytest.fixture(scope="module")
def look(tiny_model):
  """What the model sees in a panorama and how it ranks given masks, compiled."""
  graphdef, state = nnx.split(tiny_model)

  @jax.jit
  def look(state, image, packed, where):
    model = nnx.merge(graphdef, state)
    scene = model.encode(image)
    places, _ = find_peaks(scene.heat, model.num_queries)
    segmentation = model.segment(scene)
    order = model.order(model.describe(scene, cell_masks(packed, model.mask_stride)), where)
    return scene, places, segmentation, order

  return lambda batch: jax.device_get(look(state, batch["image"], batch["masks"], batch["where"]))


@pytest.fixture(scope="module")
def seen(look, draw_batch):
  batch = draw_batch(np.random.default_rng(0), [6, 4])
  return batch, look(batch)


@pytest.fixture(scope="module")
def turned(look, seen):
  batch = seen[0]
  rolled = {
    "image": np.roll(batch["image"], TURN, axis=2),
    "masks": np.roll(batch["masks"], TURN // 8, axis=-1),
  }
  return look(batch | rolled)


def assert_close(actual, expected):
  np.testing.assert_allclose(actual, expected, atol=2e-5 * max(1, np.abs(expected).max()))


def test_a_turn_of_the_panorama_turns_every_map(seen, turned):
  scene, turned_scene = seen[1][0], turned[0]
  for name in ("fine", "memory", "heat"):
    plain, rolled = getattr(scene, name), getattr(turned_scene, name)
    assert plain.std() > 1e-3
    assert_close(rolled, np.roll(plain, TURN * plain.shape[2] // 96, axis=2))
  height, width = scene.heat.shape[1:]
  pixels = scene.pixels.reshape(2, height, width, -1)
  rolled = np.roll(pixels, TURN * width // 96, axis=2)
  assert_close(turned_scene.pixels, rolled.reshape(turned_scene.pixels.shape))


def test_a_turn_of_the_panorama_turns_the_places_and_the_masks_of_the_queries(seen, turned):
  (scene, places, segmentation, _), (_, turned_places, turned_segmentation, _) = seen[1], turned
  height, width = scene.heat.shape[1:]
  row, column = np.divmod(places, width)
  assert turned_places.tolist() == (row * width + (column + TURN * width // 96) % width).tolist()
  masks = segmentation.mask_logits.reshape(2, -1, height, width)
  rolled = np.roll(masks, TURN * width // 96, axis=-1)
  assert_close(turned_segmentation.mask_logits, rolled.reshape(segmentation.mask_logits.shape))
  assert_close(turned_segmentation.confidence, segmentation.confidence)
  assert (segmentation.confidence > 0).any()


def test_a_turn_of_the_panorama_leaves_the_order_of_the_objects(seen, turned):
  order, turned_order = seen[1][3], turned[3]
  where = seen[0]["where"]
  assert np.ptp(order.head_scores[where]) > 1e-3
  assert_close(turned_order.head_scores[where], order.head_scores[where])
  assert_close(turned_order.importance, order.importance)
  assert_close(turned_order.category_logits[where], order.category_logits[where])


def test_examples_of_a_batch_do_not_see_each_other(look, seen):
  batch, (_, _, segmentation, order) = seen
  swapped = look({key: value[::-1] for key, value in batch.items()})
  assert_close(swapped[2].mask_logits[::-1], segmentation.mask_logits)
  assert_close(swapped[3].importance[::-1], order.importance)


def segment(mask_logits, object_logits):
  """`PanoRank.segment` on queries that are given."""
  queries = Queries(None, jnp.asarray(mask_logits), jnp.asarray(object_logits), None)
  model = types.SimpleNamespace(num_queries=len(object_logits[0]), decode=lambda *_: queries)
  scene = types.SimpleNamespace(heat=jnp.zeros((1, 12, 24)))
  return np.asarray(PanoRank.segment(model, scene).confidence[0])


def logits(*boxes):
  """Mask logits [1, Q, P]: 4 inside the box (rows, columns), -4 outside."""
  masks = np.full((len(boxes), 12, 24), -4.0, np.float32)
  for mask, (rows, columns) in zip(masks, boxes, strict=True):
    mask[rows, columns] = 4
  return masks.reshape(1, len(boxes), -1)


def test_of_queries_with_the_same_mask_only_the_most_confident_stays():
  box, beside = (slice(4, 8), slice(2, 8)), (slice(4, 8), slice(12, 18))
  nearly = (slice(4, 8), slice(2, 7))  # IoU 5/6 with the box
  confidence = segment(logits(box, nearly, beside, box), [[0.5, 2.0, -1.0, 1.0]])
  np.testing.assert_allclose(confidence, [0, 1 / (1 + np.exp(-2)), 1 / (1 + np.e), 0], rtol=1e-6)


def test_masks_that_overlap_by_less_than_half_both_stay():
  first, second = (slice(4, 8), slice(2, 8)), (slice(4, 8), slice(5, 11))  # IoU 1/3
  assert (segment(logits(first, second), [[0.5, 2.0]]) > 0).all()


def test_of_equally_confident_duplicates_the_first_stays_and_empty_masks_go():
  box, nothing = (slice(4, 8), slice(2, 8)), (slice(0, 0), slice(0, 0))
  assert (segment(logits(box, box, nothing), [[1.0, 1.0, 3.0]]) > 0).tolist() == [
    True,
    False,
    False,
  ]


def test_importance_falls_along_the_picks_and_is_zero_in_the_padding(tiny_model):
  rng = np.random.default_rng(5)
  tokens = rng.normal(size=(4, 7, 64)).astype(np.float32) * 3
  where = rng.random((4, 7)) < 0.6
  where[0], where[1] = True, False
  graphdef, state = nnx.split(tiny_model)

  @jax.jit
  def run(state):
    model = nnx.merge(graphdef, state)
    ranking = model.rank_decoder.compare(tokens, where)
    return model.order(tokens, where), model.rank_decoder.recurrent(ranking, where)[0], ranking

  result, picks, ranking = jax.device_get(run(state))
  along = np.take_along_axis(result.importance, picks, axis=1)
  assert (np.diff(along, axis=1) <= 0).all()
  assert (result.importance[~where] == 0).all() and (result.importance[where] > 0).all()
  for example in range(4):  # the same values as the head's scores, dealt out anew
    dealt = np.sort(result.importance[example, where[example]])
    scores = np.sort(ranking.scores[example, where[example]].astype(np.float64))
    np.testing.assert_allclose(dealt, 1 / (1 + np.exp(-scores)), rtol=1e-5)
  np.testing.assert_array_equal(result.head_scores, ranking.scores)
