"""Pictures with fixations: what is read, and what the views of a picture hold."""

import numpy as np
import pytest

from foir360_jax.data import open_source
from foir360_jax.metrics.fixation import fixation_density
from foir360_jax.saliency.fixations.pictures import FixatedPicture, draw_view, read_fixations

SIZE = (32, 48)


def draw_picture(rng):
  x, y = rng.uniform(0, SIZE[1], 9), rng.uniform(0, SIZE[0], 9)
  return FixatedPicture("one", rng.integers(0, 256, (*SIZE, 3), np.uint8), x, y, 3.0)


@pytest.mark.parametrize("name", ["crowd", "osie"])
def test_pictures_and_fixations_are_brought_to_one_size_without_the_forced_fixation(
  prepared_fixations, name
):
  source = open_source(f"fixations/{name}", str(prepared_fixations), "train")
  pictures = read_fixations(
    f"fixations/{name}", str(prepared_fixations), "train", size=(24, 32), degree=0.05
  )
  assert len(pictures) == len(source) == 3
  for example, picture in zip((source[i] for i in range(3)), pictures, strict=True):
    assert picture.image_id == example["image_id"]
    assert picture.degree_px == pytest.approx(1.6)
    rows, columns = example["image"].shape[:2]
    step = rows // 24  # shrinking is the mean of whole blocks
    blocks = example["image"].reshape(24, step, 32, step, 3).mean((1, 3))
    np.testing.assert_allclose(picture.image, blocks, atol=0.51)
    expected = [
      (x * 32 / columns, y * 24 / rows)
      for order, x, y in zip(*(example["fixations"][k] for k in ("order", "x", "y")), strict=True)
      if order > 0
    ]
    assert len(expected) == 16 and len(example["fixations"]["order"]) == 20
    np.testing.assert_allclose(np.stack([picture.x, picture.y], -1), expected, rtol=1e-5)
    density = fixation_density(picture.x, picture.y, (24, 32), picture.degree_px)
    np.testing.assert_array_equal(picture.density(), density)


def test_pictures_of_another_shape_are_refused(prepared_fixations):
  with pytest.raises(ValueError, match="made_up.*64x48 pixels are not of the shape 48x32; set con"):
    read_fixations("fixations/crowd", str(prepared_fixations), "tune", size=SIZE, degree=0.05)


def test_a_data_set_without_fixations_is_refused(prepared):
  with pytest.raises(ValueError, match="synthetic360/tests has no fixations: it lacks fixations"):
    read_fixations("synthetic360/tests", str(prepared), "train", size=(32, 64), degree=0.05)


def test_a_picture_at_which_nobody_looked_by_choice_is_left_out(prepared_fixations, monkeypatch):
  source = open_source("fixations/osie", str(prepared_fixations), "train")
  examples = [source[index] for index in range(3)]
  examples[1]["fixations"]["order"] = np.zeros(20, np.int32)
  examples[2]["fixations"]["x"] = np.full(20, 96.5, np.float32)  # half a pixel outside

  class Changed(list):
    features = source.features

  monkeypatch.setattr(
    "foir360_jax.saliency.fixations.pictures.open_source", lambda *_: Changed(examples)
  )
  pictures = read_fixations("fixations/osie", "", "train", size=(72, 96), degree=0.05)
  assert [picture.image_id for picture in pictures] == [examples[0]["image_id"]]


def overlap(low, high, cell):
  return max(0.0, min(high, cell + 1) - max(low, cell))


def mass_by_area(density, window_px, cells):
  """Plain reference: each cell of the view sums what it covers of the picture's pixels."""
  x0, y0, x1, y1 = window_px
  mass = np.zeros(cells)
  for i in range(cells[0]):
    for j in range(cells[1]):
      top, bottom = (y0 + (y1 - y0) * n / cells[0] for n in (i, i + 1))
      left, right = (x0 + (x1 - x0) * n / cells[1] for n in (j, j + 1))
      for row in range(density.shape[0]):
        for column in range(density.shape[1]):
          area = overlap(top, bottom, row) * overlap(left, right, column)
          mass[i, j] += area * density[row, column]
  return mass


@pytest.mark.parametrize("share", [1.0, 0.75, 0.5, 1.25, 1.5])
@pytest.mark.parametrize("seed", range(2))
def test_a_view_holds_the_fixations_of_its_window(seed, share):
  rng = np.random.default_rng([seed, int(100 * share)])
  picture = draw_picture(rng)
  density = picture.density()
  view = draw_view(picture, density, share, 8, rng)
  assert view.image.shape == (*SIZE, 3) and view.image.dtype == np.uint8
  assert view.mass.shape == (4, 6) and view.mass.dtype == np.float32
  x0, y0, x1, y1 = view.window * np.tile(SIZE[::-1], 2)
  assert x1 - x0 == pytest.approx(share * SIZE[1]) and y1 - y0 == pytest.approx(share * SIZE[0])
  if share <= 1:
    assert view.window.min() >= 0 and view.window.max() <= 1
  else:
    assert (view.window[:2] <= 0).all() and (view.window[2:] >= 1).all()
    assert view.mass.sum() == pytest.approx(1, abs=1e-4)
  as_it_is = mass_by_area(density, (x0, y0, x1, y1), (4, 6))
  mirrored = mass_by_area(density[:, ::-1], (x0, y0, x1, y1), (4, 6))
  errors = [np.abs(view.mass - expected).max() for expected in (as_it_is, mirrored)]
  assert min(errors) < 1e-5 < max(errors)


def test_a_whole_view_is_the_picture_or_its_mirror_image_each_half_the_time():
  rng = np.random.default_rng(3)
  picture = draw_picture(rng)
  views = [draw_view(picture, picture.density(), 1.0, 8, rng) for _ in range(60)]
  plain = [np.array_equal(view.image, picture.image) for view in views]
  flipped = [np.array_equal(view.image, picture.image[:, ::-1]) for view in views]
  assert np.add(plain, flipped).tolist() == [1] * 60 and 15 < sum(plain) < 45
  for view in views:
    assert view.window.tolist() == [0, 0, 1, 1]


def test_around_the_picture_is_its_mirror_image_without_fixations():
  rng = np.random.default_rng(4)
  picture = draw_picture(rng)
  views = [draw_view(picture, picture.density(), 1.5, 4, rng) for _ in range(8)]
  for view in views:
    x0, y0, x1, y1 = np.round(view.window * np.tile(SIZE[::-1], 2)).astype(int)
    margins = ((-y0, y1 - SIZE[0]), (-x0, x1 - SIZE[1]), (0, 0))
    images = [
      np.pad(image, margins, mode="symmetric") for image in (picture.image, picture.image[:, ::-1])
    ]
    # A view of 48 x 72 pixels at 32 x 48: areas of 1.5 x 1.5 pixels.
    corner = [
      sum(
        overlap(0, 1.5, r) * overlap(0, 1.5, c) * image[r, c].astype(float)
        for r in range(2)
        for c in range(2)
      )
      / 2.25
      for image in images
    ]
    assert min(np.abs(view.image[0, 0] - expected).max() for expected in corner) < 1.01
    centres_x = x0 + 4 * 1.5 * (np.arange(12) + 0.5)
    outside = (centres_x + 3 < 0) | (centres_x - 3 > SIZE[1])
    assert (view.mass[:, outside] == 0).all()
  # Places differ, and so the picture is not always in the middle of the view.
  assert len({tuple(view.window) for view in views}) > 4


def test_the_same_seed_draws_the_same_view():
  picture = draw_picture(np.random.default_rng(5))
  first, second, other = (
    draw_view(picture, picture.density(), 0.5, 8, np.random.default_rng(seed)) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first.image, second.image)
  assert not np.array_equal(first.image, other.image)
