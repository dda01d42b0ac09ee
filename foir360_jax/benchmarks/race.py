"""One race of convolutions: a case, its contestants in turns, and a row of figures for each.

Between the contestants (`convolutions`, `spherenet`) and the commands (`sphere_conv`, `gpu`).
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax import sphere
from foir360_jax.benchmarks.cases import PASSES, Case, exact_results, relative_error
from foir360_jax.benchmarks.convolutions import gathered_conv, planar_conv, with_gradients
from foir360_jax.benchmarks.memory import peak_resident_bytes
from foir360_jax.benchmarks.timing import Contestant, compile_program, measure, repeatedly

OURS = "sphere_conv"
PLANAR = "lax.conv"
GATHERS = "gathers"
TORCH_SPHERE = "torch SphereNet"
TORCH_PLANAR = "torch conv"
FORCED = tuple(f"{OURS}:{name}" for name in sphere.FORMULATIONS)
CONTESTANTS = (OURS, PLANAR, GATHERS, TORCH_SPHERE, TORCH_PLANAR, *FORCED)
_JAX_OPPONENTS = {PLANAR: planar_conv, GATHERS: gathered_conv}
_MIB = 2**20


class Entry(NamedTuple):
  """A contestant that is ready to run; `results` computes once, for the error."""

  run: Callable[[int], Any]
  results: Callable[[], Sequence[Any]]
  compile_s: float | None = None
  temporary_bytes: int | None = None


def opponents() -> list[str]:
  """The opponents that are installed; says in a line which are not."""
  try:
    import torch  # noqa: F401
  except ImportError:
    print(
      f"torch is not installed: without {TORCH_SPHERE} and {TORCH_PLANAR} (see the extra bench)"
    )
    return [PLANAR, GATHERS]
  return [PLANAR, GATHERS, TORCH_SPHERE, TORCH_PLANAR]


def race(
  case: Case,
  names: Sequence[str],
  passes: Sequence[str] = PASSES,
  *,
  rounds: int,
  budget_s: float = math.inf,
  dtype: str = "float32",
) -> Iterator[dict[str, Any]]:
  """Measures the contestants of these names on one case; the passes are races of their own.

  Args:
    case: what to compute.
    names: of contestants; a forced formulation that does not take the case is left out.
    passes: of `PASSES`: the result alone, or the gradients of input and kernel as well.
    rounds: see `timing.measure`.
    budget_s: for each pass, see `timing.measure`.
    dtype: of the arrays; PyTorch's contestants take float32 only.

  Yields:
    A row for each pass and contestant: times in ms, `ratio` of the best times to lax.conv's, and
    for spherical convolutions the `error` against float64, see `relative_error`: of the result, or
    the larger of the gradients'.
  """
  inputs = [jnp.asarray(array, dtype) for array in case.inputs()]
  exact = exact_results(case, *inputs)
  for name in passes:
    entries = dict(_enter_all(case, names, name == PASSES[1], inputs))
    contestants = [Contestant(name, entry.run) for name, entry in entries.items()]
    timings = measure(contestants, rounds=rounds, budget_s=budget_s)
    for contestant, entry in entries.items():
      timing = timings[contestant]
      planar = contestant in (PLANAR, TORCH_PLANAR)
      yield {
        "case": case.name,
        "pass": name,
        "dtype": dtype,
        "contestant": contestant,
        "min_ms": 1e3 * timing.min_s,
        "median_ms": 1e3 * timing.median_s,
        "rounds": timing.rounds,
        "ratio": timing.min_s / timings[PLANAR].min_s if PLANAR in timings else None,
        "error": None if planar else _error(entry.results(), exact),
        "compile_s": entry.compile_s,
        "temporary_mib": entry.temporary_bytes and entry.temporary_bytes / _MIB,
      }


def _enter_all(
  case: Case, names: Sequence[str], backward: bool, inputs: Sequence[jax.Array]
) -> Iterator[tuple[str, Entry]]:
  for name in names:
    try:
      yield name, _enter(name, case, backward, inputs)
    except ValueError as error:
      if name not in FORCED:
        raise
      print(f"{case.name}: without {name}: {error}")


def peak_mib(name: str, case: Case, backward: bool) -> float | None:
  """Peak memory of one execution over its inputs, measured in a process of its own."""
  peak = peak_resident_bytes(_make_run, name, case, backward)
  return peak and peak / _MIB


def _make_run(name: str, case: Case, backward: bool) -> Callable[[], Any]:
  inputs = [jnp.asarray(array) for array in case.inputs()]
  return functools.partial(_enter(name, case, backward, inputs).run, 1)


def _enter(name: str, case: Case, backward: bool, inputs: Sequence[jax.Array]) -> Entry:
  if name in (TORCH_SPHERE, TORCH_PLANAR):
    return _enter_torch(name, case, backward, inputs)
  if name in _JAX_OPPONENTS:
    convolve = functools.partial(_JAX_OPPONENTS[name], stride=case.stride)
  else:
    _, _, formulation = name.partition(":")
    convolve = functools.partial(
      sphere.sphere_conv, stride=case.stride, formulation=formulation or None
    )
  function, arguments = (with_gradients(convolve), inputs) if backward else (convolve, inputs[:2])
  program = compile_program(function, *arguments)

  def results():
    return jax.tree.leaves(program.execute(*arguments))

  run = repeatedly(program.execute, *arguments)
  return Entry(run, results, program.compile_s, program.temporary_bytes)


def _enter_torch(name: str, case: Case, backward: bool, inputs: Sequence[jax.Array]) -> Entry:
  from foir360_jax.benchmarks import spherenet

  if name == TORCH_SPHERE:
    convolve = spherenet.spherenet_conv(case.height, case.size, case.stride)
  else:
    convolve = spherenet.planar_conv(case.size, case.stride)
  arrays = [np.asarray(array, np.float32) for array in inputs]
  compute = spherenet.prepare(convolve, *arrays, backward=backward)

  def run(repeats: int):
    for _ in range(repeats):
      compute()

  return Entry(run, lambda: spherenet.to_numpy(compute()))


def _error(results: Sequence[Any], exact: Sequence[np.ndarray]) -> float:
  """Of the result, or where there are gradients, the larger of theirs."""
  pairs = list(zip(results, exact, strict=False))
  return max(relative_error(*pair) for pair in (pairs[1:] or pairs))
