"""What needs TensorFlow, as the extra `tf` installs it: the tests of TFDS itself, and tfds.load."""

import pathlib
import warnings

import pytest
import tensorflow_datasets as tfds

with warnings.catch_warnings():
  warnings.simplefilter("ignore")  # TensorFlow's own
  pytest.importorskip("tensorflow")
  pytest.importorskip("dill")  # tfds.testing needs it

from foir360_jax.data import open_source
from rank360.rank360_dataset_builder import Builder

pytestmark = [pytest.mark.tf, pytest.mark.filterwarnings("ignore")]
DUMMY = pathlib.Path(__file__).parents[1] / "datasets/rank360/dummy_data"


class Rank360Test(tfds.testing.DatasetBuilderTestCase):
  DATASET_CLASS = Builder
  EXAMPLE_DIR = str(DUMMY)
  BUILDER_CONFIG_NAMES_TO_TEST = ["human", "weak"]
  SPLITS = {"train": 4, "test": 1}


def test_load_reads_what_prepare_wrote_as_tfrecord(tmp_path, run_command):
  result = run_command(
    "datasets/prepare.py",
    "--dataset=rank360",
    f"--manual_dir={DUMMY}",
    f"--data_dir={tmp_path}",
    "--file_format=tfrecord",
  )
  assert result.returncode == 0, result.stderr
  loaded = tfds.load("rank360/human", split="train", data_dir=tmp_path)
  assert {tuple(example["image"].shape) for example in loaded} == {(32, 64, 3)}
  with pytest.raises(ValueError, match="stored as tfrecord, for tfds.load"):
    open_source("rank360/human", str(tmp_path), "train")
