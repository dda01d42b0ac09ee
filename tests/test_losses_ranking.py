"""Promises that every ranking loss keeps; their formulas are in test_losses_formulas.py."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from foir360_jax import losses
from foir360_jax.losses import row_blocks

RTOL, ATOL = 1e-5, 2e-6
SHAPE = (5, 7)
LOSSES = {
  "approx_ndcg": losses.approx_ndcg_loss,
  "approx_ndcg_topn": functools.partial(losses.approx_ndcg_loss, topn=2, temperature=0.3),
  "lambdarank": losses.lambdarank_loss,
  "listmle": losses.listmle_loss,
  "pairwise_hinge": losses.pairwise_hinge_loss,
  "pairwise_logistic": losses.pairwise_logistic_loss,
  "plackett_luce_breslow": losses.plackett_luce_loss,
  "plackett_luce_efron": functools.partial(losses.plackett_luce_loss, ties="efron"),
  "softmax": losses.softmax_loss,
}
every_loss = pytest.mark.parametrize("loss_fn", [pytest.param(f, id=n) for n, f in LOSSES.items()])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Two rows a block, the last one half full: losses over pairs take several blocks."""
  monkeypatch.setattr(row_blocks, "_TILE_ELEMENTS", {"cpu": 2 * np.prod(SHAPE)})


def random_lists(seed, *shape):
  """Scores, distinct labels (so that the order has no ties), a mask with an empty list, weights."""
  rng = np.random.default_rng(seed)
  scores = rng.normal(0, 2, shape).astype(np.float32)
  labels = rng.permuted(np.broadcast_to(np.arange(shape[-1]) * 0.7, shape), axis=-1)
  where = rng.random(shape) < 0.6
  where.reshape(-1, shape[-1])[0] = False
  where.reshape(-1, shape[-1])[1, :3] = True
  return scores, labels.astype(np.float32), where, rng.uniform(0.5, 2, shape).astype(np.float32)


@functools.partial(jax.jit, static_argnames="loss_fn")
def evaluate(loss_fn, scores, labels, where, weights):
  """The loss, its gradients by the scores and by the weights, and the loss of each list."""

  def loss(scores, weights, reduce_fn=jnp.mean):
    return loss_fn(scores, labels, where=where, weights=weights, reduce_fn=reduce_fn)

  value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(scores, weights)
  return value, *gradients, loss(scores, weights, None)


def evaluate_each(*args):
  return evaluate(*args)[-1]


def assert_close(actual, expected, rtol=RTOL, atol=ATOL):
  for one, other in zip(actual, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol, atol)


@every_loss
def test_mean_is_over_the_lists_that_have_objects(loss_fn):
  scores, labels, where, weights = random_lists(0, *SHAPE)
  mean, *_, each = evaluate(loss_fn, scores, labels, where, weights)
  assert each[0] == 0 and np.all(each[1:] != 0)
  np.testing.assert_allclose(mean, np.sum(each) / where.any(-1).sum(), RTOL)


@every_loss
@pytest.mark.parametrize("filler", [1e30, -3.4e38, np.inf, -np.inf, np.nan])
def test_what_lies_in_the_padding_changes_neither_value_nor_gradient(loss_fn, filler):
  scores, labels, where, weights = random_lists(1, *SHAPE)
  expected = evaluate(loss_fn, scores, labels, where, weights)
  scores, labels, weights = (
    np.where(where, array, filler).astype(np.float32) for array in (scores, labels, weights)
  )
  actual = evaluate(loss_fn, scores, labels, where, weights)
  for one, other in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(one, other)
  for gradient in actual[1:3]:
    assert not np.any(np.asarray(gradient)[~where])


@every_loss
def test_neither_the_length_of_the_padding_nor_a_further_leading_axis_matters(loss_fn):
  lists = random_lists(2, *SHAPE)
  value, *gradients, each = evaluate(loss_fn, *lists)
  pad = ((0, 0), (0, 6))
  longer = [
    np.pad(array, pad, constant_values=fill)[None]
    for array, fill in zip(lists, (9, 9, False, 9), strict=True)
  ]
  expected = [value, *(np.pad(gradient, pad)[None] for gradient in gradients), each[None]]
  assert_close(evaluate(loss_fn, *longer), expected)


@every_loss
def test_loss_of_padding_alone_is_zero_with_zero_gradient(loss_fn):
  scores, labels, where, weights = random_lists(3, *SHAPE)
  for array in evaluate(loss_fn, scores, labels, np.zeros_like(where), weights):
    assert not np.any(array)


@every_loss
def test_order_of_the_objects_in_the_list_does_not_matter(loss_fn):
  scores, labels, where, weights = random_lists(4, *SHAPE)
  order = np.random.default_rng(5).permutation(SHAPE[-1])
  value, *gradients, each = evaluate(loss_fn, scores, labels, where, weights)
  moved = [array[:, order] for array in (scores, labels, where, weights)]
  expected = [value, *(gradient[:, order] for gradient in gradients), each]
  assert_close(evaluate(loss_fn, *moved), expected)


@every_loss
def test_vmap_over_the_lists_agrees_with_the_batch(loss_fn):
  lists = random_lists(6, *SHAPE)

  @jax.jit
  @jax.vmap
  def one_by_one(scores, labels, where, weights):
    loss = functools.partial(loss_fn, labels=labels, where=where, weights=weights)
    return jax.value_and_grad(loss)(scores)

  _, gradient, _, each = evaluate(loss_fn, *lists)
  assert_close(one_by_one(*lists), [each, gradient * lists[2].any(-1).sum()])


@every_loss
def test_weights_of_shape_1_weigh_whole_lists(loss_fn):
  scores, labels, where, ones = *random_lists(7, *SHAPE)[:3], np.ones(SHAPE, np.float32)
  each = evaluate_each(loss_fn, scores, labels, where, ones)
  weights = np.array([[1.0], [2.0], [0.0], [0.5], [1.0]], np.float32)
  weigh = jax.jit(functools.partial(loss_fn, reduce_fn=None))
  weighted = weigh(scores, labels, where=where, weights=weights)
  np.testing.assert_allclose(weighted, each * weights[:, 0], RTOL)


@every_loss
def test_a_constant_added_to_all_scores_changes_nothing(loss_fn):
  scores, labels, where, weights = random_lists(15, *SHAPE)
  scores = np.round(scores * 16) / 16  # float32 holds the sums exactly
  expected = evaluate(loss_fn, scores, labels, where, weights)
  for constant in (-1e4, 1e4):
    actual = evaluate(loss_fn, scores + np.float32(constant), labels, where, weights)
    assert_close(actual, expected)


@every_loss
@pytest.mark.parametrize("scale", [0.0, 1e4, 1e30])
def test_value_and_gradient_are_finite_for_equal_labels_and_large_scores(loss_fn, scale):
  lists = [[3, -1, 2, 0.5, -3, 0, 1], [0] * 7, [1] * 7, [3, -3] * 3 + [0], [1] * 7]
  scores = np.array(lists, np.float32) * np.float32(scale)
  where = np.arange(7) < np.array([[3], [1], [7], [7], [2]])
  for labels in (np.zeros(SHAPE), np.ones(SHAPE), np.arange(35).reshape(SHAPE) % 6):
    for array in evaluate(loss_fn, scores, labels.astype(np.float32), where, np.ones(SHAPE)):
      assert np.all(np.isfinite(array))


@every_loss
def test_huge_scores_labels_and_weights_bring_no_nan_in_any_pattern_of_padding(loss_fn):
  huge = np.float32(3.4e38)
  patterns = np.array(list(itertools.product([False, True], repeat=5)))
  patterns = np.concatenate([patterns, patterns[:, :2]], axis=1)[2:].reshape(-1, *SHAPE)
  scores = [[1e32, 0, -1e32, 1, 5e31, 1e32, -7], [1e32] * 7, [huge, -huge, huge, 0, -huge, 1, 1e37]]
  labels = [[3, 0, 1, 2, 1, 0, 2], [0, 1, 2, 3, 4, 5, 6], [1e32, 0, 1e31, 3, huge, 1, 1]]
  weights = [[1] * 7, [1e32, 1, 0, 1e-32, 2, 0, 1e32], [0] * 7]
  lists = [[np.array(row, np.float32) for row in rows] for rows in (scores, labels, weights)]
  for (i, s), (j, x), (k, w) in itertools.product(*map(enumerate, lists)):
    for where in patterns:
      for score in (s, -s):
        results = evaluate(loss_fn, *(np.broadcast_to(a, SHAPE) for a in (score, x)), where, w)
        assert not any(np.isnan(array).any() for array in results)
        assert not np.any(np.asarray(results[1])[~where])
        if max(i, j) < 2 and k == 0:  # what is asked for is a float
          assert all(np.isfinite(array).all() for array in results)


@every_loss
def test_hessian_equals_finite_differences_of_the_gradient(loss_fn):
  rng = np.random.default_rng(16)
  where = np.array([True, False, True, True, True, False, True])
  scores, weights = rng.normal(size=7), rng.uniform(0.5, 2, 7)
  labels = np.array([1.0, 3.0, 0.0, 2.0, 2.0, 1.0, 0.0])
  steps = 1e-5 * np.eye(7)

  @jax.jit
  def evaluate_both(scores):
    loss = functools.partial(loss_fn, labels=labels, where=where, weights=weights)
    gradient = jax.vmap(jax.grad(loss))
    differences = gradient(scores + steps) - gradient(scores - steps)
    return jax.hessian(loss)(scores), differences / 2e-5

  with jax.enable_x64(True):
    hessian, expected = evaluate_both(scores)
  assert np.isfinite(hessian).all()
  if loss_fn is not LOSSES["approx_ndcg_topn"]:  # there a part counts as constant
    np.testing.assert_allclose(hessian, expected, atol=1e-7)
  assert np.any(hessian) or loss_fn is losses.pairwise_hinge_loss  # which is linear


@pytest.mark.parametrize("name", ["pairwise_logistic", "lambdarank"])
def test_hessian_of_losses_over_pairs_is_that_of_their_formula(name):
  scores, labels = jnp.array([0.5, 3.0, -1.0, 2.0]), np.array([1, 3, 0, 2])
  where = np.array([True, False, True, True])

  def formula(scores):
    objects = np.flatnonzero(where)
    gains, ranks = 2.0**labels - 1, np.array([2, 0, 3, 1])  # of the real objects by score
    ideal = sum(gains[i] / np.log2(place + 2) for place, i in enumerate((3, 0, 2)))
    total = 0.0
    for i, j in itertools.permutations(objects, 2):
      if labels[i] > labels[j]:
        change = (gains[i] - gains[j]) * (1 / np.log2(ranks[i] + 1) - 1 / np.log2(ranks[j] + 1))
        factor = abs(change) / ideal if name == "lambdarank" else 1.0
        total += factor * jax.nn.softplus(scores[j] - scores[i])
    return total

  loss = functools.partial(LOSSES[name], labels=labels, where=where)
  hessian, expected = jax.jit(lambda x: (jax.hessian(loss)(x), jax.hessian(formula)(x)))(scores)
  np.testing.assert_allclose(hessian, expected, atol=1e-6)


@every_loss
@pytest.mark.parametrize("place", ["scores", "labels", "weights"])
def test_nan_in_a_real_input_is_not_hidden(loss_fn, place):
  scores, _, _, weights = random_lists(8, *SHAPE)
  # No pair has different labels, no object has any gain.
  inputs = {"scores": scores, "labels": np.zeros(SHAPE, np.float32), "weights": weights}
  inputs[place][1, 2] = np.nan
  where = np.ones(SHAPE, bool)
  where[3] = False
  each = evaluate_each(loss_fn, inputs["scores"], inputs["labels"], where, inputs["weights"])
  np.testing.assert_array_equal(np.isnan(each), [False, True, False, False, False])


@every_loss
def test_bfloat16_scores_and_integer_labels_are_summed_in_float32(loss_fn):
  scores, labels, where, weights = random_lists(9, *SHAPE)
  scores, labels = scores.astype(jnp.bfloat16), labels.astype(np.int32)
  loss = functools.partial(loss_fn, labels=labels, where=where, weights=weights)
  value, gradient = jax.jit(jax.value_and_grad(loss))(scores)
  assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
  exact = scores.astype(np.float32), labels.astype(np.float32)
  expected = evaluate(loss_fn, *exact, where, weights)
  np.testing.assert_allclose(value, expected[0], 1e-6)
  np.testing.assert_array_equal(gradient, np.asarray(expected[1]).astype(jnp.bfloat16))


@every_loss
def test_gradient_equals_finite_differences_in_float64_and_forward_mode(loss_fn):
  scores, labels, where, weights = (
    array if array.dtype == bool else array.astype(np.float64) for array in random_lists(10, *SHAPE)
  )
  steps = np.random.default_rng(12).normal(size=(2, *SHAPE))

  def at(scores, weights):
    return loss_fn(scores, labels, where=where, weights=weights)

  @jax.jit
  def evaluate_along(length):
    place = scores + length * steps[0], weights + length * steps[1]
    return *jax.jvp(at, place, tuple(steps)), jax.grad(at, argnums=(0, 1))(*place)

  with jax.enable_x64(True):
    _, slope, gradients = evaluate_along(0.0)
    expected = sum(np.sum(g * step) for g, step in zip(gradients, steps, strict=True))
    np.testing.assert_allclose(slope, expected, 1e-9)
    if loss_fn is not LOSSES["approx_ndcg_topn"]:  # there a part counts as constant
      difference = float(evaluate_along(1e-6)[0]) - float(evaluate_along(-1e-6)[0])
      np.testing.assert_allclose(difference / 2e-6, expected, 1e-6)


@every_loss
def test_scores_in_the_order_of_the_labels_cost_less_than_the_reverse(loss_fn):
  labels = np.broadcast_to(np.arange(7, dtype=np.float32), SHAPE)
  where, weights = np.ones(SHAPE, bool), np.ones(SHAPE, np.float32)
  reverse = evaluate(loss_fn, -labels, labels, where, weights)[0]
  assert evaluate(loss_fn, labels, labels, where, weights)[0] < reverse


@every_loss
def test_labels_of_another_shape_are_refused(loss_fn):
  with pytest.raises(ValueError, match=r"scores \(2, 3\) and labels \(3,\)"):
    loss_fn(np.zeros((2, 3)), np.zeros(3))


def test_softmax_loss_can_be_differentiated_by_the_labels():
  scores, labels, where, weights = random_lists(13, *SHAPE)
  loss = functools.partial(losses.softmax_loss, scores, where=where, weights=weights)
  gradient = jax.jit(jax.grad(functools.partial(loss, reduce_fn=jnp.sum)))(labels)
  total = scipy.special.logsumexp(np.where(where, scores, -np.inf), axis=-1, keepdims=True)
  np.testing.assert_allclose(gradient, np.where(where, weights * (total - scores), 0), RTOL)


def test_devices_that_share_the_lists_agree_with_one_device():
  lists = random_lists(14, 8, 7)
  mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  split = jax.sharding.PartitionSpec("data")

  def all_losses(scores, labels, where, weights):
    def total(scores):
      kwargs = {"where": where, "weights": weights, "reduce_fn": None}
      return sum(loss_fn(scores, labels, **kwargs) for loss_fn in LOSSES.values()).sum()

    return jax.grad(total)(scores)

  expected = jax.jit(all_losses)(*lists)
  mapped = jax.shard_map(all_losses, mesh=mesh, in_specs=split, out_specs=split)
  np.testing.assert_allclose(jax.jit(mapped)(*lists), expected, RTOL, ATOL)
  shared = jax.sharding.NamedSharding(mesh, split)
  program = jax.jit(all_losses, in_shardings=shared, out_shardings=shared)
  np.testing.assert_allclose(program(*lists), expected, RTOL, ATOL)
