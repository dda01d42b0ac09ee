import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from foir360_jax.files import sole_writer
from foir360_jax.train import build_optimizer, compiled_step, create_state, loop
from foir360_jax.train.checkpoint import restore_model
from foir360_jax.train.loop import train

OPTIMIZER = build_optimizer(1e-2, warmup_steps=3, weight_decay=0.1, b2=0.99, clip_norm=1.0)


class Batches:
  """Endless batches that depend on their index; `act` runs when a batch is fetched."""

  def __init__(self, act=lambda index: None):
    self.index, self.act = 0, act

  def __next__(self):
    self.act(self.index)
    generator = np.random.default_rng(self.index)
    self.index += 1
    return {
      "x": generator.normal(size=(4, 3)).astype(np.float32),
      "scale": np.ones(4, np.float32),
      "index": np.full(4, self.index - 1, np.int32),
    }

  def get_state(self):
    return {"next_index": self.index}

  def set_state(self, state):
    self.index = state["next_index"]


class BatchesOfTwoShapes(Batches):
  def __next__(self):
    batch = super().__next__()
    return batch if batch["index"][0] % 2 else {key: value[:2] for key, value in batch.items()}


def objective(model, batch):
  error = model(batch["x"])[..., 0] - batch["x"].sum(-1)
  return {
    "squared": (jnp.sum(batch["scale"] * error**2), len(error)),
    "index": (batch["index"].sum(), len(error)),
  }


def run(workdir, batches=None, **changes):
  if "state" not in changes:
    graphdef, state = create_state(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), OPTIMIZER)
    changes |= {"graphdef": graphdef, "state": state}
  arguments = dict(
    optimizer=OPTIMIZER,
    objective=objective,
    weights={"squared": 1.0},
    batches=batches or Batches(),
    workdir=workdir,
    steps=10,
    minutes=0.0,
    mode="jit",
    log_every=4,
    checkpoint_every=3,
    keep_checkpoints=2,
    ema_decay=0.9,
    batch_size=4,
  )
  return train(**(arguments | changes))


def rows(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved_steps(workdir):
  return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def assert_identical(first, second):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(first), jax.device_get(second))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("uninterrupted")
  return workdir, run(workdir, config={"train": {"steps": 10}})


def test_a_run_leaves_logs_checkpoints_and_config(uninterrupted):
  workdir, state = uninterrupted
  assert int(state.step) == 10
  assert [row["step"] for row in rows(workdir)] == [4, 8, 10]
  # Term `index` shows which batches the rows cover: 0..3, 4..7, 8..9, one a step.
  assert [row["terms/index"] for row in rows(workdir)] == [1.5, 5.5, 8.5]
  assert rows(workdir)[-1]["progress"] == 1
  assert saved_steps(workdir) == [9, 10]
  assert json.loads((workdir / "config.json").read_text()) == {"train": {"steps": 10}}
  model = restore_model(workdir / "checkpoints", nnx.Linear(3, 1, rngs=nnx.Rngs(1)))
  np.testing.assert_array_equal(model.kernel[...], state.ema_params["kernel"][...])


def test_a_run_that_is_signalled_twice_and_resumed_ends_bit_identical(
  tmp_path, uninterrupted, capsys
):
  for step, signum in ((5, signal.SIGTERM), (7, signal.SIGINT)):

    def act(index, step=step, signum=signum):
      if index == step:  # batches count from 0: fetched while the step is computed
        signal.raise_signal(signum)

    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as stopped:
      run(tmp_path, Batches(act))
    assert stopped.value.code == 128 + signum
    assert signal.getsignal(signum) is before
    assert saved_steps(tmp_path)[-1] == step
    message = f"step {step}, saved; the same command with --workdir={tmp_path} resumes"
    assert message in capsys.readouterr().out

  state = run(tmp_path)
  assert_identical(state, uninterrupted[1])
  assert [row["step"] for row in rows(tmp_path)] == [4, 5, 7, 8, 10]
  assert [row["terms/index"] for row in rows(tmp_path)] == [1.5, 4.0, 5.5, 7.0, 8.5]
  elapsed = [row["elapsed_s"] for row in rows(tmp_path)]
  assert elapsed == sorted(elapsed)


def test_a_crashed_and_resumed_run_ends_bit_identical(tmp_path, uninterrupted):
  def act(index):
    if index == 8:
      raise OSError("disk gone")

  with pytest.raises(OSError, match="disk gone"):
    run(tmp_path, Batches(act))
  assert saved_steps(tmp_path) == [3, 6]
  assert_identical(run(tmp_path), uninterrupted[1])
  assert [row["step"] for row in rows(tmp_path)] == [4, 8, 10]


def test_a_complete_run_returns_its_state_and_longer_ones_go_on(tmp_path, uninterrupted):
  first = run(tmp_path, steps=6)

  def refuse(index):
    raise AssertionError("no batch is needed")

  assert_identical(run(tmp_path, Batches(refuse), steps=6), first)
  assert int(run(tmp_path, steps=8).step) == 8


def test_sharded_training_matches_one_device(tmp_path, uninterrupted):
  state = run(tmp_path, mode="jit_sharded")
  for name in ("kernel", "bias"):
    expected = uninterrupted[1].params[name][...]
    np.testing.assert_allclose(state.params[name][...], expected, atol=1e-5)


def test_a_folder_in_which_another_process_trains_is_left_alone(tmp_path):
  with sole_writer(tmp_path), pytest.raises(ValueError, match="is being written by process"):
    run(tmp_path)
  assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def with_nan_at(index):
  batches = Batches()
  plain = batches.__next__

  class Broken(Batches):
    def __next__(self):
      batch = plain()
      if batch["index"][0] == index:
        batch["scale"][1] = np.nan
      return batch

  return Broken()


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path, log_every):
  message = "step 8: loss is nan.*terms/squared is nan; the last good checkpoint is 6"
  with pytest.raises(FloatingPointError, match=message):
    run(tmp_path, with_nan_at(7), log_every=log_every)
  assert saved_steps(tmp_path) == [3, 6]
  model = restore_model(tmp_path / "checkpoints", nnx.Linear(3, 1, rngs=nnx.Rngs(1)))
  assert np.isfinite(model.kernel[...]).all()


class Clock:
  """Stands for the wall clock in the loop, so that a busy machine changes nothing."""

  def __init__(self):
    self.now = 1000.0

  def monotonic(self):
    self.now += 1e-6
    return self.now

  def sleep(self, seconds):
    self.now += seconds


@pytest.fixture
def clock(monkeypatch):
  """The time that the loop sees: it passes only where a test sleeps by it."""
  clock = Clock()
  for module in (loop, compiled_step):
    monkeypatch.setattr(module, "time", clock)
  return clock


def test_minutes_bound_a_run_and_count_over_resumptions_without_compilation(tmp_path, clock):
  def slow_to_compile(model, batch):
    clock.sleep(1.2)  # only while tracing; if it counted, the first step would be the last
    return objective(model, batch)

  def act(index):
    clock.sleep(0.02)
    if index == 10:
      signal.raise_signal(signal.SIGTERM)

  arguments = dict(minutes=1.0 / 60, steps=10**6, objective=slow_to_compile, checkpoint_every=10**6)
  with pytest.raises(SystemExit):
    run(tmp_path, Batches(act), **arguments)
  first = rows(tmp_path)[-1]
  assert first["step"] == 10 and first["elapsed_s"] == pytest.approx(0.2, abs=1e-3)
  assert first["progress"] == pytest.approx(0.2, abs=1e-3)
  state = run(tmp_path, Batches(lambda index: clock.sleep(0.04)), **arguments)
  last = rows(tmp_path)[-1]
  assert last["elapsed_s"] >= 1.0 and last["progress"] >= 1
  assert int(state.step) == last["step"] == 30  # 0.8 s / 0.04 s more


def test_a_clock_that_stands_still_between_two_lines_gives_a_rate_all_the_same(
  tmp_path, clock, monkeypatch
):
  monkeypatch.setattr(clock, "monotonic", lambda: clock.now)
  run(tmp_path, log_every=1, steps=3)
  assert all(np.isfinite(row["images_per_second"]) for row in rows(tmp_path))


def test_no_second_state_is_alive_while_a_run_trains_or_goes_on(tmp_path):
  """Whoever holds the initial state: its arrays are those of the training, or deleted."""

  def sizes():
    kernels = [x for x in jax.live_arrays() if x.shape == (3, 1)]
    return len({x.unsafe_buffer_pointer() for x in kernels})

  before = sizes()
  for first, steps in ((1, 4), (5, 8)):
    alive = []

    def act(index, first=first, alive=alive):
      if index > first:  # fetched while a step is computed
        alive.append(sizes() - before)

    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    graphdef, initial = create_state(model, OPTIMIZER)
    run(tmp_path, Batches(act), graphdef=graphdef, state=initial, steps=steps, checkpoint_every=99)
    assert len(alive) >= 2 and max(alive) <= 4  # parameters, their average, Adam's two moments
    assert all(x.is_deleted() for x in jax.tree.leaves((initial, nnx.state(model))))


def test_a_step_that_does_not_fit_beside_what_is_held_is_refused(tmp_path, monkeypatch):
  held = jnp.zeros(2**18)  # a MiB
  monkeypatch.setattr(compiled_step, "device_memory", lambda: held.nbytes)
  with pytest.raises(ValueError, match=r"a step needs 0.0 GiB of memory beside 0.0 that are taken"):
    run(tmp_path)


def test_the_schedule_follows_the_progress(tmp_path):
  def update(updates, seen, params=None, *, progress):
    return updates, jnp.append(seen[1:], progress)

  recorder = optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(4), update)
  graphdef, state = create_state(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), recorder)
  state = run(tmp_path, optimizer=recorder, graphdef=graphdef, state=state, steps=4)
  np.testing.assert_allclose(state.opt_state, [0.0, 0.25, 0.5, 0.75])


def first_batches(number):
  batches = Batches()
  return (next(batches) for _ in range(number))


def test_batches_that_end_too_early_are_refused(tmp_path):
  with pytest.raises(ValueError, match="came to an end"):
    run(tmp_path, first_batches(5))


def test_batches_without_a_state_start_anew_and_say_so(tmp_path, capsys):
  assert int(run(tmp_path, first_batches(3), steps=3).step) == 3
  assert "start anew" not in capsys.readouterr().out
  assert int(run(tmp_path, first_batches(2), steps=5).step) == 5
  assert "start anew" in capsys.readouterr().out


def test_batches_of_several_shapes_compile_once_each_outside_of_the_minutes(tmp_path, clock):
  traced = []

  def slow_to_compile(model, batch):
    traced.append(len(batch["x"]))
    clock.sleep(100)  # more than the minutes
    return objective(model, batch)

  state = run(tmp_path, BatchesOfTwoShapes(), objective=slow_to_compile, minutes=1.0)
  assert int(state.step) == 10
  assert sorted(set(traced)) == [2, 4] and traced.count(2) == traced.count(4)
  assert rows(tmp_path)[-1]["elapsed_s"] < 1


def test_what_a_step_takes_is_told_once_for_each_shape_before_the_first_figures(
  tmp_path, clock, capsys
):
  def a_step_of_100_ms(model, batch):
    def wait(x):
      clock.sleep(0.1)
      return x

    shape = jax.ShapeDtypeStruct(batch["x"].shape, batch["x"].dtype)
    return objective(model, batch | {"x": jax.pure_callback(wait, shape, batch["x"])})

  run(tmp_path, BatchesOfTwoShapes(), objective=a_step_of_100_ms)
  lines = capsys.readouterr().out.splitlines()
  first_figures = next(index for index, line in enumerate(lines) if "images/s" in line)
  compiled = [index for index, line in enumerate(lines) if line.startswith("compiled in ")]
  assert len(compiled) == 2
  for index in compiled:
    assert lines[index - 1].startswith("compiling the training step: up to a few minutes")
  assert not any("a step takes" in line for line in lines[first_figures:])
  told = [line for line in lines if line.startswith("a step takes ")]
  assert told == ["a step takes 0.1 s"] * 2


def test_the_loop_moves_nothing_to_the_devices_unasked(tmp_path):
  def act(index):
    jnp.sin(np.float32(index))  # a hidden transfer in the loop's thread

  with pytest.raises(Exception, match="[Dd]isallowed host-to-device transfer"):
    run(tmp_path, Batches(act))


def test_intervals_below_one_are_refused(tmp_path):
  for name in ("steps", "log_every", "checkpoint_every", "keep_checkpoints"):
    with pytest.raises(ValueError, match=f"config.train.{name} must be at least 1"):
      run(tmp_path, **{name: 0})
