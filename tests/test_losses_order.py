import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax.losses.order import descending_order, ranks_by_score

FINFO = np.finfo(np.float32)


def in_numpy(values, where):
  return np.lexsort((np.where(where, -values, 0), ~where))


def random_values(*shape):
  """Values of all sizes and signs, many of them equal."""
  rng = np.random.default_rng(0)
  values = rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape)
  values = np.where(rng.random(shape) < 0.3, rng.integers(-2, 3, shape), values)
  return values.astype(np.float32), rng.random(shape) < 0.7


@pytest.mark.parametrize("shape", [(1,), (4, 7), (2, 3, 300)])
def test_order_equals_a_stable_sort_in_numpy(shape):
  values, where = random_values(*shape)
  np.testing.assert_array_equal(jax.jit(descending_order)(values, where), in_numpy(values, where))


def test_order_of_special_values():
  values = np.float32([-0.0, 0.0, FINFO.min, np.inf, FINFO.tiny, -np.inf, FINFO.max, -1, -2, -0.0])
  where = np.ones(values.shape, bool)
  np.testing.assert_array_equal(descending_order(values, where), in_numpy(values, where))


@pytest.mark.parametrize("filler", [np.nan, np.inf, -np.inf, FINFO.min])
def test_padding_comes_last_whatever_it_holds(filler):
  values = np.float32([filler, -np.inf, 2, filler, np.inf])
  where = np.array([False, True, True, False, True])
  np.testing.assert_array_equal(descending_order(values, where), [4, 2, 1, 0, 3])


def test_doubles_and_very_long_lists_are_sorted_too():
  values, where = random_values(2**16 + 3)
  np.testing.assert_array_equal(jax.jit(descending_order)(values, where), in_numpy(values, where))
  values, where = random_values(50)
  values = 1 + values.astype(float) * 1e-12  # all equal in float32
  with jax.enable_x64(True):
    order = descending_order(jnp.asarray(values), jnp.asarray(where))
  np.testing.assert_array_equal(order, in_numpy(values, where))


def test_ranks_are_the_places_in_the_order():
  values, where = random_values(4, 7)
  ranks = jax.jit(ranks_by_score)(values, where)
  np.testing.assert_array_equal(ranks, np.argsort(in_numpy(values, where)) + 1)


def test_order_under_vmap():
  values, where = random_values(3, 2, 7)
  mapped = jax.jit(jax.vmap(functools.partial(descending_order)))(values, where)
  np.testing.assert_array_equal(mapped, in_numpy(values, where))
