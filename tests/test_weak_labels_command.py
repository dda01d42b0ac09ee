"""The command that makes weak labels: its configuration, its flags, and what they lead to."""

import signal

import numpy as np
import pytest

from foir360_jax.cli import weak_labels as module
from foir360_jax.cli.benchmark import benchmark
from foir360_jax.cli.check import validate
from foir360_jax.cli.command import main
from foir360_jax.cli.commands import COMMANDS, SALIENCY
from foir360_jax.cli.evaluate import evaluate_run
from foir360_jax.cli.train import train_and_evaluate
from foir360_jax.cli.weak_labels import weak_labels
from foir360_jax.config import base_config, weak_labels_config
from foir360_jax.data import open_source
from foir360_jax.saliency.build import NAMES
from foir360_jax.scenes import open_scenes, read_rank_file
from foir360_jax.weak_labels.program import Strategy
from rank360.dummy_scenes import write_dummy_data


def test_every_part_of_the_strategy_is_a_field_with_the_same_default():
  config = weak_labels_config()
  validate(config)
  assert Strategy(**{name: config[name] for name in Strategy._fields}) == Strategy()
  assert config.saliency == "learned"


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("saliency", "deep", "config.saliency must be one of learned, spectral, not 'deep'"),
    ("collector", "elo", "config.collector must be one of bradley_terry, .*, not 'elo'"),
    ("fill", "black", "config.fill must be one of .*, not 'black'"),
    ("max_erased", -1, "config.max_erased must be at least 0, not -1"),
    ("max_erased_whole", -1, "config.max_erased_whole must be at least 0, not -1"),
    ("grow_px", -1, "config.grow_px must be at least 0, not -1"),
    ("views_at_once", 0, "config.views_at_once must be at least 1, not 0"),
    ("batch_size", 0, "config.batch_size must be at least 1, not 0"),
  ],
)
def test_a_value_that_cannot_work_is_refused_by_name(field, value, message, tmp_path):
  config = weak_labels_config()
  config[field] = value
  with pytest.raises(ValueError, match=message):
    weak_labels(config, str(tmp_path), str(tmp_path))


def test_misspelt_fields_are_refused():
  with pytest.raises(AttributeError, match="colector"):
    weak_labels_config().colector = "borda"


def test_configurations_of_other_tasks_are_refused_by_each_command(tmp_path):
  workdir = str(tmp_path)
  with pytest.raises(ValueError, match="for a --config of the task weak_labels, not"):
    weak_labels(base_config(), workdir, workdir)
  for entry_point in (train_and_evaluate, evaluate_run, benchmark):
    with pytest.raises(ValueError, match="not weak_labels; give one .* or foir360 weak-labels"):
      entry_point(weak_labels_config(), workdir)
  assert not list(tmp_path.iterdir())


def stopping(*_, **__):
  raise KeyboardInterrupt


def test_ctrl_c_is_an_exit_code_and_no_traceback(tmp_path, monkeypatch):
  monkeypatch.setattr(module, "WeakRanker", lambda *_, **__: None)
  monkeypatch.setattr(module, "label_folder", stopping)
  command = ["weak-labels", f"--input={tmp_path}", "--output=out", "--saliency=spectral"]
  assert main(command) == 128 + signal.SIGINT


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--mode=weak_labels"], "weak-labels needs --input, --output"),
    (["--workdir=x", "--config=configs/tiny.py", "--saliency=spectral"], "leave it out"),
    (["--mode=weak_labels", "--input=x", "--output=y", "--saliency=deep"], "learned, spectral"),
  ],
)
def test_wrong_flags_are_explained(capsys, flags, message):
  assert main(flags) == 2
  assert message in capsys.readouterr().err


def test_the_command_knows_all_kinds_of_saliency():
  assert SALIENCY == NAMES and COMMANDS["weak-labels"].find("saliency").parse("learned")


def test_panoramas_with_masks_become_a_weakly_labelled_data_set(run_command, run_here, tmp_path):
  write_dummy_data(tmp_path / "scenes", height=64)
  (tmp_path / "scenes/images/dummy_3.png").write_bytes(b"")
  folders = [f"--input={tmp_path / 'scenes'}", f"--output={tmp_path / 'out'}"]
  command = ["--mode=weak_labels", "--saliency=spectral", *folders]
  config = ["--config=configs/weak_labels.py", "--config.batch_size=2", "--config.max_erased=1"]
  config += ["--config.max_erased_whole=1"]
  labelled = run_command("-m", "foir360_jax.main", *command, *config)
  assert labelled.returncode == 1, labelled.stderr
  lines = labelled.stdout.splitlines()
  assert lines[-1].startswith("4 of 5 panoramas ranked, 0 done before, 1 bad; ")
  (bad,) = (line for line in lines if line.startswith("bad: "))
  assert "dummy_3.png: the file is empty" in bad

  other = run_here(*command)
  assert other.returncode == 2
  assert "settings.json: strategy.max_erased was 1, now it is 8" in other.stderr

  flags = ["--dataset=rank360/weak", f"--manual_dir={tmp_path / 'scenes'}"]
  flags += [f"--ranks_dir={tmp_path / 'out'}", f"--data_dir={tmp_path / 'data'}"]
  checked = run_here("prepare", *flags, "--check")
  assert checked.returncode == 1 and "5 records, 4 good, 1 bad" in checked.stdout
  assert run_here("prepare", *flags, "--skip_bad").returncode == 0
  ids = set()
  for split in ("train", "test"):
    for example in open_source("rank360/weak", str(tmp_path / "data"), split):
      ids.add(example["image_id"])
      ranked = read_rank_file(tmp_path / f"out/ranks/{example['image_id']}.json")
      order = np.argsort(ranked.ids)
      np.testing.assert_array_equal(example["id"], ranked.ids[order])
      np.testing.assert_array_equal(example["rank"], ranked.ranks[order])
      np.testing.assert_array_equal(example["importance"], ranked.importance[order])
      np.testing.assert_array_equal(example["agreement"], ranked.agreement[order])
      assert set(example["source"]) == {b"weak"}
      assert (tmp_path / f"out/overlays/{example['image_id']}.png").is_file()
  assert ids == set(open_scenes(tmp_path / "scenes").ids) - {"dummy_3"}
