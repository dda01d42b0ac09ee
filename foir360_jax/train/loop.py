"""The training loop: fetch, step, log, save, until the run's steps or minutes are over.

The devices compute step n while the host fetches and sends the batch of step n + 1. Nothing moves
between host and devices unasked (`jax.transfer_guard`), and metrics are fetched only to be logged
or checked.
"""

import contextlib
import functools
import gc
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from foir360_jax.files import sole_writer
from foir360_jax.train.checkpoint import Checkpoints
from foir360_jax.train.compiled_step import CompiledStep
from foir360_jax.train.logging import MetricsLog, progress_line, summarize
from foir360_jax.train.parallel import (
  compile_step,
  from_first_process,
  make_mesh,
  put_batch,
  put_scalar,
  put_state,
)
from foir360_jax.train.settings import save_settings
from foir360_jax.train.state import Model, TrainState
from foir360_jax.train.step import Objective, train_step

# Steps that may wait for the devices; more would hold batches there and blur the clock.
_RUN_AHEAD = 2
_CLOCK_TICK_S = time.get_clock_info("monotonic").resolution  # less cannot be told from nothing


def train(
  *,
  graphdef: nnx.GraphDef[Model],
  state: TrainState,
  optimizer: optax.GradientTransformation,
  objective: Objective[Model],
  weights: Mapping[str, float],
  batches: Iterator[Mapping[str, np.ndarray]],
  workdir: str | pathlib.Path,
  steps: int,
  minutes: float,
  mode: str,
  log_every: int,
  checkpoint_every: int,
  keep_checkpoints: int,
  ema_decay: float,
  batch_size: int,
  config: Mapping[str, Any] | None = None,
  show: Callable[[float, float], None] | None = None,
) -> TrainState:
  """Trains until `steps` are made or `minutes` are over, from the newest checkpoint on, if any.

  Args:
    graphdef: from `create_state`.
    state: from `create_state`; given up: its arrays, which are also those of the model that it was
      made of, are deleted as the training goes on from them, or from a checkpoint.
    optimizer: given `progress`, the part of the run that is over.
    objective: see `foir360_jax.train.step.Objective`.
    weights: weight of each of the objective's terms in the loss.
    batches: this process's batches. With `get_state` and `set_state` (JSON values, as grain's
      iterators have them) a resumed run continues at the same example, else they start anew.
    workdir: the run's folder: `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `config.json`.
    steps: number of updates, over all resumptions.
    minutes: if > 0, the run also ends after this wall time, over all resumptions; compilation is
      not counted.
    mode: see `foir360_jax.train.parallel`.
    log_every: number of steps between two log lines.
    checkpoint_every: number of steps between two checkpoints; the last step is always saved.
    keep_checkpoints: number of checkpoints to keep.
    ema_decay: highest decay of the parameters' average.
    batch_size: examples in a step over all devices and processes, for the throughput.
    config: what the run was started with, JSON values; written to `config.json`.
    show: takes the part of the run that is over, and 1, after each step; called by the first
      process alone, and waited for.

  Returns:
    The state at the end, on the devices of the mode.

  Raises:
    FloatingPointError: if the loss or the parameters are not finite; no such state is ever saved.
    SystemExit: after SIGINT or SIGTERM, with 128 + the signal's number; the state is saved first.
    ValueError: if an argument cannot work, a checkpoint does not fit, or another process trains in
      this folder.
  """
  intervals = dict(steps=steps, log_every=log_every, checkpoint_every=checkpoint_every)
  for name, value in (intervals | dict(keep_checkpoints=keep_checkpoints)).items():
    if value < 1:
      raise ValueError(f"config.train.{name} must be at least 1, not {value}")
  workdir = pathlib.Path(workdir).absolute()
  mesh = make_mesh()
  show = show if jax.process_index() == 0 else None
  one_step = functools.partial(train_step, graphdef, optimizer, objective, weights, ema_decay)
  compiled_step = CompiledStep(compile_step(one_step, mode, mesh), _say, _RUN_AHEAD)
  state = put_state(state, mode, mesh, donate=True)
  stream = _Stream(batches, functools.partial(put_batch, mode=mode, mesh=mesh))

  def progress_at(step: int, elapsed_s: float) -> float:
    return max(step / steps, elapsed_s / (60 * minutes) if minutes > 0 else 0.0)

  with contextlib.ExitStack() as stack:
    if jax.process_index() == 0:
      stack.enter_context(sole_writer(workdir))  # two runs would take each other's files away
    checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", keep_checkpoints))
    step, elapsed_s = 0, 0.0
    if checkpoints.latest_step is not None:
      step = checkpoints.latest_step
      state, saved = checkpoints.restore(_given_up(state))
      elapsed_s = saved["elapsed_s"]
      stream.seek(saved["data"])
      _say(f"goes on from step {step}, {elapsed_s / 60:.1f} minutes")
    progress = progress_at(step, elapsed_s)
    if progress >= 1:
      _say("the run is complete: give more config.train.steps or minutes to train on")
      return state
    log = stack.enter_context(_open_log(workdir, step, config))

    stack.enter_context(jax.transfer_guard("disallow"))
    stream.advance()
    start = time.monotonic() - elapsed_s
    compiled_step.compile(state, stream.batch(), put_scalar(progress, mode, mesh))

    # What is there now stays: the collector need not look at all of it again and again.
    gc.freeze()
    stack.callback(gc.unfreeze)
    received = stack.enter_context(_stop_signals())
    window_start = step, elapsed_s
    unchecked, window = [], []
    done = False
    while not done:
      state, metrics = compiled_step(state, stream.batch(), put_scalar(progress, mode, mesh))
      step += 1
      stream.advance()
      unchecked.append((step, metrics))
      if len(unchecked) > _RUN_AHEAD:
        jax.block_until_ready(unchecked[-1 - _RUN_AHEAD][1])

      elapsed_s, signum = from_first_process(
        [time.monotonic() - start - compiled_step.compile_s, received[0] if received else 0]
      )
      progress = progress_at(step, elapsed_s)
      if show:
        show(min(progress, 1.0), 1.0)
      done = progress >= 1 or signum > 0
      log_now = done or step % log_every == 0
      save_now = done or step % checkpoint_every == 0

      if log_now or save_now:
        window += _fetch_finite(unchecked, checkpoints)
        unchecked = []
        elapsed_s = time.monotonic() - start - compiled_step.compile_s  # the devices have caught up
      if log_now:
        seconds = max(elapsed_s - window_start[1], _CLOCK_TICK_S)
        rate = (step - window_start[0]) / seconds
        row = summarize(window)
        row |= {
          "images_per_second": rate * batch_size,
          "elapsed_s": elapsed_s,
          "progress": progress,
        }
        seconds_left = (steps - step) / rate
        if minutes > 0:
          seconds_left = min(seconds_left, 60 * minutes - elapsed_s)
        _say(progress_line(step, steps, row, weights, seconds_left))
        if log:
          log.write(step, row)
        window_start, window = (step, elapsed_s), []
      if save_now:
        checkpoints.save(step, state, {"elapsed_s": elapsed_s, "data": stream.position})
    checkpoints.wait()  # while signals are still caught

  if signum > 0:
    _say(f"interrupted after step {step}, saved; the same command with --workdir={workdir} resumes")
    raise SystemExit(128 + int(signum))
  return state


def _given_up(state: TrainState) -> TrainState:
  """The shapes and places of a state, whose arrays are deleted, whoever else holds them."""

  def give_up(array: jax.Array) -> jax.ShapeDtypeStruct:
    like = jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
    array.delete()
    return like

  return jax.tree.map(give_up, state)


class _Stream:
  """The batches, one ahead on the devices, and where they stand without the one ahead."""

  def __init__(self, batches: Iterator[Any], put: Callable[[Any], Any]):
    self._batches, self._put = batches, put
    self._batch = None
    self.position = None

  def seek(self, position: Any) -> None:
    if position is None or not hasattr(self._batches, "set_state"):
      _say("the batches cannot be repositioned: they start anew")
    else:
      self._batches.set_state(position)

  def advance(self) -> None:
    if hasattr(self._batches, "get_state"):
      self.position = self._batches.get_state()
    batch = next(self._batches, None)
    self._batch = None if batch is None else self._put(batch)

  def batch(self) -> Any:
    if self._batch is None:
      raise ValueError("the batches came to an end before the run: repeat the data set")
    return self._batch


def _fetch_finite(unchecked: list[tuple[int, Any]], checkpoints: Checkpoints) -> list[Any]:
  """Fetches metrics from the devices; raises if the state behind the last may not be saved."""
  fetched = jax.device_get([metrics for _, metrics in unchecked])
  for (step, _), metrics in zip(unchecked, fetched, strict=True):
    values = {key: float(metrics[key]) for key in ("loss", "gradient_norm", "parameter_norm")}
    if not np.isfinite(list(values.values())).all():
      values |= {f"terms/{term}": float(total) for term, (total, _) in metrics["terms"].items()}
      broken = ", ".join(f"{name} is {v}" for name, v in values.items() if not np.isfinite(v))
      good = checkpoints.latest_step
      kept = "there is no checkpoint yet" if good is None else f"the last good checkpoint is {good}"
      raise FloatingPointError(
        f"step {step}: {broken}; {kept}. Try a lower config.optimizer.learning_rate"
      )
  return fetched


def _open_log(
  workdir: pathlib.Path, step: int, config: Mapping[str, Any] | None
) -> contextlib.AbstractContextManager[MetricsLog | None]:
  """The first process writes for all."""
  if jax.process_index() > 0:
    return contextlib.nullcontext()
  if config is not None:
    save_settings(workdir, config)
  return MetricsLog(workdir, step)


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
  """Collects SIGINT and SIGTERM; a second one of the same kind has its usual effect."""
  received = []

  def receive(signum, frame):
    del frame
    received.append(signum)
    signal.signal(signum, previous[signum])

  previous = {}
  if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
    for signum in (signal.SIGINT, signal.SIGTERM):
      previous[signum] = signal.signal(signum, receive) or signal.SIG_DFL
  try:
    yield received
  finally:
    for signum, handler in previous.items():
      signal.signal(signum, handler)


def _say(line: str) -> None:
  if jax.process_index() == 0:
    print(line, flush=True)
