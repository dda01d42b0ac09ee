"""From objects to their order: a score for each, and the recurrent ranking module (REM).

The scores say how important each object is beside the others (self-attention over objects). The REM
then emits the first, second, third ... object: at every step it looks at what it has picked so far
and picks the most important of those left. Written out for step t with the picked set S:

  logit(i) = score(i) + query(mean of tokens in S, last token, |S| / N) . key(i) / sqrt(C)

for every i that is not in S.

In training S is known (the true order), so all steps are computed at once; in use it is a
`lax.scan`. Both give the same logits for the same picks. (FOIR-360's figure shows the REM between
decoder memory and rank head; its code is not public, so this recurrence over picked objects is our
reading, close to SeqRank's sequential module.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.descriptors import Appearance, Descriptors
from foir360_jax.models.layers import Attention, FeedForward, Mlp

_NEVER = -1e9


class Ranking(NamedTuple):
  """`scores [B, N]` (before the sigmoid), `category_logits [B, N, K]`, `tokens [B, N, C]`."""

  scores: jax.Array
  category_logits: jax.Array
  tokens: jax.Array


class RecurrentRanking(nnx.Module):
  """The recurrent ranking module; see the formula above."""

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    self.key = nnx.Linear(channels, channels, use_bias=False, rngs=rngs)
    self.query = Mlp((2 * channels + 1, 2 * channels, channels), last_scale=0.1, rngs=rngs)

  def _logits(self, scores, keys, picked_sum, last, num_picked, num_objects):
    """Logits `[..., N]`; picked_sum and last `[..., C]`, num_picked and num_objects `[..., 1]`."""
    mean = picked_sum / jnp.maximum(num_picked, 1)
    progress = num_picked / jnp.maximum(num_objects, 1)
    query = self.query(jnp.concatenate([mean, last, progress], axis=-1))
    return scores + jnp.einsum("...c,...nc->...n", query, keys) / jnp.sqrt(keys.shape[-1])

  def forced(self, ranking: Ranking, where: jax.Array, order: jax.Array) -> jax.Array:
    """Logits of every step when the picks are given.

    Args:
      ranking: of `N` objects.
      where: `[B, N]`.
      order: `[B, N]` indices of the objects, first pick first, padding last.

    Returns:
      `[B, N steps, N]` logits in the order of `order`; objects picked before the step have the
      lowest logit.
    """
    tokens, keys = (
      jnp.take_along_axis(x, order[..., None], axis=1)
      for x in (ranking.tokens, self.key(ranking.tokens))
    )
    scores = jnp.take_along_axis(ranking.scores, order, axis=1)
    real = jnp.take_along_axis(where, order, axis=1)
    tokens = jnp.where(real[..., None], tokens, 0)
    last = jnp.pad(tokens, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    num_steps = order.shape[1]
    steps = jnp.arange(num_steps)
    num_picked = jnp.broadcast_to(steps[:, None].astype(scores.dtype), (*order.shape, 1))
    num_objects = jnp.broadcast_to(where.sum(-1)[:, None, None], num_picked.shape)
    logits = self._logits(
      scores[:, None], keys[:, None], jnp.cumsum(last, axis=1), last, num_picked, num_objects
    )
    left = (steps >= steps[:, None]) & real[:, None]
    return jnp.where(left, logits, _NEVER)

  def __call__(self, ranking: Ranking, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Picks objects one after the other.

    Returns:
      order `[B, N]`, indices of the objects, first pick first, padding after all objects; and the
      logits `[B, N steps, N]` of each step, objects in their given places.
    """
    keys = self.key(ranking.tokens)
    batch_size, max_objects, channels = ranking.tokens.shape
    batch = jnp.arange(batch_size)
    num_objects = where.sum(-1, keepdims=True).astype(ranking.scores.dtype)

    def pick(state, step):
      left, picked_sum, last = state
      num_picked = jnp.full((batch_size, 1), step, ranking.scores.dtype)
      logits = self._logits(ranking.scores, keys, picked_sum, last, num_picked, num_objects)
      # Padding stays behind every object, and what was picked behind the padding.
      logits = jnp.where(left & where, logits, _NEVER)
      chosen = jnp.where(left & ~where, _NEVER / 2, logits).argmax(-1)
      real = jnp.take_along_axis(where, chosen[:, None], axis=1)
      token = jnp.where(real, ranking.tokens[batch, chosen], 0)
      return (left.at[batch, chosen].set(False), picked_sum + token, token), (chosen, logits)

    start = (
      jnp.ones((batch_size, max_objects), bool),
      jnp.zeros((batch_size, channels)),
      jnp.zeros((batch_size, channels)),
    )
    _, (order, logits) = jax.lax.scan(pick, start, jnp.arange(max_objects))
    return order.T, jnp.moveaxis(logits, 0, 1)


class RankDecoder(nnx.Module):
  """Scores objects that are given by masks, true or predicted ones alike.

  Args:
    feature_channels: channels of the features that masks pool over.
    channels: of the object tokens.
    num_categories: number of categories.
    surround: see `Descriptors`.
    rngs: source of the initial kernels.
  """

  def __init__(self, feature_channels, channels, num_categories, *, surround, rngs: nnx.Rngs):
    self.describe = Descriptors(feature_channels, channels, surround=surround, rngs=rngs)
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
    """`masks [B, N, P]`, `where [B, N]` -> Ranking."""
    return self.compare(self.describe(appearance, masks), where)

  def compare(self, tokens: jax.Array, where: jax.Array) -> Ranking:
    """Scores objects beside one another; `tokens [B, N, C]` of `describe`."""
    tokens = self.widen(tokens)
    category_logits = self.category_head(self.category_norm(tokens))
    categories = jax.nn.softmax(category_logits)
    commonness = _commonness(categories, where)
    tokens = tokens + self.category_embed(jnp.concatenate([categories, commonness], axis=-1))
    bias = jnp.where(where, 0.0, _NEVER)[:, None, None]
    for attention, feed_forward in zip(self.attention, self.feed_forward, strict=True):
      tokens = feed_forward(attention(tokens, bias=bias))
    tokens = self.norm(tokens)
    return Ranking(self.score_head(tokens)[..., 0], category_logits, tokens)


def _commonness(categories: jax.Array, where: jax.Array) -> jax.Array:
  """Share of the scene's objects that are of an object's own category, `[B, N, 1]`.

  What is rare in a scene stands out; attention averages and finds it hard to count.
  """
  present = jnp.where(where[..., None], categories, 0)
  share = present.sum(1) / jnp.maximum(where.sum(-1), 1)[:, None]
  return jnp.einsum("bnk,bk->bn", categories, share)[..., None]
