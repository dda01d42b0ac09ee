"""Recurrent ranking module (REM): picks the first, second, third ... object in turn.

At every step it looks at what has been picked so far and picks the most important of those left, or
stops. With the picked set S (tokens are pooled through the objects' masks, so S is what the picked
masks hold of the scene):

  read(i, S) = (e0 + sum over j in S of exp(a_ij) value(j)) / (1 + sum over j in S of exp(a_ij))
  a_ij       = c tanh(query(i) . key(j) / (c sqrt(C))),  c = 8
  kin(i, S)  = sum over j in S of kind(i) . kind(j)
  logit(i|S) = score(i) + e3 log(confidence(i)) + correct(hidden(i, S) - hidden(i, nothing))
  hidden     = relu(own(i) + read(i, S) + e1 log(1 + |S|) + e2 log(1 + kin(i, S)))
  stop(S)    = stop(mean of the tokens in S, log(1 + |S|))

Each object reads those picked that matter to it, or the learnt e0 where there is none, and knows
how many of its kind were picked (means over picks, as attention makes them, cannot count). What it
reads is added within the hidden layer of a perceptron, whose output counts from where nothing was
picked: the first pick goes by score, and only picks change that. (Otherwise the perceptron becomes
a second, noisier score.) What the query decoder doubts to be an object comes later; provided masks
are not doubted. All are sums over picks, so a step costs a few sums over the objects, however many
were picked.

(FOIR-360's figure shows the REM between decoder memory and rank head; its code is not public, so
this recurrence is our reading, close to SeqRank's sequential module: Guan and Lau, AAAI 2024.)

Axes: B examples, N objects, T steps, C channels, K categories.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.layers import Mlp
from foir360_jax.models.sphere_attention import BLOCKED

_LARGEST_AFFINITY = 8.0  # |a_ij|: its exponential neither overflows nor drowns a sum of 128 others


class Candidates(NamedTuple):
  """Objects to pick from.

  Attributes:
    scores: `[B, N]` of the rank decoder.
    tokens: `[B, N, C]` of the rank decoder.
    kinds: `[B, N, K]`, shares of the categories that an object may be of; they sum to 1.
    doubt: `[B, N]`, minus the logarithm of the detection confidence; 0 for provided masks.
  """

  scores: jax.Array
  tokens: jax.Array
  kinds: jax.Array
  doubt: jax.Array

  @property
  def alike(self) -> jax.Array:
    """`[B, N, N]`: the likelihood that two objects are of one category."""
    return jnp.einsum("bik,bjk->bij", self.kinds, self.kinds)


class Picks(NamedTuple):
  """What was picked, one after the other.

  Attributes:
    order: `[B, T]` indices of the objects, first pick first, padding after all objects.
    logits: `[B, T, N]` of each step, objects in their given places; `BLOCKED` for those that cannot
      be picked any more.
    stop: `[B, T]`, the logit of stopping instead.
  """

  order: jax.Array
  logits: jax.Array
  stop: jax.Array


class RecurrentRanking(nnx.Module):
  """The recurrent ranking module; see the formulas above."""

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    self.query = nnx.Linear(channels, channels, rngs=rngs)
    self.key = nnx.Linear(channels, channels, rngs=rngs)
    self.value = nnx.Linear(channels, channels, rngs=rngs)
    self.own = nnx.Linear(channels, channels, rngs=rngs)
    self.nothing = nnx.Param(jnp.zeros(channels, jnp.float32))  # e0
    self.progress = nnx.Param(jnp.zeros(channels, jnp.float32))  # e1
    self.kin = nnx.Param(jnp.zeros(channels, jnp.float32))  # e2
    self.trust = nnx.Param(jnp.array(1.0, jnp.float32))  # e3
    # Zeros: without training it picks by score and doubt, so a model that never trains it has no
    # noise of it.
    zeros = nnx.initializers.zeros
    self.correct = nnx.Linear(channels, 1, use_bias=False, kernel_init=zeros, rngs=rngs)
    self.stop = Mlp((channels + 1, channels, 1), last_scale=0.1, rngs=rngs)

  def _affinities(self, tokens: jax.Array) -> jax.Array:
    """`exp(a_ij)`, `[B, N, N]`."""
    products = jnp.einsum("bic,bjc->bij", self.query(tokens), self.key(tokens))
    scaled = products / (_LARGEST_AFFINITY * jnp.sqrt(tokens.shape[-1]))
    return jnp.exp(_LARGEST_AFFINITY * jnp.tanh(scaled))

  def _base(self, candidates: Candidates, own: jax.Array) -> jax.Array:
    """`[B, N]`: what no pick changes, so that corrections are 0 before the first one."""
    before = self.correct(nnx.relu(own + self.nothing[...]))[..., 0]
    return candidates.scores - self.trust[...] * candidates.doubt - before

  def _logits(self, base, own, read, num_picked, kin) -> jax.Array:
    """`base`, `kin [..., N]`, `own`, `read [..., N, C]`, `num_picked [...]` -> `[..., N]`."""
    progress = jnp.log1p(num_picked)[..., None, None] * self.progress[...]
    kin = jnp.log1p(kin)[..., None] * self.kin[...]
    return base + self.correct(nnx.relu(own + read + progress + kin))[..., 0]

  def _stop(self, picked_sum, num_picked) -> jax.Array:
    """`picked_sum [..., C]`, `num_picked [...]` -> `[...]`."""
    count = num_picked[..., None]
    mean = picked_sum / jnp.maximum(count, 1)
    return self.stop(jnp.concatenate([mean, jnp.log1p(count)], axis=-1))[..., 0]

  def forced(
    self, candidates: Candidates, where: jax.Array, order: jax.Array, num_steps: int
  ) -> tuple[jax.Array, jax.Array]:
    """Logits of the first steps when the picks are given: all at once, for training.

    Args:
      candidates: `N` objects.
      where: `[B, N]`.
      order: `[B, S]` indices of objects, first pick first; S up to N.
      num_steps: T, the number of steps, up to S + 1.

    Returns:
      `[B, T, N]` logits, objects in their given places, `BLOCKED` for padding and for what was
      picked before; and `[B, T]`, the logits of stopping.
    """
    scores, tokens, own = candidates.scores, candidates.tokens, self.own(candidates.tokens)
    base = self._base(candidates, own)
    rows = jnp.arange(order.shape[0])[:, None]
    place = jnp.full(scores.shape, scores.shape[-1]).at[rows, order].set(jnp.arange(order.shape[1]))
    steps = jnp.arange(num_steps)
    picked = where[:, None] & (place[:, None] < steps[:, None])  # [B, T, N]
    # To weigh by what was picked is to sum over the picks alone, for every step and object.
    weights = self._affinities(tokens)[:, None] * picked[:, :, None]
    read = jnp.einsum("btij,bjc->btic", weights, self.value(tokens)) + self.nothing[...]
    read = read / (1 + weights.sum(-1, keepdims=True))
    num_picked = picked.sum(-1).astype(scores.dtype)
    chosen = picked.astype(tokens.dtype)
    kin = jnp.einsum("btj,bij->bti", chosen, candidates.alike)
    logits = self._logits(base[:, None], own[:, None], read, num_picked, kin)
    picked_sum = jnp.einsum("btn,bnc->btc", chosen, tokens)
    logits = jnp.where(where[:, None] & ~picked, logits, BLOCKED)
    return logits, self._stop(picked_sum, num_picked)

  def __call__(
    self,
    candidates: Candidates,
    where: jax.Array,
    *,
    num_steps: int | None = None,
    given: jax.Array | None = None,
    obey: jax.Array | None = None,
  ) -> Picks:
    """Picks objects one after the other until none is left.

    Args:
      candidates: `N` objects.
      where: `[B, N]`.
      num_steps: T, if not all N: later picks are not made.
      given: `[B, N]`: in training, a preference among those left, in place of the logits ...
      obey: `[B, T]`: ... at those steps at which this is True.
    """
    if (given is None) != (obey is None):
      raise ValueError("give a preference and the steps that obey it, or neither")
    scores, tokens, where = candidates.scores, candidates.tokens, jnp.asarray(where)
    batch_size, num_objects, channels = tokens.shape
    batch = jnp.arange(batch_size)
    affinities, values, own = self._affinities(tokens), self.value(tokens), self.own(tokens)
    base, alike = self._base(candidates, own), candidates.alike

    def pick(state, step):
      left, numerator, denominator, kin, picked_sum = state
      num_picked = (where & ~left).sum(-1).astype(scores.dtype)
      logits = self._logits(base, own, numerator / denominator[..., None], num_picked, kin)
      stop = self._stop(picked_sum, num_picked)
      logits = jnp.where(left & where, logits, BLOCKED)
      wanted = logits
      if given is not None and obey is not None:
        wanted = jnp.where(obey[:, step, None], given, logits)
      # Padding stays behind every object, and what was picked behind the padding.
      wanted = jnp.where(left & where, wanted, jnp.where(left, 2 * BLOCKED, 4 * BLOCKED))
      chosen = wanted.argmax(-1)
      real = where[batch, chosen]
      weight = jnp.where(real[:, None], affinities[batch, :, chosen], 0)
      state = (
        left.at[batch, chosen].set(False),
        numerator + weight[..., None] * values[batch, chosen][:, None],
        denominator + weight,
        kin + jnp.where(real[:, None], alike[batch, :, chosen], 0),
        picked_sum + jnp.where(real[:, None], tokens[batch, chosen], 0),
      )
      return state, (chosen, logits, stop)

    start = (
      jnp.ones((batch_size, num_objects), bool),
      jnp.broadcast_to(self.nothing[...], tokens.shape),
      jnp.ones((batch_size, num_objects), tokens.dtype),
      jnp.zeros((batch_size, num_objects), tokens.dtype),
      jnp.zeros((batch_size, channels), tokens.dtype),
    )
    _, (order, logits, stop) = jax.lax.scan(pick, start, jnp.arange(num_steps or num_objects))
    return Picks(order.T, jnp.moveaxis(logits, 0, 1), stop.T)


def stop_margins(picks: Picks) -> jax.Array:
  """By how much each object was preferred to stopping, `[B, N]`; never more than the one before.

  An REM that stops as soon as stopping is at least as good (or by another offset) leaves exactly
  the objects with a positive margin (or one above the offset).
  """
  ahead = picks.logits.max(-1) - picks.stop
  along = jax.lax.cummin(ahead, axis=1)
  rows = jnp.arange(along.shape[0])[:, None]
  return jnp.zeros_like(along).at[rows, picks.order].set(along)
