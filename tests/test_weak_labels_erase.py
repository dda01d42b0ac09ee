import functools

import jax
import numpy as np
import pytest

from foir360_jax.weak_labels import FILLS, erase, grow

SIZE = 13, 18  # odd at some level of the pyramid


@functools.cache
def program(name):
  return jax.jit(jax.vmap(FILLS[name]))


def fill(name, image, hole):
  """One picture; all tests share one compiled program a fill."""
  return np.asarray(program(name)(image[None], hole[None])[0])


def draw(seed):
  """A smooth picture with a step in it, and a hole of two parts."""
  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
  slope = rng.normal(0, 4, (2, 3))
  image = 120 + rows[..., None] * slope[0] + columns[..., None] * slope[1]
  image += np.where(columns > rng.integers(4, 12), 40, 0)[..., None] + rng.normal(0, 2, (*SIZE, 3))
  hole = np.zeros(SIZE, bool)
  top, left = rng.integers(0, 7), rng.integers(0, 10)
  hole[top : top + 6, left : left + 7] = True
  hole[rng.integers(0, SIZE[0]), rng.integers(0, SIZE[1])] = True
  return image.astype(np.float32), hole


def slow_pull_push(image, hole):
  """The pyramid by recursion, pixel by pixel."""
  height, width = hole.shape if hole.dtype == bool else hole.shape[:2]
  weight = np.where(hole, 0.0, 1.0) if hole.dtype == bool else hole
  if height == width == 1:
    return np.where(weight[..., None] > 0, image, 127.5)
  coarse = np.zeros((-(-height // 2), -(-width // 2), 3))
  coarse_weight = np.zeros(coarse.shape[:2])
  for row in range(len(coarse)):
    for column in range(coarse.shape[1]):
      part = np.s_[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
      total = weight[part].sum()
      coarse_weight[row, column] = total / 4
      if total:
        coarse[row, column] = (weight[part][..., None] * image[part]).sum((0, 1)) / total
  above = slow_pull_push(coarse, coarse_weight)
  filled = image.astype(float).copy()
  for row, column in np.argwhere(weight == 0):
    filled[row, column] = 0
    for r, row_weight in neighbours(row, len(above)):
      for c, column_weight in neighbours(column, above.shape[1]):
        filled[row, column] += row_weight * column_weight * above[r, c]
  return filled


def neighbours(index, size):
  """The two coarse pixels around a fine one, and their weights."""
  near = index // 2
  far = near + (1 if index % 2 else -1)
  return (near, 0.75), (min(max(far, 0), size - 1), 0.25)


def slow_harmonic(image, hole):
  places = {tuple(place): index for index, place in enumerate(np.argwhere(hole))}
  matrix, known = np.zeros((len(places), len(places))), np.zeros((len(places), 3))
  for (row, column), index in places.items():
    for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
      if 0 <= r < hole.shape[0] and 0 <= c < hole.shape[1]:
        matrix[index, index] += 1
        if hole[r, c]:
          matrix[index, places[r, c]] -= 1
        else:
          known[index] += image[r, c]
  filled = image.astype(float).copy()
  filled[hole] = np.linalg.solve(matrix, known)
  return filled


def slow_mean(image, hole):
  ring = []
  for row, column in np.argwhere(~hole):
    near = np.abs(np.argwhere(hole) - (row, column)).max(1)
    if near.min() <= 8:
      ring.append(image[row, column])
  filled = image.astype(float).copy()
  filled[hole] = np.mean(ring, 0)
  return filled


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("name", "slow"), [("pull_push", slow_pull_push), ("mean", slow_mean)])
def test_a_fill_is_that_of_a_slow_reference(name, slow, seed):
  image, hole = draw(seed)
  np.testing.assert_allclose(fill(name, image, hole), slow(image, hole), atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_harmonic_is_within_2_percent_of_the_solution_of_the_linear_system(seed):
  image, hole = draw(seed)
  exact = slow_harmonic(image, hole)
  contrast = np.ptp(image)
  error = np.abs(fill("harmonic", image, hole) - exact).max()
  assert error < 0.02 * contrast
  assert error < 0.5 * np.abs(fill("pull_push", image, hole) - exact).max()


@pytest.mark.parametrize("name", FILLS)
def test_pixels_outside_the_hole_stay_bit_for_bit(name):
  image, hole = draw(5)
  filled = fill(name, image, hole)
  np.testing.assert_array_equal(filled[~hole], image[~hole])
  assert (filled[hole] != image[hole]).all()
  np.testing.assert_array_equal(fill(name, image, np.zeros(SIZE, bool)), image)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -1e9])
@pytest.mark.parametrize("name", FILLS)
def test_what_the_hole_hides_changes_nothing(name, garbage):
  image, hole = draw(6)
  hidden = np.where(hole[..., None], np.float32(garbage), image)
  np.testing.assert_array_equal(fill(name, hidden, hole), fill(name, image, hole))


@pytest.mark.parametrize("name", FILLS)
def test_nothing_but_hole_is_mean_grey(name):
  image, _ = draw(7)
  assert (fill(name, image * np.nan, np.ones(SIZE, bool)) == 127.5).all()


@pytest.mark.parametrize("name", FILLS)
def test_a_plain_picture_stays_plain_and_bytes_are_taken(name):
  _, hole = draw(8)
  image = np.full((*SIZE, 3), (10, 200, 255), np.uint8)
  filled = np.asarray(jax.jit(FILLS[name])(image, hole))
  assert filled.dtype == np.float32
  np.testing.assert_allclose(filled, image, atol=1e-3)


@pytest.mark.parametrize("pixels", [0, 1, 3, 40])
def test_a_hole_grows_by_whole_pixels_in_every_direction(pixels):
  holes = np.random.default_rng(pixels).random((2, *SIZE)) < 0.02
  expected = np.zeros_like(holes)
  for index, row, column in np.argwhere(holes):
    top, left = max(0, row - pixels), max(0, column - pixels)
    expected[index, top : row + pixels + 1, left : column + pixels + 1] = True
  np.testing.assert_array_equal(grow(holes, pixels), expected)


def test_other_objects_stay_out_of_the_hole():
  image, gone = draw(9)
  kept = np.roll(gone, 3, axis=1)  # overlaps
  result = np.asarray(erase(image, gone, kept, fill=FILLS["mean"], grow_px=2))
  hole = np.asarray(grow(gone, 2)) & ~kept
  changed = (result != image).any(-1)
  np.testing.assert_array_equal(changed, hole)
  assert (gone & kept).any()


def test_a_hole_cannot_shrink():
  with pytest.raises(ValueError, match="0 pixels or more"):
    grow(np.zeros((2, 2), bool), -1)
