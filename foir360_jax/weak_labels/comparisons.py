"""What the views compare: local scores made safe, pairs seen together, agreement with an order.

Sits below `collect`. Axes: views V, objects N.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class LocalScores(NamedTuple):
  """A collector's arguments, safe to compute with: 0 wherever an object is not seen or not real.

  `scores` is minus the order for the collectors that go by it.
  """

  scores: jax.Array  # [V, N]
  visibility: jax.Array  # [V, N]
  seen: jax.Array  # [V, N] bool
  prior: jax.Array  # [N]
  where: jax.Array  # [N] bool


def mask_local_scores(
  scores, visibility, order, prior, where, temperature, prior_weight, by_order=False
) -> LocalScores:
  """Checks a collector's arguments and overwrites what does not count; see `collect`.

  Raises:
    ValueError: `temperature` or `prior_weight` is not positive, or shapes do not fit.
  """
  for name, value in (("temperature", temperature), ("prior_weight", prior_weight)):
    if not isinstance(value, jax.Array) and not value > 0:
      raise ValueError(f"{name} must be positive, not {value}")
  scores, visibility, prior = (jnp.asarray(x, jnp.float32) for x in (scores, visibility, prior))
  order, where = jnp.asarray(order), jnp.asarray(where, bool)
  shapes = scores.shape, visibility.shape, order.shape
  if scores.ndim != 2 or len(set(shapes)) > 1 or not scores.shape[1:] == prior.shape == where.shape:
    raise ValueError(
      "scores, visibility and order must be [V, N], prior and where [N], not "
      f"{', '.join(map(str, shapes))} and {prior.shape}, {where.shape}: use jax.vmap for a batch"
    )
  seen = where & (visibility > 0)
  if by_order:
    seen &= order >= 0
    scores = -order.astype(jnp.float32)
  return LocalScores(
    scores=jnp.where(seen, scores, 0.0),
    visibility=jnp.where(seen, visibility, 0.0),
    seen=seen,
    prior=jnp.where(where, prior, 0.0),
    where=where,
  )


def margins(scores: jax.Array) -> jax.Array:
  """By how much each object is above each other, [..., N, N]."""
  return scores[..., :, None] - scores[..., None, :]


def pair_weights(local: LocalScores) -> jax.Array:
  """Products of the visibilities, [V, N, N]; 0 for an object with itself."""
  products = local.visibility[:, :, None] * local.visibility[:, None, :]
  return products * (1.0 - jnp.eye(products.shape[-1]))


def agreement(strength: jax.Array, local: LocalScores) -> jax.Array:
  """The share of an object's comparisons that agrees with the order of `strength`, [N] in [0, 1].

  Ties agree by half; 0 for objects that are compared with none.
  """
  pairs = pair_weights(local)
  balance = (pairs * jnp.sign(margins(local.scores))).sum(0) * jnp.sign(margins(strength))
  compared = pairs.sum((0, 2))
  share = (1 + balance.sum(-1) / jnp.where(compared > 0, compared, 1.0)) / 2
  return jnp.where(compared > 0, jnp.clip(share, 0.0, 1.0), 0.0)


def components(local: LocalScores) -> jax.Array:
  """Whether two objects are joined by a chain of pairs that views see together, [N, N] bool."""
  seen = local.seen.astype(jnp.float32)
  reach = (seen.T @ seen > 0) | jnp.eye(seen.shape[-1], dtype=bool)
  for _ in range((len(reach) - 1).bit_length()):  # chains of 1, 2, 4 ... pairs
    reach = reach.astype(jnp.float32) @ reach.astype(jnp.float32) > 0
  return reach


def largest_component(strength: jax.Array, local: LocalScores) -> jax.Array:
  """Which objects are in the component with most objects, the strongest one's of equals, [N]."""
  reach = components(local)
  size = jnp.where(local.where, reach.sum(-1), 0)
  peak = jnp.where(reach & local.where, strength, -jnp.inf).max(-1)
  largest = local.where & (size == size.max(initial=0))
  return largest & (peak == jnp.where(largest, peak, -jnp.inf).max(initial=-jnp.inf))
