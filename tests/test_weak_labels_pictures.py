"""Perspective pictures as views: crops, coverage of boxes, and the masks of boxes."""

import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax.weak_labels.examples import box_masks
from foir360_jax.weak_labels.pictures import CropPlan, picture_views

PLAN = CropPlan(whole_size=(24, 32), crop_size=(24, 32), share=0.5, cell=4)


def cover_plainly(mask, window, cells):
  """Share of each cell, by sampling every pixel of the picture at 8 x 8 points."""
  fine = np.repeat(np.repeat(mask, 8, 0), 8, 1)
  (y0, y1), (x0, x1) = window
  rows = np.linspace(y0, y1, cells[0] + 1) * len(fine)
  columns = np.linspace(x0, x1, cells[1] + 1) * fine.shape[1]
  result = np.empty(cells)
  for row, column in np.ndindex(cells):
    part = fine[round(rows[row]) : round(rows[row + 1])]
    result[row, column] = part[:, round(columns[column]) : round(columns[column + 1])].mean()
  return result


@pytest.mark.parametrize("seed", range(3))
def test_coverage_is_the_share_of_a_cell(seed):
  rng = np.random.default_rng(seed)
  masks = rng.random((3, 24, 48)) < 0.4
  where = np.array([True, True, False])
  crops, whole = picture_views(np.zeros((24, 48, 3)), masks, where, PLAN)
  windows = [((y, y + 0.5), (x, x + 0.5)) for y, x in PLAN.corners()]
  for number in range(2):
    expected = cover_plainly(masks[number], ((0, 1), (0, 1)), (6, 8))
    np.testing.assert_allclose(whole.coverage[0, number], expected, atol=1e-5)
    for view, window in enumerate(windows):
      expected = cover_plainly(masks[number], window, (6, 8))
      np.testing.assert_allclose(crops.coverage[view, number], expected, atol=1e-5)
  assert not np.any(whole.coverage[:, 2]) and not np.any(crops.coverage[:, 2])  # padding


def test_an_object_has_one_area_whatever_part_of_it_a_view_shows():
  masks = np.zeros((1, 24, 48), bool)
  masks[0, 6:18, 10:40] = True
  crops, whole = picture_views(np.zeros((24, 48, 3)), masks, np.array([True]), PLAN)
  inside = (whole.coverage[:, 0] * whole.cell_areas).sum()
  np.testing.assert_allclose(inside, whole.object_areas[0, 0], rtol=1e-5)
  np.testing.assert_allclose(crops.object_areas, whole.object_areas[0, 0], rtol=1e-6)
  np.testing.assert_allclose(whole.cell_areas.sum(), PLAN.solid_angle, rtol=1e-5)
  np.testing.assert_allclose(crops.cell_areas.sum((1, 2)), PLAN.solid_angle / 4, rtol=1e-5)


def test_crops_show_their_part_of_the_picture():
  rows, columns = np.meshgrid(np.arange(24.0), np.arange(48.0), indexing="ij")
  image = np.stack([rows, columns, np.full_like(rows, 7)], -1)
  crops, whole = picture_views(image, np.zeros((1, 24, 48), bool), np.array([False]), PLAN)
  middle = np.asarray(whole.images[0]).mean((0, 1))
  np.testing.assert_allclose(middle, [11.5, 23.5, 7], atol=0.1)
  # Upper left, upper right, lower left, lower right, middle.
  expected = [(5.5, 11.5), (5.5, 35.5), (17.5, 11.5), (17.5, 35.5), (11.5, 23.5)]
  np.testing.assert_allclose(jnp.mean(crops.images, (1, 2))[:, :2], expected, atol=0.2)


def test_boxes_cover_the_pixels_whose_centres_they_hold_and_at_least_one():
  boxes = np.array([[1.0, 0.0, 3.0, 2.0], [2.6, 1.1, 2.9, 1.4], [-5, -5, 1.2, 1.2], [7, 2, 9, 9]])
  masks = box_masks(boxes, (4, 8))
  assert masks.sum((1, 2)).tolist() == [4, 1, 1, 2]
  assert masks[0, :2, 1:3].all() and masks[1, 1, 2] and masks[2, 0, 0] and masks[3, 2:, 7].all()
