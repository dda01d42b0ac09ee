"""The objective of PanoRank, by one compiled training step: sums over examples without padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from foir360_jax.config import base_config
from foir360_jax.models.places import find_peaks
from foir360_jax.objective import build_objective
from foir360_jax.train import (
  compile_step,
  create_state,
  make_mesh,
  put_batch,
  put_scalar,
  put_state,
  train_step,
)

COUNTS = (6, 3, 1, 4)
OBJECTIVE, WEIGHTS = build_objective(base_config())
RATE = 0.05
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(RATE))


def objective(model, batch):
  """The terms; and once more, for the loss, those whose weight the batch does not switch off.

  So one program has the gradients of all terms and of some.
  """
  terms = OBJECTIVE(model, batch)
  switches = dict(zip(WEIGHTS, batch["switches"][0], strict=True))
  return terms | {
    f"of_{name}": (terms[name][0] * switches[name], terms[name][1]) for name in WEIGHTS
  }


@pytest.fixture(scope="module")
def start(planar_model):
  """The static part of the model, and its state before the first step."""
  return create_state(planar_model, OPTIMIZER)


@pytest.fixture(scope="module")
def step_in(start):
  """A function `(mode, state, batch) -> (state, metrics)` on the host; state None starts anew."""
  mesh = make_mesh()
  weights = {f"of_{name}": weight for name, weight in WEIGHTS.items()}
  step = functools.partial(train_step, start[0], OPTIMIZER, objective, weights, 0.9)
  compiled = functools.cache(lambda mode: compile_step(step, mode, mesh))

  def run(mode, state, batch, progress=0.0, by=tuple(WEIGHTS)):
    keys = ("image", "masks", "where", "relevance", "category", "seed")
    batch = {key: batch[key] for key in keys}
    batch["switches"] = np.float32([[name in by for name in WEIGHTS]] * len(batch["seed"]))
    batch = put_batch(batch, mode, mesh)
    state = put_state(start[1] if state is None else state, mode, mesh)
    state, metrics = jax.device_get(compiled(mode)(state, batch, put_scalar(progress, mode, mesh)))
    terms = {name: term for name, term in metrics["terms"].items() if name not in weights}
    return state, metrics | {"terms": terms}

  return run


@pytest.fixture(scope="module")
def terms_of(step_in):
  return lambda batch: step_in("jit", None, batch)[1]["terms"]


@pytest.fixture(scope="module")
def batch(draw_batch):
  return draw_batch(np.random.default_rng(0), COUNTS)


@pytest.fixture(scope="module")
def terms(terms_of, batch):
  return terms_of(batch)


def assert_same(actual, expected, rtol=2e-5):
  assert actual.keys() == expected.keys()
  for name in expected:
    np.testing.assert_allclose(actual[name], expected[name], rtol=rtol, atol=1e-4, err_msg=name)


def add(first, second):
  return jax.tree.map(lambda a, b: a + b, first, second)


def test_every_weight_names_a_term_and_every_term_counts_something(terms):
  assert set(WEIGHTS) < set(terms)
  for name, (total, count) in terms.items():
    assert np.isfinite(total) and total >= 0, name
    assert count > 0 or name == "rank_predicted", name  # it need not have found anything yet
  num_objects = sum(COUNTS)
  assert terms["heat"][1] == terms["recall"][1] == num_objects
  assert terms["object"][1] == num_objects
  assert terms["mask_dice"][1] == terms["category"][1] == 2 * num_objects
  assert terms["rank_ground_truth"][1] == len(COUNTS) and terms["recurrent"][1] == 2 * len(COUNTS)


def test_garbage_in_the_padding_changes_no_term(terms_of, batch, terms):
  rng = np.random.default_rng(1)
  padding = ~batch["where"]
  garbage = {key: value.copy() for key, value in batch.items()}
  garbage["masks"][padding] = rng.integers(0, 256, batch["masks"].shape[2:])
  garbage["relevance"][padding] = 9.0
  garbage["category"][padding] = 3
  assert_same(terms_of(garbage), terms)


def test_more_padding_changes_no_term(planar_model, batch, terms):
  graphdef, state = nnx.split(planar_model)
  more = {"masks": 255, "where": False, "relevance": 1.0, "category": 2}
  padded = batch | {
    key: np.pad(
      batch[key], [(0, 0), (0, 2)] + [(0, 0)] * (batch[key].ndim - 2), constant_values=value
    )
    for key, value in more.items()
  }
  padded |= {"progress": np.float32(0)}
  result = jax.jit(lambda state: OBJECTIVE(nnx.merge(graphdef, state), padded))(state)
  assert_same(jax.device_get(result), terms)


def test_an_object_without_a_pixel_counts_as_padding(terms_of, batch):
  unmasked = batch | {"masks": batch["masks"].copy()}
  unmasked["masks"][0, 2] = 0
  absent = batch | {"where": batch["where"].copy()}
  absent["where"][0, 2] = False
  assert_same(terms_of(unmasked), terms_of(absent))


def test_terms_of_a_batch_are_the_sums_over_its_examples(terms_of, batch, terms, draw_batch):
  other = draw_batch(np.random.default_rng(2), (2, 5, 0, 6))

  def mix(first, second):
    return {key: np.concatenate([first[key][:2], second[key][2:]]) for key in first}

  assert_same(
    add(terms_of(mix(batch, other)), terms_of(mix(other, batch))), add(terms, terms_of(other))
  )
  assert_same(terms_of({key: value[::-1] for key, value in batch.items()}), terms)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (0, 1, 0, 0)])
def test_gradients_are_finite_with_no_object_or_a_single_one(step_in, draw_batch, counts):
  batch = draw_batch(np.random.default_rng(3), counts)
  state, metrics = step_in("jit", None, batch)
  for name in ("loss", "gradient_norm", "parameter_norm"):
    assert np.isfinite(metrics[name]), name
  assert metrics["gradient_norm"] > 0  # of the heat map at least
  for name, (total, count) in metrics["terms"].items():
    assert np.isfinite(total), name
    always = ("heat", "foreground", "object", "recurrent")  # the last one: to stop at once
    assert sum(counts) or name in always or total == count == 0, name
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_categories_that_are_not_known_cost_nothing(terms_of, batch):
  result = terms_of(batch | {"category": np.full_like(batch["category"], -1)})
  assert result["category"] == (0, 0) and result["rank_category"] == (0, 0)


def test_a_few_steps_on_one_batch_lower_the_loss(step_in, batch):
  state, losses = None, []
  for _ in range(25):
    state, metrics = step_in("jit", state, batch)
    losses.append(float(metrics["loss"]))
  assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("mode", ["pmap", pytest.param("jit_sharded", marks=pytest.mark.slow)])
def test_four_devices_make_the_same_step_as_one(step_in, batch, mode):
  """With one example a device, and late in the run, when the order goes on from own picks.

  A device runs the same step by shard_map as by pmap; test_train_parallel compares all modes, with
  an objective that is soon compiled.
  """
  expected, expected_metrics = step_in("jit", None, batch, 0.9)
  state, metrics = step_in(mode, None, batch, 0.9)
  assert_same(metrics["terms"], expected_metrics["terms"])
  np.testing.assert_allclose(metrics["gradient_norm"], expected_metrics["gradient_norm"], rtol=1e-4)
  # Clipped SGD moves the parameters by 0.05 at most: 1e-6 is 2e-5 of that.
  difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, expected.params)
  assert max(jax.tree.leaves(difference)) < 1e-6


def at_queries(values, queries):
  """`values [B, Q, C]` or, of every prediction, `[L, B, Q, ...]` at some queries."""
  return values[:, queries] if values.shape[0] == len(COUNTS) else values[:, :, queries]


def test_ground_truth_and_predicted_queries_cannot_influence_each_other(planar_model):
  """In a scene of drawn maps: whatever the encoder makes of a picture, it is the same for both."""
  graphdef, state = nnx.split(planar_model)
  rng = np.random.default_rng(4)
  fine, *memories = (
    rng.normal(size=(4, height, 2 * height, 16)).astype(np.float32) for height in (24, 3, 6, 12)
  )
  image = rng.integers(0, 256, (4, 48, 96, 3), np.uint8)
  group = jnp.array([0] * 3 + [1] * 8)

  @jax.jit
  def decode(state, taught, taught_where, shift):
    model = nnx.merge(graphdef, state)
    model._features = lambda image, seed: (fine, tuple(memories))
    scene = model.encode(image)
    found = find_peaks(scene.heat, 8)[0] + shift
    where = jnp.concatenate([taught_where, jnp.ones(found.shape, bool)], axis=1)
    return model.decode(scene, jnp.concatenate([taught, found], axis=1), where, group)

  taught, others = rng.integers(0, 24 * 48, (2, 4, 3))
  everyone, nobody = np.ones((4, 3), bool), np.zeros((4, 3), bool)
  plain = decode(state, taught, everyone, 0)
  for changed in (decode(state, others, everyone, 0), decode(state, taught, nobody, 0)):
    for before, after in zip(plain, changed, strict=True):
      found, of_found = at_queries(before, slice(3, None)), at_queries(after, slice(3, None))
      np.testing.assert_allclose(of_found, found, rtol=1e-5, atol=1e-4)
      assert np.abs(at_queries(after, slice(3)) - at_queries(before, slice(3))).max() > 1e-4
  shifted = decode(state, taught, everyone, 1)
  for before, after in zip(plain, shifted, strict=True):
    found, of_found = at_queries(before, slice(3)), at_queries(after, slice(3))
    np.testing.assert_allclose(of_found, found, rtol=1e-5, atol=1e-4)
    rest = slice(3, None)
    assert np.abs(at_queries(after, rest) - at_queries(before, rest)).max() > 1e-4


def test_with_weights_on_the_order_of_true_masks_alone_nothing_is_looked_for(
  planar_model, batch, terms
):
  config = base_config()
  for term in ("heat", "foreground", "object", "mask_dice", "mask_entropy", "category"):
    config.loss[term] = 0.0
  config.loss.rank_predicted = 0.0
  objective, _ = build_objective(config)
  graphdef, state = nnx.split(planar_model)
  inputs = batch | {"progress": np.float32(0)}
  of_order = jax.jit(lambda state: objective(nnx.merge(graphdef, state), inputs))(state)
  assert set(of_order) == {"rank_ground_truth", "recurrent", "rank_category"}
  np.testing.assert_allclose(of_order["rank_ground_truth"], terms["rank_ground_truth"], rtol=1e-5)
  assert of_order["recurrent"][1] == len(COUNTS)


def test_the_order_teaches_the_scene_and_the_rank_decoder_but_not_the_queries(
  start, step_in, batch
):
  """Which masks are found must not be bent by what is convenient to rank."""
  of_order = ("rank_ground_truth", "rank_predicted", "recurrent", "rank_category")
  state, metrics = step_in("jit", None, batch, 0.5, by=of_order)
  # The optimizer is SGD of clipped gradients.
  scale = max(1.0, metrics["gradient_norm"]) / RATE
  largest = {
    name: max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(part)) * scale
    for name, part in jax.tree.map(np.subtract, state.params, start[1].params).items()
  }
  assert {name for name, size in largest.items() if size == 0} == {"query_decoder", "objectness"}
  assert min(largest[name] for name in ("encoder", "pixel_decoder", "rank_decoder")) > 1e-4


@pytest.mark.slow
def test_points_give_nearly_the_terms_of_all_cells(planar_model, batch, terms):
  config = base_config()
  assert config.loss.points == 0  # so `terms` are of all cells
  config.loss.points = 6000
  objective, _ = build_objective(config)
  graphdef, state = nnx.split(planar_model)
  inputs = batch | {"progress": np.float32(0)}
  at_points = jax.jit(lambda state: objective(nnx.merge(graphdef, state), inputs))(state)
  for name in ("mask_dice", "mask_entropy"):
    assert at_points[name][1] == terms[name][1]
    np.testing.assert_allclose(at_points[name][0], terms[name][0], rtol=0.05)
    assert at_points[name][0] != terms[name][0]
