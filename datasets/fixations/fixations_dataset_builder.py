"""TFDS builder of fixations: reads a public data set from disk, checks it all, then writes it."""

import dataclasses
import functools
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from fixations import json_layout, repository_layout
from fixations.json_layout import JsonLayout
from fixations.record import COLUMNS, Record, check_record
from fixations.repository_layout import RepositoryLayout
from fixations.split_list import SPLITS, read_split_list, split_of_picture
from foir360_jax.files.picture_file import PictureError

INTEGERS = ("subject", "order")


@dataclasses.dataclass(kw_only=True)
class FixationsConfig(tfds.core.BuilderConfig):
  """One of the data sets.

  Attributes:
    with_boxes: whether pictures have boxes.
  """

  with_boxes: bool


class Builder(tfds.core.GeneratorBasedBuilder):
  """Pictures, who looked where for how long, and boxes ranked by that.

  Args:
    skip_bad: leave broken records out, with a warning, in place of stopping at them.
    **kwargs: as of any TFDS builder.
  """

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "First release."}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "Clone https://github.com/NUS-VIP/saliency-in-crowd (crowd) or "
    "https://github.com/NUS-VIP/predicting-human-gaze-beyond-pixels (osie) and give that folder; "
    "a folder of ID.jpg and ann.json does as well."
  )
  BUILDER_CONFIGS = [
    FixationsConfig(
      name="crowd",
      with_boxes=True,
      description="Crowds: 500 pictures, 16 viewers, faces ranked by their gaze.",
    ),
    FixationsConfig(
      name="osie",
      with_boxes=False,
      description="Objects and people of all kinds: 700 pictures, 15 viewers, no boxes.",
    ),
  ]

  def __init__(self, *, skip_bad: bool = False, **kwargs):
    super().__init__(**kwargs)
    self._skip_bad = skip_bad

  def _info(self) -> tfds.core.DatasetInfo:
    per_item = functools.partial(tfds.features.Tensor, shape=(None,))
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
          "image_id": tfds.features.Text(),
          "height": np.int32,
          "width": np.int32,
          "fixations": {
            name: per_item(dtype=np.int32 if name in INTEGERS else np.float32) for name in COLUMNS
          },
          "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
          "box_rank": per_item(dtype=np.int32),
          "box_viewers": per_item(dtype=np.int32),
          "box_duration_ms": per_item(dtype=np.float32),
        }
      ),
      supervised_keys=None,
      homepage="https://github.com/NUS-VIP",
    )

  def _split_generators(self, dl_manager):
    config = self.builder_config
    folder = pathlib.Path(dl_manager.manual_dir)
    examples, problems = read_examples(folder, with_boxes=config.with_boxes)
    if problems:
      summary = f"{len(problems)} of {len(examples) + len(problems)} pictures"
      lines = "\n  ".join(problems)
      if not self._skip_bad or not examples:
        raise ValueError(
          f"{summary} cannot be used; correct them, or leave them out by --skip_bad:\n  {lines}"
        )
      logging.warning("%s are left out:\n  %s", summary, lines)
    listed = read_split_list(config.name)
    splits = {split: {} for split in SPLITS}
    for image_id, example in examples.items():
      split = listed.get(image_id) or split_of_picture(config.name, image_id)
      splits[split][image_id] = example
    # TFDS takes no empty split; a folder with a few pictures may have some.
    return {split: self._generate_examples(part) for split, part in splits.items() if part}

  def _generate_examples(self, examples):
    for image_id, (record, (height, width)) in examples.items():
      yield image_id, encode(image_id, record, height, width)


def open_layout(folder: pathlib.Path, *, with_boxes: bool) -> JsonLayout | RepositoryLayout:
  """Returns the reader of the layout that a folder has.

  Raises:
    ValueError: the folder has neither layout, or the layout's files cannot be read.
  """
  for layout, file in (
    (RepositoryLayout, repository_layout.FIXATIONS),
    (JsonLayout, json_layout.FILE),
  ):
    if (folder / file).is_file():
      return layout(folder, with_boxes=with_boxes)
  raise ValueError(
    f"{folder}: holds neither {repository_layout.FIXATIONS} nor {json_layout.FILE}; "
    f"{Builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
  )


def read_examples(
  folder: pathlib.Path, *, with_boxes: bool
) -> tuple[dict[str, tuple[Record, tuple[int, int]]], list[str]]:
  """Reads and checks a whole folder.

  Returns:
    examples: {image id: (record, (height, width))}.
    problems: one line for each broken record, with its file and the reasons.

  Raises:
    ValueError: as `open_layout`.
  """
  layout = open_layout(folder, with_boxes=with_boxes)
  examples, problems = {}, []
  for image_id, picture in layout.pictures.items():
    try:
      record = layout.read(image_id)
      examples[image_id] = record, check_record(record)
    except PictureError as error:  # its message begins with the file
      problems.append(str(error))
    except ValueError as error:
      problems.append(f"{picture}: {error}")
  return examples, problems


def encode(image_id: str, record: Record, height: int, width: int) -> dict:
  """One example as the builder writes it; the picture's bytes are those of its file."""
  fixations = dict(zip(COLUMNS, record.fixations.T, strict=True))
  return {
    "image": record.picture.read_bytes(),
    "image_id": image_id,
    "height": height,
    "width": width,
    "fixations": {
      name: values.astype(np.int32 if name in INTEGERS else np.float32)
      for name, values in fixations.items()
    },
    "boxes": record.boxes.edges.astype(np.float32),
    "box_rank": record.boxes.rank.astype(np.int32),
    "box_viewers": record.boxes.viewers.astype(np.int32),
    "box_duration_ms": record.boxes.duration_ms.astype(np.float32),
  }
