import dataclasses
import doctest
import json
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

import hash_split
from foir360_jax.data.augment import Augmentation
from foir360_jax.data.loader import training_batches
from foir360_jax.data.source import open_source
from foir360_jax.scenes import FORMATS, SceneError, open_scenes, write_scenes
from foir360_jax.scenes.scene import order_objects
from foir360_jax.sphere import bounding_fov_deg, solid_angle
from rank360 import columns
from rank360.dummy_scenes import write_dummy_data
from rank360.rank360_dataset_builder import Builder
from rank360.review import review_folder
from rank360.splits import assign_splits

DUMMY = pathlib.Path(__file__).parents[1] / "datasets/rank360/dummy_data"
HEIGHT = 16
WIDTH = 2 * HEIGHT


def build(folder, data_dir, config="human", **options):
  builder = Builder(config=config, data_dir=data_dir, file_format="array_record", **options)
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
  return builder


@pytest.fixture
def folder(tmp_path):
  """A SCENES folder of five pictures."""
  write_dummy_data(tmp_path / "scenes", height=HEIGHT)
  return tmp_path / "scenes"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  """{format: (scenes, folder, data_dir)}: the same scenes built from every layout."""
  root = tmp_path_factory.mktemp("layouts")
  made = {}
  for format in FORMATS:
    scenes = write_dummy_data(root / format, format=format, height=HEIGHT)
    build(root / format, root / f"data_{format}")
    made[format] = scenes, root / format, root / f"data_{format}"
  return made


READ = """
import pathlib, pickle, sys
import tensorflow_datasets as tfds
out, *data_dirs = sys.argv[1:]
found = {}
for data_dir in data_dirs:
  splits = [f.name.split(".")[0].split("-")[1] for f in pathlib.Path(data_dir).rglob("*array_rec*")]
  found[data_dir] = [
    example | {"split": split}
    for split in splits
    for example in tfds.data_source("rank360/human", split=split, data_dir=data_dir)
  ]
assert "rank360" not in sys.modules and "tensorflow" not in sys.modules
pickle.dump(found, open(out, "wb"))
"""


@pytest.fixture(scope="module")
def read_back(built, run_command, tmp_path_factory):
  """{format: examples}, read in a process that knows nothing of the builder."""
  out = tmp_path_factory.mktemp("read") / "examples.pickle"
  data_dirs = {format: data_dir for format, (_, _, data_dir) in built.items()}
  result = run_command("-c", READ, out, *data_dirs.values())
  assert result.returncode == 0, result.stderr
  found = np.load(out, allow_pickle=True)
  return {format: found[str(data_dir)] for format, data_dir in data_dirs.items()}


@pytest.mark.parametrize("format", FORMATS)
def test_every_layout_is_read_back_where_the_builder_is_unknown(built, read_back, format):
  scenes, folder, _ = built[format]
  examples = {example["image_id"].decode(): example for example in read_back[format]}
  assert examples.keys() == {scene.id for scene in scenes}
  originals = {scene.id: scene for scene in open_scenes(folder, format=format)}
  for scene in scenes:
    example = examples[scene.id]
    assert (example["height"], example["width"]) == (HEIGHT, 2 * HEIGHT)
    order = np.argsort(example["rank"])
    expected = sorted(scene.objects, key=lambda item: item.rank)
    np.testing.assert_array_equal(example["rank"][order], [item.rank for item in expected])
    np.testing.assert_allclose(
      example["importance"][order], [item.importance for item in expected], rtol=1e-6
    )
    masks = np.unpackbits(example["masks"], axis=-1, count=2 * HEIGHT).astype(bool)[order]
    np.testing.assert_array_equal(masks, [item.mask for item in expected])
    np.testing.assert_allclose(
      example["solid_angle_sr"][order], [solid_angle(mask) for mask in masks], rtol=1e-6
    )
    np.testing.assert_allclose(
      example["bfov_deg"][order], [bounding_fov_deg(mask) for mask in masks], rtol=1e-4, atol=1e-3
    )
    picture = originals[scene.id].image_file
    decoded = tfds.features.Image(shape=(None, None, 3)).decode_example_np(picture.read_bytes())
    np.testing.assert_array_equal(example["image"], decoded)
    assert example["source"] == [b"human"] * len(expected)
    ids = [item.id for item in originals[scene.id].objects]
    np.testing.assert_array_equal(example["id"], sorted(ids))


def test_the_picture_is_stored_as_its_file_is(folder, tmp_path):
  builder = build(folder, tmp_path / "data")
  decoders = {"image": tfds.decode.SkipDecoding()}
  for example in builder.as_data_source("train", decoders=decoders):
    file = folder / "images" / f"{example['image_id'].decode()}.png"
    assert example["image"] == file.read_bytes()


def test_categories_and_provenance_are_in_the_metadata(folder, tmp_path):
  build(folder, tmp_path / "data", config="weak")
  source = open_source("rank360/weak", str(tmp_path / "data"), "train")
  named = {item.category for scene in open_scenes(folder) for item in scene.objects}
  assert source.category_names == tuple(sorted(named))
  scenes = {scene.id: scene for scene in open_scenes(folder)}
  for example in source:
    items = sorted(scenes[example["image_id"]].objects, key=lambda item: item.id)
    names = [source.category_names[number] for number in example["category"]]
    assert names == [item.category for item in items]
    assert set(example["source"]) == {b"weak"}
  version = tmp_path / f"data/rank360/weak/{Builder.VERSION}"
  metadata = json.loads((version / "metadata.json").read_text())
  assert metadata["format"] == "scenes" and metadata["left_out"] == []
  assert "hash" in metadata["split_rule"]
  stored = (version / "features.json").read_text()  # is read by TFDS without this project's code
  assert (
    "PackedMasks" not in stored and '"tensorflow_datasets.core.features.tensor_feature' in stored
  )


def test_objects_without_a_category_have_category_minus_one(built):
  _, _, data_dir = built["seqrank"]
  source = open_source("rank360/human", str(data_dir), "test")
  assert source.category_names == ()
  assert all((example["category"] == -1).all() for example in source)


def first_batch(source, batch_size):
  options = dict(heights=(32,), max_objects=6, seed=0, num_threads=0)
  return next(
    training_batches(source, batch_size=batch_size, augmentation=Augmentation(), **options)
  )


def test_training_batches_come_from_it(built):
  _, _, data_dir = built["coco"]
  source = open_source("rank360/human", str(data_dir), "train")
  batch = first_batch(source, batch_size=2)
  assert batch["image"].shape == (2, 32, 64, 3) and batch["masks"].shape == (2, 6, 32, 8)
  counts = set(source.object_counts.tolist())
  assert set(batch["where"].sum(axis=1).tolist()) <= counts
  assert batch["masks"][batch["where"]].any(axis=(1, 2)).all()
  assert (batch["relevance"][batch["where"]] > 0).all()


def test_a_picture_without_objects_is_read_back_and_trained_on(tmp_path):
  write_dummy_data(tmp_path / "made", height=HEIGHT)
  scenes = list(open_scenes(tmp_path / "made"))
  scenes = [dataclasses.replace(scene, objects=()) for scene in scenes[:3]] + scenes[3:]
  write_scenes(tmp_path / "scenes", scenes, format="coco")
  lists = tmp_path / "lists"
  lists.mkdir()
  (lists / "train.txt").write_text("".join(f"{scene.id}\n" for scene in scenes))
  for config in ("human", "weak"):
    build(tmp_path / "scenes", tmp_path / "data", config=config, split_dir=lists)
    source = open_source(f"rank360/{config}", str(tmp_path / "data"), "train")
    for example in source:
      count = len(scenes[int(example["image_id"].rpartition("_")[2])].objects)
      assert example["masks"].shape == (count, HEIGHT, WIDTH // 8)
      assert len(example["rank"]) == len(example["category"]) == len(example["bfov_deg"]) == count
    counts = [len(scene.objects) for scene in scenes]
    assert source.most_objects == max(counts) and sorted(source.object_counts) == sorted(counts)
  where = first_batch(source, batch_size=5)["where"]
  assert sorted(where.sum(axis=1)) == sorted(counts)


def test_the_largest_number_of_objects_is_known_without_reading_all(built, monkeypatch):
  scenes, _, data_dir = built["coco"]
  source = open_source("rank360/human", str(data_dir), "train[:50%]+test")
  monkeypatch.setattr(type(source), "object_counts", None)
  assert source.most_objects == max(len(scene.objects) for scene in scenes)


def test_pictures_of_different_sizes_make_one_data_set(tmp_path):
  write_dummy_data(tmp_path / "a", height=16, num_scenes=2)
  write_dummy_data(tmp_path / "b", height=28, num_scenes=3)
  scenes = [*open_scenes(tmp_path / "a"), open_scenes(tmp_path / "b").read("dummy_2")]
  write_scenes(tmp_path / "both", scenes, format="scenes")
  builder = build(tmp_path / "both", tmp_path / "data")
  shapes = {
    example["masks"].shape[1:] for s in builder.info.splits for example in builder.as_data_source(s)
  }
  assert shapes == {(16, 4), (28, 7)}


def test_an_id_keeps_its_split_whatever_other_ids_there_are():
  ids = [f"{number:03d}" for number in range(600)]
  found, wrong = assign_splits(ids[:500], {})
  assert not wrong and list(found.values()).count("train") == 418
  more, _ = assign_splits(ids[::-1], {})
  assert {scene_id: more[scene_id] for scene_id in found} == found
  # By sha256sum: 000 begins with 2ac9, 022 with d970; 0.8 of 2^16 is cccc.
  assert (found["000"], found["022"]) == ("train", "test")


def test_a_split_without_pictures_is_noted(folder):
  assert review_folder(folder).notes == ()
  for place in ("images", "instances", "ranks"):
    for file in (folder / place).iterdir():
      if file.stem != "dummy_0":
        file.unlink()
  (record,) = review_folder(folder).records
  (note,) = review_folder(folder).notes
  other = {"train": "test", "test": "train"}[record.split]
  assert note == f"no picture falls into {other} by its hash; give lists by --split_dir"


def test_an_id_in_two_lists_or_in_none_or_of_no_record_is_named():
  lists = {"train": ["a", "b", "e"], "val": ["b", "c", "c"]}
  split_of, wrong = assign_splits(["a", "b", "c", "d"], lists)
  assert split_of["a"] == "train"
  assert "train and val" in wrong["b"]
  assert "val and val" in wrong["c"]
  assert "none of the lists train, val" in wrong["d"]
  assert "not in the folder" in wrong["e"]
  assert "a" not in wrong


def test_splits_get_names_by_which_they_can_be_asked_for():
  found, _ = assign_splits(["a", "b", "c"], {"valid": ["a"], "my file-2.b": ["b"], "test": ["c"]})
  assert found == {"a": "validation", "b": "my_file-2_b", "c": "test"}


def test_lists_of_the_folder_count_and_val_becomes_validation(folder, tmp_path):
  (folder / "train.txt").write_text("dummy_0\ndummy_3\ndummy_4\n")
  (folder / "val.txt").write_text("dummy_1.png\n")
  (folder / "test.txt").write_text("dummy_2\n")
  builder = build(folder, tmp_path / "data")
  sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
  assert sizes == {"train": 3, "validation": 1, "test": 1}


def test_split_dir_overrides_the_lists_of_the_folder(folder, tmp_path):
  (folder / "train.txt").write_text("".join(f"dummy_{i}\n" for i in range(5)))
  lists = tmp_path / "lists"
  lists.mkdir()
  (lists / "train.txt").write_text("dummy_0\ndummy_1\n")
  (lists / "test.txt").write_text("dummy_2\ndummy_3\ndummy_4\n")
  builder = build(folder, tmp_path / "data", split_dir=lists)
  sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
  assert sizes == {"train": 2, "test": 3}


def test_a_split_dir_without_lists_is_refused(folder, tmp_path):
  with pytest.raises(SceneError, match="write train.txt, test.txt"):
    review_folder(folder, split_dir=tmp_path)


def test_leaving_bad_records_out_moves_no_other_to_another_split(folder):
  before = {record.id: record.split for record in review_folder(folder).records}
  (folder / "images/dummy_2.png").unlink()
  after = review_folder(folder)
  assert {record.id: record.split for record in after.records} == before
  assert [record.id for record in after.bad] == ["dummy_2"]


def test_building_stops_with_all_bad_records_and_skip_bad_counts_them(folder, tmp_path, caplog):
  (folder / "ranks/dummy_1.json").unlink()
  (folder / "images/dummy_3.png").write_bytes(b"")
  with pytest.raises(ValueError) as caught:
    build(folder, tmp_path / "data")
  message = str(caught.value)
  assert "2 of 5 records cannot be used" in message and "--skip_bad" in message
  assert "dummy_1.png: objects [1, 2, 3" in message and "dummy_3.png: the file is empty" in message
  assert not list(tmp_path.glob("data/rank360/human/[0-9]*"))

  builder = build(folder, tmp_path / "data", skip_bad=True)
  assert sum(info.num_examples for info in builder.info.splits.values()) == 3
  assert list(builder.info.metadata["left_out"]) == ["dummy_1", "dummy_3"]
  assert "2 of 5 records cannot be used and are left out" in caplog.text


def test_a_folder_of_bad_records_alone_is_refused_even_so(folder, tmp_path):
  for file in (folder / "ranks").iterdir():
    file.unlink()
  with pytest.raises(ValueError, match="5 of 5 records"):
    build(folder, tmp_path / "data", skip_bad=True)


def test_masks_and_columns_decode_as_the_whole_does():
  rng = np.random.default_rng(0)
  for density in (0.02, 0.3, 0.95, 1.0):
    for _ in range(20):
      mask = rng.random((5, 10)) < density
      mask[:, : rng.integers(8)] = False
      mask[rng.integers(5), 9 - rng.integers(2)] = True
      run_lengths = columns.RunLengths.from_mask(mask)
      np.testing.assert_array_equal(columns.decode(run_lengths), mask)
      for index in range(10):
        np.testing.assert_array_equal(columns.column(run_lengths, index), mask[:, index])


@pytest.mark.parametrize("module", [columns, hash_split])
def test_examples_in_the_documentation_hold(module):
  result = doctest.testmod(module)
  assert result.attempted and not result.failed


def test_dummy_data_is_small_and_what_the_script_makes(tmp_path):
  write_dummy_data(tmp_path / "new")
  files = {f.relative_to(DUMMY): f for f in DUMMY.rglob("*") if f.is_file()}
  again = [f.relative_to(tmp_path / "new") for f in (tmp_path / "new").rglob("*") if f.is_file()]
  assert files.keys() == set(again)
  assert sum(file.stat().st_size for file in files.values()) < 100_000
  old, new = review_folder(DUMMY), review_folder(tmp_path / "new")
  assert not old.bad
  for a, b in zip(old.records, new.records, strict=True):
    assert a.scene.objects == b.scene.objects and a.split == b.split


def test_frames_with_real_fixations_are_built_and_those_without_ranks_reported(shared, tmp_path):
  manifest = json.loads((shared / "data/manifest.json").read_text())
  colour = [e for e in manifest["erp_annotated"] if not e["id"].startswith("pavs_seq")][:12]
  folder = tmp_path / "scenes"
  for name in ("images", "instances", "ranks"):
    (folder / name).mkdir(parents=True)
  for entry in colour:
    for part, key in (("images", "rgb"), ("instances", "ids")):
      (folder / part / f"{entry['id']}.png").symlink_to(shared / "data" / entry[key])
  _write_fixation_ranks(folder, colour)
  review = review_folder(folder)
  ranked = {entry["id"] for entry in colour if entry.get("fixation_rank")}
  assert 0 < len(ranked) < 12
  assert {record.id for record in review.good} == ranked
  assert {finding.kind for finding in review.findings("error")} == {"rank missing"}
  builder = build(folder, tmp_path / "data", skip_bad=True)
  examples = [e for split in builder.info.splits for e in builder.as_data_source(split)]
  assert {example["image_id"].decode() for example in examples} == ranked
  by_id = {entry["id"]: entry for entry in colour}
  for example in examples:
    entries = by_id[example["image_id"].decode()]["fixation_rank"]
    assert dict(zip(example["id"].tolist(), example["rank"].tolist(), strict=True)) == {
      entry["id"]: entry["rank"] for entry in entries
    }
    areas = np.unpackbits(example["masks"], axis=-1).sum(axis=(1, 2))
    found = dict(zip(example["id"].tolist(), areas.tolist(), strict=True))
    assert found == {entry["id"]: entry["area_px"] for entry in entries}


def _write_fixation_ranks(folder, entries):
  """Ranks the objects of SCENES by the fixations that the manifest counts."""
  scenes = {scene.id: scene for scene in open_scenes(folder)}
  for entry in entries:
    scene = scenes[entry["id"]]
    if not entry.get("fixation_rank"):
      continue
    ranks = {item["id"]: item["rank"] for item in entry["fixation_rank"]}
    objects = order_objects(scene.objects, [-ranks[item.id] for item in scene.objects])
    records = [
      {
        "id": item.id,
        "importance": item.importance,
        "rank": item.rank,
        "bfov_deg": bounding_fov_deg(item.mask).tolist(),
        "bbox_px": [0, 0, 1, 1],
        "area_sr": float(solid_angle(item.mask)),
        "category": "",
        "segmentation": item.run_lengths.to_coco(),
      }
      for item in sorted(objects, key=lambda item: item.rank)
    ]
    content = {"image": scene.image_file.name, "height": scene.height, "width": scene.width}
    file = folder / "ranks" / f"{scene.id}.json"
    file.write_text(json.dumps(content | {"objects": records}))
