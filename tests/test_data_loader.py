"""Batches: their legend, their order, exact resumption, several processes, and the last batch."""

import dataclasses
import itertools

import numpy as np
import pytest

from foir360_jax.cli.check import validate
from foir360_jax.config import base_config
from foir360_jax.data import (
  Augmentation,
  augment,
  build_evaluation_batches,
  build_training_batches,
  evaluation_batches,
  loader,
  pad_objects,
  resample,
  select_objects,
  training_batches,
)
from foir360_jax.scenes import pack_masks

ALL_ON = Augmentation(
  yaw=True,
  mirror=True,
  permute_colours=True,
  rotation_deg=20.0,
  brightness=0.1,
  contrast=0.2,
  saturation=0.3,
  hue_deg=20.0,
)
SHAPES = {"height": 16, "max_objects": 6, "num_threads": 2}


class RandomScenes(list):
  """What the loader needs of a `PreparedSource`, in memory."""

  name, split = "scenes/even", "train"
  features = frozenset({"image", "masks", "importance", "category"})

  def __init__(self, num_examples, *, num_objects=None, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 7, num_examples) if num_objects is None else num_objects
    super().__init__(self._scene(rng, count) for count in counts)
    self.object_counts = np.array(counts)
    self.most_objects = max(counts)

  @staticmethod
  def _scene(rng, num_objects):
    return {
      "image": rng.integers(0, 256, (16, 32, 3), np.uint8),
      "masks": pack_masks(rng.random((num_objects, 16, 32)) < 0.3),
      "importance": rng.random(num_objects).astype(np.float32),
      "true_importance": rng.random(num_objects).astype(np.float32),
      "category": rng.integers(0, 5, num_objects).astype(np.int32),
    }


@pytest.fixture
def warnings_seen(monkeypatch):
  seen = []
  monkeypatch.setattr(loader.logging, "warning", lambda text, *args: seen.append(text % args))
  return seen


def take(batches, count):
  return list(itertools.islice(batches, count))


def assert_same_batches(found, expected):
  assert len(found) == len(expected)
  for one, other in zip(found, expected, strict=True):
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def train(source, *, batch_size=4, seed=1, **changes):
  options = dict(batch_size=batch_size, seed=seed, augmentation=ALL_ON) | SHAPES | changes
  return training_batches(
    source, heights=options.pop("heights", (options.pop("height"),)), **options
  )


def test_batches_have_the_shapes_and_types_of_the_legend():
  expected = {
    "image": ((4, 16, 32, 3), np.uint8),
    "masks": ((4, 6, 16, 4), np.uint8),
    "where": ((4, 6), np.bool_),
    "relevance": ((4, 6), np.float32),
    "category": ((4, 6), np.int32),
    "true_importance": ((4, 6), np.float32),
    "example_where": ((4,), np.bool_),
    "index": ((4,), np.int32),
    "seed": ((4,), np.uint32),
  }
  source = RandomScenes(6)
  for batches in (train(source), evaluation_batches(source, batch_size=4, **SHAPES)):
    for batch in take(batches, 2):
      found = {key: (value.shape, value.dtype) for key, value in batch.items()}
      assert found == {key: (shape, np.dtype(dtype)) for key, (shape, dtype) in expected.items()}


def test_each_training_example_is_the_augmentation_that_its_seed_says():
  source = RandomScenes(7)
  for batch in take(train(source), 5):
    for row, (index, seed) in enumerate(zip(batch["index"], batch["seed"], strict=True)):
      example = select_objects(source[index], 6)
      example = pad_objects(augment(example, np.random.default_rng(seed), ALL_ON), 6)
      for key, value in example.items():
        np.testing.assert_array_equal(batch[key][row], value, err_msg=key)


def heights_of(batches):
  return [batch["image"].shape[1] for batch in batches]


def test_every_batch_has_one_of_the_heights_and_each_of_them_occurs():
  batches = take(train(RandomScenes(10), heights=(8, 16, 24)), 30)
  assert {height: heights_of(batches).count(height) > 3 for height in set(heights_of(batches))} == {
    8: True,
    16: True,
    24: True,
  }
  for batch in batches:
    height = batch["image"].shape[1]
    assert batch["image"].shape == (4, height, 2 * height, 3)
    assert batch["masks"].shape == (4, 6, height, height // 4)
  again = take(train(RandomScenes(10), heights=(8, 16, 24)), 30)
  assert_same_batches(again, batches)
  other_seed = take(train(RandomScenes(10), heights=(8, 16, 24), seed=2), 30)
  assert heights_of(other_seed) != heights_of(batches)


def test_all_processes_draw_the_same_heights_and_a_restored_one_goes_on_with_them():
  source, options = RandomScenes(9), {"batch_size": 6, "heights": (8, 16)}
  alone = heights_of(take(train(source, **options), 12))
  for index in range(3):
    batches = train(source, process_index=index, process_count=3, **options)
    assert heights_of(take(batches, 5)) == alone[:5]
    restored = train(source, process_index=index, process_count=3, **options)
    restored.set_state(batches.get_state())
    assert heights_of(take(restored, 7)) == alone[5:]


def test_heights_leave_order_and_seeds_alone():
  several = take(train(RandomScenes(9), heights=(8, 16)), 6)
  for batch, expected in zip(several, take(train(RandomScenes(9)), 6), strict=True):
    for key in ("index", "seed", "relevance"):
      np.testing.assert_array_equal(batch[key], expected[key])


def test_labels_that_a_turn_would_make_wrong_do_not_reach_the_batch():
  source = RandomScenes(4, num_objects=[2, 2, 2, 2])
  for example in source:
    example |= {"bfov_deg": np.zeros((2, 4), np.float32), "bbox_px": np.zeros((2, 4), np.int32)}
  kept = {"image", "masks", "where", "relevance", "category", "true_importance"}
  assert next(train(source)).keys() == kept | {"example_where", "index", "seed"}


def test_no_height_is_refused():
  with pytest.raises(ValueError, match="at least one height"):
    train(RandomScenes(4), heights=())


def test_an_epoch_has_every_example_once_and_the_next_one_another_order_and_seeds():
  batches = take(train(RandomScenes(12)), 9)
  index = np.concatenate([batch["index"] for batch in batches]).reshape(3, 12)
  seeds = np.concatenate([batch["seed"] for batch in batches])
  np.testing.assert_array_equal(np.sort(index, axis=1), np.tile(np.arange(12), (3, 1)))
  assert len({tuple(epoch) for epoch in index}) == 3
  assert len(set(seeds.tolist())) == 36
  assert all(batch["example_where"].all() for batch in batches)


def test_batches_of_one_are_those_of_more_apart():
  source = RandomScenes(3)
  singles = take(train(source, batch_size=1), 6)
  joined = [
    {key: np.concatenate([one[key], other[key]]) for key in one}
    for one, other in zip(singles[::2], singles[1::2], strict=True)
  ]
  assert_same_batches(joined, take(train(source, batch_size=2), 3))


def test_a_data_set_smaller_than_the_batch_is_repeated():
  batch = next(train(RandomScenes(3), batch_size=8))
  assert np.bincount(batch["index"]).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_the_seed_fixes_the_batches_and_another_seed_changes_them():
  source = RandomScenes(12)
  first = take(train(source), 3)
  assert_same_batches(take(train(source), 3), first)
  assert any(first[0]["index"] != next(train(source, seed=2))["index"])


@pytest.mark.parametrize("num_threads", [0, 3])
def test_the_number_of_threads_changes_nothing(num_threads):
  source = RandomScenes(12)
  assert_same_batches(take(train(source, num_threads=num_threads), 4), take(train(source), 4))


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_restored_iterator_goes_on_at_the_exact_batch_with_its_augmentation(steps, num_threads):
  source = RandomScenes(10)
  batches = train(source, num_threads=num_threads)
  take(batches, steps)
  state = batches.get_state()
  expected = take(batches, 6)  # passes the end of an epoch in the middle of a batch
  restored = train(source, num_threads=num_threads)
  restored.set_state(state)
  assert_same_batches(take(restored, 6), expected)
  batches.set_state(state)  # also back on the iterator that went ahead
  assert_same_batches(take(batches, 6), expected)


def sorted_rows(batches):
  """The union of several processes' parts of one batch, ordered by seed."""
  merged = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
  order = np.lexsort((merged["index"], merged["seed"]))
  return {key: value[order] for key, value in merged.items()}


@pytest.mark.parametrize("num_examples", [9, 12])
def test_processes_together_read_the_batches_that_one_would(num_examples):
  source = RandomScenes(num_examples)
  parts = [
    take(train(source, batch_size=6, process_index=index, process_count=3), 5) for index in range(3)
  ]
  assert parts[0][0]["image"].shape[0] == 2
  together = [sorted_rows(batches) for batches in zip(*parts, strict=True)]
  alone = [sorted_rows([batch]) for batch in take(train(source, batch_size=6), 5)]
  assert_same_batches(together, alone)


def test_a_position_saved_by_two_processes_is_good_for_one():
  source = RandomScenes(10)
  two = train(source, process_count=2)
  take(two, 3)
  one = train(source)
  one.set_state(two.get_state())
  assert_same_batches(take(one, 2), take(train(source), 5)[3:])


@pytest.mark.parametrize("num_examples", [1, 4, 8, 10])
def test_evaluation_has_every_example_once_in_order_and_fills_the_last_batch(num_examples):
  source = RandomScenes(num_examples)
  batches = evaluation_batches(source, batch_size=4, **SHAPES)
  found = list(batches)
  assert len(found) == -(-num_examples // 4)
  merged = {key: np.concatenate([batch[key] for batch in found]) for key in found[0]}
  np.testing.assert_array_equal(merged["example_where"], np.arange(len(found) * 4) < num_examples)
  np.testing.assert_array_equal(merged["index"][:num_examples], np.arange(num_examples))
  for index, example in enumerate(source):
    for key, value in pad_objects(select_objects(example, 6), 6).items():
      np.testing.assert_array_equal(merged[key][index], value, err_msg=key)
  fill = {key: value[num_examples:] for key, value in merged.items()}
  assert (fill.pop("category") == -1).all() and (fill.pop("index") == -1).all()
  assert not any(value.any() for value in fill.values())
  assert_same_batches(list(batches), found)


@pytest.mark.parametrize("num_examples", [1, 5, 8])
def test_every_process_evaluates_the_same_number_of_batches(num_examples):
  source = RandomScenes(num_examples)
  parts = [
    list(evaluation_batches(source, batch_size=4, process_index=i, process_count=2, **SHAPES))
    for i in range(2)
  ]
  together = [sorted_rows(batches) for batches in zip(*parts, strict=True)]
  alone = [sorted_rows([one]) for one in evaluation_batches(source, batch_size=4, **SHAPES)]
  assert_same_batches(together, alone)


def test_examples_without_objects_become_padding():
  source = RandomScenes(4, num_objects=[0, 3, 0, 1])
  (batch,) = evaluation_batches(source, batch_size=4, **SHAPES)
  np.testing.assert_array_equal(batch["where"].sum(1), [0, 3, 0, 1])
  assert batch["example_where"].all()
  assert not batch["masks"][[0, 2]].any()
  np.testing.assert_array_equal(next(train(source))["where"].sum(), 4)


def test_panoramas_of_another_size_are_resampled():
  source = RandomScenes(4)
  (batch,) = evaluation_batches(source, batch_size=4, **(SHAPES | {"height": 8}))
  expected = resample(select_objects(source[2], 6), 8)
  np.testing.assert_array_equal(batch["image"][2], expected["image"])
  np.testing.assert_array_equal(batch["masks"][2, : len(expected["masks"])], expected["masks"])


def test_objects_that_do_not_fit_are_counted_in_one_warning(warnings_seen):
  source = RandomScenes(4, num_objects=[2, 5, 0, 9])
  batch = next(train(source, max_objects=3))
  assert batch["where"].sum() == 2 + 3 + 3
  (warning,) = warnings_seen
  assert "scenes/even train: 8 of 16 objects, in 2 of 4 panoramas" in warning
  assert "config.data.max_objects=9 to keep all" in warning and "\n" not in warning


def test_nothing_is_warned_of_when_all_objects_fit_or_by_a_second_process(warnings_seen):
  source = RandomScenes(4, num_objects=[2, 5, 0, 6])
  train(source)
  train(source, max_objects=3, process_index=1, process_count=2)
  assert not warnings_seen


def test_a_batch_that_the_processes_cannot_share_is_refused():
  with pytest.raises(ValueError, match=r"processes \(3\), not 4"):
    train(RandomScenes(4), process_count=3)
  with pytest.raises(ValueError, match="not 0"):
    evaluation_batches(RandomScenes(4), batch_size=0, **SHAPES)


def test_a_data_set_without_ranked_objects_is_refused():
  source = RandomScenes(4)
  source.features = frozenset({"image", "fixations"})
  with pytest.raises(ValueError, match="it lacks importance, masks"):
    train(source)


def test_no_room_for_objects_is_refused():
  with pytest.raises(ValueError, match="max_objects must be at least 1"):
    train(RandomScenes(4), max_objects=0)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"train_heights": (64, 40)}, "config.data.train_heights must be divisible by 16 .*not 40"),
    ({"augment": {"rotation_deg": 181.0}}, "config.data.augment.rotation_deg must be in .*181"),
  ],
)
def test_fields_of_the_configuration_that_cannot_work_are_refused(changes, message):
  config = base_config()
  validate(config)
  config.data.update(changes)
  with pytest.raises(ValueError, match=message):
    validate(config)


def test_the_builders_pass_on_every_field_of_the_configuration(monkeypatch):
  source = RandomScenes(10)
  opened = []
  monkeypatch.setattr(loader, "open_source", lambda *args: opened.append(args) or source)
  config = base_config()
  config.seed = 5
  config.data.update({"height": 16, "max_objects": 6, "batch_size": 2})
  config.data.augment.update(dataclasses.asdict(ALL_ON) | {"mirror": False})
  config.evaluate.batch_size = 5
  augmentation = dataclasses.replace(ALL_ON, mirror=False)
  expected = take(train(source, batch_size=2, seed=5, augmentation=augmentation), 8)
  assert_same_batches(take(build_training_batches(config), 8), expected)
  config.data.train_heights = (8, 16)
  expected = train(source, batch_size=2, seed=5, augmentation=augmentation, heights=(8, 16))
  assert_same_batches(take(build_training_batches(config), 8), take(expected, 8))
  expected = list(evaluation_batches(source, batch_size=5, **SHAPES))
  assert_same_batches(list(build_evaluation_batches(config, "test[:10]")), expected)
  name, data_dir = config.data.name, config.data.data_dir
  assert opened == [(name, data_dir, split) for split in ("train", "train", "test[:10]")]
