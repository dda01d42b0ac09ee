"""One training step as a pure function, the same in every parallel mode.

The objective gives sums and counts over the examples that this device holds. Counts do not depend
on the parameters, so they are summed over the devices first; each device then differentiates its
share of the one global loss, and the gradients add up. A mean of per-device means would depend on
how padded examples lie.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from foir360_jax.batch import Batch
from foir360_jax.train.state import Model, TrainState, split_parameters

Objective = Callable[[Model, Batch], Mapping[str, tuple[Any, Any]]]
"""`objective(model, batch) -> {term: (sum, count)}`: two scalars a term over `batch`'s examples.
All its randomness comes from the batch, which also has `progress`, the part of the run that is
over; counts may not depend on the parameters."""


def train_step(
  graphdef: nnx.GraphDef[Model],
  optimizer: optax.GradientTransformation,
  objective: Objective[Model],
  weights: Mapping[str, float],
  ema_decay: float,
  state: TrainState,
  batch: Batch,
  progress: jax.Array,
  *,
  axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Any]]:
  """Makes one update: loss = sum over terms of weight · (global sum) / max(global count, 1).

  Args:
    graphdef: the model's static part, from `create_state`.
    optimizer: its `update` is given `progress`.
    objective: see `Objective`.
    weights: weight of each term in the loss; terms without one (or with 0) are only reported.
    ema_decay: highest decay of the parameters' average; step t (from 0) takes the smaller of it and
      (1 + t) / (10 + t), so that the initial values fade quickly.
    state: the state before the step.
    batch: this device's examples under shard_map and pmap, all examples under jit.
    progress: part of the run that is over, float32 scalar in [0, 1].
    axis_name: the mapped axis under shard_map and pmap, None under jit.

  Returns:
    The new state, and metrics as device scalars: `loss`, `gradient_norm` (before clipping),
    `parameter_norm` (after the update: not finite as soon as any parameter is not), and
    `terms`: {term: (global sum, global count)}.

  Raises:
    ValueError: while tracing, if a weight names no term, or if the model keeps running statistics.
  """
  weights = {term: weight for term, weight in weights.items() if weight}

  def sum_over_devices(tree):
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)

  def loss_of(sums, counts):
    return sum(
      weight * sums[term] / jnp.maximum(counts[term], 1.0) for term, weight in weights.items()
    )

  def local_loss(params):
    model = nnx.merge(graphdef, params, state.model_state, copy=True)
    with jax.named_scope("objective"):
      terms = objective(model, {**batch, "progress": progress})
    _check_terms(weights, terms)
    _check_unchanged(state.model_state, model)
    sums = {term: jnp.asarray(value, jnp.float32) for term, (value, _) in terms.items()}
    counts = {term: jnp.asarray(count, jnp.float32) for term, (_, count) in terms.items()}
    counts = sum_over_devices(jax.lax.stop_gradient(counts))
    return loss_of(sums, counts), (sums, counts)

  # With its check of varying axes on, shard_map sums the gradient of a replicated value by itself,
  # and a sum on top would count it again; of a varying value it leaves the sum to us, as pmap does.
  # `compile_step` turns the check off, but a caller's own shard_map may not.
  params = state.params
  if axis_name is not None:
    params = jax.lax.pcast(params, axis_name, to="varying")
  grads, (sums, counts) = jax.grad(local_loss, has_aux=True)(params)
  grads, sums = sum_over_devices((grads, sums))

  with jax.named_scope("optimizer"):
    updates, opt_state = optax.with_extra_args_support(optimizer).update(
      grads, state.opt_state, state.params, progress=progress
    )
    params = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
    ema_params = optax.incremental_update(params, state.ema_params, 1.0 - decay)

  new_state = dataclasses.replace(
    state, step=state.step + 1, params=params, opt_state=opt_state, ema_params=ema_params
  )
  metrics = {
    "loss": loss_of(sums, counts),
    "gradient_norm": optax.tree.norm(grads),
    "parameter_norm": optax.tree.norm(params),
    "terms": {term: (sums[term], counts[term]) for term in sums},
  }
  return new_state, metrics


def _check_terms(weights: Mapping[str, float], terms: Mapping[str, Any]) -> None:
  unknown = sorted(weights.keys() - terms.keys())
  if unknown or not weights:
    what = (
      f"weights name unknown terms ({', '.join(unknown)})" if unknown else "no term has a weight"
    )
    raise ValueError(f"{what}: the objective has the terms {', '.join(sorted(terms))}")


def _check_unchanged(model_state: nnx.State, model: nnx.Module) -> None:
  """Refuses layers that write to the model: what they write depends on how a batch is spread."""
  after = dict(jax.tree.leaves_with_path(split_parameters(model)[2]))
  before = dict(jax.tree.leaves_with_path(model_state))
  changed = [path for path, value in after.items() if before.get(path) is not value]
  if changed:
    name = jax.tree_util.keystr(changed[0], simple=True, separator=".")
    raise ValueError(
      f"the objective changed the model's variable {name}; use layers without running statistics or"
      " random streams (GroupNorm, LayerNorm, frozen BatchNorm, randomness from the batch's seeds)"
    )
