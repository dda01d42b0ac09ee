"""Batches for training and evaluation from a prepared data set, read by grain threads.

The last step of the input pipeline; yields the `HostBatch` dicts of `foir360_jax.batch`.

The order of the examples and their seeds are one global stream, of which each process reads every
`process_count`-th element: global batches, and so training, do not depend on the number of
processes, and a saved position is good for another number of them.
"""

from collections.abc import Sequence

import grain
import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from foir360_jax.batch import HostBatch
from foir360_jax.data.augment import Augmentation, augment
from foir360_jax.data.source import PreparedSource, open_source
from foir360_jax.data.transforms import Example, pad_objects, resample, select_objects

EPOCHS = 2**31
"""Without end; grain's own `repeat()` overflows where a batch is one example."""


def build_training_batches(config: ConfigDict) -> grain.DatasetIterator[HostBatch]:
  """Opens `config.data.train_split` and returns this process's part of its endless batches."""
  data = config.data
  return training_batches(
    open_source(data.name, data.data_dir, data.train_split),
    heights=data.train_heights or (data.height,),
    max_objects=data.max_objects,
    batch_size=data.batch_size,
    seed=config.seed,
    augmentation=Augmentation(**data.augment),
    num_threads=data.num_threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def build_evaluation_batches(config: ConfigDict, split: str) -> grain.IterDataset[HostBatch]:
  """Opens `split` ("validation", "test[:50%]") and returns its batches, the same in each process.

  An evaluation is short beside a training: every process makes the whole of it, so its result needs
  no merging.
  """
  return evaluation_batches(
    open_source(config.data.name, config.data.data_dir, split),
    height=config.data.height,
    max_objects=config.data.max_objects,
    batch_size=config.evaluate.batch_size,
    num_threads=config.data.num_threads,
  )


def training_batches(
  source: PreparedSource,
  *,
  heights: Sequence[int],
  max_objects: int,
  batch_size: int,
  seed: int,
  augmentation: Augmentation,
  num_threads: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator[HostBatch]:
  """Yields shuffled, augmented batches without end; each epoch has its own order and seeds.

  The iterator's `get_state()` and `set_state(state)` resume at the exact batch, augmentation
  included. A batch may hold the end of one epoch and the start of the next.

  Args:
    source: the examples.
    heights: rows of the batches' panoramas, one of them for each whole batch, drawn at random; all
      processes draw the same. Panoramas of another height are resampled. A compiled program is good
      for one height, so each new one compiles once.
    max_objects: objects are padded to this number; less important ones beyond it are left out, and
      a warning says how many.
    batch_size: examples of a batch, over all devices of all processes.
    seed: fixes the order, the heights, the augmentation and the `seed` of each example.
    augmentation: what happens to each example.
    num_threads: threads that read and decode; 0 reads in the caller's.
    process_index: which of the processes this is.
    process_count: number of processes that share the batch.

  Returns:
    An iterator over batches of `batch_size // process_count` examples.

  Raises:
    ValueError: `batch_size` is not divisible by `process_count`, `max_objects` < 1, or there is no
      height.
  """
  local_batch_size = _local_batch_size(batch_size, process_count)
  _check_objects(source, max_objects, process_index)
  if not heights:
    raise ValueError("training batches need at least one height; give heights=(512,), say")

  def draw_seed(index: int, rng: np.random.Generator) -> tuple[int, np.uint32]:
    return index, rng.integers(2**32, dtype=np.uint32)

  def draw_height(position: int, drawn: tuple[int, np.uint32]) -> tuple[int, np.uint32, int]:
    batch_rng = np.random.default_rng([seed, position // batch_size])
    return *drawn, heights[int(batch_rng.integers(len(heights)))]

  def read(drawn: tuple[int, np.uint32, int]) -> Example:
    index, example_seed, height = drawn
    example = resample(select_objects(source[index], max_objects), height)
    example = augment(example, np.random.default_rng(example_seed), augmentation)
    return _finish(pad_objects(example, max_objects), index, example_seed)

  stream = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(EPOCHS)
  stream = stream.random_map(draw_seed)
  stream = stream.map_with_index(draw_height)
  batches = stream[process_index::process_count].map(read).batch(local_batch_size)
  return iter(batches.to_iter_dataset(_read_options(num_threads)))


def evaluation_batches(
  source: PreparedSource,
  *,
  height: int,
  max_objects: int,
  batch_size: int,
  num_threads: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.IterDataset[HostBatch]:
  """Yields all examples once, in order, in batches of one size.

  What fills the last batch has `example_where` False, `index` -1, no objects and a black image. An
  example's `seed` is its index. For the arguments see `training_batches`.

  Returns:
    An iterable over batches of `batch_size // process_count` examples; it may be iterated again.
  """
  local_batch_size = _local_batch_size(batch_size, process_count)
  _check_objects(source, max_objects, process_index)

  def read(position: int) -> Example:
    index = min(position, len(source) - 1)
    example = resample(select_objects(source[index], max_objects), height)
    example = _finish(pad_objects(example, max_objects), index, np.uint32(index))
    return example if position == index else _blank(example)

  num_positions = -(-len(source) // batch_size) * batch_size
  positions = grain.MapDataset.range(num_positions)[process_index::process_count]
  batches = positions.map(read).batch(local_batch_size)
  return batches.to_iter_dataset(_read_options(num_threads))


def _finish(example: Example, index: int, seed: np.uint32) -> Example:
  return example | {"example_where": np.bool_(True), "index": np.int32(index), "seed": seed}


def _blank(example: Example) -> Example:
  """A blank example of the same shapes, which fills up the last batch."""
  blank = {key: np.zeros_like(value) for key, value in example.items()}
  return blank | {"category": np.full_like(example["category"], -1), "index": np.int32(-1)}


def _local_batch_size(batch_size: int, process_count: int) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f"batch_size must be a positive multiple of the number of processes ({process_count}), not"
      f" {batch_size}"
    )
  return batch_size // process_count


def _read_options(num_threads: int) -> grain.ReadOptions:
  # Elements are whole batches (a thread stacks what it read): a few ahead are enough, and grain's
  # default of 500 would fill the memory.
  return grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)


def _check_objects(source: PreparedSource, max_objects: int, process_index: int) -> None:
  """Refuses data sets without ranked objects; warns of the objects that do not fit."""
  missing = {"image", "masks", "importance"} - source.features
  if missing:
    raise ValueError(
      f"{source.name} has no ranked objects: it lacks {', '.join(sorted(missing))};"
      " set config.data.name to a data set that has them"
    )
  if max_objects < 1:
    raise ValueError(f"max_objects must be at least 1, not {max_objects}")
  if process_index or source.most_objects <= max_objects:  # one process speaks for all
    return
  counts = source.object_counts
  dropped = np.maximum(counts - max_objects, 0)
  if dropped.any():
    logging.warning(
      "%s %s: %d of %d objects, in %d of %d panoramas, do not fit max_objects=%d; the least"
      " important are left out. Set config.data.max_objects=%d to keep all.",
      source.name,
      source.split,
      dropped.sum(),
      counts.sum(),
      np.count_nonzero(dropped),
      len(counts),
      max_objects,
      counts.max(),
    )
