"""The measuring itself: turns, repeats, memory, records, goals and the cases of the races."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax.benchmarks import goals, memory, record, timing
from foir360_jax.benchmarks.cases import Case, exact_results, relative_error
from foir360_jax.benchmarks.convolutions import planar_conv
from foir360_jax.sphere.reference import sphere_conv_gradients_reference, sphere_conv_reference

CASES = ["conv3-2x8x16x3", "conv5-1x16x32x2", "conv3s2-2x8x16x3", "depthwise3-2x8x16x3"]


class Clock:
  """Stands for the module `time`: only what sleeps takes time, however busy the machine is."""

  def __init__(self):
    self.now_s = 0.0

  def perf_counter(self):
    return self.now_s

  def sleep(self, seconds):
    self.now_s += seconds


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(timing, "time", clock)
  return clock


def make_contestants(names, log, clock, seconds=0.03):
  def run_of(name):
    def run(repeats):
      log.append((name, repeats))
      clock.sleep(seconds * repeats)

    return run

  return [timing.Contestant(name, run_of(name)) for name in names]


def test_contestants_take_turns_in_an_order_that_changes(clock):
  log = []
  timings = timing.measure(make_contestants("abc", log, clock), rounds=4)
  measured = [name for name, _ in log[6:]]  # each ran twice before: to warm up and to be timed once
  assert [measured[i : i + 3] for i in range(0, 12, 3)] == [
    list(o) for o in ("abc", "acb", "cab", "cba")
  ]
  assert list(timings) == ["a", "b", "c"]
  for result in timings.values():
    assert result.rounds == 4 and (result.min_s, result.median_s) == pytest.approx((0.03, 0.03))


def test_short_runs_are_repeated_and_counted_once_each(clock):
  log = []
  result = timing.measure(make_contestants("a", log, clock, seconds=0.003), rounds=2)["a"]
  assert log[-1][1] == 7  # of 3 ms, until a sample takes about 20
  assert result.min_s == pytest.approx(0.003)


def test_minimum_and_median_are_those_of_the_rounds(clock):
  durations = iter([0.0, 0.04, 0.03, 0.09, 0.05])
  contestant = timing.Contestant("a", lambda repeats: clock.sleep(next(durations)))
  result = timing.measure([contestant], rounds=3)["a"]
  assert (result.min_s, result.median_s) == pytest.approx((0.03, 0.05))


def test_no_round_starts_after_the_budget_but_one_is_made(clock):
  contestants = make_contestants("ab", [], clock)
  assert timing.measure(contestants, rounds=50, budget_s=0.0)["b"].rounds == 1
  # Each warms up, is timed once and takes turns, 0.06 s a round: four begin within 0.33 s.
  assert timing.measure(contestants, rounds=50, budget_s=0.33)["b"].rounds == 4


def test_no_rounds_at_all_are_refused():
  with pytest.raises(ValueError, match="at least 1 round"):
    timing.measure([], rounds=0)


def test_a_program_is_compiled_from_scratch_and_tells_its_memory():
  cache = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache
  x = jnp.ones((64, 64))
  program = timing.compile_program(lambda x: jnp.sin(x) @ x, x)
  np.testing.assert_allclose(program.execute(x), np.full((64, 64), 64 * np.sin(1)), rtol=1e-5)
  assert program.compile_s > 0
  assert program.temporary_bytes >= 64 * 64 * 4
  assert cache == (
    jax.config.jax_compilation_cache_dir,
    jax.config.jax_enable_compilation_cache,
  )


def allocate(megabytes):
  kept = np.ones(16 * 2**20, np.uint8)  # what was there before does not count
  return lambda: np.ones(megabytes * 2**20, np.uint8).sum() + kept[0]


def test_peak_memory_is_that_of_one_call_over_what_was_there_before():
  peak = memory.peak_resident_bytes(allocate, 96)
  if peak is None:
    pytest.skip("the system does not tell peaks")
  # Linux counts resident pages in batches a thread: some dozens may be missing.
  assert 95 <= peak / 2**20 < 112


def test_a_cpu_keeps_no_count_of_its_own():
  if jax.default_backend() != "cpu":
    pytest.skip("GPUs do")
  assert memory.device_peak_bytes() is None


def test_appending_keeps_what_is_there_even_behind_a_torn_line(tmp_path):
  file = tmp_path / "new" / "gpu.json"
  record.append_json(file, {"row": 1})
  record.append_json(file, {"row": 2})
  with file.open("a") as out:
    out.write('{"row": 3, "cut o')
  record.append_json(file, {"row": 4})
  lines = file.read_text().splitlines()
  assert [json.loads(lines[i])["row"] for i in (0, 1, 3)] == [1, 2, 4] and len(lines) == 4


def test_the_environment_is_json_and_names_the_versions():
  about = json.loads(json.dumps(record.environment()))
  assert about["versions"]["jax"] == jax.__version__
  assert about["device"] == jax.devices()[0].device_kind and about["threads"] >= 1
  line = record.describe(about)
  assert f"jax {jax.__version__}" in line and about["cpu"] in line


def test_written_json_is_read_back(tmp_path):
  record.write_json(tmp_path / "a.json", {"rows": [1.5, None]})
  assert json.loads((tmp_path / "a.json").read_text()) == {"rows": [1.5, None]}
  assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("name", ["conv3-2x8x17x3", "conv-2x8x16x3", "conv3", "deptwise3-2x8x16x3"])
def test_a_name_that_is_no_case_is_refused(name):
  with pytest.raises(ValueError, match="is no shape; write them like"):
    Case.parse(name)


@pytest.mark.parametrize("name", CASES)
def test_exact_results_are_those_of_the_reference(name):
  case = Case.parse(name)
  assert case.name == name
  x, kernel, cotangent = inputs = case.inputs()
  assert tuple(array.shape for array in inputs) == case.shapes
  reference = (
    sphere_conv_reference(x, kernel, stride=case.stride),
    *sphere_conv_gradients_reference(x, kernel, cotangent, stride=case.stride),
  )
  for actual, expected in zip(exact_results(case, *inputs), reference, strict=True):
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) < 1e-12


def test_planar_convolution_wraps_in_longitude_and_has_the_same_shapes():
  for name in CASES:
    case = Case.parse(name)
    x, kernel, cotangent = case.inputs()
    result = planar_conv(x, kernel, stride=case.stride)
    assert result.shape == cotangent.shape
    rolled = planar_conv(np.roll(x, 2 * case.stride, axis=2), kernel, stride=case.stride)
    np.testing.assert_allclose(rolled, np.roll(result, 2, axis=2), atol=1e-6)


def test_operations_and_bytes_are_counted():
  case = Case(2, 8, 4, size=3)
  taps, pixels = 9, 2 * 8 * 16
  assert case.operations(backward=False) == 2 * taps * 4 * 4 * pixels
  assert case.operations(backward=True) == 3 * case.operations(backward=False)
  assert Case(2, 8, 4, depthwise=True).operations(False) == 2 * taps * 4 * pixels
  assert case.least_bytes(2, backward=False) == 2 * (2 * 4 * pixels + taps * 16)


def test_an_error_is_relative_to_the_largest_value():
  assert relative_error(np.array([1.0, -4.5]), np.array([1.0, -4.0])) == 0.125


def rows_of_a_race(sphere_ms, peak_mib):
  return [
    {
      "case": "conv3-2x128x256x64",
      "pass": name,
      "contestant": contestant,
      "min_ms": milliseconds,
      "error": 5e-7,
      "compile_s": 1.0,
      "peak_mib": peak,
    }
    for name in ("forward", "forward+backward")
    for contestant, milliseconds, peak in (
      ("sphere_conv", sphere_ms, peak_mib),
      ("lax.conv", 10.0, 50.0),
      ("torch SphereNet", 40.0, 200.0),
    )
  ]


def verdicts(rows):
  return {goal["goal"].partition(" ")[2]: goal["verdict"] for goal in goals.convolution_goals(rows)}


def test_goals_are_reached_or_missed_by_the_rows():
  good, bad = verdicts(rows_of_a_race(12.0, 100.0)), verdicts(rows_of_a_race(33.0, 160.0))
  assert good["forward: time / lax.conv's"] == "stretch"
  assert good["forward+backward: torch SphereNet's time / ours"] == "pass"  # 3.3 times as fast
  assert good["forward+backward: peak memory / torch SphereNet's"] == "pass"
  assert good["forward+backward: compile s"] == "pass"
  assert good["forward error"] == "pass"
  assert bad["forward: time / lax.conv's"] == "MISSED"
  assert bad["forward+backward: torch SphereNet's time / ours"] == "MISSED"
  assert bad["forward+backward: peak memory / torch SphereNet's"] == "MISSED"
  assert "forward+backward: time / torch conv's" not in good


def test_goals_hold_for_plain_convolutions_alone():
  rows = [row | {"case": "depthwise3-2x128x256x64"} for row in rows_of_a_race(99.0, 999.0)]
  assert verdicts(rows) == {"forward error": "pass"}


def test_goals_of_losses_are_those_at_the_long_lists():
  row = {"loss": "pairwise_logistic", "speedup": 7.0, "memory_ratio": 20.0}
  found = goals.loss_goals([row | {"shape": "16x1024"}, row | {"shape": "64x128", "speedup": 1.0}])
  assert [goal["verdict"] for goal in found] == ["pass", "MISSED"]
  assert goals.loss_goals([row | {"shape": "16x1024", "speedup": None}]) == []
