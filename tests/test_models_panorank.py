"""PanoRank as a whole: turning the panorama turns what it sees; duplicates; the order it gives."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models import PanoRank, build_model, panorank
from foir360_jax.models.cells import cell_masks
from foir360_jax.models.layers import roll_map
from foir360_jax.models.panorank import confident
from foir360_jax.models.places import find_peaks
from foir360_jax.sphere import pixel_areas

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
    order = model.order(model.describe(scene, cell_masks(packed, model.pixel_stride)), where)
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
  maps = (scene.fine, scene.heat, *scene.memories)
  turned_maps = (turned_scene.fine, turned_scene.heat, *turned_scene.memories)
  assert [memory.shape[1] for memory in scene.memories] == [3, 6, 12]  # coarse to fine
  for plain, rolled in zip(maps, turned_maps, strict=True):
    assert plain.std() > 1e-3
    assert_close(rolled, np.roll(plain, TURN * plain.shape[2] // 96, axis=2))
  channels = [index for index in range(scene.pixels.shape[-1]) if index not in (20, 21, 22)]
  pixels = scene.pixels[..., channels]  # all but the directions, which tell where a cell is
  assert scene.pixels.shape[1:3] == (48, 96)  # twice as fine as the fine map
  assert_close(turned_scene.pixels[..., channels], np.roll(pixels, TURN, axis=2))


def test_a_turn_of_the_panorama_turns_the_places_and_the_masks_of_the_queries(seen, turned):
  (scene, places, segmentation, _), (_, turned_places, turned_segmentation, _) = seen[1], turned
  height, width = scene.heat.shape[1:]
  row, column = np.divmod(places, width)
  assert turned_places.tolist() == (row * width + (column + TURN * width // 96) % width).tolist()
  for name in ("mask_logits", "covered"):
    masks = getattr(segmentation, name)
    rolled = np.roll(masks.reshape(2, -1, 48, 96), TURN, axis=-1)
    assert_close(getattr(turned_segmentation, name), rolled.reshape(masks.shape))
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


def confidence_of(mask_logits, object_logits):
  """Of the queries, filled up to four by ones whose masks are empty, so that one program serves."""
  (object_logits,) = object_logits
  found = jax.jit(confident)(
    np.pad(mask_logits, ((0, 0), (0, 4 - len(object_logits)), (0, 0)), constant_values=-4),
    np.pad(np.float32(object_logits), (0, 4 - len(object_logits)))[None],
  )
  return np.asarray(found)[0, : len(object_logits)]


def logits(*boxes):
  """Mask logits [1, Q, P]: 4 inside the box (rows, columns), -4 outside."""
  masks = np.full((len(boxes), 12, 24), -4.0, np.float32)
  for mask, (rows, columns) in zip(masks, boxes, strict=True):
    mask[rows, columns] = 4
  return masks.reshape(1, len(boxes), -1)


def test_of_queries_with_the_same_mask_only_the_most_confident_stays():
  box, beside = (slice(4, 8), slice(2, 8)), (slice(4, 8), slice(12, 18))
  nearly = (slice(4, 8), slice(2, 7))  # IoU 5/6 with the box
  confidence = confidence_of(logits(box, nearly, beside, box), [[0.5, 2.0, -1.0, 1.0]])
  np.testing.assert_allclose(confidence, [0, 1 / (1 + np.exp(-2)), 1 / (1 + np.e), 0], rtol=1e-6)


def test_masks_that_overlap_by_less_than_half_both_stay():
  first, second = (slice(4, 8), slice(2, 8)), (slice(4, 8), slice(5, 11))  # IoU 1/3
  assert (confidence_of(logits(first, second), [[0.5, 2.0]]) > 0).all()


def test_of_equally_confident_duplicates_the_first_stays_and_empty_masks_go():
  box, nothing = (slice(4, 8), slice(2, 8)), (slice(0, 0), slice(0, 0))
  assert (confidence_of(logits(box, box, nothing), [[1.0, 1.0, 3.0]]) > 0).tolist() == [
    True,
    False,
    False,
  ]


def test_what_is_suppressed_suppresses_nothing():
  """A > B > C: B is a duplicate of A, and C of B alone (IoU 3/5 of neighbours, 1/3 of A and C)."""
  boxes = [(slice(4, 8), slice(start, start + 8)) for start in (2, 4, 6)]
  confidence = confidence_of(logits(*boxes), [[3.0, 2.0, 1.0]])
  assert (confidence > 0).tolist() == [True, False, True]


def greedy(masks, confidence):
  """Non-maximum suppression written out: one query after the other, the most confident first."""
  areas = np.asarray(pixel_areas(12), np.float64).reshape(-1)
  kept = []
  for query in sorted(range(len(masks)), key=lambda i: -confidence[i]):
    overlaps = (
      (masks[query] & masks[other]) @ areas / ((masks[query] | masks[other]) @ areas)
      for other in kept
    )
    if masks[query].any() and all(overlap <= 0.5 for overlap in overlaps):
      kept.append(query)
  return kept


def test_suppression_is_greedy_on_random_masks():
  rng = np.random.default_rng()
  suppress = jax.jit(confident)
  stayed = 0
  for _ in range(20):
    examples, queries = 3, 24
    # Many boxes at few places make long chains of neighbours. None overlap by just a half: of seven
    # columns that would take 14 / 3 in common. Ties of confidence occur.
    starts = rng.integers([0, 0], [4, 16], (examples, queries, 2))
    maps = np.full((examples, queries, 12, 24), -1.0, np.float32)
    for found, (row, column) in zip(maps.reshape(-1, 12, 24), starts.reshape(-1, 2), strict=True):
      found[row : row + 4, (column + np.arange(7)) % 24] = 1
    maps[:, rng.integers(queries)] = -1
    sure = rng.integers(-8, 8, (examples, queries)).astype(np.float32) / 4
    maps = maps.reshape(examples, queries, -1)
    confidence = np.asarray(suppress(maps, sure))
    for masks, logit, found in zip(maps > 0, sure, confidence, strict=True):
      expected = greedy(masks, logit)
      assert np.flatnonzero(found).tolist() == sorted(expected)
      np.testing.assert_allclose(found[expected], 1 / (1 + np.exp(-logit[expected])), rtol=1e-6)
      stayed += len(expected)
  assert stayed > 200


def test_masks_finer_than_a_cell_are_objects_too(tiny_model):
  """A mask that lies across four cells outweighs none of them, and is there all the same."""
  pixels = np.full((1, 24, 48, 1), -1.0, np.float32)  # a cell has two of them along each side
  pixels[0, 3:5, 3:5] = 1
  scene = panorank.EncodedScene(None, (), jnp.asarray(pixels), None, None)
  candidates = jax.jit(
    lambda kernels, logits: (
      tiny_model.candidates(scene, kernels, logits),
      jax.nn.sigmoid(logits[0, 0]),
    )
  )
  found, sure = jax.device_get(candidates(np.full((1, 1, 1), 4.0), np.ones((1, 1))))
  shown = (found.mask_logits > 0).reshape(24, 48)
  assert shown.sum() == 4 and found.confidence[0, 0] == sure
  expected = 1 / (1 + np.exp(-4 * pixels.reshape(1, 1, -1)))
  np.testing.assert_allclose(found.covered, expected, rtol=1e-5)


def test_one_pixel_near_a_pole_is_no_empty_mask():
  assert confidence_of(logits((slice(0, 1), slice(3, 4))), [[1.0]])[0] > 0.7


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
    return (
      model.order(tokens, where),
      model.rank_decoder.recurrent(ranking.candidates(), where).order,
      ranking,
    )

  result, picks, ranking = jax.device_get(run(state))
  along = np.take_along_axis(result.importance, picks, axis=1)
  assert (np.diff(along, axis=1) <= 0).all()
  assert (result.importance[~where] == 0).all() and (result.importance[where] > 0).all()
  for example in range(4):  # the same values as the head's scores, dealt out anew
    dealt = np.sort(result.importance[example, where[example]])
    scores = np.sort(ranking.scores[example, where[example]].astype(np.float64))
    np.testing.assert_allclose(dealt, 1 / (1 + np.exp(-scores)), rtol=1e-5)
  np.testing.assert_array_equal(result.head_scores, ranking.scores)


def test_a_pick_that_is_not_preferred_to_stopping_ends_the_list(tiny_model, seen):
  image, scene = seen[0]["image"], seen[1][0]
  model = nnx.clone(tiny_model)
  recurrent = model.rank_decoder.recurrent
  for layer in (recurrent.correct, recurrent.stop.layers[-1]):
    layer.kernel[...] *= 0  # picks by score, against a stop that is always the same
  graphdef, state = nnx.split(model)

  @jax.jit
  def run(state, margin):
    model = nnx.merge(graphdef, state)
    model.encode = lambda image, yaw_augmentation: scene
    order, margins = model.order, []
    model.order = lambda *given, **more: margins.append(order(*given, **more)) or margins[-1]
    importance = model(image, 0.05, margin).importance
    return importance[0], margins[0].stop_margin[0]

  everything, margins = jax.device_get(run(state, -np.inf))
  objects = everything > 0
  ordered = np.sort(margins[objects])
  widest = np.diff(ordered).argmax()  # rounding differs from program to program
  middle = ordered[widest : widest + 2].mean()
  fewer, _ = run(state, middle)
  kept = np.asarray(fewer) > 0
  assert kept.tolist() == (objects & (margins > middle)).tolist()
  assert 0 < kept.sum() < objects.sum()
  np.testing.assert_allclose(fewer[kept], everything[kept], rtol=1e-6)
  assert (
    everything[kept].min() > everything[objects & ~kept].max()
  )  # the end of the list is missing


@pytest.fixture(scope="module")
def encode(make_tiny_config, draw_parameters):
  """A compiled function `(image, yaw_augmentation) -> EncodedScene`; kernels are planar."""
  config = make_tiny_config()
  config.model.blocks, config.model.sphere_from_stride = (0, 0, 0, 0), 32
  graphdef, state = nnx.split(draw_parameters(lambda: build_model(config)))
  run = jax.jit(
    lambda state, image, yaw_augmentation: nnx.merge(graphdef, state).encode(
      image, yaw_augmentation=yaw_augmentation
    ),
    static_argnums=2,
  )
  return lambda image, yaw_augmentation: jax.device_get(run(state, image, yaw_augmentation))


def test_the_mean_of_turned_copies_is_near_the_plain_maps_and_turns_with_the_panorama(
  encode, draw_batch
):
  image = draw_batch(np.random.default_rng(7), [5])["image"]
  plain, mean = (encode(image, yaw_augmentation) for yaw_augmentation in (1, 2))
  for before, after in zip((plain.fine, *plain.memories), (mean.fine, *mean.memories), strict=True):
    assert before.shape == after.shape
    correlation = np.corrcoef(np.ravel(before), np.ravel(after))[0, 1]
    assert 0.7 < correlation < 0.9999
  turned = encode(np.roll(image, TURN, axis=2), 2)
  assert_close(turned.fine, np.roll(mean.fine, TURN // 2, axis=2))


def test_ranking_provided_masks_is_describing_and_ordering_them(tiny_model, seen):
  batch, (scene, *_) = seen
  graphdef, state = nnx.split(tiny_model)

  @jax.jit
  def both(state, scene, image, masks, where):
    model = nnx.merge(graphdef, state)
    model.encode = lambda given, yaw_augmentation: (
      scene if given is image and yaw_augmentation == 1 else None
    )
    return model.rank(image, masks, where), model.order(model.describe(scene, masks), where)

  masks = cell_masks(batch["masks"], tiny_model.pixel_stride)
  for found, expected in zip(
    *both(state, scene, batch["image"], masks, batch["where"]), strict=True
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_map_is_turned_by_parts_of_columns_to_the_east():
  rng = np.random.default_rng(9)
  maps = jnp.asarray(rng.normal(size=(1, 2, 4, 3)), jnp.float32)
  np.testing.assert_array_equal(roll_map(maps, 1), np.roll(maps, 1, axis=2))
  np.testing.assert_array_equal(roll_map(maps, -2.0), np.roll(maps, -2, axis=2))
  quarter = 0.75 * np.asarray(maps) + 0.25 * np.roll(maps, 1, axis=2)
  np.testing.assert_allclose(roll_map(maps, 0.25), quarter, rtol=1e-6)
  expected = 0.25 * np.roll(maps, -2, axis=2) + 0.75 * np.roll(maps, -1, axis=2)
  np.testing.assert_allclose(roll_map(maps, -1.25), expected, rtol=1e-6)


def test_the_maps_of_two_turns_are_those_of_a_roll_and_back_written_out(encode, draw_batch):
  image = draw_batch(np.random.default_rng(10), [4])["image"]
  # Half of the coarsest stride: 8 columns of the picture, 4 of the fine map, half a coarse one.
  plain, rolled = encode(image, 1), encode(np.roll(image, 8, axis=2), 1)
  mean = encode(image, 2)
  assert_close(mean.fine, (plain.fine + np.roll(rolled.fine, -4, axis=2)) / 2)
  coarse = rolled.memories[0]
  back = (coarse + np.roll(coarse, -1, axis=2)) / 2
  assert_close(mean.memories[0], (plain.memories[0] + back) / 2)


def test_the_encoder_is_built_and_fed_as_configured(make_tiny_config):
  config = make_tiny_config()
  config.model.encoder, config.model.mask_stride = "panoswin_tiny", 4
  config.model.drop_path, config.model.remat = 0.3, True
  model = nnx.eval_shape(lambda: build_model(config))
  assert model.encoder.remat and model.query_decoder.remat
  assert max(model.encoder.drop_rates) == pytest.approx(0.3)
  seeds = []

  class Seen(Exception):
    pass

  def encoder(image, *, strides, seed=None):
    seeds.append(seed)
    raise Seen

  stand_in = types.SimpleNamespace(
    encoder=encoder, pixel_decoder=model.pixel_decoder, compute_dtype=jnp.float32
  )
  with pytest.MonkeyPatch.context() as patch, pytest.raises(Seen):
    patch.setattr(panorank, "computing_in", lambda module, dtype: module)
    PanoRank._features(stand_in, jnp.zeros((1, 48, 96, 3)), jnp.array([7], jnp.uint32))
  assert seeds[0].tolist() == [7]
