"""Prepared data on disk: what is written comes back, and what is missing is said in one line."""

import json
import shutil

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from foir360_jax.data import Augmentation, evaluation_batches, open_source, training_batches
from foir360_jax.scenes import unpack_masks

CATEGORY_NAMES = ("cone", "box", "ball")
SIZES = {"train": 12, "test": 5}


def scene(config, split, index):
  """The example with this place in the split, as written; every fourth has no object."""
  rng = np.random.default_rng([len(config), len(split), index])
  height = 32 if config == "even" else int(rng.integers(8, 12)) * 4 + 2  # width not divisible by 8
  num_objects = int(rng.integers(1, 9)) if index % 4 else 0
  importance = rng.random(num_objects).astype(np.float32)
  return {
    "image": rng.integers(0, 256, (height, 2 * height, 3), np.uint8),
    "image_id": f"{split}-{index}",
    "height": height,
    "width": 2 * height,
    "masks": np.packbits(rng.random((num_objects, height, 2 * height)) < 0.3, axis=-1),
    "importance": importance,
    "rank": np.argsort(np.argsort(-importance)).astype(np.int32) + 1,
    "category": rng.integers(0, len(CATEGORY_NAMES), num_objects).astype(np.int32),
    "bfov_deg": rng.random((num_objects, 4)).astype(np.float32),
  }


class Scenes(tfds.core.GeneratorBasedBuilder):
  """Random panoramas: all of one size and with names in the metadata, or of mixed sizes."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("even", "mixed")]

  def _info(self):
    even = self.builder_config.name == "even"
    height, width = (32, 64) if even else (None, None)
    names = tfds.features.Sequence(tfds.features.ClassLabel(names=CATEGORY_NAMES))
    per_object = {"importance": np.float32, "rank": np.int32, "category": np.int32}
    features = {
      key: tfds.features.Tensor(shape=(None,), dtype=dtype) for key, dtype in per_object.items()
    }
    features |= {
      "image": tfds.features.Image(shape=(height, width, 3), encoding_format="png"),
      "image_id": tfds.features.Text(),
      "height": np.int32,
      "width": np.int32,
      "masks": tfds.features.Tensor(
        shape=(None, height, width and width // 8), dtype=np.uint8, encoding="zlib"
      ),
      "bfov_deg": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features if even else features | {"category": names}),
      metadata=tfds.core.MetadataDict({"category_names": CATEGORY_NAMES} if even else {}),
    )

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split) for split in SIZES}

  def _generate_examples(self, split):
    for index in range(SIZES[split]):
      example = scene(self.builder_config.name, split, index)
      _, encoded = cv2.imencode(".png", example["image"][..., ::-1])
      yield index, example | {"image": encoded.tobytes()}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("prepared")
  for config in ("even", "mixed"):
    builder = Scenes(config=config, data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
  return folder


@pytest.fixture
def copied(data_dir, tmp_path):
  """A copy of the data to damage."""
  shutil.copytree(data_dir, tmp_path / "data")
  return tmp_path / "data"


@pytest.mark.parametrize("config", ["even", "mixed"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_examples_come_back_as_they_were_written(data_dir, config, split):
  source = open_source(f"scenes/{config}", str(data_dir), split)
  assert len(source) == SIZES[split]
  found = [example["image_id"] for example in source]
  assert sorted(found) == sorted(f"{split}-{index}" for index in range(SIZES[split]))
  for example in source:
    expected = scene(config, split, int(example["image_id"].split("-")[1]))
    assert example.keys() == expected.keys()
    for key, value in expected.items():
      np.testing.assert_array_equal(example[key], value, err_msg=key)
      if isinstance(value, np.ndarray):
        assert example[key].dtype == value.dtype, key


@pytest.mark.parametrize("config", ["even", "mixed"])
def test_category_names_are_read_from_labels_and_from_metadata(data_dir, config):
  assert open_source(f"scenes/{config}", str(data_dir), "train").category_names == CATEGORY_NAMES


@pytest.mark.parametrize("config", ["even", "mixed"])
def test_categories_without_names_are_counted_up_to_the_largest_number(data_dir, config):
  source = open_source(f"scenes/{config}", str(data_dir), "train")
  assert source.num_categories == len(CATEGORY_NAMES)
  unnamed = open_source(f"scenes/{config}", str(data_dir), "train[:4]")
  unnamed.category_names = ()
  numbers = [number for example in unnamed for number in example["category"]]
  assert numbers and unnamed.num_categories == max(numbers) + 1


def test_parts_of_a_split_are_disjoint_and_complete(data_dir):
  parts = ("train[:25%]", "train[3:8]", "train[-4:]")
  found = [
    [example["image_id"] for example in open_source("scenes/even", str(data_dir), part)]
    for part in parts
  ]
  assert [len(part) for part in found] == [3, 5, 4]
  assert len(set(sum(found, []))) == SIZES["train"]


def test_object_counts_are_those_of_the_examples(data_dir):
  source = open_source("scenes/mixed", str(data_dir), "train[2:]")
  np.testing.assert_array_equal(source.object_counts, [len(example["rank"]) for example in source])


def test_the_largest_number_of_objects_comes_from_the_metadata_or_from_the_examples(prepared):
  data_dir = str(prepared)
  source = open_source("synthetic360/tests", data_dir, "train+test[:50%]")
  known = source._builder.info.metadata["max_objects"]
  counts = {
    split: open_source("synthetic360/tests", data_dir, split).object_counts.max()
    for split in ("train", "validation", "test")
  }
  assert known == counts and source.most_objects == max(counts["train"], counts["test"])
  del known["train"]  # as of a data set prepared before
  del source.most_objects
  assert source.most_objects == source.object_counts.max()


def test_indices_count_from_the_end_and_stop_at_it(data_dir):
  source = open_source("scenes/even", str(data_dir), "test")
  assert source[-1]["image_id"] == source[np.int64(4)]["image_id"]
  for index in (5, -6):
    with pytest.raises(IndexError, match="has 5 examples"):
      source[index]


def test_the_newest_version_is_opened_by_number_not_by_letter(copied):
  folder = copied / "scenes" / "even"
  for version in ("1.9.0", "1.10.0"):
    shutil.copytree(folder / "1.0.0", folder / version)
    info = folder / version / "dataset_info.json"
    content = json.loads(info.read_text()) | {"version": version}
    if version == "1.10.0":
      content["splits"] = [one for one in content["splits"] if one["name"] == "test"]
    info.write_text(json.dumps(content))
  (folder / "incomplete.ABCDEF_2.0.0").mkdir()
  assert len(open_source("scenes/even", str(copied), "test")) == SIZES["test"]
  with pytest.raises(ValueError, match=r"1\.10\.0 has no split 'train'; it has test"):
    open_source("scenes/even", str(copied), "train")


def error_of(name, data_dir, split="train"):
  with pytest.raises(ValueError) as raised:
    open_source(name, str(data_dir), split)
  message = str(raised.value)
  assert "\n" not in message
  return message


def test_a_missing_data_set_names_the_folder_the_command_and_what_is_there(copied):
  command = f"foir360 prepare --dataset=scenes/big --data_dir={copied}"
  message = error_of("scenes/big", copied)
  assert command in message and str(copied / "scenes" / "big") in message
  assert "found even, mixed" in message
  assert "foir360 prepare" in error_of("scenes/big", copied / "nowhere")
  assert "found even, mixed" in error_of("scenes", copied)


@pytest.mark.parametrize("lost", ["version", "dataset_info", "features", "shard", "half a shard"])
def test_a_half_written_data_set_names_the_folder_and_the_command(copied, lost):
  folder = copied / "scenes" / "even" / "1.0.0"
  shard = folder / "scenes-train.array_record-00000-of-00001"
  if lost == "version":
    folder.rename(folder.parent / "incomplete.ABCDEF_1.0.0")
  elif lost == "shard":
    shard.unlink()
  elif lost == "half a shard":
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
  else:
    (folder / f"{lost}.json").unlink()
  message = error_of("scenes/even", copied)
  assert str(folder.parent) in message
  assert f"foir360 prepare --dataset=scenes/even --data_dir={copied}" in message
  assert "unfinished" in message or "half-written" in message or "damaged" in message


@pytest.mark.parametrize("split", ["trian", "train[5", "train[:150%]"])
def test_an_unknown_split_names_those_that_exist(data_dir, split):
  message = error_of("scenes/even", data_dir, split)
  assert repr(split) in message and "it has train, test" in message


@pytest.mark.parametrize("split", ["train[:0%]", "train[8:3]"])
def test_an_empty_part_of_a_split_is_refused(data_dir, split):
  assert f"{split!r} of" in error_of("scenes/even", data_dir, split)


@pytest.mark.parametrize("config", ["even", "mixed"])
def test_a_prepared_data_set_becomes_batches_of_one_size(data_dir, config):
  source = open_source(f"scenes/{config}", str(data_dir), "train")
  shared = {"max_objects": 8, "batch_size": 5, "num_threads": 2}
  augmentation = Augmentation(yaw=True, mirror=True, permute_colours=True)
  evaluation = list(evaluation_batches(source, height=16, **shared))
  training = training_batches(source, heights=(16,), **shared, seed=0, augmentation=augmentation)
  for batch in [*evaluation, next(training)]:
    assert batch["image"].shape == (5, 16, 32, 3)
    assert batch["masks"].shape == (5, 8, 16, 4)
    covered = unpack_masks(batch["masks"], 32).any((-1, -2))
    np.testing.assert_array_equal(covered, batch["where"])
  assert [batch["example_where"].sum() for batch in evaluation] == [5, 5, 2]
