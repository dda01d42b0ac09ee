"""Rank decoder: from objects to scores, by comparing their descriptors.

The scores come from all objects in parallel (self-attention over objects); the recurrent ranking
module then picks one after the other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.descriptors import Appearance, Descriptors
from foir360_jax.models.layers import Attention, FeedForward, Mlp
from foir360_jax.models.recurrent_ranking import Candidates, RecurrentRanking
from foir360_jax.models.sphere_attention import BLOCKED

_LEAST_CONFIDENCE = 0.01  # keeps doubt finite


class Ranking(NamedTuple):
  """What the rank decoder says of objects.

  Attributes:
    scores: `[B, N]`, before the sigmoid.
    category_logits: `[B, N, K]`.
    tokens: `[B, N, C]`.
    kinds: `[B, N, K]`, probabilities of categories: those conditioned on, else predicted.
  """

  scores: jax.Array
  category_logits: jax.Array
  tokens: jax.Array
  kinds: jax.Array

  def candidates(self, confidence: jax.Array | None = None) -> Candidates:
    """What the recurrent module picks from; `confidence [B, N]`, None where masks are given."""
    if confidence is None:
      confidence = jnp.ones_like(self.scores)
    doubt = -jnp.log(jnp.maximum(confidence, _LEAST_CONFIDENCE))
    return Candidates(self.scores, self.tokens, *jax.lax.stop_gradient((self.kinds, doubt)))


class RankDecoder(nnx.Module):
  """Scores objects that are given by masks, true or predicted ones alike.

  Args:
    feature_channels: channels of the features that masks pool over.
    channels: of the object tokens.
    num_categories: number of categories.
    context: see `Descriptors`.
    rngs: source of the initial kernels.
  """

  def __init__(self, feature_channels, channels, num_categories, *, context, rngs: nnx.Rngs):
    self.describe = Descriptors(feature_channels, channels, context=context, rngs=rngs)
    self.widen = FeedForward(channels, rngs=rngs)
    self.category_norm = nnx.LayerNorm(channels, rngs=rngs)
    self.category_head = nnx.Linear(channels, num_categories, rngs=rngs)
    self.category_embed = nnx.Linear(num_categories + 1, channels, rngs=rngs)
    self.attention = nnx.List(Attention(channels, rngs=rngs) for _ in range(2))
    self.feed_forward = nnx.List(FeedForward(channels, rngs=rngs) for _ in range(2))
    self.norm = nnx.LayerNorm(channels, rngs=rngs)
    self.score_head = Mlp((channels, 1), last_scale=0.1, rngs=rngs)
    self.recurrent = RecurrentRanking(channels, rngs=rngs)

  def __call__(self, appearance: Appearance, masks: jax.Array, where: jax.Array) -> Ranking:
    """`masks [B, N, k^2 P]`, `where [B, N]` -> Ranking."""
    return self.compare(self.describe(appearance, masks), where)

  def compare(
    self, tokens: jax.Array, where: jax.Array, category: jax.Array | None = None
  ) -> Ranking:
    """Scores objects beside one another.

    Args:
      tokens: `[B, N, C]` of `describe`.
      where: `[B, N]`.
      category: `[B, N]` to condition on, -1 where unknown; None: unknown everywhere. Where it is
        unknown the predicted categories stand in.
    """
    tokens = self.widen(tokens)
    category_logits = self.category_head(self.category_norm(tokens))
    categories = jax.nn.softmax(category_logits)
    if category is not None:
      known = jax.nn.one_hot(category, categories.shape[-1])  # zeros for -1
      categories = jnp.where(category[..., None] >= 0, known, categories)
    commonness = _commonness(categories, where)
    tokens = tokens + self.category_embed(jnp.concatenate([categories, commonness], axis=-1))
    bias = jnp.where(where, 0.0, BLOCKED)[:, None, None]
    for attention, feed_forward in zip(self.attention, self.feed_forward, strict=True):
      tokens = feed_forward(attention(tokens, bias=bias))
    tokens = self.norm(tokens)
    return Ranking(self.score_head(tokens)[..., 0], category_logits, tokens, categories)


def _commonness(categories: jax.Array, where: jax.Array) -> jax.Array:
  """Share of the scene's objects that are of an object's own category, `[B, N, 1]`.

  What is rare in a scene stands out; attention averages and finds it hard to count.
  """
  present = jnp.where(where[..., None], categories, 0)
  share = present.sum(1) / jnp.maximum(where.sum(-1), 1)[:, None]
  return jnp.einsum("bnk,bk->bn", categories, share)[..., None]
