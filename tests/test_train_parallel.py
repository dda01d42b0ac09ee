import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from foir360_jax.train import (
  MODES,
  build_optimizer,
  compile_step,
  create_state,
  make_mesh,
  put_batch,
  put_scalar,
  put_state,
  train_step,
)

BATCH_SIZE, NUM_OBJECTS = 8, 5


class Scorer(nnx.Module):
  def __init__(self):
    rngs = nnx.Rngs(0)
    self.first = nnx.Linear(4, 16, rngs=rngs)
    self.second = nnx.Linear(16, 1, rngs=rngs)

  def __call__(self, x):
    return self.second(nnx.relu(self.first(x)))[..., 0]


def objective(model, batch):
  """Terms with different counts: objects, images with an object, and a constant per image."""
  where = batch["where"]
  noise = batch["seed"] % 1009 / 1009  # quicker to compile than a real generator
  scores = model(batch["x"] + noise[:, None, None])
  squared = jnp.where(where, (scores - batch["y"]) ** 2, 0.0)
  listed = jnp.where(where, scores, -1e9)
  return {
    "objects": (squared.sum(), where.sum()),
    "lists": (jnp.where(where.any(-1), listed.max(-1), 0.0).sum(), where.any(-1).sum()),
    "images": (jnp.square(scores).mean(-1).sum(), len(scores)),
    "reported": (scores.sum(), where.sum()),
  }


WEIGHTS = {"objects": 1.0, "lists": 0.3, "images": 0.2}


def uneven_batch(generator):
  """Two images are full, the others have 0 or 1 object: devices hold very different counts."""
  where = np.zeros((BATCH_SIZE, NUM_OBJECTS), bool)
  where[:2] = True
  where[3, 0] = where[6, 2] = True
  return {
    "x": generator.normal(size=(BATCH_SIZE, NUM_OBJECTS, 4)).astype(np.float32),
    "y": generator.normal(size=(BATCH_SIZE, NUM_OBJECTS)).astype(np.float32),
    "where": where,
    "seed": generator.integers(0, 2**32, BATCH_SIZE, dtype=np.uint32),
  }


def run(mode, optimizer, batches):
  mesh = make_mesh()
  graphdef, initial = create_state(Scorer(), optimizer)
  step = functools.partial(train_step, graphdef, optimizer, objective, WEIGHTS, 0.9)
  compiled = compile_step(step, mode, mesh)
  state = put_state(initial, mode, mesh)
  with jax.transfer_guard("disallow"):
    for batch in batches:
      given = state
      state, metrics = compiled(given, put_batch(batch, mode, mesh), put_scalar(0.2, mode, mesh))
      assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.params)), "not donated"
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(initial)), "the caller's state went"
  return jax.device_get((state, metrics))


def largest_difference(first, second):
  difference = jax.tree.map(lambda a, b: np.abs(np.float64(a) - np.float64(b)).max(), first, second)
  return max(jax.tree.leaves(difference))


def uneven_batches():
  generator = np.random.default_rng(0)
  return [uneven_batch(generator) for _ in range(3)]


@pytest.fixture(scope="module")
def one_device():
  return run("jit", optax.sgd(0.05), uneven_batches())


@pytest.mark.parametrize("mode", ["jit_sharded", "shard_map", "pmap"])
def test_every_mode_on_four_devices_agrees_with_one_device_on_uneven_batches(mode, one_device):
  state, metrics = run(mode, optax.sgd(0.05), uneven_batches())
  assert largest_difference(state, one_device[0]) < 1e-6
  assert largest_difference(metrics, one_device[1]) < 1e-5  # sums, not means


def test_the_order_of_the_examples_on_the_devices_does_not_matter(one_device):
  order = np.random.default_rng(2).permutation(BATCH_SIZE)
  batches = [{key: value[order] for key, value in batch.items()} for batch in uneven_batches()]
  state, _ = run("shard_map", optax.sgd(0.05), batches)
  assert largest_difference(state, one_device[0]) < 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_the_optimizer_keeps_a_replicated_state_in_every_mode(mode):
  optimizer = build_optimizer(1e-3, warmup_steps=2, weight_decay=0.1, b2=0.99, clip_norm=1.0)
  graphdef, state = create_state(Scorer(), optimizer)
  step = functools.partial(train_step, graphdef, optimizer, objective, WEIGHTS, 0.9)
  mesh = make_mesh()
  arguments = (
    put_state(state, mode, mesh),
    put_batch(uneven_batch(np.random.default_rng(3)), mode, mesh),
    put_scalar(0.0, mode, mesh),
  )
  new, _ = compile_step(step, mode, mesh).lower(*arguments).out_info  # shard_map checks it here
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)


def test_state_stays_replicated_and_batches_are_split():
  mesh = make_mesh()
  _, state = create_state(Scorer(), optax.sgd(0.1))
  for mode in ("jit_sharded", "shard_map", "pmap"):
    leaf = jax.tree.leaves(put_state(state, mode, mesh).params)[0]
    assert leaf.sharding.is_fully_replicated and len(leaf.sharding.device_set) == 4
    batch = put_batch(uneven_batch(np.random.default_rng(4)), mode, mesh)
    shard = batch["x"].addressable_shards[0].data
    assert shard.size * 4 == batch["x"].size


def test_a_batch_that_cannot_be_split_is_refused_with_the_cure():
  batch = {"x": np.zeros((6, 2), np.float32)}
  with pytest.raises(ValueError, match="batch of 6 .* 4 devices: .*config.data.batch_size"):
    put_batch(batch, "shard_map", make_mesh())
  assert put_batch(batch, "jit", make_mesh())["x"].shape == (6, 2)


def test_an_unknown_mode_is_refused():
  with pytest.raises(ValueError, match="jit, jit_sharded, shard_map, pmap, not 'pjit'"):
    compile_step(train_step, "pjit", make_mesh())
