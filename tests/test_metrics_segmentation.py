import numpy as np
import pytest

from foir360_jax import metrics
from foir360_jax.sphere import pixel_areas


def random_masks(seed, count, height=6, width=12):
  return np.random.default_rng(seed).random((count, height, width)) < 0.4


def iou_reference(masks_a, masks_b, weights):
  return [
    [(weights * (a & b)).sum() / max((weights * (a | b)).sum(), 1e-300) for b in masks_b]
    for a in masks_a
  ]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("weights_shape", [None, (6, 12), (6, 1), (1, 12)])
def test_iou_equals_its_formula_written_out(dtype, weights_shape):
  a, b = random_masks(0, 4), random_masks(1, 3)
  weights = None if weights_shape is None else np.random.default_rng(2).random(weights_shape)
  iou = metrics.mask_iou(a.astype(dtype), b.astype(dtype), weights)
  assert iou.dtype == np.float64
  np.testing.assert_allclose(iou, iou_reference(a, b, 1 if weights is None else weights), 1e-13)


@pytest.mark.parametrize("weighted", [False, True])
def test_iou_of_small_objects_in_a_large_picture_equals_its_formula(weighted):
  rng = np.random.default_rng(7)
  masks = np.zeros((12, 40, 80), bool)
  for mask in masks[:-1]:  # the last one is empty
    row, column = rng.integers(0, 36), rng.integers(0, 80)
    rows, columns = np.arange(row, min(row + 9, 40)), np.arange(column, column + 13) % 80
    mask[np.ix_(rows, columns)] = rng.random((rows.size, 13)) < 0.8
  weights = np.sin(np.pi * (np.arange(40)[:, None] + 0.5) / 40) if weighted else None
  iou = metrics.mask_iou(masks[:7], masks[5:], weights)
  expected = iou_reference(masks[:7], masks[5:], 1 if weights is None else weights)
  np.testing.assert_allclose(iou, expected, 1e-13)
  assert 0.05 < (iou > 0).mean() < 0.8 and iou[5, 0] == iou[6, 1] == 1


def test_iou_weighted_by_solid_angle_is_the_share_of_the_sphere():
  height = 16
  caps = np.zeros((2, height, 2 * height), bool)
  caps[0, : height // 2], caps[1, : height // 4] = True, True  # a half, and all above 45 degrees
  iou = metrics.mask_iou(caps[:1], caps[1:], pixel_areas(height))
  np.testing.assert_allclose(iou, 1 - np.sqrt(0.5), rtol=1e-5)


def test_weights_of_one_per_row_are_broadcast():
  a, b = random_masks(3, 2), random_masks(4, 2)
  rows = np.random.default_rng(5).random((6, 1))
  expected = metrics.mask_iou(a, b, np.tile(rows, (1, 12)))
  np.testing.assert_array_equal(metrics.mask_iou(a, b, rows), expected)


def test_iou_is_the_correctly_rounded_quotient_of_the_counts():
  mask = np.zeros((1, 8, 16), bool)
  mask[0].flat[:100] = True
  parts = np.zeros((100, 8, 16), bool)
  for count, part in enumerate(parts, start=1):
    part.flat[:count] = True
  np.testing.assert_array_equal(metrics.mask_iou(mask, parts)[0], np.arange(1, 101) / 100)


def test_empty_masks_overlap_nothing_and_no_masks_give_an_empty_matrix():
  empty, full = np.zeros((1, 2, 4)), np.ones((1, 2, 4))
  np.testing.assert_array_equal(metrics.mask_iou(empty, np.concatenate([empty, full])), [[0, 0]])
  assert metrics.mask_iou([], full).shape == (0, 1)
  assert metrics.mask_iou(full, []).shape == (1, 0)


def test_an_object_cut_by_the_seam_is_one_object():
  mask = np.zeros((1, 4, 8), bool)
  mask[0, 1:3, [0, 1, 6, 7]] = True
  shifted = np.roll(mask, 4, axis=-1)
  assert metrics.mask_iou(mask, mask) == metrics.mask_iou(shifted, shifted) == 1


def test_masks_of_another_size_are_refused():
  with pytest.raises(ValueError, match=r"not \(2, 6, 12\) and \(1, 6, 8\)"):
    metrics.mask_iou(random_masks(0, 2), random_masks(0, 1, width=8))


@pytest.mark.parametrize(
  ("iou", "expected"),
  [
    ([[0.5, 0.0], [0.0, 0.49]], 0.5),
    ([[0.9, 0.0], [0.8, 0.0], [0.7, 0.0]], 1 / 3),  # one prediction finds one object
    ([[0.6, 0.9], [0.0, 0.8]], 1.0),  # the first gives way to the second
    (np.zeros((3, 0)), 0.0),
  ],
)
def test_recall_counts_objects_with_a_prediction_of_their_own(iou, expected):
  assert metrics.recall_at_iou(iou, 0.5) == (expected, "used")


def test_recall_without_objects_is_skipped():
  value, status = metrics.recall_at_iou(np.zeros((0, 4)))
  assert np.isnan(value) and status == "skipped"


def test_f1_is_the_harmonic_mean_of_recall_and_precision():
  rng = np.random.default_rng(0)
  for _ in range(50):
    iou = rng.random(rng.integers(1, 7, 2)) ** 3
    recall, precision = (metrics.recall_at_iou(m, 0.3).value for m in (iou, iou.T))
    expected = 2 * recall * precision / (recall + precision) if recall else 0.0
    assert metrics.f1_at_iou(iou, 0.3) == (pytest.approx(expected), "used")


def test_f1_without_objects_counts_what_was_predicted():
  for nothing_right in (np.zeros((0, 4)), np.zeros((4, 0))):
    assert metrics.f1_at_iou(nothing_right) == (0.0, "used")
  value, status = metrics.f1_at_iou(np.zeros((0, 0)))
  assert np.isnan(value) and status == "skipped"
