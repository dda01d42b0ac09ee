"""Training: a pure step on a plain state, distributed over devices.

What it is logged, saved and resumed by needs more packages than JAX and Flax, and is imported by
its full name: `foir360_jax.train.loop`, `.checkpoint`, `.logging`.
"""

from foir360_jax.train.optimizer import build_optimizer, learning_rate_at
from foir360_jax.train.parallel import (
  MODES,
  compile_step,
  make_mesh,
  put_batch,
  put_scalar,
  put_state,
)
from foir360_jax.train.state import TrainState, create_state, model_from_state
from foir360_jax.train.step import Objective, train_step

__all__ = [
  "MODES",
  "Objective",
  "TrainState",
  "build_optimizer",
  "compile_step",
  "create_state",
  "learning_rate_at",
  "make_mesh",
  "model_from_state",
  "put_batch",
  "put_scalar",
  "put_state",
  "train_step",
]
