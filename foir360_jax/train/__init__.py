"""Training: a pure step over a plain state, spread over devices, logged, saved and resumed."""

from foir360_jax.train.checkpoint import Checkpoints, restore_model
from foir360_jax.train.logging import MetricsLog, progress_line, summarize
from foir360_jax.train.loop import train
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
  "Checkpoints",
  "MetricsLog",
  "Objective",
  "TrainState",
  "build_optimizer",
  "compile_step",
  "create_state",
  "learning_rate_at",
  "make_mesh",
  "model_from_state",
  "progress_line",
  "put_batch",
  "put_scalar",
  "put_state",
  "restore_model",
  "summarize",
  "train",
  "train_step",
]
