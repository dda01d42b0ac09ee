import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax.losses.masking import safe_reduce

VALUES = np.array([[1.0, 5.0, np.nan], [np.inf, 3.0, -2.0]], np.float32)
REAL = np.array([[True, True, False], [False, True, False]])


@pytest.mark.parametrize(("reduce_fn", "expected"), [(jnp.mean, 3.0), (jnp.sum, 9.0)])
def test_only_real_values_are_reduced(reduce_fn, expected):
  assert safe_reduce(VALUES, REAL, reduce_fn) == expected


def test_without_reduction_the_padding_is_zero_so_that_sums_add_up():
  each = safe_reduce(VALUES, REAL, None)
  np.testing.assert_array_equal(each, [[1, 5, 0], [0, 3, 0]])


def test_where_is_broadcast_before_it_is_counted():
  values = np.arange(6.0).reshape(2, 3)
  assert safe_reduce(values, np.array([[True], [False]])) == 1.0


@pytest.mark.parametrize("reduce_fn", [jnp.mean, jnp.sum])
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_reducing_nothing_gives_zero_with_zero_gradient(reduce_fn, shape):
  def loss(x):
    return safe_reduce(jnp.log(x) ** 2, jnp.zeros(shape, bool), reduce_fn)

  value, gradient = jax.value_and_grad(loss)(jnp.full(shape, 2.0))
  assert value == 0
  np.testing.assert_array_equal(gradient, np.zeros(shape))


def test_nan_in_a_real_value_is_not_hidden():
  assert np.isnan(safe_reduce(jnp.array([jnp.nan, 1.0]), jnp.array([True, True])))
  assert np.isnan(safe_reduce(jnp.array([jnp.nan, 1.0])))
