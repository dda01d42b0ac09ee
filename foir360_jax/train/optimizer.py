"""Adam with decoupled weight decay whose learning rate follows the progress of the run.

A run may be bounded by steps or by wall time, so the cosine does not run over the optimizer's own
count but over `progress` in [0, 1], which the caller hands to each update.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

_FINAL_FRACTION = 0.01  # of the peak learning rate, reached at progress 1


class ScheduleState(NamedTuple):
  """Number of updates made, int32 scalar: the warm-up goes by it."""

  count: jax.Array


def learning_rate_at(
  learning_rate: float, warmup_steps: int, count: jax.Array | int, progress: jax.Array | float
) -> jax.Array:
  """Returns the rate of an update: a linear warm-up in `count` times a cosine in `progress`.

  rate = peak · min(1, (count + 1) / warmup_steps) · (0.01 + 0.99 · (1 + cos(pi · progress)) / 2)

  Args:
    learning_rate: the peak.
    warmup_steps: number of updates until the warm-up is over; 0 for none.
    count: number of updates made before, >= 0.
    progress: part of the run that is over; values outside [0, 1] are clipped.

  Example:
    >>> float(learning_rate_at(0.5, 10, count=4, progress=0.0))
    0.25
    >>> round(float(learning_rate_at(0.5, 10, count=100, progress=1.0)), 6)
    0.005
  """
  warmup = jnp.minimum(1.0, (count + 1) / max(warmup_steps, 1))
  cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
  return learning_rate * warmup * (_FINAL_FRACTION + (1.0 - _FINAL_FRACTION) * cosine)


def build_optimizer(
  learning_rate: float,
  warmup_steps: int,
  weight_decay: float,
  b2: float,
  clip_norm: float,
  encoder_rate: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
  """Returns clipping by global norm -> Adam -> decoupled weight decay -> learning rate.

  Weight decay (Loshchilov and Hutter, ICLR 2019) leaves out vectors and scalars: biases and the
  parameters of norms. `update` needs the keyword argument `progress`, see `learning_rate_at`.

  Args:
    learning_rate: the peak.
    warmup_steps: number of updates of linear warm-up.
    weight_decay: shrinks a weight by `rate · weight_decay` of itself at each update.
    b2: decay of Adam's second moment.
    clip_norm: gradients of a larger global norm are scaled down to it.
    encoder_rate: factor of the learning rate for the parameters of `encoder`.
  """
  return optax.chain(
    optax.clip_by_global_norm(clip_norm),
    optax.scale_by_adam(b1=0.9, b2=b2),
    optax.add_decayed_weights(weight_decay, mask=_is_matrix),
    _scale_by_progress(learning_rate, warmup_steps),
    optax.masked(optax.scale(encoder_rate), _is_encoder),
  )


def _is_matrix(params: optax.Params) -> optax.Params:
  return jax.tree.map(lambda param: jnp.ndim(param) > 1, params)


def _is_encoder(params: optax.Params) -> optax.Params:
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path[:1], simple=True) == "encoder", params
  )


def _scale_by_progress(
  learning_rate: float, warmup_steps: int
) -> optax.GradientTransformationExtraArgs:
  def init(params):
    del params
    return ScheduleState(count=jnp.zeros((), jnp.int32))

  def update(updates, state, params=None, *, progress, **extra_args):
    del params, extra_args
    rate = learning_rate_at(learning_rate, warmup_steps, state.count, progress)
    updates = jax.tree.map(lambda update: -rate * update, updates)
    return updates, ScheduleState(count=optax.safe_increment(state.count))

  return optax.GradientTransformationExtraArgs(init, update)
