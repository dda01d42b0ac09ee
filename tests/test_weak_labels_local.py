"""Steps 1 and 2 of the weak labels: local ranks by erasing, against the plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax.saliency import Observation
from foir360_jax.weak_labels.local import Views, rank_views
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.reference import rank_views_plainly


def score_with(erasing):
  return ObjectScore(erasing, (0.0,) * 12, (0.0,) * 12, (0.5, 0.0, -0.3, 0.0), 0.1, 1.0, 1.0, 0.0)


SCORE = score_with((0.3, 0.02, 0.6, 0.3))
CELL, ROWS, COLUMNS = 4, 8, 12  # views of 32 x 48 pixels
VIEWS_AT_ONCE = 3


def brightness(views):
  """A saliency that any change of a picture changes everywhere: red stands out from the mean."""
  red = views[..., 0]
  return 1.0 + jnp.maximum(red - 0.7 * red.mean((1, 2), keepdims=True), 0.0)


class Described:
  """The same saliency, with an appearance of two channels on a coarse grid of its own, 5 x 7."""

  def observe(self, views):
    bands = [part.mean(1) for part in jnp.array_split(views[..., 1:], 5, axis=1)]
    tiles = [part.mean(2) for part in jnp.array_split(jnp.stack(bands, axis=1), 7, axis=2)]
    return Observation(brightness(views), jnp.stack(tiles, axis=2))


def draw_views(rng, num_views, num_objects, padding=0):
  images = rng.uniform(0, 255, (num_views, ROWS * CELL, COLUMNS * CELL, 3)).astype(np.float32)
  coverage = np.zeros((num_views, num_objects + padding, ROWS, COLUMNS), np.float32)
  for view in range(num_views):
    for number in range(num_objects):
      if rng.random() < 0.75:
        row, column = rng.integers(0, ROWS - 2), rng.integers(0, COLUMNS - 2)
        shares = rng.uniform(0.1, 1, (rng.integers(1, 4), rng.integers(1, 5)))
        part = coverage[view, number, row : row + len(shares), column : column + shares.shape[1]]
        part[:] = shares[: part.shape[0], : part.shape[1]]
  cell_areas = rng.uniform(0.5, 1.5, (num_views, ROWS, COLUMNS)).astype(np.float32) * 1e-3
  areas = np.einsum("vngk,vgk->vn", coverage, cell_areas).max(0) * rng.uniform(1, 3)
  where = np.arange(num_objects + padding) < num_objects
  return Views(
    images,
    coverage,
    cell_areas,
    np.broadcast_to(np.maximum(areas, 1e-6), coverage.shape[:2]).astype(np.float32),
    np.broadcast_to(where, coverage.shape[:2]),
  )


@functools.partial(jax.jit, static_argnames="max_erased")
def compiled(views, max_erased=128):
  return rank_views(
    views,
    saliency=Described(),
    choose=SCORE.erasing_score,
    fill="mean",
    grow_px=1,
    max_erased=max_erased,
    views_at_once=VIEWS_AT_ONCE,
  )


def compiled_as_numpy(views, **options):
  return jax.device_get(compiled(jax.tree.map(jnp.asarray, views), **options))


def assert_same(ranks, expected):
  np.testing.assert_array_equal(ranks.order, expected.order)
  np.testing.assert_allclose(ranks.visibility, expected.visibility, rtol=1e-5, atol=1e-6)
  for part, wanted in zip(ranks.history, expected.history, strict=True):
    np.testing.assert_allclose(part, wanted, rtol=1e-4, atol=1e-4)
  assert ranks.appearance.shape == (*ranks.order.shape, 2)
  np.testing.assert_allclose(ranks.appearance, expected.appearance, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_erased", [0, 2, 128])
def test_the_pool_computes_what_plain_loops_do(seed, max_erased):
  views = draw_views(np.random.default_rng(seed), num_views=5, num_objects=5)
  expected = rank_views_plainly(
    views,
    saliency=Described(),
    choose=SCORE.erasing_score,
    fill="mean",
    grow_px=1,
    max_erased=max_erased,
  )
  ranks = compiled_as_numpy(views, max_erased=max_erased)
  assert_same(ranks, expected)
  assert ranks.evaluations == expected.evaluations


def test_the_appearance_is_the_mean_over_what_a_view_holds_of_an_object_and_needs_no_model_for_it():
  views = draw_views(np.random.default_rng(2), num_views=5, num_objects=5)
  flat = views._replace(images=np.full_like(views.images, (1.0, 2.0, 3.0)))
  ranks = compiled_as_numpy(flat)
  expected = np.where(ranks.visibility[..., None] > 0, [2.0, 3.0], 0.0)
  np.testing.assert_allclose(ranks.appearance, expected, rtol=1e-5)
  options = {"saliency": brightness, "choose": SCORE.erasing_score, "fill": "mean"}
  plain = jax.jit(functools.partial(rank_views, **options))(views)
  assert plain.appearance.shape == (5, 5, 0)
  assert rank_views_plainly(views, **options).appearance.shape == (5, 5, 0)


def test_only_views_in_which_something_was_erased_are_computed_again():
  views = draw_views(np.random.default_rng(7), num_views=5, num_objects=5)
  ranks = compiled_as_numpy(views)
  seen = (ranks.visibility > 0).sum(1)
  # Once as it is, after every erasing but the last, and once without any object.
  assert ranks.evaluations == seen.sum() + (seen > 0).sum()
  assert compiled_as_numpy(views, max_erased=0).evaluations == (seen > 0).sum()


def test_what_lies_in_the_padding_changes_nothing():
  rng = np.random.default_rng(3)
  views = draw_views(rng, num_views=5, num_objects=3, padding=2)
  filled = views.coverage.copy()
  filled[:, 3:] = rng.random(filled[:, 3:].shape)
  areas = views.object_areas.copy()
  areas[:, 3:] = 7.0
  ranks = compiled_as_numpy(views)
  again = compiled_as_numpy(views._replace(coverage=filled, object_areas=areas))
  assert_same(again, ranks)
  assert (again.order[:, 3:] == -1).all() and (again.visibility[:, 3:] == 0).all()


def test_views_do_not_depend_on_the_others_in_the_pool():
  views = draw_views(np.random.default_rng(4), num_views=5, num_objects=5)
  order = np.array([3, 0, 4, 1, 2])
  ranks = compiled_as_numpy(views)
  turned = compiled_as_numpy(jax.tree.map(lambda x: np.asarray(x)[order], views))
  assert_same(turned, jax.tree.map(lambda x: x[order] if x.ndim else x, ranks))


def test_permuted_objects_have_permuted_ranks():
  views = draw_views(np.random.default_rng(5), num_views=5, num_objects=5)
  order = np.array([3, 0, 4, 1, 2])
  ranks = compiled_as_numpy(views)
  permuted = compiled_as_numpy(
    views._replace(
      coverage=views.coverage[:, order],
      object_areas=views.object_areas[:, order],
      where=views.where[:, order],
    )
  )
  assert_same(permuted, jax.tree.map(lambda x: x[:, order] if x.ndim else x, ranks))


def scene_with_a_rival():
  """A red, a green and a blue object; green counts little as long as the red one is in sight."""
  image = np.full((1, ROWS * CELL, COLUMNS * CELL, 3), 20, np.float32)
  coverage = np.zeros((1, 3, ROWS, COLUMNS), np.float32)
  for number, column in enumerate((1, 5, 9)):
    coverage[0, number, 3:5, column : column + 2] = 1
    image[0, 12:20, 4 * column : 4 * column + 8, number] = 255
  areas = np.full((1, ROWS, COLUMNS), 1e-3, np.float32)
  return Views(image, coverage, areas, np.full((1, 3), 4e-3, np.float32), np.ones((1, 3), bool))


def rivalry(views):
  red, green, blue = jnp.moveaxis(views, -1, 0)
  red_in_sight = (red.max((1, 2)) > 200)[:, None, None]
  return 1 + red + jnp.where(red_in_sight, 0.1, 0.8) * green + 0.5 * blue


@functools.partial(jax.jit, static_argnums=1)
def ranks_of_rivals(views, max_erased):
  score = score_with((0.0, 0.0, 1.0, 0.0))
  return rank_views(
    views, saliency=rivalry, choose=score.erasing_score, fill="mean", max_erased=max_erased
  )


@pytest.mark.parametrize(("max_erased", "expected"), [(0, [0, 2, 1]), (128, [0, 1, 2])])
def test_the_second_and_third_change_places_once_the_first_is_erased(max_erased, expected):
  assert ranks_of_rivals(scene_with_a_rival(), max_erased).order[0].tolist() == expected


def test_the_bare_scene_is_measured_where_the_objects_were():
  history = ranks_of_rivals(scene_with_a_rival(), 1).history
  assert (history.first[0, 0] > 2).all()  # red is bright
  np.testing.assert_allclose(history.bare[0], 0, atol=1e-3)  # nothing stands out where all is gone


def test_a_wrong_fill_and_cells_that_do_not_divide_the_view_are_refused():
  views = draw_views(np.random.default_rng(0), num_views=1, num_objects=2)
  with pytest.raises(ValueError, match="fill must be one of pull_push"):
    rank_views(views, saliency=brightness, choose=SCORE.erasing_score, fill="none")
  with pytest.raises(ValueError, match="do not divide into"):
    rank_views(
      views._replace(images=views.images[:, :31]),
      saliency=brightness,
      choose=SCORE.erasing_score,
    )
