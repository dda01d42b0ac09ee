"""The compiled training step: one program for each shape of batches, with its cost."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from foir360_jax.compilation import compiling
from foir360_jax.train.cost import StepCost, bytes_on_device, device_memory
from foir360_jax.train.state import TrainState


class CompiledStep:
  """Compiles a step for each shape of batches, and reports what the program needs.

  Memory and arithmetic are reported before the program first runs. Its time is reported once, of
  its second run (the first one also sets the device up); that run is waited for, all others are
  left to the devices.

  Attributes:
    compile_s: seconds spent on compiling, over all shapes.
  """

  def __init__(self, step: jax.stages.Wrapped, say: Callable[[str], None], run_ahead: int = 0):
    """Takes a step from `compile_step`, where to send a line of text, and the steps that may wait.

    While a step runs, a device holds a batch for each step that waits beside the one in use.
    """
    self._step, self._say, self._run_ahead = step, say, run_ahead
    self._programs: dict[tuple[tuple[int, ...], ...], _Program] = {}
    self.compile_s = 0.0

  def compile(
    self, state: TrainState, batch: Mapping[str, jax.Array], progress: jax.Array
  ) -> "_Program":
    """Compiles for these shapes; raises ValueError if a step needs more memory than a device has.

    Args:
      state: on the devices, as the batch and the progress are; none of them is changed.
      batch: of any size.
      progress: scalar.
    """
    shapes = tuple(batch[key].shape for key in sorted(batch))
    if shapes not in self._programs:
      self._say(compiling("the training step"))
      start = time.monotonic()
      program = self._step.lower(state, batch, progress).compile()
      cost = StepCost.of(program)
      if cost is not None:
        used, ahead = (bytes_on_device(tree) for tree in ((state, batch, progress), batch))
        beside = bytes_on_device(jax.live_arrays()) - used + self._run_ahead * ahead
        cost.check_fits(device_memory(), max(beside, 0))
        self._say(f"compiled in {time.monotonic() - start:.0f} s; a step takes {cost}")
      self._programs[shapes] = _Program(program)
      self.compile_s += time.monotonic() - start
    return self._programs[shapes]

  def __call__(
    self, state: TrainState, batch: Mapping[str, jax.Array], progress: jax.Array
  ) -> tuple[TrainState, Any]:
    """Makes a step, compiled first if need be; `state` is donated, as `compile_step` says."""
    program = self.compile(state, batch, progress)
    program.runs += 1
    if program.runs != 2:
      return program.run(state, batch, progress)
    jax.block_until_ready((state, batch, progress))
    start = time.monotonic()
    results = jax.block_until_ready(program.run(state, batch, progress))
    self._say(f"a step takes {time.monotonic() - start:.2g} s")
    return results


@dataclasses.dataclass
class _Program:
  run: Callable
  runs: int = 0
