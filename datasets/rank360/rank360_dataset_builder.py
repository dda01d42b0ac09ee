"""TFDS builder of rank360: reads a folder in any of the field's formats, checks it, then writes it.

No TensorFlow is needed to write or to read it.
"""

import functools
import pathlib
import zlib

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from foir360_jax.files.json_file import read_json
from foir360_jax.files.panorama_file import encode_panorama
from foir360_jax.scenes import FORMATS
from rank360.checks import ERROR, NOTE
from rank360.columns import decode
from rank360.review import Record, review_folder

# Beside ranks that a command made: how. The second is what weak labels wrote up to version 0.1.
RANK_SETTINGS = ("settings.json", "weak_labels.json")


class PackedMasks(tfds.features.Tensor):
  """Bit-packed masks of any number and size, which readers know as an ordinary tensor.

  TFDS (4.9) writes a picture without objects as no bytes, and then fails to read its shape; zlib's
  output is never empty. Its fastest level costs next to nothing in reading: records are smaller.
  """

  def __init__(self):
    super().__init__(shape=(None, None, None), dtype=np.uint8, encoding="zlib")

  def encode_example(self, example_data: np.ndarray) -> dict:
    """Encodes masks [N, H, ceil(W / 8)] uint8."""
    return {"value": zlib.compress(example_data.tobytes(), 1), "shape": example_data.shape}

  @property
  def _fully_qualified_class_name(self) -> str:
    """What is stored as its class, so that reading needs none of this code."""
    return f"{tfds.features.Tensor.__module__}.{tfds.features.Tensor.__name__}"


class Builder(tfds.core.GeneratorBasedBuilder):
  """Panoramas with the mask, the importance and the rank of every object.

  Args:
    format: name of the folder's format; None: recognised.
    rank_field: of COCO, the field that orders the objects, lower = more important, "-NAME" if
      higher is; None: rank or importance.
    split_dir: folder with train.txt, test.txt ...; None: the folder's own lists, or a hash.
    join_seam: make one object of two that are torn at the seam.
    skip_bad: leave bad records out, with a warning, in place of stopping at them.
    ranks_dir: folder with ranks/ID.json, as weak labels are written, in place of the folder's own.
    **kwargs: as of any TFDS builder.
  """

  VERSION = tfds.core.Version("2.0.0")
  RELEASE_NOTES = {
    "1.0.0": "First release.",
    "1.1.0": "Confidence of each object; its ranks may come from another folder.",
    "2.0.0": (
      "The split of an id depends on the id alone, so a few ids change between train and test;"
      " pictures without objects can be read; the largest number of objects is in the metadata;"
      " the confidence of each object is called agreement."
    ),
  }
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "360Rank (500 panoramas; Fine-Grained Perception in Panoramic Scenes, AAAI 2025) is handed out "
    "by its authors; unpack it and give the folder in which pictures and annotations lie. Taken "
    "are " + "; ".join(f"{name}: {layout}" for name, layout in FORMATS.items()) + "."
  )
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name="human", description="Ranks given by people."),
    tfds.core.BuilderConfig(name="weak", description="Ranks made without annotators."),
  ]

  def __init__(
    self,
    *,
    format: str | None = None,
    rank_field: str | None = None,
    split_dir: str | None = None,
    join_seam: bool = False,
    skip_bad: bool = False,
    ranks_dir: str | None = None,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self._review = functools.partial(
      review_folder,
      format=format,
      rank_field=rank_field,
      split_dir=split_dir,
      join_seam=join_seam,
      ranks_dir=ranks_dir,
    )
    self._skip_bad = skip_bad
    self._ranks_dir = ranks_dir and pathlib.Path(ranks_dir)

  def _info(self) -> tfds.core.DatasetInfo:
    per_object = functools.partial(tfds.features.Tensor, shape=(None,))
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(None, None, 3)),  # see `encode_panorama`
          "image_id": tfds.features.Text(),
          "height": np.int32,
          "width": np.int32,
          "masks": PackedMasks(),
          "id": per_object(dtype=np.int64),
          "importance": per_object(dtype=np.float32),
          "rank": per_object(dtype=np.int32),
          "agreement": per_object(dtype=np.float32),  # 1 where the ranks do not tell
          "category": per_object(dtype=np.int32),
          "solid_angle_sr": per_object(dtype=np.float32),
          "bfov_deg": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
          "source": tfds.features.Sequence(tfds.features.Text()),
        }
      ),
      supervised_keys=None,
      metadata=tfds.core.MetadataDict(category_names=[]),
    )

  def _split_generators(self, dl_manager):
    weak_settings = self._weak_settings()
    review = self._review(dl_manager.manual_dir)
    good, bad = review.good, review.bad
    if bad:
      summary = f"{len(bad)} of {len(review.records)} records cannot be used"
      lines = "".join(f"\n  {finding.text}" for finding in review.findings(ERROR))
      if not self._skip_bad or not good:
        raise ValueError(f"{summary}; correct them, or leave them out by --skip_bad:{lines}")
      logging.warning("%s and are left out:%s", summary, lines)
    for note in review.notes:
      logging.warning("%s", note)
    notes = len(list(review.findings(NOTE)))
    if notes:
      logging.warning("%d notes on things to look at; --check lists them", notes)
    names = sorted({item.category for record in good for item in record.scene.objects} - {""})
    self.info.metadata.update(
      category_names=names,
      format=review.format,
      split_rule=review.split_rule,
      left_out=[record.id for record in bad],
      weak_settings=weak_settings,
    )
    splits = sorted({record.split for record in good})
    counts = {s: [len(r.scene.objects) for r in good if r.split == s] for s in splits}
    self.info.metadata["max_objects"] = {split: max(counts[split]) for split in splits}
    return {
      split: self._generate_examples([r for r in good if r.split == split], names)
      for split in splits
    }

  def _weak_settings(self) -> dict | None:
    """What weak labels were made with; None where the ranks do not say that they are weak."""
    files = [self._ranks_dir / name for name in RANK_SETTINGS] if self._ranks_dir else []
    file = next((file for file in files if file.is_file()), None)
    if file is None:
      return None
    if self.builder_config.name != "weak":
      raise ValueError(f"{file.parent}: holds ranks of no person; build them as rank360/weak")
    return read_json(file, ValueError)

  def _generate_examples(self, records, category_names):
    for record in records:
      yield record.id, encode(record, category_names, self.builder_config.name)


def encode(record: Record, category_names: list[str], source: str) -> dict:
  """One example as the builder writes it; the picture's bytes are those of its file, if they may.

  Objects come by their ids, not by rank: so a sort by equal scores is no ranker, and ranks from
  another source leave everything else as it is.
  """
  scene = record.scene
  order = sorted(range(len(scene.objects)), key=lambda index: scene.objects[index].id)
  items = [scene.objects[index] for index in order]
  number_of = {name: number for number, name in enumerate(category_names)} | {"": -1}
  agreement = np.ones(len(items), np.float32)
  if scene.format == "scenes":  # elsewhere a field of this name may mean anything
    agreement[:] = [item.extra.get("agreement", 1.0) for item in items]
  masks = np.zeros([len(items), scene.height, -(-scene.width // 8)], np.uint8)
  for index, item in enumerate(items):
    masks[index] = np.packbits(decode(item.run_lengths), axis=-1)
  return {
    "image": encode_panorama(scene.image_file),
    "image_id": record.id,
    "height": scene.height,
    "width": scene.width,
    "masks": masks,
    "id": np.array([item.id for item in items], np.int64),
    "importance": np.array([item.importance for item in items], np.float32),
    "rank": np.array([item.rank for item in items], np.int32),
    "agreement": agreement,
    "category": np.array([number_of[item.category] for item in items], np.int32),
    "solid_angle_sr": record.area_sr[order],
    "bfov_deg": record.bfov_deg[order],
    "source": [source] * len(items),
  }
