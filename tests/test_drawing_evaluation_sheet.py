import dataclasses

import numpy as np
import pytest

from foir360_jax.drawing import overlay
from foir360_jax.drawing.evaluation_sheet import SheetRow, evaluation_sheet

HEIGHT, WIDTH = 64, 128


def row(**changes):
  masks = np.zeros([2, HEIGHT, WIDTH], bool)
  masks[0, 10:40, 10:50], masks[1, 10:40, 70:110] = True, True
  default = SheetRow("scene", np.full([HEIGHT, WIDTH, 3], 200, np.uint8), masks, [1, 2], masks,
                     [1, 2], 0.5)  # fmt: skip
  return dataclasses.replace(default, **changes)


def tile(sheet, index):
  """Returns the part of the first row in the middle between two gaps."""
  left = 12 + index * 652
  return sheet[82 : 82 + 320, left : left + 640]


def test_a_row_shows_the_panorama_its_true_and_its_predicted_ranks():
  sheet = evaluation_sheet([row(predicted_ranks=[2, 1])])
  assert sheet.dtype == np.uint8 and sheet.shape[1:] == (1968, 3)
  np.testing.assert_array_equal(tile(sheet, 0), 200)
  red, violet = overlay.rank_colours(np.array([1, 2])).astype(float)
  for index, left, right in ((1, red, violet), (2, violet, red)):
    np.testing.assert_allclose(tile(sheet, index)[180, 70], 0.35 * 200 + 0.65 * left, atol=1)
    np.testing.assert_allclose(tile(sheet, index)[180, 370], 0.35 * 200 + 0.65 * right, atol=1)
    np.testing.assert_array_equal(tile(sheet, index)[300, 320], 80)  # dark outside


def test_objects_need_not_be_sorted_by_rank():
  default = row()
  swapped = row(true_masks=default.true_masks[::-1], true_ranks=[2, 1])
  np.testing.assert_array_equal(evaluation_sheet([swapped]), evaluation_sheet([default]))


@pytest.mark.parametrize("change", [{"image_id": "other"}, {"sa_sor": 0.25}, {"sa_sor": None}])
def test_the_caption_says_which_picture_and_how_good(change):
  default, other = evaluation_sheet([row()]), evaluation_sheet([row(**change)])
  differs = (default != other).any(axis=(1, 2))
  assert differs[48:82].any() and not differs[82:].any()


def test_an_undefined_score_is_said_to_be_so():
  none, nan = evaluation_sheet([row(sa_sor=None)]), evaluation_sheet([row(sa_sor=float("nan"))])
  np.testing.assert_array_equal(none, nan)


def test_rows_follow_each_other_and_none_at_all_is_a_sheet_too():
  heights = [len(evaluation_sheet([row()] * count)) for count in range(4)]
  assert len(set(np.diff(heights))) == 1 and np.diff(heights)[0] >= 320


def test_rows_without_objects_and_of_any_size_are_drawn():
  for height in (32, 400):
    none = np.zeros([0, height, 2 * height], bool)
    some = np.zeros([1, height, 2 * height], bool)
    some[0, 3, 4] = True
    panorama = np.full([height, 2 * height, 3], 100, np.uint8)
    sheet = evaluation_sheet([SheetRow("a", panorama, none, [], some, [1], None)])
    np.testing.assert_array_equal(tile(sheet, 1), 40)
    assert (tile(sheet, 2) != 40).any()
