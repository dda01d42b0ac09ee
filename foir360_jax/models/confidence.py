"""How sure the model is that a candidate is an object that no better candidate has."""

import jax
import jax.numpy as jnp

from foir360_jax.models.cells import flat_weights, map_height

_DUPLICATE_IOU = 0.5


def confident(mask_logits: jax.Array, object_logits: jax.Array) -> jax.Array:
  """Confidence `[B, Q]` in [0, 1], 0 for duplicates, of `[B, Q, P]` and `[B, Q]` logits."""
  confidence = jax.nn.sigmoid(object_logits)
  return jnp.where(_is_duplicate(mask_logits > 0, confidence), 0.0, confidence)


def _is_duplicate(masks: jax.Array, confidence: jax.Array) -> jax.Array:
  """`masks [B, Q, P]` bool -> `[B, Q]`: empty, or mostly the mask of a more confident query."""
  weighted = masks * flat_weights(map_height(masks.shape[-1]))
  both = jnp.einsum("bqp,bkp->bqk", weighted, masks.astype(weighted.dtype))
  area = weighted.sum(-1)
  overlap = both / jnp.maximum(area[:, None] + area[..., None] - both, 1e-6)
  rank = jnp.argsort(jnp.argsort(-confidence, axis=-1), axis=-1)  # ties: the first one wins
  better = rank[:, None] < rank[..., None]
  return ((overlap > _DUPLICATE_IOU) & better).any(-1) | ~masks.any(-1)
