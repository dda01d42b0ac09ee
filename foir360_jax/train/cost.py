"""Memory, arithmetic and time of a compiled training step, reported before it first runs."""

import os
from typing import Any, NamedTuple

import jax

_GIB = 2**30


class StepCost(NamedTuple):
  """Memory and arithmetic of a step on one device.

  Attributes:
    memory_bytes: what the step needs at once: its arguments, results, and what lies in between.
    flops: floating-point operations, as the compiler counts them; 0 where it does not.
  """

  memory_bytes: int
  flops: float

  @classmethod
  def of(cls, compiled: Any) -> "StepCost | None":
    """Of a compiled program (`jax.stages.Compiled`); None where the compiler does not tell."""
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    if memory is None:
      return None
    if isinstance(costs, list | tuple):  # of pmap
      costs = costs[0] if costs else None
    needed = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes  # results that take the place of arguments
      + memory.temp_size_in_bytes
    )
    return cls(needed, max(float((costs or {}).get("flops", 0.0)), 0.0))

  def __str__(self) -> str:
    return f"{self.memory_bytes / _GIB:.2f} GiB of memory and {self.flops / 1e9:.1f} GFLOP a device"

  def check_fits(self, limit_bytes: int | None, beside_bytes: int = 0) -> None:
    """Raises ValueError if a step needs more memory than a device has.

    Args:
      limit_bytes: of the device; None where unknown.
      beside_bytes: what is held there and is none of the step's: batches ahead, other arrays.

    >>> StepCost(3 * 2**30, 0.0).check_fits(2 * 2**30)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: a step needs 3.0 GiB of memory and the device has 2.0: lower config.data...
    """
    if limit_bytes is not None and self.memory_bytes + beside_bytes > limit_bytes:
      beside = f" beside {beside_bytes / _GIB:.1f} that are taken" if beside_bytes else ""
      raise ValueError(
        f"a step needs {self.memory_bytes / _GIB:.1f} GiB of memory{beside} and the device has"
        f" {limit_bytes / _GIB:.1f}: lower config.data.batch_size or .height"
      )


def bytes_on_device(tree: Any) -> int:
  """Bytes of the arrays of a pytree on the first device of this process; shared ones count once."""
  device = jax.local_devices()[0]
  parts = {
    shard.data.unsafe_buffer_pointer(): shard.data.nbytes
    for array in jax.tree.leaves(tree)
    for shard in array.addressable_shards
    if shard.device == device
  }
  return sum(parts.values())


def device_memory() -> int | None:
  """Bytes of memory that programs may use on a device of this process; None where unknown."""
  device = jax.local_devices()[0]
  if device.platform == "cpu":
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return (device.memory_stats() or {}).get("bytes_limit")
