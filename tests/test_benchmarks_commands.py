"""The commands: what they print, what they write, and that opponents may be missing."""

import contextlib
import json
import sys

import numpy as np
import pytest

from foir360_jax.benchmarks import (
  encoders,
  gpu,
  losses,
  race,
  sphere_conv,
  timing,
  train_step,
  weak_labels,
)
from foir360_jax.benchmarks.cases import Case, exact_results, relative_error
from foir360_jax.benchmarks.gpu_model import MODEL, SMALL_MODEL
from foir360_jax.cli.benchmark import benchmark
from foir360_jax.config import base_config
from foir360_jax.weak_labels.program import DEFAULT_STRATEGY

TORCH = ("torch SphereNet", "torch conv")


@pytest.fixture(autouse=True)
def programs_are_kept(monkeypatch):
  """A benchmark compiles from scratch; test_benchmarks.py asserts it once, that is enough."""
  monkeypatch.setattr(timing, "_no_persistent_cache", contextlib.nullcontext)


@pytest.mark.parametrize(
  "name", ["conv3-2x8x16x3", "conv5-1x16x32x2", "conv3s2-2x8x16x3", "depthwise3-2x8x16x3"]
)
def test_the_repaired_spherenet_equals_the_spherical_convolution(name):
  pytest.importorskip("torch")
  from foir360_jax.benchmarks import spherenet

  case = Case.parse(name)
  inputs = case.inputs()
  convolve = spherenet.spherenet_conv(case.height, case.size, case.stride)
  results = spherenet.to_numpy(spherenet.prepare(convolve, *inputs, backward=True)())
  for actual, expected in zip(results, exact_results(case, *inputs), strict=True):
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) < 1e-5


def test_both_planar_convolutions_are_the_same():
  pytest.importorskip("torch")
  from foir360_jax.benchmarks import convolutions, spherenet

  for name in ("conv3-2x8x16x3", "depthwise5-1x8x16x3"):
    case = Case.parse(name)
    inputs = case.inputs()
    convolve = spherenet.planar_conv(case.size, case.stride)
    results = spherenet.to_numpy(spherenet.prepare(convolve, *inputs, backward=True)())
    expected = convolutions.with_gradients(convolutions.planar_conv)(*inputs)
    for actual, other in zip(results, expected, strict=True):
      assert relative_error(actual, np.asarray(other)) < 1e-5


def test_a_race_of_convolutions_prints_a_table_and_writes_its_rows(tmp_path, capsys):
  out = tmp_path / "out.json"
  sphere_conv.main(["--shapes=conv3-1x8x16x4", "--quick", "--rounds=1", f"--out={out}"])
  report = json.loads(out.read_text())
  rows = {(row["pass"], row["contestant"]): row for row in report["rows"]}
  contestants = ["sphere_conv", *race.opponents()]
  assert list(rows) == [(p, c) for p in ("forward", "forward+backward") for c in contestants]
  for (_, contestant), row in rows.items():
    assert 0 < row["min_ms"] <= row["median_ms"] and row["rounds"] == 1
    assert row["ratio"] == pytest.approx(row["min_ms"] / rows[row["pass"], "lax.conv"]["min_ms"])
    if contestant in ("lax.conv", "torch conv"):
      assert row["error"] is None
    else:
      assert 0 < row["error"] < 1e-5
    if contestant not in TORCH:
      assert row["compile_s"] > 0 and row["temporary_mib"] > 0
  assert report["environment"]["versions"]["jax"]
  printed = capsys.readouterr().out
  assert all(contestant in printed for contestant in contestants)
  assert "conv3-1x8x16x4 forward: time / lax.conv's" in printed


def test_an_error_of_a_contestant_shows(monkeypatch):
  monkeypatch.setitem(race._JAX_OPPONENTS, "gathers", lambda x, kernel, stride: 0 * x + 1)
  rows = race.race(Case(1, 8, 4), ["gathers"], ["forward"], rounds=1)
  assert next(rows)["error"] > 0.5


def test_the_error_of_a_backward_pass_is_that_of_its_gradients():
  exact = [np.ones(2), np.ones(3), np.full(4, 2.0)]
  assert race._error([np.ones(2) + 1], exact) == 1.0
  assert race._error([exact[0] + 1, exact[1], exact[2] + 0.5], exact) == 0.25


def test_peak_memory_grows_with_the_map():
  small, large = (
    race.peak_mib("lax.conv", Case(1, height, 32), backward=True) for height in (16, 128)
  )
  if small is None:
    pytest.skip("the system does not tell peaks")
  assert small + 8 < large < 200  # 4 MiB a map, and there are at least the result and a gradient


@pytest.mark.parametrize(
  "package, opponents", [("torch", race.opponents), ("rax", losses.rax_losses)]
)
def test_a_missing_opponent_is_left_out_with_a_line(monkeypatch, capsys, package, opponents):
  monkeypatch.setitem(sys.modules, package, None)
  assert not set(opponents()) & {*TORCH, "softmax"}
  assert f"{package} is not installed" in capsys.readouterr().out


def test_without_rax_a_loss_has_its_own_figures_only():
  row = losses.race("softmax", (4, 16), None, rounds=1)
  assert row["min_ms"] > 0 and row["compile_s"] > 0 and row["speedup"] is None
  assert "rax_min_ms" not in row


def test_the_race_of_losses_compares_values_and_gradients(tmp_path, capsys):
  pytest.importorskip("rax")
  out = tmp_path / "out.json"
  losses.main(["--shapes=4x16", "--rounds=1", f"--out={out}"])
  rows = json.loads(out.read_text())["rows"]
  assert [row["loss"] for row in rows] == list(losses.OURS)
  for row in rows:
    assert row["value_error"] < 1e-5 and row["gradient_error"] < 1e-4, row["loss"]
    assert row["speedup"] == pytest.approx(row["rax_min_ms"] / row["min_ms"])
    assert row["memory_ratio"] == pytest.approx(row["rax_temporary_mib"] / row["temporary_mib"])
  assert "softmax" in capsys.readouterr().out


def test_a_wrong_loss_shows_in_the_errors():
  row = losses.race(
    "softmax",
    (4, 16),
    lambda scores, labels, where, reduce_fn: (
      2 * losses.OURS["softmax"](scores, labels, where=where, reduce_fn=reduce_fn)
    ),
    rounds=1,
  )
  assert row["value_error"] == pytest.approx(0.5) and row["gradient_error"] == pytest.approx(0.5)


@pytest.mark.parametrize("ties", [True, False])
def test_random_lists_are_half_to_full_and_one_is_empty(ties):
  scores, labels, where = losses.random_lists(8, 20, ties=ties)
  assert scores.shape == labels.shape == where.shape == (8, 20)
  lengths = where.sum(axis=-1)
  assert lengths[-1] == 0 and lengths[:-1].min() >= 10
  assert all((len(set(row)) < 20) == ties for row in labels.tolist())


def test_a_random_batch_is_what_the_training_step_takes():
  batch = train_step.random_batch(3, 48, 6, 12)
  assert batch["masks"].shape == (3, 6, 48, 12) and batch["image"].shape == (3, 48, 96, 3)
  covered = np.unpackbits(batch["masks"], axis=-1).any(axis=(2, 3))
  np.testing.assert_array_equal(covered, batch["where"])
  assert (batch["category"] >= 0).tolist() == batch["where"].tolist()


def test_the_gpu_models_have_the_fields_of_the_configuration():
  config = base_config().to_dict()
  for model in (MODEL, SMALL_MODEL):
    for section in ("model", "loss", "optimizer"):
      assert model[section].keys() == config[section].keys()
    for section in ("data", "train", "evaluate"):
      assert model[section].keys() <= config[section].keys()


def test_the_gpu_script_runs_small_and_appends_every_figure(tmp_path, monkeypatch, capsys):
  two = {name: losses.OURS[name] for name in ("softmax", "approx_ndcg")}  # all: the race of losses
  monkeypatch.setattr(losses, "OURS", two)
  out = tmp_path / "gpu.json"
  out.write_text('{"benchmark": "earlier"}\n')
  gpu.main(["--small", f"--out={out}"])
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert rows[0] == {"benchmark": "earlier"}
  assert rows[1]["benchmark"] == "environment" and rows[1]["small"]
  by_benchmark = {}
  for row in rows[2:]:
    assert "failed" not in row and "skipped" not in row, row
    by_benchmark.setdefault(row["benchmark"], []).append(row)
  assert list(by_benchmark) == ["limits", "sphere_conv", "losses", "panorank"]
  assert [row["dtype"] for row in by_benchmark["limits"]] == ["float32", "bfloat16"]
  keys = {(row["dtype"], row["pass"], row["contestant"]) for row in by_benchmark["sphere_conv"]}
  for dtype, tolerance in (("float32", 2e-6), ("bfloat16", 3e-2)):
    for name in ("forward", "forward+backward"):
      assert {(dtype, name, contestant) for contestant in ("sphere_conv", "lax.conv")} <= keys
    errors = [r["error"] for r in by_benchmark["sphere_conv"] if r["dtype"] == dtype and r["error"]]
    assert errors and max(errors) < tolerance
  case, limit = Case(1, 8, 4), by_benchmark["limits"][0]["flop_per_s"]
  first = by_benchmark["sphere_conv"][0]
  achieved = case.operations(False) / (first["min_ms"] / 1e3)
  assert first["flop_per_s"] == pytest.approx(achieved)
  assert first["share_of_flop_per_s"] == pytest.approx(achieved / limit)
  assert 0 < first["share_of_bytes_per_s"]
  assert len(by_benchmark["losses"]) == len(losses.OURS)
  (training,) = by_benchmark["panorank"]
  assert training["images_per_second"] == pytest.approx(1e3 / training["median_ms"])
  assert training["compile_s"] > 0
  assert "panorank" in capsys.readouterr().out


def test_what_does_not_fit_into_the_time_is_left_out_and_said(tmp_path, monkeypatch):
  stages = [
    gpu.Stage("limits", "a", lambda: [{"value": 1}]),
    gpu.Stage("losses", "b", lambda: pytest.fail("there was no time")),
  ]
  monkeypatch.setattr(gpu, "_small_stages", lambda: iter(stages))
  gpu.main(["--small", "--minutes=0", f"--out={tmp_path / 'gpu.json'}"])
  rows = [json.loads(line) for line in (tmp_path / "gpu.json").read_text().splitlines()[1:]]
  assert [row["task"] for row in rows] == ["a", "b"]
  assert all("skipped" in row for row in rows)


def test_without_a_gpu_the_script_says_so_in_one_line(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(gpu.jax, "default_backend", lambda: "cpu")
  with pytest.raises(SystemExit) as exit_:
    gpu.main([f"--out={tmp_path / 'gpu.json'}"])
  assert exit_.value.code == 2
  message = capsys.readouterr().err
  assert "JAX sees no GPU here" in message and message.count("\n") == 1
  assert not (tmp_path / "gpu.json").exists()


def test_the_mode_benchmark_writes_its_table_as_text_and_json(
  tiny_config, tmp_path, monkeypatch, capsys
):
  # The real ones take long to compile; the GPU script's test runs them.
  for name in ("training", "prediction"):
    row = {"what": name, "images_per_second": 12.34, "batch_size": 2}
    monkeypatch.setattr(train_step, f"measure_{name}", lambda *_, row=row, **limits: row | limits)
  monkeypatch.setattr(losses, "rax_losses", dict)
  monkeypatch.setattr(losses, "OURS", {"softmax": losses.OURS["softmax"]})
  tiny_config.benchmark.rounds = 1
  tiny_config.model.sphere_from_stride = 8
  benchmark(tiny_config, str(tmp_path))
  report = json.loads((tmp_path / "benchmark.json").read_text())
  assert [row["rounds"] for row in report["model"]] == [1, 1]
  assert {row["case"] for row in report["convolutions"]} == {"conv3-2x6x12x16", "conv3-2x3x6x16"}
  assert [row["loss"] for row in report["losses"]] == ["softmax"]
  text = (tmp_path / "benchmark.txt").read_text()
  assert "12.34" in text and "conv3-2x3x6x16" in text
  assert capsys.readouterr().out.startswith(text)


def test_no_rounds_are_refused_by_name(tiny_config, tmp_path):
  tiny_config.benchmark.rounds = 0
  with pytest.raises(ValueError, match="config.benchmark.rounds must be at least 1, not 0"):
    benchmark(tiny_config, str(tmp_path))


@pytest.mark.parametrize(
  ("command", "flag", "message"),
  [
    (sphere_conv, "--shapes=conv3-2x64x64x8", "'conv3-2x64x64x8' is no shape; write them like"),
    (sphere_conv, "--only=sphere_con", "'sphere_con' is none of sphere_conv, lax.conv"),
    (losses, "--shapes=16x", "'16x' is no shape of lists; write it like 16x1024"),
    (losses, "--only=softmax,listml", "'listml' is none of softmax, listmle"),
  ],
)
def test_a_wrong_value_is_one_line(command, flag, message, capsys):
  with pytest.raises(SystemExit) as stop:
    command.main([flag])
  assert stop.value.code == 2
  assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_race_without_contestants_is_refused():
  with pytest.raises(SystemExit, match="leaves no contestant"):
    sphere_conv.main(["--only=sphere_conv:two_sided", "--shapes=conv3-1x8x16x4"])


def time_the_weak_labels():
  return weak_labels.time_method(
    "spectral",
    DEFAULT_STRATEGY._replace(max_erased=1, max_erased_whole=1, fill="mean"),
    height=32,
    num_objects=2,
    batch_size=1,
    rounds=1,
    plain=True,
  )


def test_the_weak_labels_are_timed_step_by_step_and_race_the_plain_method(monkeypatch):
  monkeypatch.setattr(weak_labels, "_race_plainly", lambda *_: (60.0, 0.25))
  report = time_the_weak_labels()
  assert sum(row["share"] for row in report["steps"]) == pytest.approx(1)
  assert [row["method"] for row in report["race"]] == ["compiled", "plainly"]
  compiled, plainly = report["race"]
  assert plainly["best_per_s"] == pytest.approx(1 / 60) and plainly["times_plain"] == 1
  assert compiled["times_plain"] == pytest.approx(60 * compiled["best_per_s"])
  assert report["largest_difference"] == 0.25


@pytest.mark.slow  # the tests of the local ranks compare with the plain method, too
def test_the_plain_method_of_the_race_finds_what_the_compiled_one_finds():
  report = time_the_weak_labels()
  assert report["race"][1]["times_plain"] == 1
  assert report["largest_difference"] < 1e-2


def test_encoders_are_compared_side_by_side(tmp_path, capsys):
  out = tmp_path / "out.json"
  encoders.main(["--only", "sphere_small", "--height=48", "--rounds=1", f"--out={out}"])
  rows = json.loads(out.read_text())["rows"]
  assert [(row["kernels"], row["pass"]) for row in rows] == [
    (kernels, label)
    for kernels in ("sphere", "planar")
    for label in ("forward", "forward+backward")
  ]
  for forward, training in zip(rows[::2], rows[1::2], strict=True):
    assert training["gflop"] > 2 * forward["gflop"]
    assert training["memory_mib"] > forward["memory_mib"]
  for row in rows:
    assert row["encoder"] == "sphere_small" and 0.1 < row["parameters_millions"] < 5
    # The last level alone: 3 x 6 pixels, two blocks of two 3x3 convolutions of up to 96 channels.
    assert row["gflop"] > 2 * 18 * 9 * 96**2 * 3 / 1e9
    assert 0 < row["min_ms"] <= row["median_ms"]
    assert row["images_per_second"] == pytest.approx(1e3 / row["median_ms"])
  assert "parameters_millions" in capsys.readouterr().out
