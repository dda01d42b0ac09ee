"""The value of each ranking loss: its formula in NumPy, rax, and stored reference values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax import losses
from foir360_jax.losses import row_blocks

RTOL, ATOL = 2e-5, 2e-6  # float32 against float64


def softmax(scores, labels, weights):
  return np.sum(weights * labels * (np.log(np.sum(np.exp(scores))) - scores))


def listmle(scores, labels, weights):
  left, loss = list(np.argsort(-labels, kind="stable")), 0.0
  while left:
    loss += weights[left[0]] * (np.log(np.sum(np.exp(scores[left]))) - scores[left[0]])
    left.pop(0)
  return loss


def plackett_luce(scores, labels, weights, ties="breslow"):
  loss = 0.0
  for label in np.unique(labels):
    group, size = labels == label, np.sum(labels == label)
    left, tied = np.sum(np.exp(scores[labels <= label])), np.sum(np.exp(scores[group]))
    for step in range(size):
      out = tied * step / size if ties == "efron" else 0.0
      loss += weights[group].mean() * np.log(left - out)
  return loss - np.sum(weights * scores)


def pairs(cost, scores, labels, weights):
  is_pair = labels[:, None] > labels
  return np.sum(np.where(is_pair, weights[:, None] * cost(scores - scores[:, None]), 0))


def logistic(lag):
  return np.logaddexp(0, lag)


def hinge(lag, margin=1.0):
  return np.maximum(0, margin + lag)


def discount(ranks, topn=None):
  return np.where(ranks <= (topn or np.inf), 1 / np.log2(ranks + 1), 0)


def ideal_dcg(labels, topn=None):
  best = np.sum((2 ** np.sort(labels)[::-1] - 1) * discount(1 + np.arange(len(labels)), topn))
  return best if best > 0 else 1.0


def lambdarank(scores, labels, weights, topn=None):
  ranks = 1 + np.argsort(np.argsort(-scores, kind="stable"))
  change = np.abs(np.subtract.outer(2**labels, 2**labels))
  change *= np.abs(np.subtract.outer(discount(ranks, topn), discount(ranks, topn)))
  change /= ideal_dcg(labels, topn)
  return pairs(lambda lag: change * logistic(lag), scores, labels, weights)


def approx_ndcg(scores, labels, weights, temperature=1.0, topn=None):
  beats = 1 / (1 + np.exp((scores[:, None] - scores) / temperature))
  ranks = 1 + np.sum(beats, -1) - 0.5  # without the object itself
  counts = np.ones_like(ranks)
  if topn is not None and topn < len(ranks):
    boundary = np.mean(np.sort(ranks)[topn - 1 : topn + 1])
    counts = 1 / (1 + np.exp((ranks - boundary) / temperature))
  terms = weights * (2**labels - 1) * discount(ranks) * counts
  return -np.sum(terms) / ideal_dcg(labels, topn)


def case(name, reference, **options):
  loss_fn = functools.partial(losses.build_ranking_loss(name), **options)
  return pytest.param(loss_fn, reference, id=" ".join([name, *map(str, options.values())]))


REFERENCES = [
  case("softmax", softmax),
  case("listmle", listmle),
  case("plackett_luce", plackett_luce),
  case("plackett_luce", functools.partial(plackett_luce, ties="efron"), ties="efron"),
  case("pairwise_logistic", functools.partial(pairs, logistic)),
  case("pairwise_hinge", functools.partial(pairs, hinge)),
  case("pairwise_hinge", functools.partial(pairs, lambda lag: hinge(lag, 0.3)), margin=0.3),
  case("lambdarank", lambdarank),
  case("lambdarank", functools.partial(lambdarank, topn=3), topn=3),
  case("lambdarank", lambdarank, topn=1000),
  case("approx_ndcg", approx_ndcg),
  case("approx_ndcg", functools.partial(approx_ndcg, temperature=0.2), temperature=0.2),
  case(
    "approx_ndcg", functools.partial(approx_ndcg, temperature=0.5, topn=3), temperature=0.5, topn=3
  ),
  case("approx_ndcg", approx_ndcg, topn=1000),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Three rows a block of lists of 7 objects, the last block not full."""
  monkeypatch.setattr(row_blocks, "_TILE_ELEMENTS", {"cpu": 6 * 7 * 3})


def random_lists(seed, *shape, grades=None):
  """Scores, labels (all different, or of some grades), a mask with an empty list, weights."""
  rng = np.random.default_rng(seed)
  labels = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1) * 4 / shape[-1]
  if grades is not None:
    labels = rng.integers(0, grades, shape)
  where = rng.random(shape) < 0.6
  where[0], where[1], where[2] = False, True, np.arange(shape[-1]) == 0
  arrays = rng.normal(0, 2, shape), labels, rng.uniform(0.5, 2, shape)
  scores, labels, weights = (array.astype(np.float32) for array in arrays)
  return scores, labels, where, weights


@functools.partial(jax.jit, static_argnames=("loss_fn", "reduce_fn"))
def value_and_gradient(loss_fn, scores, labels, reduce_fn=jnp.sum, **kwargs):
  return jax.value_and_grad(lambda s: loss_fn(s, labels, reduce_fn=reduce_fn, **kwargs))(scores)


@pytest.mark.parametrize(("loss_fn", "reference"), REFERENCES)
@pytest.mark.parametrize(("length", "grades"), [(7, 3), (130, None)])
def test_loss_equals_its_formula_in_numpy(loss_fn, reference, length, grades):
  scores, labels, where, weights = random_lists(length, 6, length, grades=grades)
  expected = [
    reference(scores[i, w].astype(float), labels[i, w].astype(float), weights[i, w])
    if w.any()
    else 0.0
    for i, w in enumerate(where)
  ]
  each = jax.jit(functools.partial(loss_fn, reduce_fn=None))(
    scores, labels, where=where, weights=weights
  )
  np.testing.assert_allclose(each, expected, RTOL, ATOL)


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_plackett_luce_without_ties_is_listmle(ties):
  scores, labels, where, weights = random_lists(1, 6, 7)
  kwargs = {"where": where, "weights": weights}
  value, gradient = value_and_gradient(losses.listmle_loss, scores, labels, **kwargs)
  loss_fn = functools.partial(losses.plackett_luce_loss, ties=ties)
  value_2, gradient_2 = value_and_gradient(loss_fn, scores, labels, **kwargs)
  np.testing.assert_allclose(value_2, value, 1e-6)
  np.testing.assert_allclose(gradient_2, gradient, 1e-6, 1e-6)


def test_lists_of_one_object_cost_what_the_formulas_say():
  scores, labels, weights = np.float32([[0.3]]), np.float32([[2.0]]), np.float32([[1.5]])

  @jax.jit
  def all_losses():
    return [case.values[0](scores, labels, weights=weights) for case in REFERENCES]

  for case, value in zip(REFERENCES, all_losses(), strict=True):
    expected = case.values[1](scores[0], labels[0], weights[0])
    np.testing.assert_allclose(value, expected, RTOL, ATOL, err_msg=case.id)


def test_efron_is_closer_than_breslow_to_the_mean_over_all_orders_of_the_tied():
  scores, labels = np.array([0.5, -0.2, 1.0]), np.array([1.0, 1.0, 0.0])
  orders = [labels + [0.1, 0, 0], labels + [0, 0.1, 0]]
  mean = np.mean([listmle(scores, order, np.ones(3)) for order in orders])
  breslow, efron = (
    jax.jit(functools.partial(losses.plackett_luce_loss, ties=ties))(scores, labels)
    for ties in ("breslow", "efron")
  )
  assert abs(efron - mean) < 0.1 * abs(breslow - mean)


def test_gain_and_discount_functions_are_used():
  scores, labels = np.float32([2, 1]), np.float32([1, 3])
  options = {"gain_fn": lambda y: y, "discount_fn": lambda r: 1 / r}
  ideal = 3 / 1 + 1 / 2
  value = jax.jit(functools.partial(losses.lambdarank_loss, **options))(scores, labels)
  np.testing.assert_allclose(value, (3 - 1) * (1 - 1 / 2) / ideal * np.log(1 + np.e), 1e-6)
  ranks = 1 + 1 / (1 + np.exp([1, -1]))
  value = jax.jit(functools.partial(losses.approx_ndcg_loss, **options))(scores, labels)
  np.testing.assert_allclose(value, -np.sum(labels / ranks) / ideal, 1e-6)


def rax_approx_ndcg(scores, labels, *, where, reduce_fn, temperature=1.0, topn=None):
  """What rax.approx_t12n(rax.ndcg_metric) computes; it does not run on current JAX."""
  beats = jax.nn.sigmoid((scores[..., None, :] - scores[..., :, None]) / temperature)
  others = where[..., None, :] & ~np.eye(scores.shape[-1], dtype=bool)
  ranks = jnp.sum(beats, axis=-1, where=others, initial=1.0)
  count, ideal_where = jnp.ones_like(ranks), where
  best_first = jnp.argsort(jnp.argsort(jnp.where(where, -labels, jnp.inf)))
  if topn is not None:
    ordered = jnp.sort(jnp.where(where, ranks, jnp.inf))
    boundary = jax.lax.stop_gradient((ordered[..., topn - 1] + ordered[..., topn]) / 2)[..., None]
    is_longer = where.sum(-1, keepdims=True) > topn
    boundary = jnp.where(is_longer, boundary, 0)
    count = jnp.where(is_longer, jax.nn.sigmoid((boundary - ranks) / temperature), 1)
    ideal_where = where & (best_first < topn)
  gains = 2**labels - 1
  dcg = jnp.sum(gains / jnp.log2(ranks + 1) * count, axis=-1, where=where)
  ideal = jnp.sum(gains / jnp.log2(best_first + 2), axis=-1, where=ideal_where)
  return reduce_fn(-dcg / jnp.where(ideal == 0, 1, ideal), where=where.any(-1))


def rax_lambdarank(scores, labels, **kwargs):
  rax = pytest.importorskip("rax")
  weigh = functools.partial(rax.dcg_lambdaweight, normalize=True)
  total = rax.pairwise_logistic_loss(scores, labels, lambdaweight_fn=weigh, **kwargs)
  return total / scores.shape[-1]  # rax multiplies by the length of the list


def rax_function(name):
  return lambda *args, **kwargs: getattr(pytest.importorskip("rax"), name)(*args, **kwargs)


RAX = {
  "softmax": (rax_function("softmax_loss"), {}),
  "listmle": (rax_function("listmle_loss"), {}),
  "pairwise_logistic": (rax_function("pairwise_logistic_loss"), {}),
  "pairwise_hinge": (rax_function("pairwise_hinge_loss"), {}),
  "lambdarank": (rax_lambdarank, {}),
  "approx_ndcg": (rax_approx_ndcg, {"temperature": 0.7}),
  "approx_ndcg topn": (rax_approx_ndcg, {"temperature": 0.7, "topn": 3}),
}


# The other losses have no weights in rax, or use them otherwise.
WEIGHTED_IN_RAX = ("softmax", "pairwise_logistic", "pairwise_hinge")


@pytest.mark.parametrize(
  ("name", "weighted"),
  [(name, False) for name in RAX] + [(name, True) for name in WEIGHTED_IN_RAX],
)
def test_loss_and_gradient_equal_rax(name, weighted):
  theirs, options = RAX[name]
  scores, labels, where, weights = map(jnp.asarray, random_lists(11, 6, 7))
  kwargs = {"where": where} | ({"weights": weights} if weighted else {})
  ours = functools.partial(losses.build_ranking_loss(name.split()[0]), **options)
  value, gradient = value_and_gradient(ours, scores, labels, **kwargs)
  theirs = functools.partial(theirs, **options)
  expected_value, expected_gradient = value_and_gradient(theirs, scores, labels, **kwargs)
  np.testing.assert_allclose(value, expected_value, 1e-6)
  np.testing.assert_allclose(gradient, expected_gradient, 1e-5, 1e-6)


@pytest.mark.parametrize(
  "name", ["softmax", "listmle", "pairwise_logistic", "pairwise_hinge", "lambdarank", "approx_ndcg"]
)
def test_loss_and_gradient_equal_the_stored_reference(shared, name):
  cases = np.load(shared / "oracle" / "losses.npz")
  index = [i for i in range(int(cases["n"])) if cases[f"{i}/loss"] == name][0]
  stored = {key.split("/")[1]: cases[key] for key in cases if key.startswith(f"{index}/")}
  value, gradient = value_and_gradient(
    losses.build_ranking_loss(name), stored["scores"], stored["labels"], where=stored["where"]
  )
  np.testing.assert_allclose(value, stored["value"], 1e-6)
  np.testing.assert_allclose(gradient, stored["grad"], 1e-5, 1e-6)


def test_unknown_loss_is_refused_with_the_names_of_the_known():
  with pytest.raises(ValueError, match="listmle, .*, softmax, not 'listml'"):
    losses.build_ranking_loss("listml")


MEANS_OVER = {
  "approx_ndcg": lambda labels: 1,
  "lambdarank": lambda labels: 1,
  "listmle": len,
  "pairwise_hinge": lambda labels: sum(a > b for a in labels for b in labels),
  "pairwise_logistic": lambda labels: sum(a > b for a in labels for b in labels),
  "plackett_luce": len,
  "softmax": sum,
}


@pytest.mark.parametrize("name", MEANS_OVER)
def test_mean_of_a_list_is_its_loss_over_what_the_loss_adds_up(name):
  scores, labels, where, _ = random_lists(13, 6, 7)
  where[2] = False

  @jax.jit
  def means_and_sums(scores, labels, where):
    means = losses.build_mean_ranking_loss(name)(scores, labels, where=where)
    return means, losses.build_ranking_loss(name)(scores, labels, where=where, reduce_fn=None)

  means, sums = map(np.asarray, means_and_sums(scores, labels, where))
  for mean, total, row, real in zip(means, sums, labels, where, strict=True):
    size = MEANS_OVER[name](row[real].tolist())
    np.testing.assert_allclose(mean, total / size if size else 0.0, 1e-5, 1e-7)


def test_means_of_lists_of_all_lengths_are_of_one_size():
  """Scores of chance cost about as much in a short list as in a long one."""
  rng = np.random.default_rng(3)
  for name in ("pairwise_logistic", "pairwise_hinge"):
    short, long = (
      jax.jit(losses.build_mean_ranking_loss(name))(
        *rng.normal(size=(2, 64, n)).astype(np.float32), where=np.ones((64, n), bool)
      ).mean()
      for n in (4, 40)
    )
    assert 0.7 < long / short < 1.4


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("plackett_luce", {"ties": "exact"}, "ties must be 'breslow' or 'efron', not 'exact'"),
    ("lambdarank", {"topn": 0}, "topn must be at least 1, not 0"),
    ("approx_ndcg", {"topn": -1}, "topn must be at least 1, not -1"),
    ("approx_ndcg", {"temperature": 0.0}, "temperature must be positive, not 0.0"),
  ],
)
def test_senseless_option_is_refused(name, options, message):
  with pytest.raises(ValueError, match=message):
    losses.build_ranking_loss(name)(np.zeros(3), np.zeros(3), **options)
