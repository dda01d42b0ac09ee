"""Speed of contestants that take turns in one process: what every table of this package rests on.

The speed of a machine drifts, by the minute and by a factor of two on a shared one. So contestants
take turns, every one once a round, and only figures of the same rounds are compared. The minimum
says what the program can do, the median what it usually does.
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

_SAMPLE_S = 0.02  # shorter samples would measure the clock and the scheduler


class Contestant(NamedTuple):
  """What takes part in a race: `run(n)` computes n times and returns when all results are there."""

  name: str
  run: Callable[[int], Any]


class Timing(NamedTuple):
  """Seconds of one execution: the best and the median round, and how many rounds there were."""

  min_s: float
  median_s: float
  rounds: int


class Program(NamedTuple):
  """A compiled JAX function.

  Attributes:
    execute: takes the arguments' arrays.
    compile_s: seconds from the Python function to the program.
    temporary_bytes: what the program allocates besides its arguments: temporaries and results; None
      where the compiler does not say.
  """

  execute: Callable[..., Any]
  compile_s: float
  temporary_bytes: int | None


def measure(
  contestants: Sequence[Contestant], *, rounds: int, budget_s: float = math.inf
) -> dict[str, Timing]:
  """Times contestants in rounds, after one execution each to warm up.

  The order rotates from round to round and every other round is reversed, so that nobody always
  runs after the same neighbour. Short runs are repeated until a sample takes about 20 ms.

  Args:
    contestants: with names that differ.
    rounds: at least 1.
    budget_s: no round starts after this many seconds, but one is always made.

  Returns:
    The timing of each contestant, by name.

  >>> list(measure([Contestant("sleep", lambda n: time.sleep(0.01 * n))], rounds=3))
  ['sleep']
  """
  if rounds < 1:
    raise ValueError(f"a benchmark needs at least 1 round, not {rounds}")
  start = time.perf_counter()
  repeats = {}
  for contestant in contestants:
    contestant.run(1)
    repeats[contestant.name] = math.ceil(_SAMPLE_S / max(_seconds(contestant.run, 1), 1e-6))
  samples: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
  for index in range(rounds):
    if index and time.perf_counter() - start > budget_s:
      break
    for name, run in turns(contestants, index):
      samples[name].append(_seconds(run, repeats[name]) / repeats[name])
  return {
    name: Timing(min(values), statistics.median(values), len(values))
    for name, values in samples.items()
  }


def turns(contestants: Sequence[Any], index: int) -> list[Any]:
  """The order of round `index`.

  >>> [turns("abc", index) for index in range(3)]
  [['a', 'b', 'c'], ['a', 'c', 'b'], ['c', 'a', 'b']]
  """
  first = index % len(contestants)
  order = [*contestants[first:], *contestants[:first]]
  return order[::-1] if index % 2 else order


def compile_program(function: Callable[..., Any], *arguments: Any) -> Program:
  """Compiles a function, from scratch: without the persistent cache of programs.

  Args:
    function: plain, or the result of `jax.jit` with further options.
    *arguments: arrays, or pytrees of arrays.
  """
  jitted = function if hasattr(function, "lower") else jax.jit(function)
  with _no_persistent_cache():
    start = time.perf_counter()
    compiled = jitted.lower(*arguments).compile()
    compile_s = time.perf_counter() - start
  memory = compiled.memory_analysis()
  temporary_bytes = memory and memory.temp_size_in_bytes + memory.output_size_in_bytes
  return Program(compiled, compile_s, temporary_bytes)


def repeatedly(function: Callable[..., Any], *arguments: Any) -> Callable[[int], Any]:
  """Returns the `run` of a contestant from a JAX function and its arguments.

  A GPU is given all executions at once, because the way there and back takes longer than many of
  them; a CPU one at a time, because it would work on several at once.
  """
  wait_each_time = jax.default_backend() == "cpu"

  def run(repeats: int):
    for _ in range(repeats):
      result = function(*arguments)
      if wait_each_time:
        jax.block_until_ready(result)
    return jax.block_until_ready(result)

  return run


def _seconds(run: Callable[[int], Any], repeats: int) -> float:
  start = time.perf_counter()
  run(repeats)
  return time.perf_counter() - start


@contextlib.contextmanager
def _no_persistent_cache() -> Iterator[None]:
  enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
  jax.config.update("jax_enable_compilation_cache", False)
  compilation_cache.reset_cache()  # JAX asks only once whether the cache is enabled
  try:
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", enabled)
    compilation_cache.reset_cache()
