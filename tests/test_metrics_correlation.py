import itertools

import numpy as np
import pytest
import rax
from scipy import stats

from foir360_jax import metrics

ALL = [metrics.kendall_tau_b, metrics.ndcg, metrics.pairwise_agreement, metrics.spearman]
every_metric = pytest.mark.parametrize("metric", ALL)


def random_lists(seed, num_levels):
  """Lists of 2 to 12 values with ties, neither of them constant."""
  rng = np.random.default_rng(seed)
  while True:
    lists = rng.integers(0, num_levels, (2, rng.integers(2, 13)))
    if (np.ptp(lists, axis=1) > 0).all():
      return lists


@pytest.mark.parametrize("num_levels", [2, 4, 50])
@pytest.mark.parametrize(
  ("metric", "reference"),
  [(metrics.kendall_tau_b, stats.kendalltau), (metrics.spearman, stats.spearmanr)],
)
def test_correlations_equal_scipy_with_and_without_ties(metric, reference, num_levels):
  for seed in range(60):
    relevance, scores = random_lists(seed, num_levels)
    value, status = metric(relevance, scores)
    assert status == "used"
    np.testing.assert_allclose(value, reference(relevance, scores).statistic, atol=1e-12)


@pytest.mark.parametrize("num_levels", [2, 4, 50])
def test_pairwise_agreement_counts_pairs(num_levels):
  for seed in range(30):
    relevance, scores = random_lists(seed, num_levels)
    points = [
      (1 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0)
      for i, j in itertools.permutations(range(relevance.size), 2)
      if relevance[i] > relevance[j]
    ]
    value = metrics.pairwise_agreement(relevance, scores).value
    np.testing.assert_allclose(value, np.mean(points))


@pytest.mark.parametrize("topn", [None, 1, 3, 99])
def test_ndcg_is_its_mean_over_all_orders_of_tied_scores(topn):
  for seed in range(12):
    relevance, scores = random_lists(seed, 4)
    relevance, scores = relevance[:6], scores[:6]
    if np.ptp(relevance) == 0:
      continue
    discounts = 1 / np.log2(2 + np.arange(relevance.size))
    discounts[len(discounts) if topn is None else topn :] = 0
    orders = [
      order
      for order in itertools.permutations(range(relevance.size))
      if (np.diff(scores[list(order)]) <= 0).all()
    ]
    achieved = np.mean([relevance[list(order)] @ discounts for order in orders])
    expected = achieved / (np.sort(relevance)[::-1] @ discounts)
    value = metrics.ndcg(relevance, scores, topn=topn).value
    np.testing.assert_allclose(value, expected, atol=1e-12)


@pytest.mark.parametrize("topn", [None, 4])
def test_ndcg_with_exponential_gain_equals_rax(topn):
  rng = np.random.default_rng(3)
  for _ in range(5):
    relevance, scores = rng.integers(0, 5, 9), rng.permutation(9) / 9
    expected = rax.ndcg_metric(scores.astype(np.float32), relevance.astype(np.float32), topn=topn)
    score = metrics.ndcg(relevance, scores, topn=topn, gain_fn=lambda r: 2**r - 1)
    np.testing.assert_allclose(score.value, expected, rtol=2e-5)


@every_metric
def test_the_right_order_has_1_and_no_other_order_has_more(metric):
  rng = np.random.default_rng(4)
  relevance = rng.permutation(8) + 1
  np.testing.assert_allclose(metric(relevance, relevance / 9).value, 1)
  assert metric(relevance, relevance / 9).status == "used"
  assert all(metric(relevance, rng.permutation(8)).value < 1 for _ in range(20))


@every_metric
def test_order_of_the_objects_and_scale_of_the_scores_do_not_matter(metric):
  relevance, scores = random_lists(5, 4)
  order = np.random.default_rng(5).permutation(relevance.size)
  expected = metric(relevance, scores).value
  np.testing.assert_allclose(metric(relevance[order], scores[order]).value, expected)
  np.testing.assert_allclose(metric(relevance, np.exp(scores) - 9).value, expected)


@every_metric
@pytest.mark.parametrize("relevance", [[], [1], [2, 2, 2]])
def test_images_with_nothing_to_order_are_skipped(metric, relevance):
  value, status = metric(relevance, np.arange(len(relevance)))
  assert np.isnan(value) and status == "skipped"


@pytest.mark.parametrize(
  ("metric", "expected"),
  [
    (metrics.kendall_tau_b, (0.0, "counted_zero")),
    (metrics.spearman, (0.0, "counted_zero")),
    (metrics.pairwise_agreement, (0.5, "used")),
  ],
)
def test_equal_scores_tell_nothing(metric, expected):
  assert metric([3, 1, 2], [0.4, 0.4, 0.4]) == expected


def test_ndcg_without_any_gain_is_skipped():
  assert metrics.ndcg([2, 1], [1, 2], gain_fn=np.zeros_like).status == "skipped"


@every_metric
@pytest.mark.parametrize(
  ("relevance", "scores", "message"),
  [
    ([1, 2], [1, 2, 3], r"\(2,\) and scores \(3,\)"),
    ([1, np.nan], [1, 2], "NaN"),
    ([1, 2], [1, np.nan], "NaN"),
  ],
)
def test_lists_that_do_not_fit_are_refused(metric, relevance, scores, message):
  with pytest.raises(ValueError, match=message):
    metric(relevance, scores)


def test_ndcg_refuses_negative_gains_and_an_empty_top():
  with pytest.raises(ValueError, match="must not be negative, but one is -1"):
    metrics.ndcg([-1, 2], [1, 2])
  with pytest.raises(ValueError, match="topn must be at least 1, not 0"):
    metrics.ndcg([1, 2], [1, 2], topn=0)


@pytest.mark.parametrize("num_levels", [3, 50])
def test_average_and_minimum_ranks_equal_scipy(num_levels):
  for values in random_lists(6, num_levels):
    np.testing.assert_array_equal(metrics.average_ranks(values), stats.rankdata(values))
    expected = stats.rankdata(values, "min")
    np.testing.assert_array_equal(metrics.minimum_ranks(values), expected)
