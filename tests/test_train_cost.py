import jax
import jax.numpy as jnp
import pytest

from foir360_jax.train.cost import StepCost, device_memory


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


def test_the_memory_of_the_device_is_known():
  assert 2**28 < device_memory() < 2**45
