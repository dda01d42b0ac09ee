"""The training state as one pytree; the only place besides the step that sees NNX.

A model becomes (graphdef, state) once, before training, and a model again after it. In between
everything is plain arrays, so that any JAX transformation and any checkpoint writer can take them.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

Model = TypeVar("Model", bound=nnx.Module)


@struct.dataclass
class TrainState:
  """The whole state of a run but for the data iterator.

  Attributes:
    step: number of updates made, int32 scalar.
    params: the model's `nnx.Param`s.
    model_state: its other variables, e.g. frozen batch statistics; training leaves them alone.
    opt_state: the optimizer's state.
    ema_params: exponential moving average of `params`, with which the model is evaluated.
  """

  step: jax.Array
  params: nnx.State
  model_state: nnx.State
  opt_state: optax.OptState
  ema_params: nnx.State


def split_parameters(model: Model) -> tuple[nnx.GraphDef[Model], nnx.State, nnx.State]:
  """The static part of a model, its `nnx.Param`s and its other variables."""
  graphdef, params, model_state = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
  return graphdef, params, model_state


def create_state(
  model: Model, optimizer: optax.GradientTransformation
) -> tuple[nnx.GraphDef[Model], TrainState]:
  """Returns the model's static part and the state of a run that starts from its parameters."""
  graphdef, params, model_state = split_parameters(model)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=model_state,
    opt_state=optimizer.init(params),
    ema_params=jax.tree.map(jnp.copy, params),  # a shared buffer could not be donated twice
  )
  return graphdef, state


def model_from_state(graphdef: nnx.GraphDef[Model], state: TrainState, ema: bool = True) -> Model:
  """Returns the model with its averaged parameters, or with the last ones if `ema` is False.

  The model shares its arrays with `state`: a step that is given `state` afterwards donates them.
  """
  params = state.ema_params if ema else state.params
  return nnx.merge(graphdef, params, state.model_state, copy=True)
