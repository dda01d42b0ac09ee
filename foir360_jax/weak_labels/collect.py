"""Step 3 of the weak labels: the collector, from local ranks of views to one order.

Axes: views V, objects N; `jax.vmap` for a batch of panoramas. Every collector takes the same
arguments, gives every real object a finite strength, and may be exchanged by its name:

    scores      [V, N]  local scores, higher = more important; differences (margins) mean something
    visibility  [V, N]  share of the object that the view sees well, in [0, 1]; 0 = does not see it
    order       [V, N]  int, when the view's object was erased: 0 = first = most important, -1 = not
                        seen
    prior       [N]     a score of the same unit, known without comparing (say, learned from size)
    where       [N]     bool, False for padding
    temperature         the margin, in units of the scores, that makes the odds e : 1
    prior_weight        what the prior counts beside the comparisons; > 0

What stands in the padding, and in views that do not see an object, never matters. Margins join
what bare orders leave apart, and the prior joins the rest: views that share no object are compared
by it alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Collected(NamedTuple):
  """The merged order of N objects.

  Attributes:
    strength: [N] higher = more important; 0 in the padding. In the unit of the scores, but for
      Borda, whose unit is the share of objects that an object beats.
    agreement: [N] in [0, 1]: of the object's comparisons, over views and other objects, the share
      that agrees with the final order. Comparisons weigh the product of the two visibilities, ties
      agree by half. 0 where an object was compared with none.
    connected: [N] bool: the object belongs to the largest component of the graph whose edges are
      pairs that some view sees together. Of components of one size, the one with the strongest
      object.
  """

  strength: jax.Array
  agreement: jax.Array
  connected: jax.Array


class _LocalScores(NamedTuple):
  """A collector's arguments, safe to compute with: 0 wherever an object is not seen or not real.

  `scores` is minus the order for the collectors that go by it.
  """

  scores: jax.Array  # [V, N]
  visibility: jax.Array  # [V, N]
  seen: jax.Array  # [V, N] bool
  prior: jax.Array  # [N]
  where: jax.Array  # [N] bool


Collector = Callable[..., Collected]


def bradley_terry(
  scores: ArrayLike,
  visibility: ArrayLike,
  order: ArrayLike,
  prior: ArrayLike,
  where: ArrayLike,
  *,
  temperature: float = 1.0,
  prior_weight: float = 0.1,
  steps: int = 10,
) -> Collected:
  """The most probable strengths when objects are compared two at a time, by their margins.

  With t = strength / temperature and q = prior / temperature it maximises

      sum_v sum_{i < j} w_vij (p_vij log sigma(t_i - t_j) + (1 - p_vij) log sigma(t_j - t_i))
        - prior_weight / 2 sum_i (t_i - q_i)^2

  where w_vij is the product of the visibilities and p_vij = sigma((s_vi - s_vj) / temperature). One
  view without a prior gives its own margins back. A weight of all comparisons would only divide
  `prior_weight`. Source: Bradley and Terry, Rank analysis of incomplete block designs, Biometrika
  1952.

  Args:
    scores: [V, N]; this and the next: see the module.
    visibility: [V, N].
    order: [V, N]; unused.
    prior: [N].
    where: [N].
    temperature: see the module.
    prior_weight: see the module.
    steps: of Newton's method; 10 are enough where scores and prior stay within about 30
      temperatures of their means.

  Raises:
    ValueError: `temperature` or `prior_weight` is not positive, or shapes do not fit.

  >>> seen = jnp.ones((1, 2))
  >>> result = bradley_terry([[3.0, 1.0]], seen, [[0, 1]], jnp.zeros(2), seen[0] > 0)
  >>> [round(float(t), 2) for t in result.strength]  # the prior shrinks the margin of 2
  [0.72, -0.72]
  """
  local = _mask_local_scores(scores, visibility, order, prior, where, temperature, prior_weight)
  pairs = _pair_weights(local)
  weights = pairs.sum(0)
  wins = (pairs * jax.nn.sigmoid(_margins(local.scores) / temperature)).sum(0)

  def gradient(t):
    return (wins - weights * jax.nn.sigmoid(_margins(t))).sum(-1)

  def couplings(t):
    expected = jax.nn.sigmoid(_margins(t))
    return weights * expected * expected.T

  strength = _most_probable(gradient, couplings, local, temperature, prior_weight, steps)
  return _judge(strength, local)


def plackett_luce(
  scores: ArrayLike,
  visibility: ArrayLike,
  order: ArrayLike,
  prior: ArrayLike,
  where: ArrayLike,
  *,
  temperature: float = 1.0,
  prior_weight: float = 0.1,
  steps: int = 10,
) -> Collected:
  """The most probable strengths when each view chooses its objects one after the other.

  With t = strength / temperature, q = prior / temperature and u the visibility it maximises

      sum_v sum_i u_vi (t_i - log(sum_{j: order_vj >= order_vi} u_vj exp(t_j)))
        - prior_weight / 2 sum_i (t_i - q_i)^2

  This is the expected log likelihood when the choice of an object is kept with probability u_vi:
  among kept choices, object j has probability u_vj exp(t_j) / sum u exp(t). So an object hardly
  seen hardly counts, neither as chosen nor as passed over, and yet its strength is not biased; with
  u in {0, 1} it is the plain likelihood of the orders. Only orders count, no margins.
  Sources: Plackett, The analysis of permutations, Applied Statistics 1975; the weights as in
  Binder, Fitting Cox's proportional hazards models from survey data, Biometrika 1992.

  Args:
    scores: [V, N]; unused. This and the next: see the module.
    visibility: [V, N].
    order: [V, N].
    prior: [N].
    where: [N].
    temperature: see the module.
    prior_weight: see the module.
    steps: of Newton's method.

  Raises:
    ValueError: `temperature` or `prior_weight` is not positive, or shapes do not fit.
  """
  local = _mask_local_scores(
    scores, visibility, order, prior, where, temperature, prior_weight, by_order=True
  )
  visible = local.visibility
  places = -local.scores
  rest = local.seen[:, None] & (places[:, None] >= places[:, :, None])
  rest |= jnp.eye(rest.shape[-1], dtype=bool)  # so that no sum is empty
  offset = jnp.log(jnp.where(local.seen, visible, 1.0))[:, None]

  def choices(t):  # [V, N chosen, N]
    return jax.nn.softmax(jnp.where(rest, t + offset, -jnp.inf), axis=-1)

  def gradient(t):
    return visible.sum(0) - (visible[..., None] * choices(t)).sum((0, 1))

  def couplings(t):
    rows = (jnp.sqrt(visible)[..., None] * choices(t)).reshape(-1, len(t))
    return jnp.matmul(rows.T, rows, precision="highest")

  strength = _most_probable(gradient, couplings, local, temperature, prior_weight, steps)
  return _judge(strength, local)


def mean_score(
  scores: ArrayLike,
  visibility: ArrayLike,
  order: ArrayLike,
  prior: ArrayLike,
  where: ArrayLike,
  *,
  temperature: float = 1.0,
  prior_weight: float = 0.1,
) -> Collected:
  """The mean of an object's local scores, weighted by visibility, the prior as one more of them.

  Arguments as in `bradley_terry`; `order` and `temperature` are unused.
  """
  local = _mask_local_scores(scores, visibility, order, prior, where, temperature, prior_weight)
  total = (local.visibility * local.scores).sum(0) + prior_weight * local.prior
  return _judge(total / (local.visibility.sum(0) + prior_weight), local)


def borda(
  scores: ArrayLike,
  visibility: ArrayLike,
  order: ArrayLike,
  prior: ArrayLike,
  where: ArrayLike,
  *,
  temperature: float = 1.0,
  prior_weight: float = 0.1,
) -> Collected:
  """The mean share of a view's other objects that an object beats, weighted by visibility.

  An object that no view compares with another gets the share of all objects that its prior beats.
  Arguments as in `bradley_terry`; `scores`, `temperature` and `prior_weight` are unused.
  """
  local = _mask_local_scores(
    scores, visibility, order, prior, where, temperature, prior_weight, by_order=True
  )
  beaten = _share_beaten(local.scores, local.seen)
  compares = local.seen & (local.seen.sum(-1, keepdims=True) > 1)
  weights = jnp.where(compares, local.visibility, 0.0)
  total = weights.sum(0)
  mean = (weights * beaten).sum(0) / jnp.where(total > 0, total, 1.0)
  alone = _share_beaten(local.prior, local.where)
  return _judge(jnp.where(total > 0, mean, alone), local)


COLLECTORS: dict[str, Collector] = {
  "bradley_terry": bradley_terry,
  "plackett_luce": plackett_luce,
  "mean": mean_score,
  "borda": borda,
}


def _most_probable(
  gradient, couplings, local: _LocalScores, temperature, prior_weight, steps: int
) -> jax.Array:
  """Maximises a concave sum of log-sum-exps of t plus the prior by Newton's method.

  `gradient(t)` [N] is the sum's, `couplings(t)` [N, N] its second derivatives off the diagonal, all
  >= 0; those on it are minus the row's sum, for only differences of t count. The objective never
  falls: of a few lengths of the step the longest is taken at which it still rises (it is concave).
  The shortest always is one: the third derivative along a step is at most the second times the
  step's spread r in a component, so that log(1 + r) / r of it maximises a lower bound (Bach,
  Self-concordant analysis for logistic regression, 2010). The start, the prior's mean over the
  component, has no saturated comparison to escape from, and is the solution for an object alone.
  """
  prior = local.prior / temperature
  reach = _components(local)
  start = reach.astype(jnp.float32) @ prior / reach.sum(-1)

  def slope(t):
    return jnp.where(local.where, gradient(t) - prior_weight * (t - prior), 0.0)

  def step(_, t):
    coupling = couplings(t) * (1.0 - jnp.eye(len(t)))  # rows of padding: those of the identity
    curvature = jnp.diag(coupling.sum(-1) + jnp.where(local.where, prior_weight, 1.0)) - coupling
    move = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(curvature), slope(t))
    low, high = (jnp.where(reach, move, fill) for fill in (jnp.inf, -jnp.inf))
    spread = jnp.maximum(high.max(-1) - low.min(-1), 1e-6)
    length = jnp.log1p(spread) / spread
    for longer in (jnp.sqrt(length), jnp.ones_like(length)):
      rises = jnp.where(reach, slope(t + longer * move) * move, 0.0).sum(-1) >= 0
      length = jnp.where(rises, longer, length)
    return t + length * move

  return temperature * jax.lax.fori_loop(0, steps, step, start)


def _share_beaten(scores: jax.Array, where: jax.Array) -> jax.Array:
  """The share of the other objects with a lower score, ties by half, [..., N]; 0 for one alone."""
  beats = (1 + jnp.sign(_margins(scores))) / 2
  others = where[..., None, :] & ~jnp.eye(where.shape[-1], dtype=bool)
  count = jnp.maximum(where.sum(-1, keepdims=True) - 1, 1)
  return jnp.where(where, jnp.where(others, beats, 0.0).sum(-1) / count, 0.0)


def _judge(strength: jax.Array, local: _LocalScores) -> Collected:
  strength = jnp.where(local.where, strength, 0.0)
  return Collected(strength, _agreement(strength, local), _largest_component(strength, local))


def _mask_local_scores(
  scores, visibility, order, prior, where, temperature, prior_weight, by_order=False
) -> _LocalScores:
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
  return _LocalScores(
    scores=jnp.where(seen, scores, 0.0),
    visibility=jnp.where(seen, visibility, 0.0),
    seen=seen,
    prior=jnp.where(where, prior, 0.0),
    where=where,
  )


def _margins(scores: jax.Array) -> jax.Array:
  """By how much each object is above each other, [..., N, N]."""
  return scores[..., :, None] - scores[..., None, :]


def _pair_weights(local: _LocalScores) -> jax.Array:
  """Products of the visibilities, [V, N, N]; 0 for an object with itself."""
  products = local.visibility[:, :, None] * local.visibility[:, None, :]
  return products * (1.0 - jnp.eye(products.shape[-1]))


def _agreement(strength: jax.Array, local: _LocalScores) -> jax.Array:
  """The share of an object's comparisons that agrees with the order of `strength`, [N] in [0, 1].

  Ties agree by half; 0 for objects that are compared with none.
  """
  pairs = _pair_weights(local)
  balance = (pairs * jnp.sign(_margins(local.scores))).sum(0) * jnp.sign(_margins(strength))
  compared = pairs.sum((0, 2))
  share = (1 + balance.sum(-1) / jnp.where(compared > 0, compared, 1.0)) / 2
  return jnp.where(compared > 0, jnp.clip(share, 0.0, 1.0), 0.0)


def _components(local: _LocalScores) -> jax.Array:
  """Whether two objects are joined by a chain of pairs that views see together, [N, N] bool."""
  seen = local.seen.astype(jnp.float32)
  reach = (seen.T @ seen > 0) | jnp.eye(seen.shape[-1], dtype=bool)
  for _ in range((len(reach) - 1).bit_length()):  # chains of 1, 2, 4 ... pairs
    reach = reach.astype(jnp.float32) @ reach.astype(jnp.float32) > 0
  return reach


def _largest_component(strength: jax.Array, local: _LocalScores) -> jax.Array:
  """Which objects are in the component with most objects, the strongest one's of equals, [N]."""
  reach = _components(local)
  size = jnp.where(local.where, reach.sum(-1), 0)
  peak = jnp.where(reach & local.where, strength, -jnp.inf).max(-1)
  largest = local.where & (size == size.max(initial=0))
  return largest & (peak == jnp.where(largest, peak, -jnp.inf).max(initial=-jnp.inf))
