"""Points at which masks are compared: uniform on the sphere, the same sums in expectation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax.losses import dice_loss, mask_cross_entropy
from foir360_jax.models import random_streams
from foir360_jax.models.cells import flat_directions, flat_weights, pool_cells
from foir360_jax.models.mask_head import mask_logits
from foir360_jax.objective.points import sample_masks, sample_masks_coarsely

HEIGHT = 16

# Under jit, or each of their operations would be compiled by itself; compared in NumPy.
run_measure = jax.jit(sample_masks, static_argnums=(3, 4))
run_measure_coarsely = jax.jit(sample_masks_coarsely, static_argnums=(3, 4))
logits_of = jax.jit(mask_logits)


def measure_at(*arguments):
  return jax.tree.map(np.asarray, run_measure(*arguments))


def measure_coarsely_at(*arguments):
  return jax.tree.map(np.asarray, run_measure_coarsely(*arguments))


def draw(rng, batch_size=2, num_objects=3, channels=5):
  directions = np.asarray(flat_directions(HEIGHT))
  centres = rng.normal(size=(batch_size, num_objects, 3))
  centres /= np.linalg.norm(centres, axis=-1, keepdims=True)
  masks = np.einsum("bnx,px->bnp", centres, directions) > 0.8
  smooth = directions @ rng.normal(size=(3, batch_size * channels))
  pixels = smooth.reshape(HEIGHT, 2 * HEIGHT, batch_size, channels).transpose(2, 0, 1, 3)
  return pixels.astype(np.float32), masks.astype(np.float32)


def test_without_a_number_all_cells_are_compared():
  pixels, masks = draw(np.random.default_rng(0))
  measured = measure_at(pixels, masks, np.arange(2, dtype=np.uint32), 0)
  np.testing.assert_array_equal(measured.pixels, pixels.reshape(2, -1, 5))
  np.testing.assert_array_equal(measured.masks, masks)
  np.testing.assert_array_equal(measured.weights, flat_weights(HEIGHT))


def test_points_are_uniform_on_the_sphere():
  """Read from a map of the directions themselves: second moments 1/3, and no seam or pole."""
  directions = np.asarray(flat_directions(128)).reshape(1, 128, 256, 3)
  masks = np.zeros((1, 1, 128 * 256), np.float32)
  points = measure_at(directions, masks, np.array([5], np.uint32), 20_000).pixels[0]
  np.testing.assert_allclose(points.mean(0), 0, atol=0.015)
  np.testing.assert_allclose(points.T @ points / len(points), np.eye(3) / 3, atol=0.01)


def test_logits_at_points_are_those_of_the_map_between_its_cells():
  rng = np.random.default_rng(1)
  pixels, masks = draw(rng)
  kernels = rng.normal(size=(2, 4, 5)).astype(np.float32)
  measured = measure_at(pixels, masks, np.arange(2, dtype=np.uint32), 200)
  at_points = logits_of(kernels, measured.pixels)
  # The same points on a map of the logits instead of the pixels.
  maps = np.einsum("bqd,bhwd->bhwq", kernels, pixels)
  expected = measure_at(maps, masks, np.arange(2, dtype=np.uint32), 200).pixels
  np.testing.assert_allclose(at_points, expected.transpose(0, 2, 1), atol=1e-5)


def test_examples_have_points_of_their_own_that_depend_on_nothing_but_their_seed():
  pixels, masks = draw(np.random.default_rng(2))
  pixels, masks = (np.broadcast_to(x[:1], x.shape) for x in (pixels, masks))
  seed = np.array([3, 4], np.uint32)
  first, second = measure_at(pixels, masks, seed, 50).pixels
  assert np.abs(first - second).max() > 0.1
  swapped = measure_at(pixels, masks, seed[::-1], 50).pixels
  np.testing.assert_array_equal(swapped[1], first)


@pytest.mark.parametrize("loss", [dice_loss, mask_cross_entropy])
def test_losses_over_many_points_are_those_over_all_cells(loss):
  rng = np.random.default_rng(3)
  pixels, masks = draw(rng)
  kernels = rng.normal(size=(2, 3, 5)).astype(np.float32)

  @functools.partial(jax.jit, static_argnums=0)
  def value(count, pixels, masks):
    measured = sample_masks(pixels, masks, np.array([1, 2], np.uint32), count)
    logits = mask_logits(kernels, measured.pixels)
    return loss(logits, measured.masks, pixel_weights=measured.weights, reduce_fn=None)

  np.testing.assert_allclose(value(60_000, pixels, masks), value(0, pixels, masks), rtol=0.03)


def test_streams_of_a_seed_never_meet():
  numbers = [value for name, value in vars(random_streams).items() if name.isupper()]
  seed = jnp.uint32(7)
  keys = {tuple(jax.random.key_data(random_streams.stream(seed, n)).tolist()) for n in numbers}
  for n in numbers:  # nor the keys that are made of them
    parts = jax.random.split(random_streams.stream(seed, n), 4)
    keys |= {tuple(row) for row in jax.random.key_data(parts).tolist()}
  assert len(numbers) >= 5 and len(keys) == 5 * len(numbers)


def test_a_quarter_of_the_cells_has_the_same_areas_and_the_mean_logits():
  rng = np.random.default_rng(4)
  pixels, masks = draw(rng)
  seed = np.arange(2, dtype=np.uint32)
  fine, coarse = (look(pixels, masks, seed, 0) for look in (measure_at, measure_coarsely_at))
  assert coarse.masks.shape == (2, 3, HEIGHT * HEIGHT // 2)
  np.testing.assert_allclose(coarse.weights.sum(), fine.weights.sum(), rtol=1e-6)
  areas = [(x.masks * x.weights).sum(-1) for x in (fine, coarse)]
  np.testing.assert_allclose(
    *areas, rtol=0.05
  )  # with 16 rows, cells of a block differ by the poles
  kernels = rng.normal(size=(2, 4, 5)).astype(np.float32)
  logits = np.asarray(logits_of(kernels, fine.pixels))
  blocks = logits.reshape(2, 4, HEIGHT // 2, 2, HEIGHT, 2).mean((3, 5)).reshape(2, 4, -1)
  np.testing.assert_allclose(logits_of(kernels, coarse.pixels), blocks, atol=1e-5)


def test_an_object_of_one_cell_is_not_lost_among_a_quarter_of_them():
  masks = np.zeros((1, 1, HEIGHT * 2 * HEIGHT), np.float32)
  masks[0, 0, 77] = 1
  pixels = np.zeros((1, HEIGHT, 2 * HEIGHT, 1), np.float32)
  assert measure_coarsely_at(pixels, masks, np.array([0], np.uint32), 0).masks.max() == 0.25


def test_a_quarter_of_the_points_stand_for_the_whole_sphere():
  pixels, masks = draw(np.random.default_rng(5))
  seed = np.arange(2, dtype=np.uint32)
  few, many = (look(pixels, masks, seed, 101) for look in (measure_coarsely_at, measure_at))
  assert few.masks.shape == (2, 3, 26)
  np.testing.assert_allclose(few.weights.sum(), many.weights.sum(), rtol=1e-5)


@pytest.mark.parametrize("count", [0, 300])
def test_fine_masks_are_compared_at_as_many_places_of_the_same_weight(count):
  """With detail 2 the map of 16 rows has cells as coarse as a map of 8."""
  pixels, masks = draw(np.random.default_rng(6))
  seed = np.arange(2, dtype=np.uint32)
  numbers = {measure_at: count or 8 * 16, measure_coarsely_at: (count or 8 * 16) // 4}
  for look, number in numbers.items():
    measured = look(pixels, masks, seed, count, 2)
    assert measured.pixels.shape == (2, number, 5)
    assert measured.masks.shape == (2, 3, number)
    np.testing.assert_allclose(measured.weights.sum(), flat_weights(8).sum(), rtol=0.03)


def test_every_cell_gives_the_same_one_of_its_pixels_and_each_in_its_turn():
  pixels, masks = draw(np.random.default_rng(7))
  pixels, masks = (np.broadcast_to(x[:1], (64, *x.shape[1:])) for x in (pixels, masks))
  measured = measure_at(pixels, masks, np.arange(64, dtype=np.uint32), 0, 2)
  maps = np.asarray(pixels[0])
  parts = {(i, j): maps[i::2, j::2].reshape(-1, 5) for i in (0, 1) for j in (0, 1)}
  seen = set()
  for places, true in zip(measured.pixels, measured.masks, strict=True):
    (part,) = (part for part, expected in parts.items() if np.array_equal(places, expected))
    expected = np.asarray(masks[0]).reshape(3, HEIGHT, -1)[:, part[0] :: 2, part[1] :: 2]
    np.testing.assert_array_equal(true, expected.reshape(3, -1))
    seen.add(part)
  assert seen == set(parts)


def test_blocks_of_fine_cells_are_means_of_all_their_pixels():
  pixels, masks = draw(np.random.default_rng(8))
  coarse = measure_coarsely_at(pixels, masks, np.arange(2, dtype=np.uint32), 0, 2)
  blocks = np.asarray(pixels).reshape(2, HEIGHT // 4, 4, HEIGHT // 2, 4, 5).mean((2, 4))
  np.testing.assert_allclose(coarse.pixels, blocks.reshape(2, -1, 5), atol=1e-6)
  np.testing.assert_allclose(coarse.masks, pool_cells(masks, 4), atol=1e-6)
