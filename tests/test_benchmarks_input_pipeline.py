"""The benchmark of the input pipeline: its data set, its rows, its goals, and the command."""

import json

import numpy as np
import pytest

from foir360_jax.benchmarks import input_pipeline
from foir360_jax.benchmarks.panoramas import ALL_STORAGES, Panoramas, Storage, random_panorama
from foir360_jax.data import open_source
from foir360_jax.scenes import unpack_masks


@pytest.mark.parametrize("storage", ALL_STORAGES, ids="-".join)
def test_every_storage_holds_the_same_panoramas(storage, tmp_path):
  builder = Panoramas(storage, height=32, num_objects=5, num_examples=18, data_dir=str(tmp_path))
  builder.download_and_prepare()
  source = open_source(builder.name, str(tmp_path), "train")
  assert len(source) == 18 and (source.object_counts == 5).all()
  examples = {example["importance"].tobytes(): example for example in source}
  assert len(examples) == 16  # two of them occur twice
  rng = np.random.default_rng(0)
  image, masks = random_panorama(rng, 32, 5)
  example = examples[rng.random(5, np.float32).tobytes()]
  np.testing.assert_array_equal(unpack_masks(example["masks"], 64), masks)
  error = abs(example["image"][..., ::-1].astype(int) - image)  # OpenCV writes BGR
  assert error.max() == 0 if storage.images == "png" else error.mean() < 20


def test_random_panoramas_show_their_objects():
  image, masks = random_panorama(np.random.default_rng(1), 64, 9)
  assert image.shape == (64, 128, 3) and image.dtype == np.uint8 and image.std() > 20
  assert masks.shape == (9, 64, 128) and masks.any(axis=(1, 2)).all()


def test_goals_are_those_of_two_threads():
  rows = [
    {
      "images": "jpeg",
      "masks": "zlib",
      "augmentation": name,
      "threads": threads,
      "best_per_s": 60.0,
    }
    for name in input_pipeline.AUGMENTATIONS
    for threads in (1, 2)
  ]
  goals = input_pipeline.pipeline_goals(rows)
  assert [(goal["asked"], goal["verdict"]) for goal in goals] == [
    (">= 150", "MISSED"),
    (">= 50", "pass"),
  ]


def test_a_rate_counts_images_and_processor_time(monkeypatch):
  clock = iter([0.0, 0.6, 1.2])  # start, a look after each of two steps
  cpu = iter([0.0, 3.0])
  monkeypatch.setattr(input_pipeline.time, "perf_counter", lambda: next(clock))
  monkeypatch.setattr(input_pipeline.time, "process_time", lambda: next(cpu))
  per_s, cpu_s = input_pipeline._rate(lambda: None, 8, 1.0)
  assert per_s == pytest.approx(16 / 1.2) and cpu_s == pytest.approx(3 / 16)


def test_a_round_that_ends_before_its_first_batch_still_counts_it(monkeypatch):
  clock = iter([0.0, 5.0])  # whoever shares the machine may hold this process up
  monkeypatch.setattr(input_pipeline.time, "perf_counter", lambda: next(clock))
  per_s, cpu_s = input_pipeline._rate(lambda: None, 8, 1.0)
  assert per_s == pytest.approx(8 / 5) and cpu_s >= 0


def test_the_command_prints_its_tables_and_writes_its_rows(tmp_path, capsys):
  out = tmp_path / "out.json"
  size = ["--height=32", "--objects=3", "--examples=8", "--batch_size=4", "--threads=0,2"]
  input_pipeline.main([*size, "--rounds=1", "--seconds=0.02", f"--out={out}"])
  report = json.loads(out.read_text())
  storages = {(row["images"], row["masks"]) for row in report["stages"]}
  assert storages == set(map(tuple, ALL_STORAGES))
  stages = [row["stage"] for row in report["stages"] if row["images"] == "png"]
  assert {"read record", "decode image", "decode masks", "rotate", "batch"} <= set(stages)
  assert all(0 <= row["min_ms"] <= row["median_ms"] for row in report["stages"])
  keys = {
    (Storage(row["images"], row["masks"]), row["augmentation"], row["threads"])
    for row in report["pipelines"]
  }
  assert len(keys) == len(report["pipelines"]) == 4 * 2 * 2
  assert all(row["best_per_s"] > 0 and row["cpu_ms"] > 0 for row in report["pipelines"])
  assert len(report["goals"]) == 4 * 2
  assert report["environment"]["cpu"] and "decode masks" in capsys.readouterr().out
