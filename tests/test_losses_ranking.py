"""Promises that every ranking loss keeps, then the formula of each, then the reference values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax import losses

RTOL, ATOL = 2e-5, 2e-6  # float32 against float64


def softmax_reference(scores, labels, weights):
  log_sum = np.log(np.sum(np.exp(scores)))
  return sum(w * label * (log_sum - s) for s, label, w in zip(scores, labels, weights, strict=True))


def listmle_reference(scores, labels, weights):
  left, loss = list(np.argsort(-labels, kind="stable")), 0.0
  while left:
    loss += weights[left[0]] * (np.log(sum(np.exp(scores[j]) for j in left)) - scores[left[0]])
    left.pop(0)
  return loss


def pairwise_logistic_reference(scores, labels, weights):
  pairs = [(i, j) for i in range(len(scores)) for j in range(len(scores)) if labels[i] > labels[j]]
  return sum(weights[i] * np.log(1 + np.exp(scores[j] - scores[i])) for i, j in pairs)


REFERENCES = {
  losses.listmle_loss: listmle_reference,
  losses.pairwise_logistic_loss: pairwise_logistic_reference,
  losses.softmax_loss: softmax_reference,
}
every_loss = pytest.mark.parametrize("loss_fn", list(REFERENCES))


def random_lists(seed, *shape):
  """Scores, distinct labels (so that the order has no ties), a mask with an empty list, weights."""
  rng = np.random.default_rng(seed)
  scores = rng.normal(0, 2, shape).astype(np.float32)
  labels = rng.permuted(np.broadcast_to(np.arange(shape[-1]) * 0.7, shape), axis=-1)
  where = rng.random(shape) < 0.6
  where.reshape(-1, shape[-1])[0] = False
  where.reshape(-1, shape[-1])[1, :3] = True
  return scores, labels.astype(np.float32), where, rng.uniform(0.5, 2, shape).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("loss_fn", "reduce_fn"))
def value_and_gradient(loss_fn, scores, labels, *, reduce_fn=jnp.mean, **kwargs):
  return jax.value_and_grad(lambda s: loss_fn(s, labels, reduce_fn=reduce_fn, **kwargs))(scores)


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_equals_its_formula_written_out(loss_fn, weighted):
  scores, labels, where, weights = random_lists(0, 5, 8)
  weights = weights if weighted else np.ones_like(weights)
  expected = [
    REFERENCES[loss_fn](scores[i, w].astype(float), labels[i, w], weights[i, w]) if w.any() else 0.0
    for i, w in enumerate(where)
  ]
  kwargs = {"where": where, "weights": weights if weighted else None}
  each = loss_fn(scores, labels, **kwargs, reduce_fn=None)
  np.testing.assert_allclose(each, expected, RTOL, ATOL)
  total = loss_fn(scores, labels, **kwargs, reduce_fn=jnp.sum)
  np.testing.assert_allclose(total, np.sum(expected), RTOL)
  mean = loss_fn(scores, labels, **kwargs)
  np.testing.assert_allclose(mean, np.sum(expected) / where.any(-1).sum(), RTOL)


@every_loss
@pytest.mark.parametrize("filler", [1e30, -1e30, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan])
def test_what_lies_in_the_padding_changes_neither_value_nor_gradient(loss_fn, filler):
  scores, labels, where, weights = random_lists(1, 5, 8)
  value, gradient = value_and_gradient(loss_fn, scores, labels, where=where, weights=weights)
  padded = [
    np.where(where, array, filler).astype(np.float32) for array in (scores, labels, weights)
  ]
  value_2, gradient_2 = value_and_gradient(loss_fn, *padded[:2], where=where, weights=padded[2])
  np.testing.assert_array_equal(value_2, value)
  np.testing.assert_array_equal(gradient_2, gradient)
  assert not np.any(np.asarray(gradient)[~where])


@every_loss
def test_length_of_the_padding_changes_neither_value_nor_gradient(loss_fn):
  scores, labels, _, weights = random_lists(2, 5, 8)
  value, gradient = value_and_gradient(loss_fn, scores, labels, weights=weights)
  pad = ((0, 0), (0, 8))
  where = np.pad(np.ones_like(scores, bool), pad)
  longer = [np.pad(array, pad, constant_values=9.0) for array in (scores, labels, weights)]
  value_2, gradient_2 = value_and_gradient(loss_fn, *longer[:2], where=where, weights=longer[2])
  np.testing.assert_allclose(value_2, value, RTOL)
  np.testing.assert_allclose(gradient_2[:, :8], gradient, RTOL, ATOL)


@every_loss
@pytest.mark.parametrize("reduce_fn", [jnp.mean, jnp.sum])
def test_loss_of_padding_alone_is_zero_with_zero_gradient(loss_fn, reduce_fn):
  scores, labels, where, weights = random_lists(3, 5, 8)
  value, gradient = value_and_gradient(
    loss_fn, scores, labels, where=np.zeros_like(where), weights=weights, reduce_fn=reduce_fn
  )
  assert value == 0
  np.testing.assert_array_equal(gradient, np.zeros_like(scores))


@every_loss
def test_order_of_the_objects_in_the_list_does_not_matter(loss_fn):
  scores, labels, where, weights = random_lists(4, 5, 8)
  order = np.random.default_rng(5).permutation(8)
  value, gradient = value_and_gradient(loss_fn, scores, labels, where=where, weights=weights)
  value_2, gradient_2 = value_and_gradient(
    loss_fn, scores[:, order], labels[:, order], where=where[:, order], weights=weights[:, order]
  )
  np.testing.assert_allclose(value_2, value, RTOL)
  np.testing.assert_allclose(gradient_2, gradient[:, order], RTOL, ATOL)


@every_loss
def test_leading_axes_are_batch_axes(loss_fn):
  scores, labels, where, weights = random_lists(6, 2, 3, 5)
  each = loss_fn(scores, labels, where=where, weights=weights, reduce_fn=None)
  assert each.shape == (2, 3)
  for place in np.ndindex(2, 3):
    kwargs = {"where": where[place], "weights": weights[place]}
    alone = loss_fn(scores[place], labels[place], **kwargs)
    np.testing.assert_allclose(each[place], alone, RTOL, ATOL)


@every_loss
def test_weights_of_shape_1_weigh_whole_lists(loss_fn):
  scores, labels, where, _ = random_lists(7, 5, 8)
  each = loss_fn(scores, labels, where=where, reduce_fn=None)
  weights = np.array([[1.0], [2.0], [0.0], [0.5], [1.0]], np.float32)
  weighted = loss_fn(scores, labels, where=where, weights=weights, reduce_fn=None)
  np.testing.assert_allclose(weighted, each * weights[:, 0], RTOL)


@every_loss
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_gradient_is_finite_for_equal_labels_and_large_scores(loss_fn, scale, label):
  scores = np.array([[3, -1, 2, 0.5], [0, 0, 0, 0]], np.float32) * np.float32(scale)
  labels = np.full_like(scores, label)
  where = np.array([[True, True, True, False], [True, False, False, False]])
  for each in (labels, labels + np.arange(4)):
    value, gradient = value_and_gradient(loss_fn, scores, each, where=where)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


@every_loss
@pytest.mark.parametrize("place", [0, 1])
def test_nan_in_a_real_input_is_not_hidden(loss_fn, place):
  inputs = [array.copy() for array in random_lists(8, 5, 8)[:2]]
  inputs[place][1, 2] = np.nan
  where = np.ones((5, 8), bool)
  where[3] = False
  assert np.isnan(loss_fn(*inputs, where=where))
  each = loss_fn(*inputs, where=where, reduce_fn=None)
  np.testing.assert_array_equal(np.isnan(each), [False, True, False, False, False])


def test_nan_among_objects_that_make_no_pair_is_not_hidden():
  assert np.isnan(losses.pairwise_logistic_loss(jnp.array([jnp.nan, 1.0]), jnp.ones(2)))


@every_loss
def test_bfloat16_scores_are_summed_in_float32(loss_fn):
  scores, labels, where, _ = random_lists(9, 5, 8)
  scores = jnp.asarray(scores, jnp.bfloat16)
  value, gradient = value_and_gradient(loss_fn, scores, labels.astype(int), where=where)
  assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
  expected = loss_fn(scores.astype(jnp.float32), labels.astype(int), where=where)
  np.testing.assert_allclose(value, expected, 1e-6)


@every_loss
def test_scores_in_the_order_of_the_labels_cost_less_than_the_reverse(loss_fn):
  labels = jnp.arange(5.0)
  assert loss_fn(labels, labels) < loss_fn(-labels, labels)


@every_loss
def test_labels_of_another_shape_are_refused(loss_fn):
  with pytest.raises(ValueError, match=r"scores \(2, 3\) and labels \(3,\)"):
    loss_fn(jnp.zeros((2, 3)), jnp.zeros(3))


def test_listmle_takes_objects_with_equal_labels_in_the_order_of_the_list():
  scores, labels = np.array([0.3, -1.2, 0.8, 2.0]), np.array([1.0, 2.0, 1.0, 1.0])
  expected = listmle_reference(scores, np.array([3.0, 4.0, 2.0, 1.0]), np.ones(4))
  np.testing.assert_allclose(losses.listmle_loss(scores, labels), expected, RTOL)


def test_equal_labels_make_no_pair():
  assert losses.pairwise_logistic_loss(jnp.array([3.0, -1.0]), jnp.array([1.0, 1.0])) == 0


@pytest.mark.parametrize("name", ["softmax", "listmle", "pairwise_logistic"])
def test_loss_and_gradient_equal_the_stored_reference(shared, name):
  cases = np.load(shared / "oracle" / "losses.npz")
  case = [str(i) for i in range(int(cases["n"])) if cases[f"{i}/loss"] == name][0]
  value, gradient = value_and_gradient(
    losses.build_ranking_loss(name),
    cases[f"{case}/scores"],
    cases[f"{case}/labels"],
    where=cases[f"{case}/where"],
    reduce_fn=jnp.sum,
  )
  np.testing.assert_allclose(value, cases[f"{case}/value"], 1e-6)
  np.testing.assert_allclose(gradient, cases[f"{case}/grad"], 1e-5, 1e-6)


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient_equal_rax(loss_fn, weighted):
  rax = pytest.importorskip("rax")
  if weighted and loss_fn is losses.listmle_loss:
    pytest.skip("rax has no weights in listmle_loss")
  scores, labels, where, weights = random_lists(11, 5, 8)
  kwargs = {"where": jnp.asarray(where), "reduce_fn": jnp.sum}
  if weighted:
    kwargs["weights"] = jnp.asarray(weights)
  labels = jnp.asarray(labels)
  value, gradient = value_and_gradient(loss_fn, scores, labels, **kwargs)
  rax_value, rax_gradient = value_and_gradient(
    getattr(rax, loss_fn.__name__), scores, labels, **kwargs
  )
  np.testing.assert_allclose(value, rax_value, 1e-6)
  np.testing.assert_allclose(gradient, rax_gradient, 1e-5, 1e-6)


def test_unknown_loss_is_refused_with_the_names_of_the_known():
  with pytest.raises(ValueError, match="listmle, pairwise_logistic, softmax, not 'listml'"):
    losses.build_ranking_loss("listml")
