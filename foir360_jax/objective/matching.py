"""Hungarian matching of queries to objects, inside the compiled step."""

import functools

import jax
import jax.numpy as jnp
import optax

_DICE_COST, _ENTROPY_COST, _OBJECT_COST = 5.0, 2.0, 2.0
_PADDING_COST = 0.0  # the same for every query: a padded object takes what no real object wants


def matching_cost(mask_logits, object_logits, masks, where, pixel_weights) -> jax.Array:
  """Cost of giving each object to each query: how far the masks differ, and the query's doubt.

  Args:
    mask_logits: `[*L, B, Q, P]`, of several predictions.
    object_logits: `[*L, B, Q]`.
    masks: `[B, N, P]` in [0, 1].
    where: `[B, N]`.
    pixel_weights: `[P]`.

  Returns:
    `[*L, B, N, Q]`; a constant in the rows of padding.
  """
  probabilities = jax.nn.sigmoid(mask_logits)
  weighted = pixel_weights * masks
  area = weighted.sum(-1)[..., None]
  both = jnp.einsum("bnp,...bqp->...bnq", weighted, probabilities)
  dice = 1 - (2 * both + 1) / (area + (pixel_weights * probabilities).sum(-1)[..., None, :] + 1)
  off = (pixel_weights * jax.nn.softplus(mask_logits)).sum(-1)[..., None, :]
  entropy = (off - jnp.einsum("bnp,...bqp->...bnq", weighted, mask_logits)) / (2 * area + 5)
  doubt = -jax.nn.sigmoid(object_logits)[..., None, :]
  cost = _DICE_COST * dice + _ENTROPY_COST * entropy + _OBJECT_COST * doubt
  return jnp.where(where[..., None], cost, _PADDING_COST)


def assign(cost: jax.Array) -> jax.Array:
  """Hungarian assignment of every object to its own query.

  Args:
    cost: `[B, N, Q]` with Q >= N.

  Returns:
    `[B, N]`: the query of each object, all different within an example.

  Raises:
    ValueError: with fewer queries than objects.
  """
  num_objects, num_queries = cost.shape[1:]
  if num_queries < num_objects:
    raise ValueError(
      f"{num_queries} queries cannot serve {num_objects} objects: raise config.model.num_queries"
      " to at least config.data.max_objects"
    )

  def one(example):
    objects, queries = optax.assignment.hungarian_algorithm(example)
    return jnp.zeros(num_objects, queries.dtype).at[objects].set(queries)

  # On a CPU one loop after the other is faster than a vmapped while_loop, which runs as long as its
  # slowest example at every turn; elsewhere it is the number of turns that takes the time.
  cost = jax.lax.stop_gradient(cost)
  return jax.lax.platform_dependent(
    cost, cpu=functools.partial(jax.lax.map, one), default=jax.vmap(one)
  )
