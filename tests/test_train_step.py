import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from foir360_jax.train import build_optimizer, create_state, learning_rate_at, train_step


class Line(nnx.Module):
  """y = x · kernel + bias."""

  def __init__(self):
    self.kernel = nnx.Param(jnp.array([[0.5], [-1.0], [2.0]]))
    self.bias = nnx.Param(jnp.array([0.25]))

  def __call__(self, x):
    return (x @ self.kernel[...] + self.bias[...])[..., 0]


def objective(model, batch):
  residual = (model(batch["x"]) - batch["y"]) * batch["where"]
  return {
    "squared": (jnp.sum(residual**2), jnp.sum(batch["where"])),
    "sum": (jnp.sum(residual), jnp.sum(batch["where"]) / 2),
    "examples": (jnp.sum(batch["x"]), len(batch["x"])),
  }


def make_batch(generator, size=6):
  return {
    "x": generator.normal(size=(size, 3)).astype(np.float32),
    "y": generator.normal(size=size).astype(np.float32),
    "where": generator.random(size) < 0.6,
  }


def make_step(model, optimizer, weights, objective=objective, ema_decay=0.99):
  graphdef, state = create_state(model, optimizer)

  def step(state, batch, progress=0.0):
    return train_step(graphdef, optimizer, objective, weights, ema_decay, state, batch, progress)

  return jax.jit(step), state


def test_a_step_with_sgd_follows_the_gradient_written_out():
  batch = make_batch(np.random.default_rng(7))  # 4 of 6 count
  step, state = make_step(Line(), optax.sgd(0.1), {"squared": 2.0, "sum": 0.5})
  new, metrics = step(state, batch)

  where, x = batch["where"], batch["x"].astype(np.float64)
  kernel, bias = np.array([0.5, -1.0, 2.0]), 0.25
  residual = (x @ kernel + bias - batch["y"]) * where
  count = where.sum()
  slope = (2.0 * 2 * residual / count + 0.5 * where / (count / 2)) * where
  kernel_gradient, bias_gradient = slope @ x, slope.sum()
  np.testing.assert_allclose(
    new.params["kernel"][...][:, 0], kernel - 0.1 * kernel_gradient, rtol=1e-5
  )
  np.testing.assert_allclose(new.params["bias"][...][0], bias - 0.1 * bias_gradient, rtol=1e-5)
  loss = 2.0 * (residual**2).sum() / count + 0.5 * residual.sum() / (count / 2)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  norm = np.sqrt((kernel_gradient**2).sum() + bias_gradient**2)
  np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
  np.testing.assert_allclose(metrics["terms"]["examples"], (x.sum(), 6), rtol=1e-4)
  assert int(new.step) == 1


@pytest.mark.parametrize("weight", [None, 0.0])
def test_a_term_without_weight_is_reported_but_even_nan_does_not_enter_the_loss(weight):
  def with_nan(model, batch):
    return objective(model, batch) | {"broken": (jnp.nan * model.bias[...].sum(), 1)}

  weights = {"squared": 1.0} if weight is None else {"squared": 1.0, "broken": weight}
  step, state = make_step(Line(), optax.sgd(0.1), weights, with_nan)
  new, metrics = step(state, make_batch(np.random.default_rng(1)))
  assert np.isnan(metrics["terms"]["broken"][0])
  assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["parameter_norm"])


def test_a_batch_of_padding_only_changes_nothing():
  batch = make_batch(np.random.default_rng(2))
  batch["where"][:] = False
  step, state = make_step(Line(), optax.sgd(0.1), {"squared": 1.0})
  new, metrics = step(state, batch)
  assert metrics["loss"] == 0
  jax.tree.map(np.testing.assert_array_equal, new.params, state.params)


def test_a_weight_for_an_unknown_term_is_refused():
  step, state = make_step(Line(), optax.sgd(0.1), {"squarred": 1.0})
  with pytest.raises(ValueError, match=r"unknown terms \(squarred\).*examples, squared, sum"):
    step(state, make_batch(np.random.default_rng(3)))


def test_no_weight_at_all_is_refused():
  step, state = make_step(Line(), optax.sgd(0.1), {})
  with pytest.raises(ValueError, match="no term has a weight"):
    step(state, make_batch(np.random.default_rng(3)))


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_is_accepted_frozen_and_refused_with_running_statistics(frozen):
  class Normed(Line):
    def __init__(self):
      super().__init__()
      self.norm = nnx.BatchNorm(3, use_running_average=frozen, rngs=nnx.Rngs(0))

    def __call__(self, x):
      return super().__call__(self.norm(x))

  step, state = make_step(Normed(), optax.sgd(0.1), {"squared": 1.0})
  batch = make_batch(np.random.default_rng(4))
  if frozen:
    new, _ = step(state, batch)
    jax.tree.map(np.testing.assert_array_equal, new.model_state, state.model_state)
  else:
    with pytest.raises(ValueError, match=r"changed the model's variable norm\.mean"):
      step(state, batch)


def test_a_layer_that_draws_from_its_own_stream_is_refused():
  class Dropped(Line):
    def __init__(self):
      super().__init__()
      self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x):
      return super().__call__(self.dropout(x))

  step, state = make_step(Dropped(), optax.sgd(0.1), {"squared": 1.0})
  with pytest.raises(ValueError, match="changed the model's variable dropout"):
    step(state, make_batch(np.random.default_rng(4)))


def test_the_average_fades_the_initial_values_first_and_keeps_its_decay_later():
  step, state = make_step(Line(), optax.sgd(0.1), {"squared": 1.0}, ema_decay=0.3)
  generator = np.random.default_rng(5)
  average = np.asarray(state.params["kernel"][...], np.float64)
  for count in range(6):
    state, _ = step(state, make_batch(generator))
    decay = min(0.3, (1 + count) / (10 + count))
    average = decay * average + (1 - decay) * np.asarray(state.params["kernel"][...])
    np.testing.assert_allclose(state.ema_params["kernel"][...], average, rtol=1e-5)


def test_a_parameter_that_is_not_finite_shows_in_the_parameter_norm_though_the_loss_is_finite():
  def root(model, batch):
    return {"root": (jnp.sqrt(model.bias[...].sum() * 0), 1)}  # value 0, gradient 0 · inf

  step, state = make_step(Line(), optax.sgd(0.1), {"root": 1.0}, root)
  _, metrics = step(state, make_batch(np.random.default_rng(6)))
  assert metrics["loss"] == 0 and not np.isfinite(metrics["parameter_norm"])


def test_the_learning_rate_warms_up_by_count_and_falls_by_progress():
  rates = [float(learning_rate_at(2.0, 4, count, 0.0)) for count in range(6)]
  np.testing.assert_allclose(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
  np.testing.assert_allclose(learning_rate_at(2.0, 0, 0, 0.5), 2.0 * (0.01 + 0.99 * 0.5), rtol=1e-6)
  np.testing.assert_allclose(learning_rate_at(2.0, 0, 0, 1.3), 0.02, rtol=1e-5)


def test_the_optimizer_clips_decays_matrices_only_and_follows_progress():
  generator = np.random.default_rng(7)
  params = {"kernel": generator.normal(size=(3, 2)), "bias": generator.normal(size=3)}
  grads = {"kernel": 9 * generator.normal(size=(3, 2)), "bias": 9 * generator.normal(size=3)}
  optimizer = build_optimizer(0.1, warmup_steps=2, weight_decay=0.3, b2=0.95, clip_norm=1.0)
  opt_state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  first = {name: np.zeros_like(value) for name, value in params.items()}
  second = {name: np.zeros_like(value) for name, value in params.items()}
  norm = np.sqrt(sum((value**2).sum() for value in grads.values()))
  for count, progress in enumerate((0.0, 0.25, 0.9)):
    updates, opt_state = update(grads, opt_state, params, progress=progress)
    rate = 0.1 * min(1, (count + 1) / 2) * (0.01 + 0.99 * (1 + np.cos(np.pi * progress)) / 2)
    for name, decay in (("kernel", 0.3), ("bias", 0.0)):
      clipped = grads[name] / norm
      first[name] = 0.9 * first[name] + 0.1 * clipped
      second[name] = 0.95 * second[name] + 0.05 * clipped**2
      adam = (first[name] / (1 - 0.9 ** (count + 1))) / (
        np.sqrt(second[name] / (1 - 0.95 ** (count + 1))) + 1e-8
      )
      expected = -rate * (adam + decay * params[name])
      np.testing.assert_allclose(updates[name], expected, rtol=2e-4)
