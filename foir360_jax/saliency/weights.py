"""Separates a saliency model into its arrays and the rest.

A program takes the arrays as arguments; closed over, they would be compiled into it as constants.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def separate_weights(saliency: Any) -> tuple[list[jax.Array], Callable[[Sequence[jax.Array]], Any]]:
  """Returns the model's arrays and a function that puts the model together from such arrays.

  Args:
    saliency: a pytree with arrays, as an `nnx.Module`, or any other callable, which has none.

  >>> weights, rebuild = separate_weights({"scale": jax.numpy.ones(2), "name": "x"})
  >>> len(weights), rebuild([2 * weights[0]])["scale"].tolist()
  (1, [2.0, 2.0])
  """
  leaves, structure = jax.tree.flatten(saliency)
  is_array = [isinstance(leaf, jax.Array) for leaf in leaves]

  def rebuild(weights: Sequence[jax.Array]) -> Any:
    given = iter(weights)
    both = [next(given) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
    return jax.tree.unflatten(structure, both)

  return [leaf for leaf, array in zip(leaves, is_array, strict=True) if array], rebuild
