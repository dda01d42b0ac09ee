import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from foir360_jax.train import create_state, make_mesh, put_state
from foir360_jax.train.checkpoint import Checkpoints, restore_model, start_from


class Model(nnx.Module):
  def __init__(self, width=4, seed=0):
    rngs = nnx.Rngs(seed)
    self.linear = nnx.Linear(3, width, rngs=rngs)
    self.norm = nnx.BatchNorm(width, use_running_average=True, rngs=rngs)
    self.dropout = nnx.Dropout(0.0, rngs=rngs)  # typed random keys must survive, too

  def __call__(self, x):
    return self.norm(self.linear(x))


OPTIMIZER = optax.adam(1e-3)
PROGRESS = {"elapsed_s": 1.5}


def make_state(step=0, **kwargs):
  graphdef, state = create_state(Model(**kwargs), OPTIMIZER)
  state.model_state["norm"]["mean"][...] = jnp.arange(state.params["linear"]["bias"].size) + 1.0
  average = jax.tree.map(lambda param: param + 1, state.params)
  return graphdef, state.replace(step=jnp.int32(step), ema_params=average)


def assert_equal(first, second):
  def check(a, b):
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)

  jax.tree.map(check, first, second)


def test_a_checkpoint_gives_back_state_and_progress_and_keeps_the_newest(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.latest_step is None
    for step in (1, 5, 9):
      checkpoints.save(step, make_state(step)[1], PROGRESS | {"data": {"next_index": step}})
  assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "9"]

  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.latest_step == 9
    state, progress = checkpoints.restore(make_state(seed=1)[1])
  assert_equal(state, make_state(9)[1])
  assert progress == {"elapsed_s": 1.5, "data": {"next_index": 9}}


def test_relative_folders_work(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with Checkpoints("run/checkpoints", keep=1) as checkpoints:
    checkpoints.save(3, make_state(3)[1], PROGRESS)
  assert (tmp_path / "run/checkpoints/3").is_dir()


def test_a_state_may_be_donated_right_after_the_save_has_started(tmp_path):
  _, state = create_state(nnx.Linear(1000, 2000, rngs=nnx.Rngs(0)), OPTIMIZER)
  state = put_state(state, "jit", make_mesh())
  expected = jax.device_get(jax.tree.map(jnp.copy, state))
  spoil = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    with jax.transfer_guard("disallow"):
      checkpoints.save(1, state, PROGRESS)
      spoiled = spoil(state)
      for _ in range(5):
        spoiled = spoil(spoiled)
    checkpoints.wait()
    restored, _ = checkpoints.restore(spoiled)
  assert_equal(restored, expected)


def test_a_state_saved_on_four_devices_returns_on_one_and_back(tmp_path):
  mesh, (_, state) = make_mesh(), make_state(2)
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(2, put_state(state, "jit_sharded", mesh), PROGRESS)
    checkpoints.wait()
    for mode, num_devices in (("jit", 1), ("pmap", 4)):
      restored, _ = checkpoints.restore(put_state(make_state(seed=1)[1], mode, mesh))
      assert_equal(restored, state)
      assert len(jax.tree.leaves(restored.params)[0].sharding.device_set) == num_devices


@pytest.mark.parametrize("abstract", [True, False])
def test_a_model_is_restored_without_the_optimizer(tmp_path, abstract):
  graphdef, state = make_state(4)
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(4, state, PROGRESS)
  x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
  for ema, params in ((True, state.ema_params), (False, state.params)):
    model = nnx.eval_shape(lambda: Model(seed=1)) if abstract else Model(seed=1)
    restored = restore_model(tmp_path, model, ema=ema)
    expected = nnx.merge(graphdef, params, state.model_state)(x)
    np.testing.assert_array_equal(restored(x), expected)


def test_a_folder_without_checkpoint_is_named(tmp_path):
  missing = tmp_path / "absent"
  with pytest.raises(ValueError, match=f"no checkpoint in {missing}"):
    restore_model(missing, Model())
  assert not missing.exists()
  with pytest.raises(ValueError, match=f"no checkpoint in {tmp_path}: train first"):
    restore_model(tmp_path, Model())


def test_another_config_is_refused_by_name_and_shape(tmp_path):
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(7, make_state(7)[1], PROGRESS)
    checkpoints.wait()
    with pytest.raises(
      ValueError, match=r"step 7 .*linear\.bias.* is \(4,\) there and \(5,\) here"
    ):
      checkpoints.restore(make_state(width=5)[1])
    with pytest.raises(ValueError, match="opt_state.*missing"):
      _, state = create_state(Model(), optax.sgd(0.1))
      checkpoints.restore(state)
  with pytest.raises(ValueError, match="config.json"):
    restore_model(tmp_path, Model(width=5))


def test_what_a_killed_save_leaves_is_passed_over(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(1, make_state(1)[1], PROGRESS)
  (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.latest_step == 1


def test_another_run_gives_what_fits(tmp_path):
  _, state = make_state(seed=3)
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(7, state, PROGRESS)
  same = Model(seed=4)
  copied, new = start_from(tmp_path, same)
  assert set(copied) == {"linear.bias", "linear.kernel", "norm.bias", "norm.scale"} and not new
  assert_equal(nnx.state(same, nnx.Param), state.ema_params)

  class Wider(Model):
    def __init__(self):
      super().__init__(seed=5)
      self.linear = nnx.Linear(2, 4, rngs=nnx.Rngs(6))
      self.head = nnx.Linear(4, 1, rngs=nnx.Rngs(7))

  wider, before = Wider(), Wider()
  copied, new = start_from(tmp_path, wider)
  assert set(copied) == {"linear.bias", "norm.bias", "norm.scale"}
  assert set(new) == {"linear.kernel", "head.bias", "head.kernel"}
  assert_equal(wider.head.kernel[...], before.head.kernel[...])
  assert_equal(wider.linear.kernel[...], before.linear.kernel[...])
  assert_equal(wider.linear.bias[...], state.ema_params["linear"]["bias"][...])


def test_a_run_that_cannot_be_started_from_is_named(tmp_path):
  with pytest.raises(ValueError, match="no checkpoint in .*none: correct config.init_from"):
    start_from(tmp_path / "none", Model())
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(7, make_state()[1], PROGRESS)
  with pytest.raises(ValueError, match="no parameter of .* fits this model"):
    start_from(tmp_path, nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
