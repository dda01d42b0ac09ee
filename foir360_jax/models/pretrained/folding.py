"""State dicts to modules, with batch normalisation folded into the convolutions."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

_COUNTER = ".num_batches_tracked"  # a batch normalisation's, of use in training only
_Model = TypeVar("_Model", bound=nnx.Module)


class Layer(Protocol):
  """A layer whose kernel [..., in, out] and bias [out] are set."""

  kernel: nnx.Param[jax.Array]
  bias: nnx.Param[jax.Array]


class Convolution(NamedTuple):
  """A convolution of a model, and the names of what belongs into it.

  Attributes:
    module: the layer.
    kernel: name of the tensor [out, in, k, k].
    norm: what the names of its batch normalisation begin with.
  """

  module: Layer
  kernel: str
  norm: str


def fill_folded(
  model: _Model,
  convolutions: Iterable[Convolution],
  tensors: Mapping[str, np.ndarray],
  *,
  network: str,
  epsilon: float,
  unused: tuple[str, ...],
) -> _Model:
  """Gives every parameter of a model its value from a state dict.

  Args:
    model: abstract, of `nnx.eval_shape`; its parameters are set.
    convolutions: all convolutions of the model.
    tensors: by name.
    network: its name in errors.
    epsilon: of the batch normalisation.
    unused: beginnings of names of tensors that are left out, the head's.

  Returns:
    The model.

  Raises:
    ValueError: a tensor is missing, has another shape, or is none that the network knows.
  """
  left = dict(tensors)
  for module, kernel_name, norm_name in convolutions:
    kernel, bias = _fold(left, kernel_name, norm_name, network, epsilon)
    for parameter, value in ((module.kernel, kernel), (module.bias, bias)):
      shape = parameter.shape
      if value.size != np.prod(shape) or value.shape[-1] != shape[-1]:
        raise ValueError(f"{kernel_name} gives {value.shape} where {network} has {shape}")
      parameter.set_value(jnp.asarray(value.reshape(shape)))
  unknown = [name for name in left if not name.startswith(unused) and not name.endswith(_COUNTER)]
  if unknown:
    raise ValueError(f"{network} has no place for {', '.join(unknown)}")
  new = [
    jax.tree_util.keystr(path)
    for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(model))
    if isinstance(leaf, jax.ShapeDtypeStruct)
  ]
  if new:
    raise ValueError(f"{network} gets no weights for {', '.join(new)}")
  return model


def _fold(
  left: dict[str, np.ndarray], kernel_name: str, norm_name: str, network: str, epsilon: float
):
  """Takes a convolution out of `left`; returns its kernel [k, k, in, out] and bias [out]."""
  names = [kernel_name]
  names += [f"{norm_name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
  missing = [name for name in names if name not in left]
  if missing:
    raise ValueError(f"no {', '.join(missing)} among the tensors of {network}")
  kernel, gamma, beta, mean, variance = (np.asarray(left.pop(name), np.float64) for name in names)
  scale = gamma / np.sqrt(variance + epsilon)
  kernel = kernel.transpose(2, 3, 1, 0) * scale
  return kernel.astype(np.float32), (beta - mean * scale).astype(np.float32)
