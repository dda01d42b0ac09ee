import itertools

import numpy as np
import pytest

from foir360_jax import metrics

NAN = float("nan")
both_rules = pytest.mark.parametrize("rule", ["irsr", "seqrank"])


def random_boxes(rng, count, height=24, width=48):
  masks = np.zeros((count, height, width), np.uint8)
  for mask in masks:
    row, column = rng.integers(0, height - 6), rng.integers(0, width - 6)
    mask[row : row + rng.integers(3, 12), column : column + rng.integers(3, 12)] = 1
  return masks


def overlapping_image(seed, num_objects, num_predictions):
  """Predictions are the true masks, moved by a pixel or two; surplus ones lie anywhere."""
  rng = np.random.default_rng(seed)
  gt = random_boxes(rng, num_objects)
  pred = random_boxes(rng, num_predictions)
  for i in range(min(num_objects, num_predictions)):
    pred[i] = np.roll(gt[i], rng.integers(-2, 3, 2), (0, 1))
  return gt, rng.permutation(num_objects), pred, rng.permutation(num_predictions) / 10


def irsr_reference(iou, relevance, scores, threshold):
  """The rule in words, object by object; only for images without equal overlaps."""
  n, m = len(relevance), len(scores)
  match = {}
  for i in range(n):
    j = max(range(m), key=lambda j: iou[i][j])
    rivals = [k for k in range(n) if max(range(m), key=lambda j: iou[k][j]) == j]
    if iou[i][j] >= threshold and i == max(rivals, key=lambda k: iou[k][j]):
      match[i] = j
  pool = range(m) if n < m else match.values()
  ranks = [
    1 + sum(scores[k] < scores[match[i]] for k in pool) if i in match else 0 for i in range(n)
  ]
  true_ranks = [1 + sum(other < own for other in relevance) for own in relevance]
  return np.corrcoef(true_ranks, ranks)[0, 1] if len(set(ranks)) > 1 else 0.0


def seqrank_reference(iou, relevance, scores, threshold):
  """The best one-to-one assignment by trying all; for distinct relevance and scores."""
  n, m = len(relevance), len(scores)
  slots = list(range(m)) + [None] * n
  best = max(
    itertools.permutations(slots, n),
    key=lambda order: sum(iou[i][j] for i, j in enumerate(order) if j is not None),
  )
  score_ranks = [1 + sum(other < own for other in scores) for own in scores]
  ranks = [
    score_ranks[j] if j is not None and iou[i][j] > threshold else 0 for i, j in enumerate(best)
  ]
  true_ranks = [1 + sum(other < own for other in relevance) for own in relevance]
  return np.corrcoef(true_ranks, ranks)[0, 1] if len(set(ranks)) > 1 else 0.0


@pytest.mark.parametrize("threshold", [0.1, 0.5])
@pytest.mark.parametrize(
  ("rule", "reference"), [("irsr", irsr_reference), ("seqrank", seqrank_reference)]
)
def test_sa_sor_equals_its_rule_written_out(rule, reference, threshold):
  values = []
  for seed, (n, m) in enumerate([(2, 2), (3, 2), (3, 4), (4, 3), (4, 4), (3, 5)] * 5):
    gt, relevance, pred, scores = overlapping_image(seed, n, m)
    iou = metrics.mask_iou(gt, pred)
    if rule == "irsr" and np.unique(iou[iou > 0]).size < (iou > 0).sum():
      continue  # equal overlaps
    score = metrics.sa_sor(gt, relevance, pred, scores, iou_threshold=threshold, rule=rule)
    expected = reference(iou.tolist(), relevance, scores, threshold)
    np.testing.assert_allclose(score.value, expected, atol=1e-12)
    values.append(score.value)
  assert len(values) > 12 and len(set(values)) > 5


@both_rules
@pytest.mark.parametrize("seed", range(5))
def test_order_of_objects_and_predictions_does_not_matter(rule, seed):
  gt, relevance, pred, scores = overlapping_image(seed, 5, 6)
  pred[5] = pred[0]  # two predictions with the same overlap
  rng = np.random.default_rng(seed)
  i, j = rng.permutation(5), rng.permutation(6)
  score = metrics.sa_sor(gt, relevance, pred, scores, rule=rule)
  permuted = metrics.sa_sor(gt[i], relevance[i], pred[j], scores[j], rule=rule)
  np.testing.assert_allclose(permuted.value, score.value)


@both_rules
def test_only_the_order_of_relevance_and_scores_counts(rule):
  gt, relevance, pred, scores = overlapping_image(3, 5, 5)
  score = metrics.sa_sor(gt, relevance, pred, scores, rule=rule)
  assert score == metrics.sa_sor(gt, np.exp(relevance), pred, scores**3 - 7, rule=rule)


@both_rules
def test_perfect_predictions_score_1_and_reversed_ones_minus_1(rule):
  gt = np.eye(6).reshape(6, 2, 3)
  score = metrics.sa_sor(gt, np.arange(6), gt, np.arange(6) / 6, rule=rule)
  assert score.status == "used"
  np.testing.assert_allclose(score.value, 1)
  reverse = metrics.sa_sor(gt, np.arange(6), gt, -np.arange(6), rule=rule)
  np.testing.assert_allclose(reverse.value, -1)


@pytest.mark.parametrize(
  ("rule", "relevance", "scores", "expected"),
  [
    ("irsr", [], [], (NAN, "skipped")),
    ("irsr", [], [0.3], (NAN, "skipped")),
    ("irsr", [1], [0.3], (NAN, "skipped")),
    ("irsr", [2, 1], [], (0.0, "used")),
    ("irsr", [1, 1], [0.3, 0.2], (NAN, "skipped")),
    ("irsr", [2, 1], [0.3, 0.3], (0.0, "used")),
    ("seqrank", [], [], (NAN, "undefined")),
    ("seqrank", [], [0.3], (NAN, "undefined")),
    ("seqrank", [1], [0.3], (0.0, "counted_zero")),
    ("seqrank", [2, 1], [], (0.0, "counted_zero")),
    ("seqrank", [1, 1], [0.3, 0.2], (1.0, "used")),
  ],
)
def test_images_with_little_to_rank_have_the_status_of_their_rule(
  rule, relevance, scores, expected
):
  iou = np.eye(len(relevance), len(scores))
  score = metrics.sa_sor_from_iou(iou, relevance, scores, rule=rule)
  np.testing.assert_allclose(score.value, expected[0])
  assert score.status == expected[1]
  masks = np.eye(3).reshape(3, 1, 3)
  gt, pred = masks[: len(relevance)], masks[: len(scores)]
  np.testing.assert_equal(metrics.sa_sor(gt, relevance, pred, scores, rule=rule), score)


def test_an_overlap_of_exactly_the_threshold_matches_by_irsr_but_not_by_seqrank():
  gt = np.array([[[1, 1, 0, 0]], [[0, 0, 1, 0]]])
  pred = np.array([[[1, 0, 0, 0]], [[0, 0, 1, 0]]])
  assert metrics.sa_sor(gt, [1, 2], pred, [1, 2], rule="irsr").value == 1
  missed = metrics.sa_sor(gt, [2, 1], pred, [2, 1], rule="seqrank")
  assert missed.value == -1


def test_false_positives_shift_irsr_ranks_only_when_predictions_outnumber_objects():
  iou = np.diag([0.9, 0.9, 0.0, 0.0])  # two found, two missed, two false positives in between
  relevance, scores = [4, 3, 2, 1], [0.9, 0.6, 0.8, 0.7]
  equal_numbers = metrics.sa_sor_from_iou(iou, relevance, scores).value
  outnumbered = metrics.sa_sor_from_iou(iou[:3], relevance[:3], scores).value
  np.testing.assert_allclose(equal_numbers, np.corrcoef([4, 3, 2, 1], [2, 1, 0, 0])[0, 1])
  np.testing.assert_allclose(outnumbered, np.corrcoef([3, 2, 1], [4, 1, 0])[0, 1])


def test_two_empty_masks_match_by_irsr_as_in_the_published_program():
  gt = np.array([[[1, 0, 0]], [[0, 0, 0]], [[0, 1, 0]]])
  assert metrics.sa_sor(gt, [1, 3, 2], gt, [1, 3, 2], rule="irsr").value == 1
  expected = np.corrcoef([1, 3, 2], [1, 0, 2])[0, 1]
  score = metrics.sa_sor(gt, [1, 3, 2], gt, [1, 3, 2], rule="seqrank")
  np.testing.assert_allclose(score.value, expected)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((np.eye(2), [1, 2, 3], [1, 2]), r"iou \(2, 2\) must be \[3 relevances, 2 scores\]"),
    ((np.zeros((3, 0)), [1, 2, 3], [1, 2]), r"iou \(3, 0\) must be"),
    ((np.eye(2), [1, 2], [NAN, 2]), "NaN"),
    ((np.eye(2), [1, NAN], [1, 2]), "NaN"),
  ],
)
def test_inputs_that_do_not_fit_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    metrics.sa_sor_from_iou(*arguments)


def test_unknown_rule_is_refused_with_the_names_of_the_known():
  with pytest.raises(ValueError, match="irsr, seqrank, not 'coco'"):
    metrics.sa_sor_from_iou(np.eye(2), [1, 2], [1, 2], rule="coco")


def test_rank_correlation_is_sa_sor_with_the_true_masks():
  rng = np.random.default_rng(0)
  masks = np.eye(7).reshape(7, 1, 7)
  relevance, scores = rng.permutation(7), rng.normal(size=7)
  correlation = metrics.rank_correlation(relevance, scores)
  assert correlation == metrics.sa_sor(masks, relevance, masks, scores)
  ranks = np.argsort(np.argsort(scores))
  np.testing.assert_allclose(correlation.value, np.corrcoef(relevance, ranks)[0, 1])
  assert metrics.rank_correlation(relevance, np.ones(7)) == (0.0, "used")
  assert metrics.rank_correlation([1], [1]).status == "skipped"


def test_ranks_from_relevance_are_dense_and_start_at_the_most_important():
  ranks = metrics.ranks_from_relevance(np.array([0.2, 0.9, 0.2, 0.5], np.float32))
  np.testing.assert_array_equal(ranks, [3, 1, 3, 2])
  assert metrics.ranks_from_relevance([]).size == 0


def test_relevance_from_ranks_and_back_returns_the_dense_ranks():
  ranks = np.array([2, 1, 3, 2, 4])
  relevance = metrics.relevance_from_ranks(ranks)
  np.testing.assert_array_equal(relevance, [4, 5, 3, 4, 2])
  np.testing.assert_array_equal(metrics.ranks_from_relevance(relevance), ranks)
  with pytest.raises(ValueError, match="start at 1"):
    metrics.relevance_from_ranks([0, 1, 2])
