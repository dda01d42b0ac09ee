"""Matching of queries to objects, against NumPy and SciPy."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from foir360_jax.models.cells import flat_weights
from foir360_jax.objective.matching import assign, matching_cost

match = jax.jit(assign)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def draw(rng, batch_size=2, num_queries=7, num_objects=4, height=6):
  return dict(
    mask_logits=rng.normal(size=(batch_size, num_queries, 2 * height**2)).astype(np.float32) * 3,
    object_logits=rng.normal(size=(batch_size, num_queries)).astype(np.float32),
    masks=(rng.random((batch_size, num_objects, 2 * height**2)) < 0.3).astype(np.float32),
    where=np.array([[True] * num_objects, [True, True] + [False] * (num_objects - 2)]),
    pixel_weights=np.asarray(flat_weights(height)),
  )


def test_the_cost_is_dice_entropy_and_doubt_written_out():
  arguments = draw(np.random.default_rng(0))
  cost = np.asarray(jax.jit(matching_cost)(**arguments))
  logits = arguments["mask_logits"].astype(np.float64)
  weights = arguments["pixel_weights"].astype(np.float64)
  for b, n, q in np.ndindex(cost.shape):
    if not arguments["where"][b, n]:
      continue
    mask, probability = arguments["masks"][b, n], sigmoid(logits[b, q])
    area = (weights * mask).sum()
    both = (weights * mask * probability).sum()
    dice = 1 - (2 * both + 1) / (area + (weights * probability).sum() + 1)
    entropy = -np.where(mask > 0, np.log(probability), np.log1p(-probability))
    entropy = (weights * entropy).sum() / (2 * area + 5)
    doubt = -sigmoid(arguments["object_logits"][b, q].astype(np.float64))
    np.testing.assert_allclose(cost[b, n, q], 5 * dice + 2 * entropy + 2 * doubt, rtol=1e-4)


def test_the_cost_of_padding_is_the_same_for_every_query_whatever_its_mask():
  rng = np.random.default_rng(1)
  arguments = draw(rng)
  cost = jax.jit(matching_cost)(**arguments)
  arguments["masks"][~arguments["where"]] = 1e6 * rng.random(2 * 36)
  with_garbage = jax.jit(matching_cost)(**arguments)
  np.testing.assert_array_equal(cost, with_garbage)
  assert np.ptp(np.asarray(cost)[~arguments["where"]]) == 0


@pytest.mark.parametrize("num_objects, num_queries", [(5, 9), (6, 6), (1, 4)])
def test_the_assignment_is_the_cheapest(num_objects, num_queries):
  rng = np.random.default_rng(num_queries)
  cost = rng.normal(size=(20, num_objects, num_queries)).astype(np.float32)
  found = np.asarray(match(cost))
  for example in range(len(cost)):
    _, queries = linear_sum_assignment(cost[example])
    assert found[example].tolist() == queries.tolist()


def test_with_equal_costs_every_object_still_has_its_own_query():
  cost = np.random.default_rng(3).integers(0, 3, (20, 5, 9)).astype(np.float32)
  cost[0], cost[1:5, 3:] = 0, 0  # padding: constant rows
  found = np.asarray(match(cost))
  for example in range(len(cost)):
    assert len(set(found[example].tolist())) == 5
    objects, queries = linear_sum_assignment(cost[example])
    paid = cost[example, np.arange(5), found[example]].sum()
    assert paid == cost[example, objects, queries].sum()


def test_fewer_queries_than_objects_are_refused_with_the_cure():
  message = "3 queries cannot serve 5 objects: raise config.model.num_queries"
  with pytest.raises(ValueError, match=message):
    assign(np.zeros((1, 5, 3), np.float32))
