import warnings

import numpy as np
import pytest
from scipy import stats

from foir360_jax import metrics


def random_image(seed, num_objects=5, num_predictions=7, height=20, width=40):
  """Boxes that overlap, some of them across the seam; predictions are moved objects."""
  rng = np.random.default_rng(seed)
  masks = np.zeros((num_predictions, height, width), bool)
  for mask in masks:
    row, column = rng.integers(0, height - 6), rng.integers(0, width)
    rows, columns = np.arange(row, row + rng.integers(2, 7)), np.arange(column, column + 9)
    mask[np.ix_(rows, columns % width)] = True
  shifts = rng.integers(-1, 2, (num_predictions, 2)) * rng.integers(0, 2, (num_predictions, 1))
  pred = np.stack([np.roll(mask, shift, (0, 1)) for mask, shift in zip(masks, shifts, strict=True)])
  relevance = rng.permutation(num_objects) + 1
  return masks[:num_objects], relevance, pred, rng.permutation(num_predictions) / 10


def sor_reference(masks, relevance, rank_map, coverage, rule):
  """The rules in words, object by object."""
  pairs = []
  for mask, own in zip(masks, relevance, strict=True):
    values = rank_map[mask]
    painted = values[values > 0]
    if rule == "ijcv":
      value = values.mean()
    elif painted.size > int(mask.sum() * coverage):
      value = stats.mode(painted).mode
    else:
      value = 0
    if own and value:
      pairs.append((own, value))
  if len(pairs) == 1 and rule == "assr":
    return 1.0, "used"
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", stats.ConstantInputWarning)
    rho = stats.spearmanr(*zip(*pairs, strict=True)).statistic if len(pairs) > 1 else np.nan
  return rho, "skipped" if np.isnan(rho) else "used"


@pytest.mark.parametrize(("rule", "coverage"), [("assr", 0.5), ("assr", 0.98), ("ijcv", 0.5)])
def test_sor_equals_its_rule_written_out(rule, coverage):
  values = []
  for seed in range(80):
    gt, relevance, pred, scores = random_image(seed, num_objects=1 + seed % 7)
    relevance[0] *= seed % 3 > 0  # left out in a third of the images
    rank_map = metrics.paint_rank_map(pred[seed % 2 :], scores[seed % 2 :])
    score = metrics.sor(gt, relevance, rank_map, coverage=coverage, rule=rule)
    expected, status = sor_reference(gt, relevance, rank_map, coverage, rule)
    assert score.status == status
    np.testing.assert_allclose(score.value, expected, atol=1e-12)
    values.append(score.value)
  assert len(np.unique(values)) > 4


def test_sor_from_masks_equals_its_rule_written_out():
  values = []
  for seed in range(40):
    gt, relevance, pred, scores = random_image(seed, num_objects=2 + seed % 4)
    gt, relevance = gt[np.argsort(-relevance)], -np.sort(-relevance)
    order = np.argsort(-scores)
    pairs = []
    for i, mask in enumerate(gt):
      overlaps = [(mask & pred[j]).sum() / (mask | pred[j]).sum() for j in order]
      first = next((place for place, overlap in enumerate(overlaps) if overlap > 0.5), None)
      if first is not None:
        pairs.append((len(gt) - i, len(pred) - first))
    if len(pairs) < 2 or len({place for _, place in pairs}) < 2:
      continue
    rho = stats.spearmanr(*zip(*pairs, strict=True)).statistic
    shuffle = np.random.default_rng(seed).permutation(len(gt))
    score = metrics.sor_from_masks(gt[shuffle], relevance[shuffle], pred, scores)
    assert score.status == "used"
    np.testing.assert_allclose(score.value, (rho + 1) / 2, atol=1e-12)
    values.append(score.value)
  assert len(values) > 20 and len(np.unique(values)) > 5


@pytest.mark.parametrize(
  ("iou", "expected"),
  [
    (np.zeros((0, 2)), (np.nan, "undefined")),
    (np.zeros((2, 2)), (0.0, "counted_zero")),
    (np.zeros((2, 0)), (0.0, "counted_zero")),
    ([[0.6, 0.0], [0.5, 0.0]], (1.0, "used")),  # one found: 0.5 does not exceed 0.5
    ([[0.6, 0.0], [0.6, 0.0]], (0.0, "counted_zero")),  # both by the same prediction
  ],
)
def test_sor_from_masks_of_images_with_little_to_rank(iou, expected):
  n, m = np.shape(iou)
  np.testing.assert_equal(tuple(metrics.sor_from_iou(iou, np.arange(n), np.arange(m))), expected)


def test_a_painted_share_of_exactly_the_coverage_does_not_find_an_object():
  masks = np.zeros((3, 1, 300), bool)
  for index, mask in enumerate(masks):
    mask[0, 100 * index : 100 * (index + 1)] = True
  rank_map = np.zeros((1, 300), np.uint8)
  rank_map[0, :98], rank_map[0, 100:199], rank_map[0, 200:] = 30, 20, 10
  assert metrics.sor(masks, [1, 2, 3], rank_map, coverage=0.98).value == -1  # of the last two
  np.testing.assert_allclose(metrics.sor(masks, [1, 3, 2], rank_map, coverage=0.98).value, 1)
  assert metrics.sor(masks, [1, 3, 2], rank_map, coverage=0.97).value == -0.5


def test_the_lowest_of_equally_frequent_levels_is_the_value():
  masks = np.zeros((2, 1, 8), bool)
  masks[0, 0, :4], masks[1, 0, 4:] = True, True
  rank_map = np.array([[9, 9, 50, 50, 20, 20, 20, 90]])
  assert metrics.sor(masks, [1, 2], rank_map).value == 1
  assert metrics.sor(masks, [1, 2], rank_map, rule="ijcv").value == 1  # means 29.5 and 37.5


def test_an_empty_true_mask_is_not_found_by_assr_and_leaves_the_image_out_by_ijcv():
  masks = np.eye(4, dtype=bool).reshape(4, 1, 4)
  masks[3] = False
  rank_map = np.array([[10, 20, 30, 0]])
  assert metrics.sor(masks, [1, 2, 3, 4], rank_map).value == 1
  assert metrics.sor(masks, [1, 2, 3, 4], rank_map, rule="ijcv").status == "skipped"


@pytest.mark.parametrize("rule", ["assr", "ijcv"])
@pytest.mark.parametrize("gt_masks", [[], np.zeros((0, 4, 8)), np.zeros((2, 4, 8))])
def test_images_where_nothing_is_found_are_skipped(rule, gt_masks):
  relevance = np.arange(len(gt_masks)) + 1
  value, status = metrics.sor(gt_masks, relevance, np.zeros((4, 8), int), rule=rule)
  assert np.isnan(value) and status == "skipped"


@pytest.mark.parametrize(
  ("relevance", "rank_map", "options", "message"),
  [
    ([1, 2], [[0, 1]], {}, r"map \(1, 2\) must have the masks' size \(1, 3\)"),
    ([1, 2, 3], [[0, 1, 2]], {}, r"gt_relevance \(3,\) must be \[2\]"),
    ([1, -2], [[0, 1, 2]], {}, "must be 0"),
    ([1, np.nan], [[0, 1, 2]], {}, "NaN"),
    ([1, 2], [[0, 0.5, 1]], {}, "integer levels"),
    ([1, 2], [[0, -1, 1]], {}, "integer levels"),
    ([1, 2], [[0, 256, 1]], {}, "integer levels"),
    ([1, 2], [[0, 1, 2]], {"rule": "psr"}, "assr or ijcv, not 'psr'"),
  ],
)
def test_inputs_that_do_not_fit_are_refused(relevance, rank_map, options, message):
  with pytest.raises(ValueError, match=message):
    metrics.sor(np.eye(2, 3).reshape(2, 1, 3), relevance, rank_map, **options)


def test_rolling_the_panorama_changes_nothing():
  gt, relevance, pred, scores = random_image(2)
  rank_map = metrics.paint_rank_map(pred, scores)
  rolled = [np.roll(x, 13, axis=-1) for x in (gt, rank_map, pred)]
  for rule in ("assr", "ijcv"):
    expected = metrics.sor(gt, relevance, rank_map, rule=rule)
    assert metrics.sor(rolled[0], relevance, rolled[1], rule=rule) == expected
  expected = metrics.sor_from_masks(gt, relevance, pred, scores)
  assert metrics.sor_from_masks(rolled[0], relevance, rolled[2], scores) == expected
