import functools

import jax
import numpy as np
import pytest
from scipy import optimize
from scipy.sparse import csgraph
from scipy.special import expit, logsumexp

from foir360_jax.weak_labels import COLLECTORS

VIEWS, OBJECTS = 4, 7
BY_ORDER = ("plackett_luce", "borda")
TEMPERATURE, PRIOR_WEIGHT = 0.7, 0.3


@functools.cache
def program(name):
  collect = functools.partial(COLLECTORS[name], temperature=TEMPERATURE, prior_weight=PRIOR_WEIGHT)
  return jax.jit(jax.vmap(collect))


def collect(name, *arguments):
  """One panorama; all tests share one compiled program a collector."""
  result = program(name)(*(np.asarray(x)[None] for x in arguments))
  return jax.tree.map(lambda x: np.asarray(x[0]), result)


def orders(scores, visibility):
  """The places of the seen objects by falling score, -1 for the others."""
  ranked = np.argsort(np.argsort(np.where(visibility > 0, -scores, np.inf), axis=1), axis=1)
  return np.where(visibility > 0, ranked, -1).astype(np.int32)


def draw(seed, seen=0.6, padding=0, spread=2.0):
  rng = np.random.default_rng(seed)
  shape = VIEWS, OBJECTS
  where = np.arange(OBJECTS) < OBJECTS - padding
  visibility = rng.uniform(0.05, 1, shape) * (rng.random(shape) < seen) * where
  scores = rng.normal(0, spread, shape)
  order = orders(scores + rng.normal(0, 1, shape), visibility)  # not quite that of the scores
  prior = rng.normal(0, spread, OBJECTS)
  return [
    scores.astype(np.float32),
    visibility.astype(np.float32),
    order,
    prior.astype(np.float32),
    where,
  ]


def objective(name, t, scores, visibility, order, prior):
  """The log posterior of t = strength / temperature, written out in float64."""
  total = -PRIOR_WEIGHT / 2 * ((t - prior / TEMPERATURE) ** 2).sum()
  for view in range(len(scores)):
    u, s, place = visibility[view].astype(float), scores[view].astype(float), order[view]
    for i in np.flatnonzero(u > 0):
      if name == "plackett_luce":
        rest = (u > 0) & (place >= place[i])
        total += u[i] * (t[i] - logsumexp(t[rest], b=u[rest]))
        continue
      for j in np.flatnonzero(u > 0):
        if i < j:
          p, d = expit((s[i] - s[j]) / TEMPERATURE), t[i] - t[j]
          total -= u[i] * u[j] * (p * np.logaddexp(0, -d) + (1 - p) * np.logaddexp(0, d))
  return total


def most_probable(name, scores, visibility, order, prior, where):
  real = np.flatnonzero(where)
  prior = prior[real].astype(float)
  given = scores[:, real], visibility[:, real], order[:, real], prior
  found = optimize.minimize(
    lambda t: -objective(name, t, *given),
    prior / TEMPERATURE,
    method="BFGS",
    options={"gtol": 1e-7},
  )
  strength = np.zeros(len(where))
  strength[real] = TEMPERATURE * found.x
  return strength


def slow_mean(scores, visibility, order, prior, where):
  strength = np.zeros(len(where))
  for i in np.flatnonzero(where):
    seen = visibility[:, i] > 0
    total = (visibility[seen, i] * scores[seen, i]).sum() + PRIOR_WEIGHT * prior[i]
    strength[i] = total / (visibility[seen, i].sum() + PRIOR_WEIGHT)
  return strength


def slow_borda(scores, visibility, order, prior, where):
  strength, real = np.zeros(len(where)), np.flatnonzero(where)
  for i in real:
    weights, shares = [], []
    for view in range(len(scores)):
      others = [j for j in real if j != i and visibility[view, j] > 0]
      if visibility[view, i] > 0 and others:
        weights.append(visibility[view, i])
        shares.append(np.mean([order[view, i] < order[view, j] for j in others]))
    if weights:
      strength[i] = np.average(shares, weights=weights)
    elif len(real) > 1:
      strength[i] = np.mean([prior[i] > prior[j] for j in real if j != i])
  return strength


SLOW = {
  "bradley_terry": functools.partial(most_probable, "bradley_terry"),
  "plackett_luce": functools.partial(most_probable, "plackett_luce"),
  "mean": slow_mean,
  "borda": slow_borda,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", COLLECTORS)
def test_strengths_are_those_of_a_slow_reference(name, seed):
  arguments = draw(seed, seen=0.4 + 0.15 * seed, padding=seed % 3, spread=1 + seed)
  result = collect(name, *arguments)
  np.testing.assert_allclose(result.strength, SLOW[name](*arguments), atol=2e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", COLLECTORS)
def test_agreement_is_the_weighted_share_of_comparisons_that_agree(name, seed):
  scores, visibility, order, prior, where = arguments = draw(seed, seen=0.5, padding=1)
  result = collect(name, *arguments)
  local = -order if name in BY_ORDER else scores
  for i in range(OBJECTS):
    agreeing = total = 0.0
    for view in range(VIEWS):
      for j in range(OBJECTS):
        weight = visibility[view, i] * visibility[view, j]
        if i != j and weight > 0:
          here = np.sign(local[view, i] - local[view, j])
          final = np.sign(result.strength[i] - result.strength[j])
          agreeing += weight * (1 + here * final) / 2
          total += weight
    assert result.agreement[i] == pytest.approx(agreeing / total if total else 0, abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_connected_is_the_largest_component_of_the_graph_of_comparisons(seed):
  arguments = draw(seed, seen=0.25, padding=1)
  result = collect("mean", *arguments)
  seen = (arguments[1] > 0).astype(int)
  _, labels = csgraph.connected_components(seen.T @ seen)
  real = np.flatnonzero(arguments[-1])
  sizes = {label: (labels[real] == label).sum() for label in labels[real]}
  largest = [label for label, size in sizes.items() if size == max(sizes.values())]
  strongest = max(largest, key=lambda label: result.strength[real][labels[real] == label].max())
  np.testing.assert_array_equal(result.connected, arguments[-1] & (labels == strongest))


def test_a_chain_of_views_connects_its_ends():
  visibility = np.zeros((VIEWS, OBJECTS), np.float32)
  for view in range(VIEWS):
    visibility[view, view : view + 2] = 1  # 0-1, 1-2, 2-3, 3-4; 5 and 6 are seen by none
  arguments = draw(0)
  arguments[1] = visibility
  assert collect("bradley_terry", *arguments).connected.tolist() == [True] * 5 + [False] * 2


@pytest.mark.parametrize("name", COLLECTORS)
def test_objects_and_views_may_come_in_any_order(name):
  scores, visibility, order, prior, where = arguments = draw(5, padding=2)
  rng = np.random.default_rng(6)
  objects, views = rng.permutation(OBJECTS), rng.permutation(VIEWS)
  moved = [x[views][:, objects] for x in (scores, visibility, order)]
  result, expected = (
    collect(name, *moved, prior[objects], where[objects]),
    collect(name, *arguments),
  )
  for value, expect in zip(result, expected, strict=True):
    np.testing.assert_allclose(value, expect[objects], atol=1e-5)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e9])
@pytest.mark.parametrize("name", COLLECTORS)
def test_what_is_not_seen_and_what_pads_changes_nothing(name, garbage):
  scores, visibility, order, prior, where = arguments = draw(7, padding=2)
  expected = collect(name, *arguments)
  scores = np.where(visibility > 0, scores, garbage).astype(np.float32)
  visibility = np.where(where, visibility, garbage).astype(np.float32)
  order = np.where(where, order, 1)
  prior = np.where(where, prior, garbage).astype(np.float32)
  result = collect(name, scores, visibility, order, prior, where)
  for value, expect in zip(result, expected, strict=True):
    np.testing.assert_array_equal(value, expect)
  assert not result.strength[~where].any()
  assert not result.agreement[~where].any() and not result.connected[~where].any()


@pytest.mark.parametrize("name", COLLECTORS)
def test_fewer_padded_objects_give_the_same(name):
  arguments = draw(8, padding=3)
  expected = collect(name, *arguments)
  count = int(arguments[-1].sum())
  alone = COLLECTORS[name](
    *(x[..., :count] for x in arguments), temperature=TEMPERATURE, prior_weight=PRIOR_WEIGHT
  )
  for value, expect in zip(alone, expected, strict=True):
    np.testing.assert_allclose(value, expect[:count], atol=1e-5)


@pytest.mark.parametrize("name", COLLECTORS)
def test_an_object_that_no_view_sees_gets_its_prior(name):
  scores, visibility, order, prior, where = draw(9, padding=1)
  visibility[:, 2], order[:, 2] = 0, -1
  result = collect(name, scores, visibility, order, prior, where)
  assert np.isfinite(result.strength).all() and result.agreement[2] == 0
  if name == "borda":
    assert result.strength[2] == pytest.approx((prior[2] > prior[where]).sum() / (where.sum() - 1))
  else:
    assert result.strength[2] == pytest.approx(prior[2], abs=1e-5)


@pytest.mark.parametrize("name", COLLECTORS)
def test_no_view_at_all_or_no_object_at_all_is_no_error(name):
  scores, visibility, order, prior, where = draw(10)
  blind = collect(name, scores, 0 * visibility, 0 * order - 1, prior, where)
  assert np.argsort(blind.strength).tolist() == np.argsort(prior).tolist()
  assert not blind.agreement.any() and blind.connected.sum() == 1
  nothing = collect(name, scores, visibility, order, prior, ~where)
  assert not any(np.any(value) for value in nothing)


@pytest.mark.parametrize("name", ["bradley_terry", "plackett_luce"])
def test_the_prior_orders_two_groups_that_no_view_compares(name):
  scores, visibility, _, prior, where = draw(11)
  visibility[:] = 0
  visibility[:2, :3] = 1
  visibility[2:, 3:] = 1
  order = orders(scores, visibility)
  prior[:3], prior[3:] = 0, 4
  low = collect(name, scores, visibility, order, prior, where)
  high = collect(name, scores, visibility, order, -prior, where)
  assert low.connected.tolist() == [False] * 3 + [True] * 4
  for result, sign in ((low, 1), (high, -1)):
    # Each group keeps the prior's mean, and within it the orders decide.
    means = result.strength[:3].mean(), result.strength[3:].mean()
    np.testing.assert_allclose(means, [0, sign * 4], atol=1e-4)
    np.testing.assert_allclose(result.strength[:3], low.strength[:3], atol=1e-4)
    np.testing.assert_allclose(result.strength[3:] - sign * 4, low.strength[3:] - 4, atol=1e-4)
  assert np.ptp(low.strength[:3]) > 0.1


def test_one_view_without_a_prior_gives_its_margins_back():
  scores = np.array([[3.0, 1.0, 0.0, -2.5]], np.float32)
  ones = np.ones_like(scores)
  result = COLLECTORS["bradley_terry"](
    scores, ones, orders(scores, ones), np.zeros(4), np.ones(4, bool), prior_weight=1e-5
  )
  np.testing.assert_allclose(result.strength, scores[0] - scores[0].mean(), atol=2e-3)
  assert result.agreement.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
  ("name", "seed", "spread", "seen"),
  [
    ("bradley_terry", 12, 1, 0.6),
    ("bradley_terry", 12, 30, 0.6),
    ("plackett_luce", 12, 1, 0.6),
    ("plackett_luce", 6, 30, 0.9),  # here whole steps would fall by 8.5
  ],
)
def test_the_objective_never_falls_and_ten_steps_are_enough(name, seed, spread, seen):
  scores, visibility, order, prior, where = arguments = draw(seed, seen=seen, spread=spread)
  run = jax.jit(
    functools.partial(COLLECTORS[name], temperature=TEMPERATURE, prior_weight=PRIOR_WEIGHT)
  )  # `steps` only bounds a loop, so one program serves all
  given = scores, visibility, order, prior.astype(float)
  strengths = [np.asarray(run(*arguments, steps=n).strength) for n in (0, 1, 2, 3, 4, 6, 10, 30)]
  values = [objective(name, t.astype(float) / TEMPERATURE, *given) for t in strengths]
  scale = 1e-5 * max(1, abs(values[-1]))
  assert (np.diff(values) > -scale).all()
  assert values[-2] == pytest.approx(values[-1], abs=scale)
  assert values[0] < values[-1] - 100 * scale


@pytest.mark.parametrize("name", COLLECTORS)
def test_an_object_hardly_seen_hardly_counts(name):
  arguments = draw(13, seen=1.0)
  arguments[1][0, :] = 0
  without = collect(name, *arguments)
  arguments[1][0, 3:5] = 1e-6
  np.testing.assert_allclose(collect(name, *arguments).strength, without.strength, atol=1e-4)


def test_plackett_luce_does_not_favour_what_is_seen_better():
  visibility = np.zeros((VIEWS, OBJECTS), np.float32)
  visibility[:2, 0], visibility[:2, 1] = 1.0, 0.2
  order = np.full((VIEWS, OBJECTS), -1, np.int32)
  order[0, :2], order[1, :2] = (0, 1), (1, 0)
  arguments = draw(14)
  result = collect(
    "plackett_luce", arguments[0], visibility, order, np.zeros(OBJECTS), arguments[4]
  )
  np.testing.assert_allclose(result.strength[:2], 0, atol=1e-6)


def test_a_wrong_argument_is_one_line():
  scores, visibility, order, prior, where = draw(15)
  with pytest.raises(ValueError, match="prior_weight must be positive, not 0"):
    COLLECTORS["mean"](scores, visibility, order, prior, where, prior_weight=0)
  with pytest.raises(ValueError, match="use jax.vmap for a batch"):
    COLLECTORS["borda"](scores[None], visibility, order, prior, where)
