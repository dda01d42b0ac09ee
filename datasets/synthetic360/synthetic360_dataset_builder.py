"""TFDS builder of synthetic360: renders scenes in parallel and writes them, without TensorFlow."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import tensorflow_datasets as tfds

from foir360_jax.metrics import ranks_from_relevance
from foir360_jax.sphere import bounding_fov_deg, solid_angle
from synthetic360.importance import annotate, scene_features
from synthetic360.repeats import pick_in_turn
from synthetic360.scene import render_scene
from synthetic360.shapes import CLASS_NAMES

SEED = 360
# A split's number goes into every scene's seed, so adding scenes to one split changes no other
# scene.
SPLITS = {"train": (0, 1.0), "validation": (1, 0.06), "test": (2, 0.08)}  # number, share of train
MIN_SCENES_FOR_PROCESSES = 32  # each takes seconds to start, a few scenes do not


@dataclasses.dataclass(kw_only=True)
class Synthetic360Config(tfds.core.BuilderConfig):
  """One size of the data set, with one rule.

  Attributes:
    height: rows of a panorama; it has twice as many columns.
    train_scenes: scenes of the train split; the other splits are in proportion.
    repeats: each repeat of a class is worth less (`repeats.py`); pictures, objects and noise are
      those of the configuration of that size without.
  """

  height: int
  train_scenes: int
  repeats: bool = False


def split_size(config: Synthetic360Config, split: str) -> int:
  """Number of scenes of a split, at least 4."""
  return max(4, round(config.train_scenes * SPLITS[split][1]))


class Builder(tfds.core.GeneratorBasedBuilder):
  """Panoramas of a room or a landscape with 4 to 40 objects ranked by a stated rule."""

  VERSION = tfds.core.Version("1.1.0")
  RELEASE_NOTES = {
    "1.1.0": "Masks are stored without zlib: ArrayRecord compresses them itself, and reads faster.",
    "1.0.0": "First release.",
  }
  BUILDER_CONFIGS = [
    Synthetic360Config(
      name="64x128", height=64, train_scenes=4000, description="Small enough for two CPU cores."
    ),
    Synthetic360Config(name="128x256", height=128, train_scenes=5000, description="The full set."),
    Synthetic360Config(
      name="64x128_repeats",
      height=64,
      train_scenes=4000,
      repeats=True,
      description="The scenes of 64x128; an object is worth less with each pick of its class.",
    ),
    Synthetic360Config(
      name="128x256_repeats",
      height=128,
      train_scenes=5000,
      repeats=True,
      description="The scenes of 128x256; an object is worth less with each pick of its class.",
    ),
    Synthetic360Config(
      name="tests", height=32, train_scenes=12, description="A handful of scenes, for tests."
    ),
    Synthetic360Config(
      name="tests_repeats",
      height=32,
      train_scenes=12,
      repeats=True,
      description="The scenes of tests; an object is worth less with each pick of its class.",
    ),
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    height = self.builder_config.height
    per_object = functools.partial(tfds.features.Tensor, shape=(None,))
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(height, 2 * height, 3), encoding_format="png"),
          "image_id": tfds.features.Text(),
          "height": np.int32,
          "width": np.int32,
          "masks": tfds.features.Tensor(
            shape=(None, height, 2 * height // 8), dtype=np.uint8, encoding="bytes"
          ),
          "id": per_object(dtype=np.int32),
          "importance": per_object(dtype=np.float32),
          "true_importance": per_object(dtype=np.float32),
          "rank": per_object(dtype=np.int32),
          "category": per_object(dtype=np.int32),
          "occlusion": per_object(dtype=np.float32),
          "solid_angle_sr": per_object(dtype=np.float32),
          "bfov_deg": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
        }
      ),
      supervised_keys=None,
      metadata=tfds.core.MetadataDict(category_names=list(CLASS_NAMES)),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing to download
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split):
    number = SPLITS[split][0]
    render = functools.partial(
      render_example,
      height=self.builder_config.height,
      split_number=number,
      unseen=split == "test",
      repeats=self.builder_config.repeats,
    )
    count = split_size(self.builder_config, split)
    largest = self.info.metadata.setdefault("max_objects", {})
    for index, example in enumerate(_render_all(render, count)):
      largest[split] = max(largest.get(split, 0), len(example["masks"]))
      yield f"{split}_{index:06d}", example | {"image_id": f"{split}_{index:06d}"}


def _render_all(render: Callable[[int], dict], count: int) -> Iterator[dict]:
  """The examples in their order; where they are many, by processes on all processors."""
  if count < MIN_SCENES_FOR_PROCESSES:
    yield from map(render, range(count))
    return
  workers = min(len(os.sched_getaffinity(0)), count)
  # "spawn": a forked child would inherit the parent's threads in an unknown state.
  with concurrent.futures.ProcessPoolExecutor(
    workers, mp_context=multiprocessing.get_context("spawn")
  ) as pool:
    yield from pool.map(render, range(count), chunksize=8)


def render_example(
  index: int, *, height: int, split_number: int, unseen: bool, repeats: bool = False
) -> dict:
  """One example as the builder writes it; depends on nothing but its arguments.

  A scene with fewer than four visible objects is drawn again. With `repeats` nothing but
  importance, true importance and rank differs.
  """
  for attempt in range(100):
    rng = np.random.default_rng([SEED, split_number, index, attempt])
    scene = render_scene(rng, height, unseen=unseen)
    if len(scene.masks) >= 4:
      break
  clean, noisy = annotate(scene_features(scene), rng, commonness=not repeats)
  if repeats:  # annotators go by their own picks
    clean, noisy = (pick_in_turn(values, scene.category)[0] for values in (clean, noisy))
  order = rng.permutation(len(clean))  # ids must not tell what was painted first
  masks, noisy = scene.masks[order], noisy[order]
  _, encoded = cv2.imencode(".png", scene.image[..., ::-1])
  return {
    "image": encoded.tobytes(),
    "height": height,
    "width": 2 * height,
    "masks": np.packbits(masks, axis=-1),
    "id": np.arange(1, len(order) + 1, dtype=np.int32),
    "importance": noisy.astype(np.float32),
    "true_importance": clean[order].astype(np.float32),
    "rank": ranks_from_relevance(noisy).astype(np.int32),
    "category": scene.category[order].astype(np.int32),
    "occlusion": scene.occlusion[order].astype(np.float32),
    "solid_angle_sr": np.array([solid_angle(mask) for mask in masks], np.float32),
    "bfov_deg": np.array([bounding_fov_deg(mask) for mask in masks], np.float32),
  }
