"""All figures of a GPU in one command: `python -m foir360_jax.benchmarks.gpu --out=FILE`.

Needs jax, flax, optax, einops and numpy, and no data. Every figure is appended to FILE, a JSON
value a line, as soon as it is known: a run that is cut off loses nothing. What does not fit into
the time is left out, and that is written, too. `--small` shows on any machine that it runs.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foir360_jax.benchmarks import losses, race
from foir360_jax.benchmarks.cases import PASSES, Case
from foir360_jax.benchmarks.gpu_model import MODEL, SMALL_MODEL
from foir360_jax.benchmarks.record import append_json, describe, environment
from foir360_jax.benchmarks.timing import Contestant, compile_program, measure, repeatedly
from foir360_jax.benchmarks.train_step import measure_prediction, measure_training

_DTYPES = ("float32", "bfloat16")
_CHANNELS_AT = {128: 64, 64: 128, 32: 256}  # rows and channels as in an encoder
_RACE_S = 5.0
Row = dict[str, Any]


class Stage(NamedTuple):
  """A part of the run: the name of its benchmark, what is measured, and a function of its rows."""

  benchmark: str
  task: str
  rows: Callable[[], Iterable[Row]]


def main(argv: Sequence[str] | None = None) -> None:
  """The command."""
  parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
  parser.add_argument("--out", required=True, help="file to which lines of JSON are appended")
  parser.add_argument("--small", action="store_true", help="tiny shapes, on any device")
  parser.add_argument("--minutes", type=float, default=7.5, help="after which nothing is started")
  options = parser.parse_args(argv)
  if not options.small and jax.default_backend() != "gpu":
    print(
      f"JAX sees no GPU here, only {jax.devices()[0].device_kind}: install jax[cuda12], or try the"
      " script with --small",
      file=sys.stderr,
    )
    sys.exit(2)
  deadline = time.monotonic() + 60 * options.minutes
  about = environment()
  print(describe(about), flush=True)
  append_json(options.out, {"benchmark": "environment", "small": options.small} | about)
  longest_s = 0.0
  for stage in _small_stages() if options.small else _stages():
    start = time.monotonic()
    # Stages differ, so the longest one so far is only a guess at what the next one takes.
    if start + longest_s > deadline:
      _keep(options.out, stage, {"skipped": f"the {options.minutes:g} minutes are over"})
      continue
    try:
      for row in stage.rows():
        _keep(options.out, stage, row)
    except jax.errors.JaxRuntimeError as error:  # a small GPU runs out of memory
      _keep(options.out, stage, {"failed": str(error).splitlines()[0]})
    longest_s = max(longest_s, time.monotonic() - start)


def _keep(out: str, stage: Stage, row: Row) -> None:
  append_json(out, {"benchmark": stage.benchmark, "task": stage.task} | row)
  shown = {key: value for key, value in row.items() if value is not None}
  figures = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
  print(f"{stage.benchmark} {stage.task}: {', '.join(figures)}", flush=True)


def _stages() -> Iterator[Stage]:
  """What is measured, the most important first."""
  limits = {dtype: _device_limits(dtype, megabytes=512, size=8192) for dtype in _DTYPES}
  yield Stage("limits", "copy and matrix product", limits.values)

  def convolutions(height: int, channels: int, names: Sequence[str]) -> Iterator[Stage]:
    for dtype in _DTYPES:
      yield _race_stage(Case(8, height, channels), names, limits[dtype], rounds=20)

  for height, channels in _CHANNELS_AT.items():
    yield from convolutions(height, channels, (race.OURS, race.PLANAR))
  yield from _model_stages(MODEL, [measure_training, measure_prediction], rounds=20)
  yield from _loss_stages(losses.SHAPES, losses.rax_losses(), rounds=20)
  for height, channels in _CHANNELS_AT.items():
    yield from convolutions(height, channels, (race.PLANAR, *race.FORCED))
  for height, channels in itertools.product(_CHANNELS_AT, _CHANNELS_AT.values()):
    if channels != _CHANNELS_AT[height]:
      yield from convolutions(height, channels, (race.OURS, race.PLANAR))


def _small_stages() -> Iterator[Stage]:
  limits = [_device_limits(dtype, megabytes=1, size=64) for dtype in _DTYPES]
  yield Stage("limits", "copy and matrix product", partial(iter, limits))
  for row in limits:
    forced = race.FORCED if row["dtype"] == "float32" else ()
    yield _race_stage(Case(1, 8, 4), (race.OURS, race.PLANAR, *forced), row, rounds=1)
  yield from _loss_stages([(4, 16)], {}, rounds=1)
  yield from _model_stages(SMALL_MODEL, [measure_training], rounds=1)


def _race_stage(case: Case, names: Sequence[str], limits: Row, rounds: int) -> Stage:
  task = f"{case.name} {limits['dtype']}"
  return Stage("sphere_conv", task, partial(_race, case, names, limits, rounds))


def _race(case: Case, names: Sequence[str], limits: Row, rounds: int) -> Iterator[Row]:
  """The rows of a race, with the achieved rates and their shares of the device's limits."""
  dtype = limits["dtype"]
  itemsize = jnp.dtype(dtype).itemsize
  for row in race.race(case, names, dtype=dtype, rounds=rounds, budget_s=_RACE_S):
    backward, seconds = row["pass"] == PASSES[1], row["min_ms"] / 1e3
    rates = {
      "flop_per_s": case.operations(backward) / seconds,
      "bytes_per_s": case.least_bytes(itemsize, backward) / seconds,
    }
    yield row | rates | {f"share_of_{k}": rate / limits[k] for k, rate in rates.items()}


def _device_limits(dtype: str, *, megabytes: int, size: int) -> Row:
  """What a copy and a matrix product reach on this device."""
  array = jnp.ones(megabytes * 2**20 // jnp.dtype(dtype).itemsize, dtype)
  matrix = jnp.ones((size, size), dtype)
  tasks = {"copy": (jnp.negative, array), "product": (lambda x: x @ x, matrix)}
  contestants = [
    Contestant(name, repeatedly(compile_program(function, argument).execute, argument))
    for name, (function, argument) in tasks.items()
  ]
  timings = measure(contestants, rounds=10, budget_s=_RACE_S)
  return {
    "dtype": dtype,
    "bytes_per_s": 2 * array.nbytes / timings["copy"].min_s,
    "flop_per_s": 2 * size**3 / timings["product"].min_s,
  }


def _loss_stages(
  shapes: Sequence[tuple[int, int]], theirs: Mapping[str, losses.Loss], rounds: int
) -> Iterator[Stage]:
  for shape, name in itertools.product(shapes, losses.OURS):
    limits = {"rounds": rounds, "budget_s": _RACE_S}
    rows = partial(_one, losses.race, name, shape, theirs.get(name), **limits)
    yield Stage("losses", f"{name} {shape[0]}x{shape[1]}", rows)


def _model_stages(
  config: Row, measurements: Sequence[Callable[..., Row]], rounds: int
) -> Iterator[Stage]:
  limits = {"rounds": rounds, "budget_s": 2 * _RACE_S}
  for measure_model in measurements:
    # On a CPU the peak would be measured in a process of its own, which has to compile again.
    peak_memory = jax.default_backend() == "gpu"
    rows = partial(_one, measure_model, config, peak_memory=peak_memory, **limits)
    height = config["data"]["height"]
    yield Stage("panorank", f"{height}x{2 * height}, widths {config['model']['widths']}", rows)


def _one(function: Callable[..., Row], *arguments: Any, **options: Any) -> Iterator[Row]:
  yield function(*arguments, **options)


if __name__ == "__main__":
  main()
