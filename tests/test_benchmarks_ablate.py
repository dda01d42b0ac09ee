"""The ablation: what it runs, that it goes on where it was stopped, what its table claims."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from foir360_jax.benchmarks import ablate
from foir360_jax.benchmarks.ablate import DEFAULT, SETTINGS, read_record, summarize
from foir360_jax.cli.check import validate
from foir360_jax.config import base_config
from foir360_jax.files import sole_writer


class Runs:
  """Stands for training: writes what a run leaves, or fails."""

  def __init__(self, scores, fails=()):
    self.scores, self.fails, self.commands = scores, fails, []

  def __call__(self, command, log):
    flags = dict(part.removeprefix("--").split("=", 1) for part in command[3:])
    self.commands.append(flags)
    folder = log.parent
    name = f"{folder.parent.name}/{folder.name}"
    if name in self.fails:
      return 2
    folder.mkdir(parents=True, exist_ok=True)
    value = self.scores[folder.parent.name] + 0.01 * int(folder.name)
    given = {key: {"mean": value} for key in ablate.KEYS.values()}
    (folder / "metrics.json").write_text(json.dumps({"ground_truth_masks": given}))
    (folder / "metrics.jsonl").write_text('{"step": 50}\n{"step": 70}\n')
    return 0


SCORES = {"base": 0.6, "planar": 0.5, "random": 0.605}
BASE = {"model.sphere_from_stride": "8", "train.minutes": "8", "data.data_dir": "data"}
ABOUT = {"cpu": "slow"}


def test_finished_runs_are_not_made_again_and_failed_ones_are(tmp_path, capsys):
  first = Runs(SCORES, fails=("planar/1",))
  settings, seeds = ["base", "planar"], [0, 1]
  assert ablate.ablate(tmp_path, settings, seeds, BASE, ABOUT, run=first) == 1
  assert "planar, seed 1 ended with exit code 2: see" in capsys.readouterr().out
  order = [flags["workdir"].removeprefix(f"{tmp_path}/") for flags in first.commands]
  assert order == ["base/0", "planar/0", "base/1", "planar/1"]
  second = Runs(SCORES)
  assert ablate.ablate(tmp_path, settings, seeds, BASE, ABOUT, run=second) == 0
  assert [flags["workdir"] for flags in second.commands] == [str(tmp_path / "planar/1")]


def test_the_record_alone_is_enough_to_go_on_elsewhere(tmp_path):
  here, there = tmp_path / "here", tmp_path / "there"
  ablate.ablate(here, ["base"], [0], BASE, ABOUT, run=Runs(SCORES))
  there.mkdir()
  (there / "ablation.json").write_bytes((here / "ablation.json").read_bytes())
  runs = Runs(SCORES)
  elsewhere = BASE | {"data.data_dir": "other"}
  assert ablate.ablate(there, ["base", "planar"], [0], elsewhere, {"cpu": "fast"}, run=runs) == 0
  assert [flags["workdir"] for flags in runs.commands] == [str(there / "planar/0")]
  record = read_record(there)
  assert record["base"]["0"]["environment"] == ABOUT
  assert record["planar"]["0"]["environment"] == {"cpu": "fast"}


def test_runs_of_other_lengths_are_not_mixed(tmp_path):
  ablate.ablate(tmp_path, ["base"], [0], BASE, ABOUT, run=Runs(SCORES))
  longer = BASE | {"train.minutes": "9"}
  message = "base, seed 0 was made with train.minutes 8, not 9; give another --folder"
  runs = Runs(SCORES)
  with pytest.raises(ValueError, match=message):
    ablate.ablate(tmp_path, ["base"], [1, 0], longer, ABOUT, run=runs)
  assert not runs.commands  # not even what is missing
  ablate.ablate(tmp_path, ["planar"], [0], BASE, ABOUT, run=Runs(SCORES, fails=("planar/0",)))
  with pytest.raises(ValueError, match="planar, seed 0 was made with train.minutes 8, not 9"):
    ablate.ablate(tmp_path, ["planar"], [0], longer, ABOUT, run=runs)  # begun, not finished


def test_a_setting_changes_its_own_fields_of_the_base(tmp_path):
  runs = Runs(SCORES)
  ablate.ablate(tmp_path, ["base", "planar"], [4], BASE, ABOUT, run=runs)
  plain, planar = runs.commands
  assert plain["config.seed"] == planar["config.seed"] == "4"
  assert plain["config.model.sphere_from_stride"] == "8"
  assert planar["config.model.sphere_from_stride"] == "64"
  assert plain["config.train.minutes"] == planar["config.train.minutes"] == "8"


def test_a_difference_is_told_apart_only_outside_of_the_spread(tmp_path):
  seeds = [0, 1, 2]
  ablate.ablate(tmp_path, list(SCORES), seeds, BASE, ABOUT, run=Runs(SCORES))
  base, planar, random = summarize(read_record(tmp_path), list(SCORES), seeds)
  assert base["SA-SOR"] == pytest.approx(0.61) and base["deviation"] == pytest.approx(0.01)
  assert base["steps"] == 70 and "difference" not in base
  assert planar["difference"] == pytest.approx(-0.1) and planar["told apart"] == "yes"
  assert random["difference"] == pytest.approx(0.005) and random["told apart"] == "no"


def test_what_is_missing_is_left_out_of_the_table(tmp_path):
  ablate.ablate(tmp_path, ["planar"], [0], BASE, ABOUT, run=Runs(SCORES))
  record = read_record(tmp_path)
  (row,) = summarize(record, ["base", "planar", "random"], [0, 1])
  assert row["setting"] == "planar" and row["seeds"] == 1
  assert row["deviation"] is None and "difference" not in row
  assert summarize(record, ["base"], [0]) == summarize({}, ["planar"], [0]) == []


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_a_valid_configuration(setting):
  config = base_config()
  values = ablate._BASE | SETTINGS[setting]
  typed = {name: type(_at(config, name))(value) for name, value in values.items()}
  config.update_from_flattened_dict(typed)
  validate(config)
  assert set(DEFAULT) <= set(SETTINGS) and next(iter(SETTINGS)) == DEFAULT[0] == "base"


def _at(config, name):
  for part in name.split("."):
    config = config[part]
  return config


def test_unknown_settings_are_one_line(run_command):
  result = run_command("-m", "foir360_jax.benchmarks.ablate", "--folder=x", "--settings=base,nope")
  assert result.returncode == 2
  assert "'nope' is none of base, planar" in result.stderr and "Traceback" not in result.stderr


STOPPED_ABLATION = """
import signal, sys
from foir360_jax.benchmarks import ablate
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
TRAINING = '''
import signal, sys, time
def save(*_):
  time.sleep(1)
  print("saved", flush=True)
  sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
'''
run = ablate._run
ablate._run = lambda command, log: run([sys.executable, "-c", TRAINING], log)
sys.exit(ablate.main([f"--folder={sys.argv[1]}"]))
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_ablation_lets_its_run_save(tmp_path, signum):
  command = [sys.executable, "-c", STOPPED_ABLATION, str(tmp_path)]
  environment = os.environ | {"PYTHONPATH": str(pathlib.Path(ablate.__file__).parents[2])}
  log = tmp_path / "base/0/output.txt"
  with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
    _wait_for(lambda: log.is_file() and "ready" in log.read_text())
    with pytest.raises(ValueError, match=f"is being written by process {process.pid}: wait"):
      sole_writer(tmp_path).__enter__()
    process.send_signal(signum)
    _, errors = process.communicate()
  assert process.returncode == 128 + signal.SIGINT
  assert errors == "stopped; the same command goes on\n"
  assert log.read_text() == "ready\nsaved\n"
  assert not (tmp_path / "ablation.json").exists()


def _wait_for(condition):
  deadline = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.05)
