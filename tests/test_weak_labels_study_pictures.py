"""Perspective pictures as views: crops, coverage of boxes, and the masks of boxes."""

import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax.saliency import Observation
from foir360_jax.weak_labels.object_score import LOCAL_TERMS, ObjectScore
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.study.examples import box_masks, measure_faces, read_faces
from foir360_jax.weak_labels.study.pictures import CropPlan, picture_views

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


def crowd_example(rng, name, boxes, rank):
  image = rng.integers(0, 256, (48, 64, 3), np.uint8)
  return {
    "image_id": name,
    "image": image,
    "boxes": np.array(boxes, np.float32),
    "box_rank": np.array(rank, np.int32),
  }


class _Shades:
  """Red is looked at; the appearance is the picture's other two channels, a cell for 8 pixels."""

  def observe(self, views):
    cells = views[..., 1:].reshape(len(views), views.shape[1] // 8, 8, views.shape[2] // 8, 8, 2)
    return Observation(1.0 + views[..., 0], cells.mean((2, 4)))

  def __call__(self, views):
    return self.observe(views).density


def test_faces_are_measured_with_their_place_in_the_photograph_and_their_appearance():
  rng = np.random.default_rng(0)
  boxes = [[0, 0, 16, 16], [40, 32, 56, 48], [32, 8, 48, 24]]
  source = [  # as a prepared split: its examples by their index
    crowd_example(rng, "three", boxes, [2, -1, 1]),
    crowd_example(rng, "one", boxes[:1], [1]),  # nothing to order
  ]
  plan = CropPlan(whole_size=(48, 64), crop_size=(24, 32))
  (picture,) = read_faces(source)
  np.testing.assert_allclose(picture.place, [[-0.75, -2 / 3], [0.5, 2 / 3], [0.25, -1 / 3]])
  assert picture.relevance.tolist() == [1, 0, 2]
  score = ObjectScore(
    (1.0, 0.0, 0.8, 0.2), *[(0.0,) * len(LOCAL_TERMS)] * 2, (0.0,) * 4, 0.1, 1.0, 1.0, 0.0
  )
  strategy = Strategy(fill="mean", max_erased=1, max_erased_whole=1)
  (example,) = measure_faces(
    [picture],
    saliency=_Shades(),
    strategy=strategy,
    object_score=score,
    plan=plan,
    batch_size=2,
  )
  np.testing.assert_array_equal(example.place, picture.place)
  assert example.local.appearance.shape == (6, 3, 2)
  image = picture.image.astype(float)
  density = 1 + image[..., 0]
  for number, (x0, y0, x1, y1) in enumerate(boxes):
    inside = image[y0:y1, x0:x1, 1:].mean((0, 1))
    # Cells of the appearance are interpolated, so that its neighbours have a little say.
    np.testing.assert_allclose(example.local.appearance[-1, number], inside, atol=12)
    share = density[y0:y1, x0:x1].sum() / density.sum()
    np.testing.assert_allclose(example.saliency_sum[number], share, rtol=1e-4)
