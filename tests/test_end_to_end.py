"""From prepared data to ranked panoramas, by the entry points and the command line."""

import contextlib
import json
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from foir360_jax.cli import evaluate as cli_evaluate
from foir360_jax.cli import train as cli_train
from foir360_jax.cli.evaluate import evaluate_run
from foir360_jax.cli.predict import predict
from foir360_jax.cli.train import train_and_evaluate
from foir360_jax.files import save_image
from foir360_jax.inference import Ranker
from foir360_jax.inference.decision import Decision
from foir360_jax.objective.build import _DETECTION_TERMS
from foir360_jax.scenes import read_rank_file
from foir360_jax.train import run as train_run
from foir360_jax.train.checkpoint import has_checkpoint

STEPS = 4
FINDING = [f"loss.{term}" for term in _DETECTION_TERMS]


def read_strictly(path):
  def refuse(constant):
    raise AssertionError(f"{constant} in {path}")

  return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def settings(make_tiny_config, prepared):
  """A function `(steps) -> config`."""

  def build(steps=STEPS):
    config = make_tiny_config()
    # What is asked here is how the parts are joined, so they may be as few as they can.
    config.model.blocks, config.model.sphere_from_stride = (0, 0, 0, 0), 32
    config.model.pixel_layers = config.model.decoder_layers = 0
    config.model.context = False
    config.data.data_dir = str(prepared)
    config.train.steps = steps
    config.train.log_every = 2
    config.train.checkpoint_every = 3
    config.optimizer.warmup_steps = 1
    return config

  return build


@pytest.fixture(scope="module")
def final_states():
  """The states with which the trainings of this module ended, in order."""
  states, train = [], train_run.train
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train_run, "train", lambda **arguments: states.append(train(**arguments)))
    yield states


@pytest.fixture(scope="module")
def shown():
  """What the bars of `trained` were told, by their titles."""
  return {}


@pytest.fixture(scope="module")
def trained(settings, final_states, shown, tmp_path_factory):
  """The folder of a run of four steps, evaluated, and its final state."""

  @contextlib.contextmanager
  def record(title):
    yield lambda *now: shown.setdefault(title, []).append(now)

  workdir = tmp_path_factory.mktemp("run")
  with pytest.MonkeyPatch.context() as patch:
    for module in (cli_train, cli_evaluate):
      patch.setattr(module, "progress_bar", record)
    train_and_evaluate(settings(), str(workdir))
  return workdir, jax.device_get(final_states[-1])


def rows(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_checkpoints_logs_and_a_report(trained, settings):
  workdir, state = trained
  assert int(state.step) == STEPS
  assert [row["step"] for row in rows(workdir)] == [2, 4]
  assert all(np.isfinite(row["loss"]) for row in rows(workdir))
  saved = read_strictly(workdir / "config.json")
  assert saved["train"]["steps"] == STEPS and len(saved["category_names"]) == 12
  report = read_strictly(workdir / "metrics.json")
  assert report["images"] == 4 and report["split"] == "test"
  assert report["ground_truth_masks"]["model"]["images_used"] == 4
  assert report["ground_truth_masks"]["ceiling"]["mean"] > 0.5
  assert report["confidence_threshold"] in settings().evaluate.confidence_thresholds
  assert (workdir / "evaluation.png").stat().st_size > 10_000


def test_evaluating_again_gives_the_same_report(trained, settings, capsys):
  workdir, _ = trained
  before = read_strictly(workdir / "metrics.json")
  (workdir / "metrics.json").unlink()
  evaluate_run(settings(), str(workdir))
  assert read_strictly(workdir / "metrics.json") == before
  printed = capsys.readouterr().out
  assert "ceiling (noiseless importance)" in printed and "4 images" in printed


@pytest.mark.parametrize(
  "change, message",
  [
    (
      {"model.condition_on_categories": True},
      "config.model.condition_on_categories is True, but .* with False",
    ),
    ({"model.num_queries": 11}, "config.model.num_queries is 11, but .*config.json says"),
    ({"data.height": 96}, "config.data.height is 96, but .* was trained with 48; give the run's"),
    (dict.fromkeys(FINDING, 0.0), "differ in whether the model detects objects"),
  ],
)
def test_another_model_than_was_trained_is_neither_evaluated_nor_used(
  trained, settings, panoramas, tmp_path, change, message
):
  workdir = trained[0]
  before = read_strictly(workdir / "metrics.json")
  config = settings()
  with config.unlocked():
    config.update_from_flattened_dict(change)
  with pytest.raises(ValueError, match=message):
    evaluate_run(config, str(workdir))
  with pytest.raises(ValueError, match=message):
    predict(config, workdir, panoramas, tmp_path / "out")
  assert read_strictly(workdir / "metrics.json") == before and not (tmp_path / "out").exists()


def test_another_model_does_not_go_on_with_a_run(trained, settings):
  config = settings(STEPS + 1)
  config.model.condition_on_categories = True
  with pytest.raises(ValueError, match="config.model.condition_on_categories is True, but"):
    train_and_evaluate(config, str(trained[0]))


@pytest.mark.parametrize("change", ["category_names", "data.train_split"])
def test_other_data_do_not_go_on_with_a_run(trained, settings, tmp_path, change):
  workdir = tmp_path / "run"
  shutil.copytree(trained[0], workdir)
  config = settings(STEPS + 1)
  if change == "data.train_split":
    config.data.train_split = "train[:50%]"
  else:  # the data were prepared anew, with one category less before the others
    saved = read_strictly(workdir / "config.json")
    saved["category_names"].insert(0, "aardvark")
    (workdir / "config.json").write_text(json.dumps(saved))
  before = (workdir / "config.json").read_bytes()
  with pytest.raises(ValueError, match=f"cannot go on with other data: {change} is .*init_from"):
    train_and_evaluate(config, str(workdir))
  assert (workdir / "config.json").read_bytes() == before


def test_a_split_that_is_not_there_is_told_before_the_training(settings, tmp_path):
  config = settings()
  config.data.test_split = "tset"
  with pytest.raises(ValueError, match="tset"):
    train_and_evaluate(config, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_default_thresholds_are_reported_and_may_be_set(
  trained, settings, panoramas, tmp_path, capsys
):
  workdir = tmp_path / "run"
  shutil.copytree(trained[0], workdir)
  (workdir / f"checkpoints/{STEPS}/decision.json").unlink()
  thresholds = dict(confidence_threshold=0.9999, yaw_augmentation=1)
  predict(settings(), workdir, panoramas, tmp_path / "none", **thresholds)
  assert "never evaluated: what is an object is decided by default" in capsys.readouterr().out
  assert len(read_rank_file(tmp_path / "none/ranks/good.json").ranks) == 0


def test_a_run_that_is_interrupted_and_resumed_ends_bit_identical(
  trained, settings, final_states, tmp_path, monkeypatch
):
  monkeypatch.setattr(cli_train, "evaluate_run", lambda config, workdir: None)
  build = train_run.build_training_batches

  class Interrupting:
    """Batches that send SIGTERM when the third one is fetched: while step 2 is computed."""

    def __init__(self, batches):
      self.batches, self.fetched = batches, 0

    def __next__(self):
      self.fetched += 1
      if self.fetched == 3:
        signal.raise_signal(signal.SIGTERM)
      return next(self.batches)

    def get_state(self):
      return self.batches.get_state()

  with monkeypatch.context() as patch:
    patch.setattr(train_run, "build_training_batches", lambda config: Interrupting(build(config)))
    with pytest.raises(SystemExit) as stopped:
      train_and_evaluate(settings(), str(tmp_path))
  assert stopped.value.code == 128 + signal.SIGTERM
  assert rows(tmp_path)[-1]["step"] == 2

  train_and_evaluate(settings(), str(tmp_path))
  resumed, uninterrupted = jax.device_get(final_states[-1]), trained[1]
  assert int(resumed.step) == STEPS
  jax.tree.map(np.testing.assert_array_equal, resumed, uninterrupted)


def test_more_steps_continue_the_run(settings, final_states, trained, tmp_path, monkeypatch):
  monkeypatch.setattr(cli_train, "evaluate_run", lambda config, workdir: None)
  workdir = tmp_path / "run"
  shutil.copytree(trained[0], workdir)
  train_and_evaluate(settings(STEPS + 1), str(workdir))
  assert int(final_states[-1].step) == STEPS + 1
  assert [row["step"] for row in rows(workdir)] == [2, STEPS, STEPS + 1]


def test_fine_tuning_starts_from_the_averaged_parameters_of_another_run(
  settings, trained, tmp_path, monkeypatch, capsys
):
  started = {}
  monkeypatch.setattr(train_run, "train", lambda **arguments: started.update(arguments))
  monkeypatch.setattr(cli_train, "evaluate_run", lambda config, workdir: None)
  config = settings()
  config.init_from = str(trained[0])
  train_and_evaluate(config, str(tmp_path))
  averaged = trained[1].ema_params
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(started["state"].params), averaged)
  count = len(jax.tree.leaves(averaged))
  assert capsys.readouterr().out == f"{count} parameters of {trained[0]}\n"

  (tmp_path / "checkpoints/1").mkdir(parents=True)  # a run that goes on has its own parameters
  train_and_evaluate(config, str(tmp_path))
  assert not capsys.readouterr().out


def test_the_ranker_loads_the_averaged_parameters_and_the_decision_of_its_checkpoint(trained):
  workdir, state = trained
  ranker = Ranker.load(workdir)
  report = read_strictly(workdir / "metrics.json")
  assert ranker.decision == Decision(report["confidence_threshold"], report["stop_margin"], 1)
  assert ranker.height == 48 and ranker.category_names[0] == "disc"
  assert Ranker.load(workdir, confidence_threshold=0.7).decision.confidence_threshold == 0.7
  loaded, averaged = jax.tree.leaves(ranker._state), jax.tree.leaves(state.ema_params)
  assert len(loaded) == len(averaged)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(loaded), averaged)


def test_a_run_from_before_a_field_existed_still_loads(trained, tmp_path):
  workdir, _ = trained
  old = tmp_path / "old"
  shutil.copytree(workdir, old)
  config = read_strictly(old / "config.json")
  for name in ("condition_on_categories", "remat", "drop_path"):
    del config["model"][name]
  (old / "config.json").write_text(json.dumps(config))
  assert Ranker.load(old).height == 48
  config["model"]["wings"] = 2
  (old / "config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match="config.json: has the unknown field model.wings"):
    Ranker.load(old)


def test_what_a_killed_run_left_half_written_is_no_checkpoint(tmp_path):
  folder = tmp_path / "checkpoints"
  assert not has_checkpoint(folder)
  (folder / "2.orbax-checkpoint-tmp").mkdir(parents=True)
  assert not has_checkpoint(folder)


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path):
  workdir, _ = trained
  config = read_strictly(workdir / "config.json")
  config["model"]["feature_channels"] = 24
  (tmp_path / "checkpoints").symlink_to(workdir / "checkpoints")
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match="checkpoint"):
    Ranker.load(tmp_path)


def test_too_few_categories_for_the_data_are_refused(settings, tmp_path):
  config = settings()
  config.model.num_categories = 11
  with pytest.raises(ValueError, match="has 12 categories: set config.model.num_categories"):
    train_and_evaluate(config, str(tmp_path))


@pytest.fixture
def panoramas(tmp_path):
  folder = tmp_path / "in"
  picture = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
  save_image(folder / "good.png", picture.repeat(9, 0).repeat(9, 1))
  (folder / "broken.png").write_bytes(b"no picture")
  return folder


def test_the_command_line_ranks_panoramas_and_reports_failures(
  trained, run_command, run_here, panoramas, tmp_path, monkeypatch
):
  workdir, output = trained[0], tmp_path / "out"
  command = [f"--workdir={workdir}", f"--input={panoramas}", f"--output={output}"]
  result = run_command("-m", "foir360_jax.main", "--mode=predict", *command)
  assert result.returncode == 1, result.stderr
  lines = result.stdout.splitlines()
  assert len(lines) == 5 and not result.stderr
  bad, compiling, good = sorted(lines[1:4])
  assert bad.startswith("bad: ") and good.startswith("good.png: ")
  assert compiling.startswith("compiling the model: up to a few minutes on a CPU")
  assert lines[4].startswith("1 of 2 panoramas ranked, 0 done before, 1 bad; ")
  ranked = read_rank_file(output / "ranks/good.json")
  assert ranked.image == "good.png" and ranked.masks.shape[1:] == (72, 144)
  assert (output / "overlays/good.png").is_file()

  before = (output / "ranks/good.json").stat().st_mtime_ns
  for skip in ([], ["--skip_done"]):  # the flag of earlier versions says nothing new
    going_on = run_here("predict", *command, *skip)
    assert going_on.returncode == 1  # the broken one
    assert "0 of 2 panoramas ranked, 1 done before, 1 bad" in going_on.stdout
  assert (output / "ranks/good.json").stat().st_mtime_ns == before

  other = run_here("predict", *command, "--confidence_threshold=0.9")
  assert other.returncode == 2 and other.stderr.count("\n") == 1
  assert "settings.json: model.confidence_threshold was 0." in other.stderr
  assert run_here("predict", *command, "--overwrite").returncode == 1
  assert (output / "ranks/good.json").stat().st_mtime_ns > before

  monkeypatch.setenv("HOME", str(tmp_path))
  shutil.copytree(workdir, tmp_path / "run")
  home = ["--workdir=~/run", "--input=~/in/good.png", "--output=~/out"]
  assert "0 of 1 panoramas ranked, 1 done before" in run_here("predict", *home).stdout
  assert Ranker.load("~/run").height == 48
  assert not (pathlib.Path.cwd() / "~").exists()


def test_paths_of_a_configuration_may_begin_with_a_tilde(
  settings, trained, prepared, tmp_path, monkeypatch
):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "data").symlink_to(prepared)
  (tmp_path / "run").symlink_to(trained[0])
  monkeypatch.setattr(train_run, "train", lambda **arguments: None)
  monkeypatch.setattr(cli_train, "evaluate_run", lambda config, workdir: None)
  config = settings()
  config.data.data_dir, config.init_from = "~/data", "~/run"
  train_and_evaluate(config, "~/new")


def test_bars_are_told_of_training_and_evaluation(trained, shown):
  assert shown["training"] == [(step / STEPS, 1.0) for step in range(1, STEPS + 1)]
  assert shown["evaluating"] == [(2, 8), (4, 8), (6, 8), (8, 8)]


def test_missing_data_are_explained_in_one_line(run_here, tmp_path):
  data = f"--config.data.data_dir={tmp_path}"
  result = run_here("--config=configs/tiny.py", data, f"--workdir={tmp_path / 'run'}")
  assert result.returncode == 2 and result.stderr.count("\n") == 1
  assert "write it with: foir360 prepare --dataset=synthetic360" in result.stderr
