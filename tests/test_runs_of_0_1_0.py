"""Runs of version 0.1.0, whose configurations had other names, load and rank as before.

`run_of_0_1_0/` holds what a training of two steps by commit 6bcf6dd wrote: its configuration, the
thresholds of its checkpoint, and the names and shapes of the arrays in it.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from foir360_jax import Ranker
from foir360_jax.config import base_config
from foir360_jax.evaluation.compare_runs import read_run
from foir360_jax.train.run import check_same_model
from foir360_jax.train.settings import load_settings

FILES = pathlib.Path(__file__).with_name("run_of_0_1_0")
SHAPES = json.loads((FILES / "parameters.json").read_text())


@pytest.fixture(scope="module")
def old_run(tmp_path_factory):
  """A run's folder as version 0.1.0 wrote it, with other values in its arrays."""
  folder = tmp_path_factory.mktemp("old_run")
  shutil.copy(FILES / "config.json", folder)
  rng = np.random.default_rng(0)
  arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
  with ocp.training.Checkpointer(folder / "checkpoints") as orbax:
    orbax.save_checkpointables(2, {"model": arrays, "progress": {"elapsed_s": 1.0}})
  shutil.copy(FILES / "decision.json", folder / "checkpoints" / "2")
  return folder


def test_fields_have_the_names_of_now(old_run):
  settings = load_settings(old_run)
  names = base_config().to_dict()
  for section in ("model", "loss", "evaluate"):
    assert settings[section].keys() <= names[section].keys(), section
  assert settings["model"]["context"] is True
  assert settings["loss"]["conditioning_rate"] == 0.8
  assert settings["evaluate"]["yaw_augmentation"] == 2


def test_its_parameters_and_thresholds_are_those_of_the_ranker(old_run):
  ranker = Ranker.load(old_run)
  assert ranker.decision == (0.05, -100.0, 2) and ranker.decision.yaw_augmentation == 2
  assert ranker.detects and ranker.category_names[0] == "disc"


def test_it_may_go_on_with_the_same_model_and_with_no_other(old_run):
  config = base_config()
  settings = load_settings(old_run)
  with config.unlocked():
    for section in ("data", "model", "loss"):
      config[section].update(settings[section])
  check_same_model(config, old_run)
  config.model.context = False
  with pytest.raises(ValueError, match="config.model.context is False, but .*with True"):
    check_same_model(config, old_run)


def test_its_evaluation_is_refused_in_one_line(tmp_path):
  (tmp_path / "metrics.json").write_text(json.dumps({"images": 1, "given_masks": {}}))
  (tmp_path / "per_image.jsonl").write_text('{"index": 0, "given_masks/model": 0.5}\n')
  with pytest.raises(ValueError, match="metrics.json: is of version 0.1.0.*evaluate the run again"):
    read_run(tmp_path)
