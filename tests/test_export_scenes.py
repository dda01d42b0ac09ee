"""Prepared data sets as SCENES folders."""

import json
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

import export_scenes
from foir360_jax.data import open_source
from foir360_jax.files import read_panorama, save_image
from foir360_jax.scenes import Scene, SceneObject, open_scenes, unpack_masks
from foir360_jax.scenes import write_scenes as write_any
from foir360_jax.scenes.scene import order_objects
from rank360.rank360_dataset_builder import Builder

HEIGHT, WIDTH = 32, 64


def visible_parts(masks):
  """What an id map shows of each mask, pixel by pixel: of several objects the smallest."""
  parts = np.zeros_like(masks)
  for row in range(masks.shape[1]):
    for column in range(masks.shape[2]):
      here = np.flatnonzero(masks[:, row, column])
      if len(here):
        # Of equally small ones the later.
        parts[min(here, key=lambda i: (masks[i].sum(), -i)), row, column] = True
  return parts


def builder_of(data_dir, name="synthetic360/tests/1.1.0"):
  return tfds.builder_from_directory(data_dir / name)


@pytest.fixture
def overlapping(tmp_path):
  """A builder of rank360 with objects that overlap, and one that lies wholly under two others."""
  rng = np.random.default_rng(5)
  scenes = []
  for number in range(3):
    file = tmp_path / f"pictures/made_up_{number}.jpg"
    file.parent.mkdir(exist_ok=True)
    save_image(file.with_suffix(".png"), rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    masks = np.zeros((5, HEIGHT, WIDTH), bool)
    masks[0, 4:12, 4:24] = True
    masks[1, 8:20, 16:20] = True  # in part over 0
    masks[2, 20:28, 30:50] = True
    masks[3, 19:28, 30:40], masks[4, 20:29, 40:50] = True, True  # together over the whole of 2
    objects = [
      SceneObject.from_mask(7 * i + 3, mask, category=("cat", "")[i % 2])
      for i, mask in enumerate(masks)
    ]
    objects = order_objects(objects, rng.permutation([1, 2, 3, 4, 4]).tolist())
    scenes.append(Scene(f"made_up_{number}", file.with_suffix(".png"), HEIGHT, WIDTH, objects))
  lists = {"train": ["made_up_0", "made_up_2"], "test": ["made_up_1"]}
  write_any(tmp_path / "coco", scenes, format="coco")
  (tmp_path / "lists").mkdir()
  for split, ids in lists.items():
    (tmp_path / f"lists/{split}.txt").write_text("\n".join(ids))
  builder = Builder(
    config="human",
    data_dir=tmp_path / "data",
    file_format="array_record",
    split_dir=tmp_path / "lists",
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "coco")
  )
  return builder, scenes, lists


def test_a_prepared_set_is_written_with_its_pictures_visible_masks_and_labels(prepared, tmp_path):
  folder = tmp_path / "new/out"
  split = "train[2:7]+validation[:1]"
  lines = export_scenes.export_scenes(builder_of(prepared), folder, split)
  written = open_scenes(folder)
  examples = [open_source("synthetic360/tests", str(prepared), "train")[i] for i in range(2, 7)]
  examples += [open_source("synthetic360/tests", str(prepared), "validation")[0]]
  by_id = {example["image_id"]: example for example in examples}
  assert set(written.ids) == set(by_id)
  assert (folder / "train.txt").read_text().split() == [e["image_id"] for e in examples[:5]]
  assert (folder / "validation.txt").read_text().split() == [examples[5]["image_id"]]
  names = open_source("synthetic360/tests", str(prepared), "train").category_names
  overlapped = 0
  for scene in written:
    example = by_id[scene.id]
    np.testing.assert_array_equal(read_panorama(scene.image_file), example["image"])
    masks = unpack_masks(example["masks"], WIDTH)
    parts = visible_parts(masks)
    overlapped += (parts != masks).any()
    kept = {item.id: item for item in scene.objects}
    assert list(sorted(kept)) == [n for n, p in zip(example["id"], parts, strict=True) if p.any()]
    for number, part, importance, category in zip(
      example["id"], parts, example["importance"], example["category"], strict=True
    ):
      if part.any():
        np.testing.assert_array_equal(kept[number].mask, part)
        assert np.float32(kept[number].importance) == importance
        assert kept[number].category == names[category]
    ranks = [item.rank for item in scene.objects]
    assert ranks == sorted(ranks) and len(set(ranks)) == max(ranks)
  objects = sum(len(scene.objects) for scene in written)
  assert lines[0] == f"{folder}: 6 panoramas (train 5, validation 1) with {objects} objects"
  assert any("overlaps: the smaller object is on top" in line for line in lines) == (overlapped > 0)
  assert any("further fields: occlusion, true_importance (6" in line for line in lines)
  assert not any("wholly under others" in line for line in lines)


def test_an_object_wholly_under_others_is_left_out_and_ranks_close_the_gap(overlapping, tmp_path):
  builder, scenes, lists = overlapping
  lines = export_scenes.export_scenes(builder, tmp_path / "out")
  assert re.fullmatch(
    r"3 objects lie wholly under others, left out: made_up_\d: 17; made_up_\d: 17; made_up_\d: 17",
    lines[-1],
  )
  written = open_scenes(tmp_path / "out")
  assert {split: sorted(ids) for split, ids in written.splits.items()} == {
    split: sorted(ids) for split, ids in lists.items()
  }
  for scene in scenes:
    kept = {item.id: item for item in written.read(scene.id).objects}
    expected = [item for item in scene.objects if item.id != 17]
    assert set(kept) == {item.id for item in expected}
    parts = visible_parts(scene.masks())
    for item in expected:
      index = scene.objects.index(item)
      above = {other.rank for other in expected if other.rank < item.rank}
      assert kept[item.id].rank == len(above) + 1
      assert kept[item.id].importance == pytest.approx(item.importance, abs=1e-6)
      assert kept[item.id].category == item.category
      np.testing.assert_array_equal(kept[item.id].mask, parts[index])


def test_an_export_can_be_built_again_and_loses_nothing_more(overlapping, tmp_path):
  export_scenes.export_scenes(overlapping[0], tmp_path / "out")
  again = Builder(config="human", data_dir=tmp_path / "again", file_format="array_record")
  again.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "out")
  )
  lines = export_scenes.export_scenes(again, tmp_path / "twice")
  assert len(lines) == 2 and "further fields: agreement, source" in lines[1]
  first, second = open_scenes(tmp_path / "out"), open_scenes(tmp_path / "twice")
  assert first.splits == second.splits
  for scene in first:
    other = second.read(scene.id)
    assert scene.objects == other.objects
    assert scene.image_file.read_bytes() == other.image_file.read_bytes()
    files = [folder.path / f"ranks/{scene.id}.json" for folder in (first, second)]
    truth = [
      [(entry["id"], entry["rank"], entry["importance"]) for entry in content["objects"]]
      for content in (json.loads(file.read_text()) for file in files)
    ]
    assert truth[0] == truth[1]


@pytest.mark.parametrize(
  "split, message",
  [
    ("tune", "has no split 'tune'; it has .*parts of one"),
    ("train[:0]", "the split 'train.:0.' of synthetic360/tests/1.1.0 is empty"),
    ("train[:2]+train[1:3]", "2 scenes have the id train_"),
  ],
)
def test_a_part_that_is_not_there_is_refused_and_nothing_written(
  prepared, tmp_path, split, message
):
  with pytest.raises(ValueError, match=message):
    export_scenes.export_scenes(builder_of(prepared), tmp_path / "out", split)
  assert not list(tmp_path.iterdir())


def test_the_command_prepares_what_is_missing_and_overwrites_nothing(run_here, prepared, tmp_path):
  command = ["prepare", "--dataset=synthetic360/tests", "--export_split=test[:2]"]
  there = [*command, f"--data_dir={prepared}", f"--export={tmp_path / 'out'}"]
  result = run_here(*there)
  assert result.returncode == 0, result.stderr
  assert "there already, kept" in result.stdout
  assert "2 panoramas (test 2)" in result.stdout
  files = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
  # Refused before the data set is written.
  for folder in (tmp_path / "out", tmp_path):
    again = run_here(*command, f"--data_dir={tmp_path / 'data'}", f"--export={folder}")
    assert again.returncode == 2 and "Traceback" not in again.stderr
    assert f"error: {folder}: exists already; export to a new folder" in again.stderr
  assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")} == files
  assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--dataset=fixations", "--export=x"], "--export is for synthetic360 and rank360"),
    (["--export_split=train"], "add --export=FOLDER, or leave it out"),
    (["--export=x", "--file_format=tfrecord"], "--export reads ArrayRecord"),
    (["--dataset=rank360", "--check", "--export=x"], "--export reads ArrayRecord"),
  ],
)
def test_flags_that_do_not_fit_an_export_are_refused(run_here, tmp_path, flags, message):
  result = run_here("prepare", f"--data_dir={tmp_path}", *flags)
  assert result.returncode == 2 and message in result.stderr
  assert not list(tmp_path.iterdir())
