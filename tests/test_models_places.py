"""Peaks, centres and the target of the heat map, against plain NumPy."""

import jax
import numpy as np
import pytest

from foir360_jax.losses.segmentation import PEAK
from foir360_jax.models.cells import centroids, flat_directions, flat_weights, map_height
from foir360_jax.models.places import find_peaks
from foir360_jax.objective.heat_map import heat_target, object_centres

HEIGHT = 12
find = jax.jit(find_peaks, static_argnums=1)
centres_of = jax.jit(object_centres)
target_of = jax.jit(heat_target)


def neighbours(row, column, height):
  """The four cells beside a cell: longitude wraps, beyond a pole lies its row half a turn on."""
  for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
    r, c = row + dy, column + dx
    if r < 0 or r >= height:
      r, c = min(max(r, 0), height - 1), c + height
    yield r, c % (2 * height)


def peaks_by_hand(heat):
  height, width = heat.shape
  found = [
    (heat[row, column], row * width + column)
    for row in range(height)
    for column in range(width)
    if all(heat[row, column] >= heat[place] for place in neighbours(row, column, height))
  ]
  return sorted(found, reverse=True)


def test_peaks_are_the_highest_local_maxima_around_the_seam_and_across_the_poles():
  heat = np.random.default_rng(0).normal(size=(4, HEIGHT, 2 * HEIGHT)).astype(np.float32)
  index, logits = find(heat, 16)
  for example in range(4):
    expected = peaks_by_hand(heat[example])[:16]
    assert index[example].tolist() == [place for _, place in expected]
    assert logits[example].tolist() == [value for value, _ in expected]


@pytest.mark.parametrize(
  "peak, beside",
  [
    ((5, 0), (5, 2 * HEIGHT - 1)),  # the seam
    ((5, 2 * HEIGHT - 1), (5, 0)),
    ((0, 3), (0, 3 + HEIGHT)),  # across the north pole
    ((HEIGHT - 1, 20), (HEIGHT - 1, 20 - HEIGHT)),  # across the south pole
    ((HEIGHT - 1, 0), (HEIGHT - 1, HEIGHT)),  # a pole at the seam
  ],
)
def test_a_lower_cell_next_to_a_peak_is_none_even_over_the_edge_of_the_map(peak, beside):
  heat = np.full((1, HEIGHT, 2 * HEIGHT), -5.0, np.float32)
  heat[0][peak], heat[0][beside] = 2.0, 1.0
  index, logits = find(heat, 16)
  assert index[0, 0] == peak[0] * 2 * HEIGHT + peak[1]
  assert 1.0 not in logits[0].tolist()


def test_cells_that_touch_at_a_corner_are_both_peaks():
  heat = np.full((1, HEIGHT, 2 * HEIGHT), -5.0, np.float32)
  heat[0, 5, 0], heat[0, 6, 2 * HEIGHT - 1] = 2.0, 1.0
  index, logits = find(heat, 16)
  assert logits[0, :2].tolist() == [2.0, 1.0]
  assert index[0, :2].tolist() == [5 * 2 * HEIGHT, 7 * 2 * HEIGHT - 1]


def test_where_peaks_are_fewer_the_list_is_filled_with_the_lowest_logit():
  heat = -np.arange(2 * HEIGHT**2, dtype=np.float32).reshape(1, HEIGHT, 2 * HEIGHT)
  index, logits = find(heat, 16)
  expected = peaks_by_hand(heat[0])
  assert 0 < len(expected) < 16
  assert logits[0, : len(expected)].tolist() == [value for value, _ in expected]
  assert (logits[0, len(expected) :] <= -1e4).all()
  assert len(set(index[0].tolist())) == 16


def random_masks(rng, batch_size=2, num_objects=5):
  """Soft blobs, one of them cut by the seam, one at a pole, the last one empty."""
  directions = np.asarray(flat_directions(HEIGHT), np.float64)
  centres = rng.normal(size=(batch_size, num_objects, 3))
  centres[:, 0] = [-1, 0.02, 0.1]
  centres[:, 1] = [0.1, 0, -1]
  centres /= np.linalg.norm(centres, axis=-1, keepdims=True)
  radius_rad = rng.uniform(0.2, 0.8, (batch_size, num_objects, 1))
  inside = np.einsum("bnx,px->bnp", centres, directions) > np.cos(radius_rad)
  masks = np.where(inside, rng.uniform(0.3, 1, inside.shape), 0).astype(np.float32)
  masks[:, -1] = 0
  return masks


def test_a_centre_is_the_cell_of_the_mask_nearest_its_centroid_on_the_sphere():
  masks = random_masks(np.random.default_rng(1))
  centres = np.asarray(centres_of(masks))
  directions = np.asarray(flat_directions(HEIGHT), np.float64)
  areas = np.asarray(flat_weights(HEIGHT), np.float64)
  for example in range(len(masks)):
    for number, mask in enumerate(masks[example]):
      if not mask.any():
        assert centres[example, number] == 0
        continue
      centroid = (mask * areas) @ directions
      cells = np.flatnonzero(mask >= 0.5 * mask.max())
      assert centres[example, number] in cells
      nearest = (directions[cells] @ centroid).max() / np.linalg.norm(centroid)
      there = directions[centres[example, number]] @ centroid / np.linalg.norm(centroid)
      np.testing.assert_allclose(there, nearest, atol=1e-6)


@pytest.mark.parametrize("height", [16, 128])
def test_masks_that_are_alike_all_around_have_no_direction_of_rounding_noise(height):
  masks = np.zeros((1, 5, height, 2 * height), np.float32)
  masks[:, 1:3] = np.array([0.3, 1])[:, None, None]  # everything; the first has nothing
  masks[:, 3, height // 2 - 2 : height // 2 + 2] = 1
  masks[:, 4, 1:5] = 1
  found = np.asarray(centroids(masks.reshape(1, 5, -1)))
  np.testing.assert_allclose(found, [[[1, 0, 0]] * 4 + [[0, 0, 1]]], atol=1e-6)


def test_the_centre_of_a_mask_cut_by_the_seam_lies_at_the_seam():
  mask = np.zeros((1, 1, HEIGHT, 2 * HEIGHT), np.float32)
  mask[..., 4:7, :3] = mask[..., 4:7, -2:] = 1
  centre = int(centres_of(mask.reshape(1, 1, -1))[0, 0])
  assert divmod(centre, 2 * HEIGHT) == (5, 0)


def test_the_heat_target_is_one_at_centres_and_falls_with_the_angle_and_the_size():
  masks = random_masks(np.random.default_rng(2))
  where = np.array([[True] * 5, [True, False, True, True, False]])
  centres = np.asarray(centres_of(masks))
  target = np.asarray(target_of(masks, centres, where))
  directions = np.asarray(flat_directions(HEIGHT), np.float64)
  areas = np.asarray(flat_weights(HEIGHT), np.float64)
  cell = np.pi / HEIGHT
  for example in range(len(masks)):
    expected = np.zeros(2 * HEIGHT**2)
    for number in np.flatnonzero(where[example]):
      area_sr = (masks[example, number] * areas).sum() * cell**2
      width = max(0.35 * np.sqrt(area_sr / np.pi), 0.4 * cell)
      cosine = directions @ directions[centres[example, number]]
      expected = np.maximum(expected, np.exp((cosine - 1) / width**2))
    np.testing.assert_allclose(target[example], expected, atol=1e-3)  # peaks are above 0.999
    assert (target[example, centres[example, where[example]]] == 1).all()
  assert target.max() <= 1 and target.min() >= 0


def test_an_object_has_one_peak_even_where_cells_are_narrow():
  height = 128
  directions = np.asarray(flat_directions(height))
  masks = np.stack([directions @ directions[cell] > np.cos(0.17) for cell in (5, 300, 16000)])
  masks = masks[None].astype(np.float32)
  centres = centres_of(masks)
  target = target_of(masks, centres, np.ones((1, 3), bool))
  np.testing.assert_array_equal(np.flatnonzero(target > PEAK), np.sort(centres[0]))


def test_the_heat_target_without_objects_is_zero():
  masks = random_masks(np.random.default_rng(3))
  target = target_of(masks, centres_of(masks), np.zeros(masks.shape[:2], bool))
  assert not np.any(target)


def test_cells_that_form_no_map_are_refused():
  assert map_height(2 * 24 * 24) == 24
  with pytest.raises(ValueError, match="100 cells are not a map"):
    map_height(100)
