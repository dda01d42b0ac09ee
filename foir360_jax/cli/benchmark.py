"""`foir360 benchmark`: speed and memory of a configuration: a table, as text and as JSON."""

import json
import os
import types

import jax
from ml_collections import ConfigDict

from foir360_jax.benchmarks.throughput import throughput
from foir360_jax.cli.check import need_task, validate
from foir360_jax.files import write_atomically
from foir360_jax.paths import expand


def run(flags: types.SimpleNamespace) -> int:
  """Runs the command; returns its exit code."""
  benchmark(flags.config, flags.workdir)
  return 0


def benchmark(config: ConfigDict, workdir: str | os.PathLike) -> None:
  """Measures speed and memory: a table, as text and as JSON, in `workdir`. Needs no data set."""
  validate(config)
  need_task(config, "benchmark", "ranking")
  report, text = throughput(config.to_dict(), **config.benchmark)
  if jax.process_index() > 0:
    return
  folder = expand(workdir)
  write_atomically(folder / "benchmark.json", (json.dumps(report, indent=2) + "\n").encode())
  write_atomically(folder / "benchmark.txt", text.encode())
  print(f"{text}wrote benchmark.json and benchmark.txt into {folder}")
