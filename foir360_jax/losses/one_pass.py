"""Losses that compute value and gradient in one pass (custom VJP).

Automatic differentiation would save the intermediate results of the whole pass instead, which for a
loss over pairs are many arrays [..., N, N].
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def differentiable(
  compute: Callable[..., tuple[jax.Array, Sequence[jax.Array | None]]],
) -> Callable[..., jax.Array]:
  """Makes a loss from a function that returns it together with its gradients.

  Forward and reverse mode, `jit`, `vmap` and the partition over devices work as for any function,
  because the rule is the plain product of gradient and tangent. Second derivatives are those of the
  gradients that `compute` returns, by automatic differentiation.

  Args:
    compute: `(*arrays) -> (losses, gradients)` with arrays [..., N], losses [...] and one gradient
      [..., N] an array, or None for an array that counts as constant. It must take every array as
      an argument: JAX does not see those that it takes from around it.

  Returns:
    A function `(*arrays) -> losses`.

  >>> square = differentiable(lambda x: (jnp.sum(x**2, -1), [2 * x]))
  >>> jax.grad(square)(jnp.array([1.0, 3.0])).tolist()
  [2.0, 6.0]
  """

  @jax.custom_jvp
  def losses(*arrays):
    return compute(*arrays)[0]

  def product(arrays, tangents):
    values, gradients = compute(*arrays)
    total = jnp.zeros_like(values)
    for gradient, tangent in zip(gradients, tangents, strict=True):
      # What is not varied must not be multiplied: its gradient may be inf.
      if gradient is not None and not isinstance(tangent, SymbolicZero):
        total += jnp.sum(gradient * tangent, axis=-1)
    return values, total

  losses.defjvp(product, symbolic_zeros=True)
  return losses
