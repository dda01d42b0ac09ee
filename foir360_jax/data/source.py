"""Opens a data set that `foir360 prepare` wrote: random access to its examples, no TensorFlow.

The first step of the input pipeline: source -> transforms -> augment -> loader. What lies on disk
is the contract with the write side; no builder code is needed to read it.

An example is a dict of NumPy values (N objects, H rows, W columns):

- `image` [H, W, 3] uint8, RGB; `image_id` str; `height`, `width` int
- `masks` [N, H, ceil(W / 8)] uint8: one bit a pixel, `np.packbits(mask, axis=-1)`
- `importance` [N] float32 in [0, 1] and `rank` [N] int32, 1 = most important
- what else the data set has for its objects: `id`, `category`, `true_importance`, `bfov_deg`...
"""

import functools
import operator
import re
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds


class PreparedSource:
  """One split of a prepared data set; `source[index]` is an example, see the module's legend.

  Attributes:
    name: the TFDS name, with the builder config: "synthetic360/64x128".
    split: the split as it was asked for: "train[:50%]".
    features: names of the fields that every example has.
    category_names: what the values of `category` stand for; empty where the data set does not say.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, name: str, split: str):
    self.name = name
    self.split = split
    self.features = frozenset(builder.info.features)
    self.category_names = _category_names(builder.info)
    self._builder = builder
    self._examples = builder.as_data_source(split)

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = operator.index(index)
    if not -len(self) <= index < len(self):
      raise IndexError(f"{self.name} {self.split} has {len(self)} examples, no example {index}")
    example = self._examples[index % len(self)]
    for key, value in example.items():
      if isinstance(value, bytes):
        example[key] = value.decode()
      elif isinstance(value, list):  # a Sequence feature, as that of class labels
        example[key] = np.array(value, np.int32 if key == "category" else None)
    return example

  @functools.cached_property
  def object_counts(self) -> np.ndarray:
    """The number of objects of each example, [len(self)] int; reads the split once, undecoded."""
    return np.array([len(example["importance"]) for example in self._undecoded()], np.int64)

  @functools.cached_property
  def most_objects(self) -> int:
    """A number of objects that no example exceeds: the largest one of the splits it is taken from.

    The builders keep it in the metadata; where one did not, the split is read once.
    """
    known = (self._builder.info.metadata or {}).get("max_objects") or {}
    splits = re.findall(r"(?:^|\+)\s*([\w-]+)", self.split)
    if all(split in known for split in splits):
      return max(int(known[split]) for split in splits)
    return int(self.object_counts.max())

  @functools.cached_property
  def num_categories(self) -> int:
    """Number of categories; without names that of the numbers up to the largest one in use.

    (For which the split is read once, undecoded.)
    """
    if self.category_names or "category" not in self.features:
      return len(self.category_names)
    largest = (np.max(example["category"], initial=-1) for example in self._undecoded())
    return int(max(largest)) + 1

  def _undecoded(self) -> Iterable[dict[str, Any]]:
    skipped = {key: tfds.decode.SkipDecoding() for key in self.features & {"image", "masks"}}
    return self._builder.as_data_source(self.split, decoders=skipped)


def open_source(name: str, data_dir: str, split: str) -> PreparedSource:
  """Opens the newest version of a prepared data set.

  Args:
    name: TFDS name and, for builders that have one, the config: "synthetic360/64x128".
    data_dir: the folder that was given to `foir360 prepare`.
    split: a split or a part of one, in the notation of TFDS: "train", "test[:50%]", "train[100:]".

  Returns:
    The examples, as a sequence.

  Raises:
    ValueError: the data set is missing or half-written, or the split is unknown or empty.
  """
  parent = tfds.core.Path(data_dir).expanduser() / name
  cure = (
    f"write it with: foir360 prepare --dataset={name} --data_dir={data_dir}"
    " (and --manual_dir=FOLDER, if it is made from files of yours)"
  )
  folder = _newest_version(parent)
  if folder is None:
    raise ValueError(f"no prepared data set in {parent}{_what_is_there(parent)}; {cure}")
  try:
    builder = tfds.builder_from_directory(folder)
    splits = builder.info.splits
  except Exception as error:  # TFDS raises several of its own for a missing or damaged JSON file
    raise ValueError(f"the data set in {folder} is half-written ({_line(error)}); {cure}") from None
  try:
    num_examples = splits[split].num_examples
  except (KeyError, ValueError):
    raise ValueError(
      f"{folder} has no split {split!r}; it has {', '.join(splits) or 'none'}"
      " (parts of one are written as 'train[:50%]')"
    ) from None
  if num_examples < 1:  # negative where a part ends before it starts
    raise ValueError(f"the split {split!r} of {folder} has no example; ask for a larger part")
  if builder.info.file_format.value != "array_record":
    raise ValueError(
      f"the data set in {folder} is stored as {builder.info.file_format.value}, for tfds.load;"
      f" training needs ArrayRecord in another folder: {cure}"
    )
  source = PreparedSource(builder, name, split)
  try:
    for first in _first_of_each_shard(splits[split].file_instructions):
      source[first]
  except Exception as error:  # array_record reports damage as RuntimeError, TFDS in other ways
    raise ValueError(f"the data set in {folder} is damaged ({_line(error)}); {cure}") from None
  return source


def _newest_version(parent: tfds.core.Path) -> tfds.core.Path | None:
  """The subfolder named by the highest version, as numbers; TFDS names it so once it is whole."""
  names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
  versions = [name for name in names if re.fullmatch(r"\d+\.\d+\.\d+", name)]
  newest = max(versions, key=lambda name: tuple(map(int, name.split("."))), default=None)
  return newest and parent / newest


def _first_of_each_shard(instructions: Sequence[Any]) -> list[int]:
  """Indices of the examples that come first in their files; reading them opens every file."""
  ends = np.cumsum([instruction.take for instruction in instructions])
  return [0, *ends[:-1].tolist()]


def _category_names(info: tfds.core.DatasetInfo) -> tuple[str, ...]:
  """The names of the class labels; else those in the metadata; else none."""
  feature = info.features["category"] if "category" in info.features else None
  feature = getattr(feature, "feature", feature)  # a Sequence holds the label's feature
  names = getattr(feature, "names", None) or (info.metadata or {}).get("category_names")
  return tuple(names or ())


def _what_is_there(parent: tfds.core.Path) -> str:
  """What a folder without a version holds, or the one above it: half-written, other configs."""
  folder = parent if parent.is_dir() else parent.parent
  names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
  unfinished = [name for name in names if folder == parent and name.startswith("incomplete")]
  if unfinished:
    return f" (only the unfinished {unfinished[0]})"
  others = [name for name in names if not name.startswith((".", "incomplete"))]
  return f" (found {', '.join(others[:8])})" if others else ""


def _line(error: Exception) -> str:
  """The first line of an error's message."""
  return (str(error) or type(error).__name__).splitlines()[0]
