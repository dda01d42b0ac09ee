"""Mixed precision: computes in a narrower type with float32 parameters.

Sits below the encoders and decoders, whose layers compute in the type of their parameters. What
needs more is float32 where it is computed: the statistics of norms, the biases and the softmax of
attention.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

_Module = TypeVar("_Module")  # a protocol like `Encoder` or an nnx.Module


def computing_in(module: _Module, dtype: jax.typing.DTypeLike) -> _Module:
  """A copy of a module whose floating-point parameters are cast to `dtype`.

  The cast is part of the computation, so that gradients flow through it to the parameters of
  `module`, in their own type. Variables that are no parameters are shared.

  Args:
    module: is not changed; returned itself where there is nothing to cast.
    dtype: a floating-point type.

  >>> layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
  >>> computing_in(layer, jnp.bfloat16)(jnp.ones(2, jnp.bfloat16)).dtype
  dtype(bfloat16)
  >>> layer.kernel.dtype
  dtype('float32')
  """
  graphdef, params, *others = nnx.split(module, nnx.Param, ...)

  def is_cast(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != dtype

  if not any(map(is_cast, jax.tree.leaves(params))):
    return module
  params = jax.tree.map(lambda x: x.astype(dtype) if is_cast(x) else x, params)
  return nnx.merge(graphdef, params, *others)


def dtype_of(module: nnx.Module) -> jnp.dtype:
  """The type of a module's parameters, in which it computes."""
  return jnp.result_type(*jax.tree.leaves(nnx.state(module, nnx.Param)))
