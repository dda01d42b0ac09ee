import dataclasses

import numpy as np
import pytest

from foir360_jax.files.json_file import field, read_json
from foir360_jax.scenes import Scene, SceneError, SceneObject
from foir360_jax.scenes.folder import (
  SceneFolder,
  files_by_split,
  index_records,
)
from foir360_jax.scenes.picture_finder import PictureFinder, inside_folder
from foir360_jax.scenes.scene import naming, order_objects

HEIGHT, WIDTH = 6, 8


def some_object(number, **fields):
  mask = np.zeros([HEIGHT, WIDTH], bool)
  mask[number % HEIGHT] = True
  return SceneObject.from_mask(number, mask, **fields)


def some_scene(*objects):
  return Scene("a", None, HEIGHT, WIDTH, objects)


def test_masks_come_back_in_order_and_as_often_as_asked_for():
  rng = np.random.default_rng()
  masks = rng.random([5, HEIGHT, WIDTH]) < 0.5
  masks[:, 0, 0] = True
  scene = some_scene(*(SceneObject.from_mask(n, mask) for n, mask in enumerate(masks, start=1)))
  for _ in range(2):
    np.testing.assert_array_equal(scene.masks(), masks)
  assert scene.masks().dtype == bool
  np.testing.assert_array_equal(scene.objects[3].mask, masks[3])


def test_an_order_gives_dense_ranks_and_importance_by_the_formula():
  values = np.random.default_rng().integers(-3, 4, 9)
  objects = order_objects([some_object(n) for n in range(9)], values)
  distinct = sorted(set(values.tolist()), reverse=True)
  expected = [distinct.index(value) + 1 for value in values]
  assert [item.rank for item in objects] == expected
  assert [item.importance for item in objects] == [(9 - rank + 1) / 9 for rank in expected]
  scene = some_scene(*objects)
  np.testing.assert_array_equal(scene.relevance(), 10 - np.array(expected, np.float32))
  assert scene.is_ranked


def test_a_scene_without_objects_has_shapes():
  scene = some_scene()
  assert scene.masks().shape == (0, HEIGHT, WIDTH)
  assert scene.relevance().shape == (0,) and scene.is_ranked


def test_relevance_of_unranked_objects_names_them():
  crowd = some_object(4, is_crowd=True)
  scene = some_scene(some_object(2, rank=1, importance=1.0), crowd)
  assert not scene.is_ranked
  with pytest.raises(SceneError, match=r"objects \[4\] have no rank"):
    scene.relevance()


@pytest.mark.parametrize(
  ("objects", "message"),
  [
    ([{"id": 1}, {"id": 1}], r"ids \[1\] belong to two objects"),
    ([{"rank": 1}], "needs both"),
    ([{"importance": 0.5}], "needs both"),
    ([{"rank": 1, "importance": 1.5}], r"outside \[0, 1\]"),
    ([{"rank": 1, "importance": float("nan")}], r"outside \[0, 1\]"),
    ([{"rank": 1, "importance": 1.0}, {}], r"objects \[2\] have no rank"),
    ([{"rank": 1, "importance": 1.0}, {"rank": 3, "importance": 0.5}], "not dense"),
    ([{"rank": 2, "importance": 1.0}], "not dense"),
    ([{"rank": 1, "importance": 0.2}, {"rank": 2, "importance": 0.5}], "1 is the most important"),
  ],
)
def test_contradictions_are_refused(objects, message):
  made = [
    some_object(**{"number": fields.pop("id", index), **fields})
    for index, fields in enumerate([dict(one) for one in objects], start=1)
  ]
  with pytest.raises(ValueError, match=message):
    some_scene(*made)


def test_sizes_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="resample the mask"):
    Scene("a", None, WIDTH, HEIGHT, (some_object(1),))
  for size in ((0, 8), (10**6, 10**6), (-4, -4)):
    with pytest.raises(ValueError, match="no size of a picture"):
      Scene("a", None, *size, ())


def test_scenes_stay_small():
  mask = np.zeros([512, 1024], bool)
  mask[100:300, 200:500] = True
  encoded = SceneObject.from_mask(1, mask).run_lengths
  assert len(encoded.counts) < 2000
  assert not any(isinstance(value, np.ndarray) for value in vars(encoded).values())


def test_messages_are_named_once():
  with pytest.raises(SceneError, match="^a.json: wrong$"), naming("folder"), naming("a.json"):
    raise ValueError("wrong")


def folder_of(records):
  def read(scene_id, record):
    if record == "bad":
      raise ValueError("is bad; mend it")
    return dataclasses.replace(some_scene(), id=scene_id)

  return SceneFolder("scenes", "FOLDER", {}, records, read)


def test_a_scan_goes_on_after_bad_scenes_and_iteration_stops():
  folder = folder_of({"c": None, "b": "bad", "a": None, "d": SceneError("twice")})
  assert folder.ids == ("a", "b", "c", "d") and len(folder) == 4
  found = dict(folder.scan())
  assert [scene_id for scene_id, scene in found.items() if isinstance(scene, Scene)] == ["a", "c"]
  assert str(found["b"]) == "FOLDER: b: is bad; mend it"
  assert str(found["d"]) == "twice"
  with pytest.raises(SceneError, match="FOLDER: b"):
    list(folder)
  with pytest.raises(SceneError, match="has no scene 'z'"):
    folder.read("z")


def test_ids_are_stems_and_only_those_that_clash_name_their_place(tmp_path):
  entries = [("train", "x/1.jpg", 1), ("test", "1.png", 2), ("test", "2.v.jpg", 3)]
  records, splits = index_records(tmp_path, entries)
  assert records == {"train_x_1": 1, "test_1": 2, "2.v": 3}
  assert splits == {"train": ("train_x_1",), "test": ("2.v", "test_1")}
  records, splits = index_records(tmp_path, [("", "a.jpg", 1), ("", "a.jpg", 2), ("", "b", 3)])
  assert isinstance(records["a"], SceneError) and records["b"] == 3 and splits == {}


def test_pictures_are_found_with_and_without_suffix(tmp_path):
  (tmp_path / "x").mkdir()
  for name in ("a.JPG", "b.c.png", "x/d.webp"):
    (tmp_path / name).touch()
  for name, found in [
    ("a", "a.JPG"),
    ("b.c", "b.c.png"),
    ("b.c.png", "b.c.png"),
    ("x/d", "x/d.webp"),
    ("x\\d.webp", "x/d.webp"),
  ]:
    assert PictureFinder([tmp_path / "none", tmp_path]).find(name) == tmp_path / found
  assert PictureFinder([tmp_path]).find("a.png") is None


@pytest.mark.parametrize(
  "name", ["../a.jpg", "/etc/a.jpg", "x/../../a", "C:\\a.jpg", "", "a\0b", ".."]
)
def test_names_that_leave_the_folder_are_refused(name):
  with pytest.raises(ValueError, match="no name of a file inside"):
    inside_folder(name)


def test_two_files_of_one_split_are_refused(tmp_path):
  train, test = tmp_path / "train.json", tmp_path / "instances_test.json"
  assert files_by_split([train, test]) == {"train": train, "test": test}
  assert files_by_split([tmp_path / "ranks.json"]) == {"": tmp_path / "ranks.json"}
  with pytest.raises(SceneError, match="keep one of the two"):
    files_by_split([train, tmp_path / "instances_train.json"])


@pytest.mark.parametrize(
  ("value", "kind", "message"),
  [
    (True, "integer", "must be of kind integer"),
    (1.5, "integer", "must be of kind integer"),
    (float("inf"), "integer", "must be of kind integer"),
    (10**400, "integer", "finite"),
    (float("nan"), "number", "x is nan; give a finite number"),
    (10**400, "number", "finite"),
    ("1", "number", "must be of kind number"),
    (None, "text", "lacks x"),
    ({}, "list", "must be of kind list"),
  ],
)
def test_fields_of_another_kind_are_refused(value, kind, message):
  with pytest.raises(ValueError, match=message):
    field({"x": value}, "x", kind)
  with pytest.raises(ValueError, match="must be an object with x"):
    field([value], "x", kind)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe{}", b"[" * 200_000, b"1" * 5000])
def test_files_that_are_no_json_are_named(data, tmp_path):
  (tmp_path / "a.json").write_bytes(data)
  with pytest.raises(SceneError, match="a.json: not JSON"):
    read_json(tmp_path / "a.json", SceneError)
  with pytest.raises(SceneError, match="b.json: cannot be read"):
    read_json(tmp_path / "b.json", SceneError)
