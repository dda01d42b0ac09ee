"""The optimizer: Adam with decoupled weight decay, scheduled by the progress of the run.

A run may be bounded by steps or by wall time, so the cosine does not run over the optimizer's own
count but over `progress` in [0, 1], which the caller hands to each update.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from foir360_jax.models.encoders import layer_depths

_FINAL_FRACTION = 0.01  # of the peak learning rate, reached at progress 1


class ScheduleState(NamedTuple):
  """Number of updates made, int32 scalar: the warm-up goes by it."""

  count: jax.Array  # type: ignore[assignment]  # hides tuple.count


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


def learning_rate_factors(
  params: optax.Params, encoder_rate: float, layer_decay: float
) -> optax.Params:
  """Returns the factor of the learning rate of each parameter, 1 outside `encoder`.

  In the encoder it is encoder_rate · layer_decay ^ (blocks after the parameter's own): public
  weights of early layers fit most pictures as they are (Clark et al., ELECTRA, ICLR 2020; Bao et
  al., BEiT, ICLR 2022). All blocks of the encoder count, also those whose maps are not used.

  Args:
    params: of a model; those of its encoder lie under "encoder", see `layer_depths`.
    encoder_rate: factor for the encoder's last block.
    layer_decay: factor from each block to the one before, and from the first to the stem.

  Raises:
    ValueError: layer_decay is not 1, and a parameter of the encoder has no known depth.
  """
  leaves, structure = jax.tree.flatten_with_path(params)
  is_encoder = [jax.tree_util.keystr(path[:1], simple=True) == "encoder" for path, _ in leaves]
  if layer_decay == 1 or not any(is_encoder):
    return jax.tree.unflatten(structure, [encoder_rate if mine else 1.0 for mine in is_encoder])
  of_encoder = iter(jax.tree.leaves(layer_depths(params["encoder"])))
  depths = [next(of_encoder) if mine else None for mine in is_encoder]
  last = max(depth for depth in depths if depth is not None)
  factors = [1.0 if d is None else encoder_rate * layer_decay ** (last - d) for d in depths]
  return jax.tree.unflatten(structure, factors)


def is_kernel(params: optax.Params) -> optax.Params:
  """Returns for each parameter whether it is the kernel of a dense or convolutional layer.

  All such layers, those of Flax and of this project, call it so. What is no kernel has no reason
  to be small: biases, norms, gains, PanoSwin's tables of biases by place, the centre bias that is
  trained beside the readout of fixations.

  >>> is_kernel({"dense": {"kernel": 0.5, "bias": 0.0}, "table": 0.1})
  {'dense': {'bias': False, 'kernel': True}, 'table': False}
  """

  def named_kernel(path, _) -> bool:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return name.removesuffix(".value").rpartition(".")[2] == "kernel"  # .value: of an nnx.State

  return jax.tree.map_with_path(named_kernel, params)


def build_optimizer(
  learning_rate: float,
  warmup_steps: int,
  weight_decay: float,
  b2: float,
  clip_norm: float,
  encoder_rate: float = 1.0,
  layer_decay: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
  """Returns clipping by global norm -> Adam -> decoupled weight decay -> learning rate.

  Weight decay (Loshchilov and Hutter, ICLR 2019) is of kernels alone, see `is_kernel`. `update`
  needs the keyword argument `progress`, see `learning_rate_at`.

  Args:
    learning_rate: the peak.
    warmup_steps: number of updates of linear warm-up.
    weight_decay: shrinks a kernel by `rate · weight_decay` of itself at each update.
    b2: decay of Adam's second moment.
    clip_norm: gradients of a larger global norm are scaled down to it.
    encoder_rate: factor of the learning rate for the parameters of `encoder`.
    layer_decay: further factor for each block that follows a parameter of `encoder`, see
      `learning_rate_factors`.
  """
  return optax.chain(
    optax.clip_by_global_norm(clip_norm),
    optax.scale_by_adam(b1=0.9, b2=b2),
    optax.add_decayed_weights(weight_decay, mask=is_kernel),
    _scale_by_progress(learning_rate, warmup_steps),
    _scale_encoder(encoder_rate, layer_decay),
  )


def _scale_encoder(encoder_rate: float, layer_decay: float) -> optax.GradientTransformation:
  def scale(updates, _):
    factors = learning_rate_factors(updates, encoder_rate, layer_decay)
    return jax.tree.map(lambda u, factor: u if factor == 1 else factor * u, updates, factors)

  return optax.stateless(scale)


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
