import numpy as np
import pytest

from foir360_jax import metrics
from foir360_jax.sphere import pixel_areas


def one_pixel_each(count):
  return np.eye(count, dtype=bool).reshape(count, 1, count)


@pytest.mark.parametrize("num_objects", [1, 5, 43, 255])
def test_uniform_levels_are_255_times_the_rank_over_the_number(num_objects):
  relevance = np.random.default_rng(0).permutation(num_objects)
  rank_map = metrics.paint_rank_map(one_pixel_each(num_objects), relevance)
  assert rank_map.dtype == np.uint8
  expected = [int(255 * (r + 1) / num_objects) for r in relevance.tolist()]
  np.testing.assert_array_equal(rank_map[0], expected)


def test_uniform_levels_of_ties_are_those_of_the_lowest_rank():
  rank_map = metrics.paint_rank_map(one_pixel_each(5), [2, 2, 1, 0, 0])
  np.testing.assert_array_equal(rank_map, [[204, 204, 153, 51, 51]])


def test_every_object_is_painted_even_if_there_are_more_than_levels():
  levels = metrics.paint_rank_map(one_pixel_each(700), np.arange(700))[0]
  assert levels[0] == 1 and levels[-1] == 255 and (np.diff(levels.astype(int)) >= 0).all()


def test_psr_levels_are_for_the_five_most_important():
  rank_map = metrics.paint_rank_map(one_pixel_each(7), [3, 9, 1, 7, 7, 5, 2], palette="psr")
  np.testing.assert_array_equal(rank_map, [[178, 255, 0, 229, 229, 204, 153]])


def test_the_more_important_object_covers_by_uniform_and_the_smaller_one_by_psr():
  masks = np.array([[[1, 1, 1, 0]], [[0, 1, 0, 0]], [[0, 0, 1, 1]]])
  uniform = metrics.paint_rank_map(masks, [3, 2, 1])
  np.testing.assert_array_equal(uniform, [[255, 255, 255, 85]])
  psr = metrics.paint_rank_map(masks, [3, 2, 1], palette="psr")
  np.testing.assert_array_equal(psr, [[255, 229, 204, 204]])


def test_a_map_without_objects_is_0_and_needs_a_size():
  assert not metrics.paint_rank_map(np.zeros((0, 4, 8)), []).any()
  assert metrics.paint_rank_map([], [], size=(4, 8)).shape == (4, 8)
  with pytest.raises(ValueError, match="pass size="):
    metrics.paint_rank_map([], [])


@pytest.mark.parametrize(
  ("relevance", "palette", "message"),
  [
    ([1, 2], "uniform", r"relevance \(2,\) must be \[3\]"),
    ([1, 2, np.nan], "uniform", "NaN"),
    ([1, 2, 3], "jet", "uniform or psr, not 'jet'"),
  ],
)
def test_paintings_that_cannot_be_are_refused(relevance, palette, message):
  with pytest.raises(ValueError, match=message):
    metrics.paint_rank_map(one_pixel_each(3), relevance, palette=palette)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
def test_errors_equal_their_formulas(dtype, weighted):
  rng = np.random.default_rng(1)
  gt, pred = (rng.integers(0, 256, (2, 6, 12)) * rng.integers(0, 2, (2, 6, 12))).astype(dtype)
  weights = rng.random((6, 1)) if weighted else None
  mean_weights = np.ones((6, 12)) if weights is None else np.tile(weights, 12)
  difference = np.abs(gt.astype(float) - pred.astype(float)) / 255
  expected = np.average(difference, weights=mean_weights)
  value = metrics.rank_map_mae(gt, pred, pixel_weights=weights)
  np.testing.assert_allclose(value, expected, rtol=1e-12)
  expected = np.average((gt > 0) != (pred > 0), weights=mean_weights)
  value = metrics.binary_mae(gt, pred, pixel_weights=weights)
  np.testing.assert_allclose(value, expected, rtol=1e-12)
  assert isinstance(value, float)


def test_errors_weighted_by_solid_angle_are_shares_of_the_sphere():
  gt = np.zeros((8, 16), np.uint8)
  pred = gt.copy()
  pred[:2] = 255  # north of 45 degrees: a quarter of the rows, 15 percent of the sphere
  areas = pixel_areas(8)
  share = (1 - np.sqrt(0.5)) / 2
  for error in (metrics.rank_map_mae, metrics.binary_mae):
    np.testing.assert_allclose(error(gt, pred, pixel_weights=areas), share, rtol=1e-5)
    assert error(gt, pred) == 0.25


@pytest.mark.parametrize("error", [metrics.rank_map_mae, metrics.binary_mae])
@pytest.mark.parametrize(
  ("pred_map", "message"),
  [
    (np.zeros((2, 5)), r"not \(2, 4\) and \(2, 5\)"),
    (np.full((2, 4), 256), "0 to 255"),
    (np.full((2, 4), -1), "0 to 255"),
    (np.full((2, 4), np.nan), "0 to 255"),
  ],
)
def test_maps_that_do_not_fit_are_refused(error, pred_map, message):
  with pytest.raises(ValueError, match=message):
    error(np.zeros((2, 4), np.uint8), pred_map)
