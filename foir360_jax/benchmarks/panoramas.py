"""Writes the data set that `input_pipeline` reads: panoramas of random textures.

As ArrayRecord through TFDS, with the features of synthetic360: noise at seven scales with discs, as
JPEG (quality 92) or PNG, and masks bit-packed, as zlib or as plain bytes, which ArrayRecord itself
compresses. Axes: `image` [H, W, 3], `masks` [N, H, W // 8], W = 2 H.
"""

import itertools
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from foir360_jax.scenes import pack_masks
from foir360_jax.sphere import pixel_directions

_NUM_PICTURES = 16  # that differ; a longer data set repeats them


class Storage(NamedTuple):
  """How a data set keeps its images ("jpeg", "png") and its masks ("zlib", "bytes")."""

  images: str
  masks: str


ALL_STORAGES = tuple(
  itertools.starmap(Storage, itertools.product(("jpeg", "png"), ("zlib", "bytes")))
)


class Panoramas(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """The data set: random textures and discs that mean nothing, of the size of real ones."""

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self, storage: Storage, *, height: int, num_objects: int, num_examples: int, data_dir: str
  ):
    self.name = "_".join(storage)
    self.storage, self.data_root = storage, data_dir
    self._height, self._num_objects, self._num_examples = height, num_objects, num_examples
    super().__init__(data_dir=data_dir, file_format="array_record")

  def _info(self) -> tfds.core.DatasetInfo:
    height = self._height
    masks = (None, height, 2 * height // 8)
    per_object = tfds.features.Tensor(shape=(None,), dtype=np.float32)
    features = {
      "image": tfds.features.Image(
        shape=(height, 2 * height, 3), encoding_format=self.storage.images
      ),
      "masks": tfds.features.Tensor(shape=masks, dtype=np.uint8, encoding=self.storage.masks),
      "importance": per_object,
      "true_importance": per_object,
      "category": tfds.features.Tensor(shape=(None,), dtype=np.int32),
      "bfov_deg": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing to download
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if self.storage.images == "jpeg" else []
    examples = []
    for seed in range(min(_NUM_PICTURES, self._num_examples)):
      rng = np.random.default_rng(seed)
      image, masks = random_panorama(rng, self._height, self._num_objects)
      _, encoded = cv2.imencode(f".{self.storage.images}", image, options)
      importance = rng.random(self._num_objects, np.float32)
      examples.append(
        {
          "image": encoded.tobytes(),
          "masks": pack_masks(masks),
          "importance": importance,
          "true_importance": importance,
          "category": rng.integers(0, 12, self._num_objects, np.int32),
          "bfov_deg": rng.random((self._num_objects, 4), np.float32),
        }
      )
    yield from enumerate(itertools.islice(itertools.cycle(examples), self._num_examples))


def random_panorama(
  rng: np.random.Generator, height: int, num_objects: int
) -> tuple[np.ndarray, np.ndarray]:
  """An image [H, 2 H, 3] uint8 of noise at seven scales, and discs [N, H, 2 H] bool painted on."""
  image = np.full((height, 2 * height, 3), 128, np.float32)
  for octave in range(1, 8):
    noise = rng.normal(0, 40 / octave, (2**octave, 2 ** (octave + 1), 3)).astype(np.float32)
    image += cv2.resize(noise, (2 * height, height), interpolation=cv2.INTER_CUBIC)
  image += rng.normal(0, 2, image.shape)  # a sensor's
  centres = rng.normal(size=(num_objects, 3)).astype(np.float32)
  centres /= np.linalg.norm(centres, axis=1, keepdims=True)
  cosines = np.cos(np.deg2rad(rng.uniform(2, 15, num_objects)))
  masks = np.empty((num_objects, height, 2 * height), bool)
  for mask, centre, cosine in zip(masks, centres, cosines, strict=True):
    mask[...] = pixel_directions(height) @ centre > cosine
    image[mask] = image[mask] / 2 + rng.uniform(0, 128, 3)
  return np.clip(image, 0, 255).astype(np.uint8), masks
