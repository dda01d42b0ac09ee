"""Throughput of PanoRank's training step and of its prediction, on random scenes.

A configuration is a mapping with the sections of `foir360_jax.config`; nothing here reads files or
data sets. Axes: see `foir360_jax.batch`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.batch import HostBatch
from foir360_jax.benchmarks.memory import device_peak_bytes, peak_resident_bytes
from foir360_jax.benchmarks.timing import Contestant, Program, compile_program, measure, repeatedly
from foir360_jax.models import PanoRank, build_model
from foir360_jax.objective import build_objective
from foir360_jax.sphere import pixel_directions
from foir360_jax.train import (
  build_optimizer,
  compile_step,
  create_state,
  make_mesh,
  put_batch,
  put_scalar,
  put_state,
  train_step,
)

Config = Mapping[str, Any]
COLUMNS = {
  "what": "",
  "images_per_second": ".2f",
  "batch_size": "d",
  "min_ms": ".1f",
  "median_ms": ".1f",
  "compile_s": ".1f",
  "temporary_mib": ".0f",
  "peak_mib": ".0f",
}


def measure_training(
  config: Config, *, rounds: int, budget_s: float = math.inf, peak_memory: bool = True
) -> dict[str, Any]:
  """Forward pass, matching, losses, backward pass and optimizer, in the configured mode.

  Returns:
    A row: times in ms and compile seconds of a step, images per second of the median step, MiB of
    XLA's temporaries and results, and if asked for peak MiB: on a CPU of a process that does
    nothing else (which compiles once more), on a GPU of this process so far.
  """
  row = _measure("training step", _prepare_training, config, "data", rounds, budget_s)
  return row | {"peak_mib": _peak_mib(_prepare_training, config) if peak_memory else None}


def measure_prediction(
  config: Config, *, rounds: int, budget_s: float = math.inf, peak_memory: bool = True
) -> dict[str, Any]:
  """From images to ranked candidates, with the batch size of evaluation; a row as of training."""
  row = _measure("prediction", _prepare_prediction, config, "evaluate", rounds, budget_s)
  return row | {"peak_mib": _peak_mib(_prepare_prediction, config) if peak_memory else None}


def random_batch(batch_size: int, height: int, max_objects: int, num_categories: int) -> HostBatch:
  """Noise with caps of random place, size and importance; lists from half to full."""
  rng = np.random.default_rng(0)
  counts = rng.integers((max_objects + 1) // 2, max_objects + 1, batch_size)
  where = np.arange(max_objects) < counts[:, None]
  centres = rng.normal(size=(*where.shape, 3))
  centres /= np.linalg.norm(centres, axis=-1, keepdims=True)
  radius_rad = np.deg2rad(rng.uniform(5, 20, where.shape))
  cosines = np.einsum("bnx,hwx->bnhw", centres, np.asarray(pixel_directions(height)))
  masks = (cosines > np.cos(radius_rad)[..., None, None]) & where[..., None, None]
  return {
    "image": rng.integers(0, 256, (batch_size, height, 2 * height, 3), np.uint8),
    "masks": np.packbits(masks, axis=-1),
    "where": where,
    "relevance": np.where(where, rng.random(where.shape), 0).astype(np.float32),
    "category": np.where(where, rng.integers(0, num_categories, where.shape), -1).astype(np.int32),
    "seed": np.arange(batch_size, dtype=np.uint32),
  }


def _measure(
  what: str, prepare: Callable, config: Config, section: str, rounds: int, budget_s: float
) -> dict[str, Any]:
  program, run = prepare(config)
  timing = measure([Contestant(what, run)], rounds=rounds, budget_s=budget_s)[what]
  batch_size = config[section]["batch_size"]
  return {
    "what": what,
    "images_per_second": batch_size / timing.median_s,
    "batch_size": batch_size,
    "min_ms": 1e3 * timing.min_s,
    "median_ms": 1e3 * timing.median_s,
    "rounds": timing.rounds,
    "compile_s": program.compile_s,
    "temporary_mib": program.temporary_bytes and program.temporary_bytes / 2**20,
  }


def _peak_mib(prepare: Callable, config: Config) -> float | None:
  if jax.default_backend() == "cpu":
    peak = peak_resident_bytes(_make_run, prepare, config)
  else:
    peak = device_peak_bytes()
  return peak and peak / 2**20


def _make_run(prepare: Callable, config: Config) -> Callable[[], Any]:
  _, run = prepare(config)
  return functools.partial(run, 1)


def _prepare_training(config: Config) -> tuple[Program, Callable[[int], Any]]:
  data, mode, mesh = config["data"], config["train"]["mode"], make_mesh()
  optimizer = build_optimizer(**config["optimizer"])
  graphdef, state = create_state(_build(config), optimizer)
  objective, weights = build_objective(config)
  step = functools.partial(
    train_step, graphdef, optimizer, objective, weights, config["train"]["ema_decay"]
  )
  host_batch = random_batch(
    data["batch_size"], data["height"], data["max_objects"], config["model"]["num_categories"]
  )
  state = put_state(state, mode, mesh)
  batch, progress = put_batch(host_batch, mode, mesh), put_scalar(0.5, mode, mesh)
  program = compile_program(compile_step(step, mode, mesh), state, batch, progress)

  def run(repeats: int):
    nonlocal state  # each step consumes it
    for _ in range(repeats):
      state, metrics = program.execute(state, batch, progress)
    return jax.block_until_ready(metrics)

  return program, run


def _prepare_prediction(config: Config) -> tuple[Program, Callable[[int], Any]]:
  graphdef, state = nnx.split(_build(config))
  height = config["data"]["height"]
  image = random_batch(config["evaluate"]["batch_size"], height, 1, 1)["image"]
  arguments = state, jnp.asarray(image)
  program = compile_program(lambda state, image: nnx.merge(graphdef, state)(image), *arguments)
  return program, repeatedly(program.execute, *arguments)


def _build(config: Config) -> PanoRank:
  return nnx.jit(lambda: build_model(config))()  # one program rather than one a parameter
