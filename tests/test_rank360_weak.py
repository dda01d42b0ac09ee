"""Ranks from another folder in rank360, as weak labels are written."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from foir360_jax.data.source import open_source
from foir360_jax.files import read_panorama
from foir360_jax.scenes import RankedObjects, SceneError, open_scenes
from foir360_jax.scenes.scenes_layout import with_ranks_of
from rank360.dummy_scenes import write_dummy_data
from rank360.rank360_dataset_builder import Builder
from rank360.review import review_folder

SETTINGS = {"saliency": "LearnedSaliency", "strategy": {"fill": "mean"}}


def write_ranks(folder, output, rng):
  """Ranks all objects of a folder by chance, as weak labels are written."""
  ranked = {}
  for scene in open_scenes(folder):
    ranked[scene.id] = RankedObjects.from_masks(
      read_panorama(scene.image_file),
      scene.masks(),
      rng.random(len(scene.objects)),
      [item.category for item in scene.objects],
      ids=[item.id for item in scene.objects],
      image=scene.image_file.name,
      agreement=rng.random(len(scene.objects)),
    )
    ranked[scene.id].save_json(output / f"ranks/{scene.id}.json")
  (output / "settings.json").write_text(json.dumps(SETTINGS))
  return ranked


@pytest.fixture(params=["scenes", "coco"])
def folder(request, tmp_path):
  write_dummy_data(tmp_path / "in", format=request.param)
  return tmp_path / "in"


@pytest.fixture
def ranked(folder, tmp_path):
  return write_ranks(folder, tmp_path / "out", np.random.default_rng(2))


def build(folder, data_dir, config="weak", **options):
  builder = Builder(config=config, data_dir=data_dir, file_format="array_record", **options)
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
  return builder


def test_ranks_of_the_other_folder_replace_those_of_the_folder(folder, ranked, tmp_path):
  build(folder, tmp_path / "data", ranks_dir=tmp_path / "out")
  found = {}
  for split in ("train", "test"):
    source = open_source("rank360/weak", str(tmp_path / "data"), split)
    found |= {example["image_id"]: example for example in source}
  assert found.keys() == ranked.keys()
  differ = 0
  for scene in open_scenes(folder):
    example, wanted = found[scene.id], ranked[scene.id]
    order = np.argsort(wanted.ids)  # so that the order of the objects tells nothing of their ranks
    for name in ("importance", "agreement"):
      assert example[name].dtype == np.float32
      np.testing.assert_array_equal(example[name], getattr(wanted, name)[order])
    np.testing.assert_array_equal(example["rank"], wanted.ranks[order])
    np.testing.assert_array_equal(example["id"], wanted.ids[order])
    names = [source.category_names[number] for number in example["category"]]
    assert names == [wanted.categories[index] for index in order]
    masks = np.unpackbits(example["masks"], axis=-1, count=scene.width).astype(bool)
    np.testing.assert_array_equal(masks, wanted.masks[order])
    np.testing.assert_allclose(example["solid_angle_sr"], wanted.area_sr[order], rtol=1e-5)
    np.testing.assert_allclose(example["bfov_deg"], wanted.bfov_deg[order], rtol=1e-4, atol=1e-4)
    assert set(example["source"]) == {b"weak"}
    own = {item.id: item.rank for item in scene.objects}
    differ += own != dict(zip(wanted.ids, wanted.ranks, strict=True))
  assert differ  # else it could not be told whose ranks they are
  metadata = tmp_path / f"data/rank360/weak/{Builder.VERSION}/metadata.json"
  assert json.loads(metadata.read_text())["weak_settings"] == SETTINGS


def test_weak_and_human_examples_differ_in_their_ranks_only(folder, ranked, tmp_path):
  build(folder, tmp_path / "data", ranks_dir=tmp_path / "out")
  build(folder, tmp_path / "data", config="human")
  weak, human = (
    {
      example["image_id"]: example
      for split in ("train", "test")
      for example in open_source(f"rank360/{config}", str(tmp_path / "data"), split)
    }
    for config in ("weak", "human")
  )
  assert weak.keys() == human.keys()
  for name, example in weak.items():
    assert (np.diff(example["id"]) > 0).all()
    for key in example.keys() - {"importance", "rank", "agreement", "source"}:
      np.testing.assert_array_equal(example[key], human[name][key], err_msg=f"{name} {key}")


def test_agreement_is_one_where_the_ranks_do_not_tell(folder, ranked, tmp_path):
  file = folder / "annotations.json"
  if file.exists():  # a field of this name in another format may mean anything
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
      annotation["agreement"] = "high"
    file.write_text(json.dumps(content))
  builder = build(folder, tmp_path / "data", config="human")
  for split in builder.info.splits:
    for example in builder.as_data_source(split):
      np.testing.assert_array_equal(example["agreement"], np.ones(len(example["rank"])))
  assert builder.info.metadata["weak_settings"] is None


def test_weak_ranks_are_not_built_as_those_of_people(folder, ranked, tmp_path):
  with pytest.raises(ValueError, match="out: holds ranks of no person; build them as rank360/weak"):
    build(folder, tmp_path / "data", config="human", ranks_dir=tmp_path / "out")
  (tmp_path / "out/settings.json").rename(tmp_path / "out/weak_labels.json")  # as it once was
  with pytest.raises(ValueError, match="out: holds ranks of no person; build"):
    build(folder, tmp_path / "data", config="human", ranks_dir=tmp_path / "out")
  (tmp_path / "out/weak_labels.json").unlink()  # people may rank into another folder, too
  builder = build(folder, tmp_path / "data", config="human", ranks_dir=tmp_path / "out")
  assert sum(info.num_examples for info in builder.info.splits.values()) == 5


def drop(path):
  path.unlink()


def forget_an_object(path):
  content = json.loads(path.read_text())
  content["objects"].pop()
  path.write_text(json.dumps(content))


def make_unreadable(path):
  path.write_text("{")


@pytest.mark.parametrize(
  "damage, reason",
  [
    (drop, "dummy_1.json: missing; rank dummy_1 by foir360 weak-labels"),
    (forget_an_object, "dummy_1.json: has no rank for objects"),
    (make_unreadable, "dummy_1.json: not JSON"),
  ],
)
def test_a_panorama_without_fitting_ranks_is_bad_and_skipped_on_request(
  folder, ranked, tmp_path, damage, reason
):
  damage(tmp_path / "out/ranks/dummy_1.json")
  review = review_folder(folder, ranks_dir=tmp_path / "out")
  (finding,) = review.findings("error")
  assert finding.scene_id == "dummy_1" and reason in finding.text
  with pytest.raises(ValueError, match="1 of 5 records cannot be used"):
    build(folder, tmp_path / "data", ranks_dir=tmp_path / "out")
  builder = build(folder, tmp_path / "data", ranks_dir=tmp_path / "out", skip_bad=True)
  assert list(builder.info.metadata["left_out"]) == ["dummy_1"]


def test_ranks_of_another_size_or_of_other_masks_are_found(folder, ranked, tmp_path):
  scene = open_scenes(folder).read("dummy_0")
  file = tmp_path / "out/ranks/dummy_0.json"
  assert with_ranks_of(scene, file).notes == scene.notes
  wanted = ranked["dummy_0"]
  RankedObjects.from_masks(
    wanted.panorama, np.roll(wanted.masks, 20, axis=2), wanted.importance, ids=wanted.ids
  ).save_json(file)
  ids = re.escape(str(wanted.ids.tolist()))
  with pytest.raises(SceneError, match=f"dummy_0.json: is of other masks of objects {ids} than .*"):
    with_ranks_of(scene, file)
  masks = wanted.masks.copy()
  masks[1].flat[masks[1].argmax()] = False  # a single pixel
  RankedObjects.from_masks(wanted.panorama, masks, wanted.importance, ids=wanted.ids).save_json(
    file
  )
  with pytest.raises(SceneError, match=rf"of other masks of objects \[{wanted.ids[1]}\] than"):
    with_ranks_of(scene, file)
  panorama = np.zeros((40, 80, 3), np.uint8)
  RankedObjects.from_masks(panorama, np.ones((1, 40, 80), bool), [1.0]).save_json(file)
  with pytest.raises(SceneError, match="dummy_0.json: is for 80 x 40 pixels, .*dummy_0.png has 64"):
    with_ranks_of(scene, file)


def test_a_folder_without_rank_files_is_refused(folder, tmp_path):
  with pytest.raises(SceneError, match="ranks: holds no rank file; give what foir360 weak-labels"):
    review_folder(folder, ranks_dir=tmp_path)


def test_records_outside_the_folder_and_torn_objects_are_no_matter(folder, ranked, tmp_path):
  shutil.copy(tmp_path / "out/ranks/dummy_1.json", tmp_path / "out/ranks/elsewhere.json")
  review = review_folder(folder, ranks_dir=tmp_path / "out", join_seam=True)
  assert len(review.records) == 5 and not review.bad
