"""Times the input pipeline, stage by stage and as a whole, on a data set that it writes itself.

python -m foir360_jax.benchmarks.input_pipeline [--out=FILE]

Reads the data set of `panoramas`, written into a temporary folder. Pipelines and the reference,
OpenCV's decoding of one picture of the first storage, take turns, because the speed of a machine
drifts; processor time tells what an image costs (`cpu_ms`) even while others use the machine.
"""

import argparse
import contextlib
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from foir360_jax.benchmarks.goals import GOAL_COLUMNS, Goal
from foir360_jax.benchmarks.options import comma_separated
from foir360_jax.benchmarks.panoramas import ALL_STORAGES, Panoramas, Storage
from foir360_jax.benchmarks.record import describe, environment, text_table, write_json
from foir360_jax.benchmarks.timing import Contestant, measure, turns
from foir360_jax.data import (
  Augmentation,
  PreparedSource,
  change_colours,
  colour_matrix,
  flip_longitude,
  open_source,
  pad_objects,
  resample,
  roll_columns,
  rotate,
  select_objects,
  training_batches,
)
from foir360_jax.sphere import rotation_matrix

STAGE_COLUMNS = {"images": "", "masks": "", "stage": "", "min_ms": ".2f", "median_ms": ".2f"}
PIPELINE_COLUMNS = {
  "images": "",
  "masks": "",
  "augmentation": "",
  "threads": "d",
  "best_per_s": ".0f",
  "median_per_s": ".0f",
  "of_reference": ".2f",
  "cpu_ms": ".1f",
}
FLAT = Augmentation(
  yaw=True, mirror=True, brightness=0.1, contrast=0.2, saturation=0.2, hue_deg=10.0
)
AUGMENTATIONS = {  # and the images a second on two threads that are asked for
  "yaw, mirror, colours": (FLAT, 150),
  "and rotation": (Augmentation(**(vars(FLAT) | {"rotation_deg": 15.0})), 50),
}


def time_stages(builder: Panoramas, *, rounds: int, budget_s: float) -> list[dict[str, Any]]:
  """Times what happens to one example, in the calling thread: a row for each stage."""
  source = open_source(builder.name, builder.data_root, "train")
  skipped = {"image": tfds.decode.SkipDecoding(), "masks": tfds.decode.SkipDecoding()}
  records = builder.as_data_source("train", decoders=skipped)
  features, encoded, whole = builder.info.features, records[0], source[0]
  num_objects, height = whole["masks"].shape[:2]
  example = select_objects(whole, num_objects)
  padded = pad_objects(example, num_objects)
  rotation = rotation_matrix(0.1, 0.1, 0.1)
  colours = colour_matrix(brightness=0.1, contrast=1.1, saturation=0.9, hue_rad=0.1)
  stages = {
    "read record": lambda: records[0],
    "decode image": lambda: features["image"].decode_example_np(encoded["image"]),
    "decode masks": lambda: features["masks"].decode_example_np(encoded["masks"]),
    "all of these": lambda: source[0],
    "select objects": lambda: select_objects(whole, num_objects),
    "shrink to 3/4": lambda: resample(example, 3 * height // 4),
    "roll": lambda: roll_columns(example, 333),
    "mirror": lambda: flip_longitude(example),
    "colours": lambda: change_colours(example["image"], colours),
    "rotate": lambda: rotate(example, rotation),
    "pad objects": lambda: pad_objects(example, num_objects),
    "batch": lambda: {key: np.stack([value]) for key, value in padded.items()},
  }
  contestants = [Contestant(name, _repeatedly(stage)) for name, stage in stages.items()]
  timings = measure(contestants, rounds=rounds, budget_s=budget_s)
  return [
    builder.storage._asdict()
    | {"stage": name, "min_ms": 1e3 * timing.min_s, "median_ms": 1e3 * timing.median_s}
    for name, timing in timings.items()
  ]


def time_pipelines(
  builders: Sequence[Panoramas],
  *,
  threads: Sequence[int],
  batch_size: int,
  rounds: int,
  seconds: float,
) -> list[dict[str, Any]]:
  """Counts the images of whole pipelines, each of which runs for `seconds` in each round.

  Returns:
    A row for each pipeline; `of_reference` compares its best rate with the reference's best.
  """
  reference = functools.partial(_decode_rate, builders[0], seconds)
  contestants: dict[tuple[Storage, str, int] | None, Callable[[], tuple[float, float]]]
  contestants = {None: reference}
  for builder in builders:
    source = open_source(builder.name, builder.data_root, "train")
    for name, num_threads in itertools.product(AUGMENTATIONS, threads):
      options = dict(
        heights=builder.info.features["image"].shape[:1],
        max_objects=int(source.object_counts.max()),
        batch_size=batch_size,
        seed=0,
        augmentation=AUGMENTATIONS[name][0],
        num_threads=num_threads,
      )
      contestants[builder.storage, name, num_threads] = functools.partial(
        _pipeline_rate, source, options, seconds
      )
  rates: dict[tuple[Storage, str, int] | None, list[tuple[float, float]]]
  rates = {key: [] for key in contestants}
  for index in range(rounds):
    for key, rate in turns(list(contestants.items()), index):
      rates[key].append(rate())
  best_of_reference = max(per_s for per_s, _ in rates[None])
  rows = []
  for key, values in rates.items():
    if key is None:
      continue
    storage, name, num_threads = key
    per_s, cpu_s = zip(*values, strict=True)
    figures = {
      "best_per_s": max(per_s),
      "median_per_s": statistics.median(per_s),
      "of_reference": max(per_s) / best_of_reference,
      "cpu_ms": 1e3 * min(cpu_s),
    }
    rows.append(storage._asdict() | {"augmentation": name, "threads": num_threads} | figures)
  return rows


def pipeline_goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """The project's goals for two threads, at 512 x 1024 pixels and 40 objects."""
  return [
    Goal(
      f"{row['images']}, {row['masks']}: {row['augmentation']}",
      row["best_per_s"],
      AUGMENTATIONS[row["augmentation"]][1],
      at_most=False,
    ).row()
    for row in rows
    if row["threads"] == 2
  ]


def _pipeline_rate(
  source: PreparedSource, options: dict[str, Any], seconds: float
) -> tuple[float, float]:
  with contextlib.closing(training_batches(source, **options)) as batches:
    for _ in range(2 * options["num_threads"] + 1):  # what was read ahead while nobody took it
      next(batches)
    return _rate(lambda: next(batches), options["batch_size"], seconds)


def _decode_rate(builder: Panoramas, seconds: float) -> tuple[float, float]:
  """The reference: one picture of the data set, decoded again and again."""
  skipped = {"image": tfds.decode.SkipDecoding(), "masks": tfds.decode.SkipDecoding()}
  encoded = builder.as_data_source("train", decoders=skipped)[0]["image"]
  picture = np.frombuffer(encoded, np.uint8)
  return _rate(lambda: cv2.imdecode(picture, cv2.IMREAD_COLOR), 1, seconds)


def _rate(step: Callable[[], Any], images: int, seconds: float) -> tuple[float, float]:
  """Images a second, and seconds of all processors an image, of a step that yields `images`.

  The step is taken at least once: on a busy machine the seconds may be over before it begins.
  """
  start, start_cpu, count, elapsed_s = time.perf_counter(), time.process_time(), 0, 0.0
  while not count or elapsed_s < seconds:
    step()
    count += images
    elapsed_s = time.perf_counter() - start
  return count / elapsed_s, (time.process_time() - start_cpu) / count


def _repeatedly(function: Callable[[], Any]) -> Callable[[int], None]:
  def run(repeats: int):
    for _ in range(repeats):
      function()

  return run


def main(argv: Sequence[str] | None = None) -> None:
  """The command."""
  parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
  parser.add_argument("--height", type=int, default=512)
  parser.add_argument("--objects", type=int, default=40, help="in each image")
  parser.add_argument("--examples", type=int, default=128)
  parser.add_argument("--batch_size", type=int, default=8)
  threads = comma_separated(int)
  parser.add_argument("--threads", type=threads, default="0,1,2,4", help="with commas")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--seconds", type=float, default=1.0, help="of a pipeline in a round")
  parser.add_argument("--out", help="JSON file")
  options = parser.parse_args(argv)
  about = environment()
  print(describe(about), flush=True)
  tfds.disable_progress_bar()
  with tempfile.TemporaryDirectory() as folder:
    builders = [
      Panoramas(
        storage,
        height=options.height,
        num_objects=options.objects,
        num_examples=options.examples,
        data_dir=folder,
      )
      for storage in ALL_STORAGES
    ]
    stages = []
    for builder in builders:
      builder.download_and_prepare()
      stages += time_stages(builder, rounds=10 * options.rounds, budget_s=5 * options.seconds)
    print(f"\n{text_table(stages, STAGE_COLUMNS)}", flush=True)
    pipelines = time_pipelines(
      builders,
      threads=options.threads,
      batch_size=options.batch_size,
      rounds=options.rounds,
      seconds=options.seconds,
    )
  goals = pipeline_goals(pipelines)
  print(f"\n{text_table(pipelines, PIPELINE_COLUMNS)}\n\n{text_table(goals, GOAL_COLUMNS)}")
  if options.out:
    report = {"environment": about, "stages": stages, "pipelines": pipelines, "goals": goals}
    write_json(options.out, report)


if __name__ == "__main__":
  main()
