import jax
import jax.numpy as jnp
import pytest

from foir360_jax.train.cost import StepCost, bytes_on_device, device_memory


def compiled(function, *shapes, **options):
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return jax.jit(function, **options).lower(*arguments).compile()


def test_a_product_of_matrices_costs_what_it_should():
  cost = StepCost.of(compiled(jnp.matmul, (256, 512), (512, 128)))
  operations = 2 * 256 * 512 * 128
  assert operations <= cost.flops < 1.05 * operations
  floats = 256 * 512 + 512 * 128 + 256 * 128
  assert 4 * floats <= cost.memory_bytes < 5 * floats


def test_what_is_donated_is_counted_once():
  def add(x, y):
    return x + y

  kept = StepCost.of(compiled(add, (1000, 100), (1000, 100)))
  donated = StepCost.of(compiled(add, (1000, 100), (1000, 100), donate_argnums=0))
  assert kept.memory_bytes - donated.memory_bytes == 4 * 1000 * 100


def test_a_step_that_cannot_fit_is_refused_in_one_line():
  cost = StepCost(memory_bytes=3 * 2**30, flops=2e9)
  assert str(cost) == "3.00 GiB of memory and 2.0 GFLOP a device"
  cost.check_fits(None)
  cost.check_fits(3 * 2**30)
  with pytest.raises(ValueError, match="needs 3.0 GiB of memory and the device has 2.5") as caught:
    cost.check_fits(5 * 2**29)
  assert "\n" not in str(caught.value)
  cost.check_fits(4 * 2**30, beside_bytes=2**30)
  with pytest.raises(ValueError, match="3.0 GiB of memory beside 1.0 that are taken and .* 3.5"):
    cost.check_fits(7 * 2**29, beside_bytes=2**30)


def test_arrays_that_share_their_memory_count_once():
  x = jnp.zeros((1000, 100))
  y = jax.device_put(x, x.sharding)
  assert bytes_on_device([x, y, jnp.ones(10)]) == 4 * (1000 * 100 + 10)


def test_the_memory_of_the_device_is_known():
  assert 2**28 < device_memory() < 2**45
