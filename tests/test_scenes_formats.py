import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from foir360_jax.scenes import (
  FORMATS,
  Scene,
  SceneError,
  SceneObject,
  open_scenes,
  recognise,
  write_scenes,
)
from foir360_jax.scenes.scene import order_objects

HEIGHT, WIDTH = 32, 64


def random_scene(folder, name, num_objects=6, *, overlapping=False, order=None):
  """A scene whose objects are connected, as rank maps need them; some cross the seam."""
  rng = np.random.default_rng()
  picture = folder / f"{name}.png"
  folder.mkdir(exist_ok=True)
  noise = rng.integers(0, 256, [HEIGHT, WIDTH, 3], dtype=np.uint8)
  Image.fromarray(noise).save(picture)
  masks = np.zeros([num_objects, HEIGHT, WIDTH], bool)
  for index, mask in enumerate(masks):
    top = 1 + (HEIGHT - 2) // num_objects * index
    mask[top : top + 2 + overlapping * 5, : rng.integers(5, 40)] = True
    mask[:] = np.roll(mask, rng.integers(WIDTH), axis=1)
  objects = [
    SceneObject.from_mask(index + 1, mask, category=("", "cat", "树")[index % 3])
    for index, mask in enumerate(masks)
  ]
  values = rng.permutation(num_objects) if order is None else order
  return Scene(name, picture, HEIGHT, WIDTH, order_objects(objects, values))


def essence(scene):
  return {item.run_lengths: item.rank for item in scene.objects}


@pytest.mark.parametrize("format", FORMATS)
def test_masks_and_ranks_survive_a_round_trip_through_every_format(format, tmp_path):
  scenes = [random_scene(tmp_path / "made", f"scene {n}", n) for n in range(8)]
  lost = write_scenes(tmp_path / "out", scenes, format=format)
  assert recognise(tmp_path / "out") == format
  again = open_scenes(tmp_path / "out")
  assert again.ids == tuple(scene.id for scene in scenes)
  for before, after in zip(scenes, again, strict=True):
    assert essence(before) == essence(after)
    assert after.format == format
    assert after.image_file.read_bytes() == before.image_file.read_bytes()
    np.testing.assert_array_equal(np.sort(before.relevance()), np.sort(after.relevance()))
  if format in ("scenes", "coco"):
    assert lost == []
    for before, after in zip(scenes, again, strict=True):
      found = {item.id: item for item in after.objects}
      assert len(found) == len(before.objects)
      for item in before.objects:
        assert found[item.id].category == item.category
        assert found[item.id].importance == pytest.approx(item.importance, abs=1e-7)
  else:
    assert any("categories" in line for line in lost)


@pytest.mark.parametrize("format", FORMATS)
def test_ties_survive(format, tmp_path):
  scene = random_scene(tmp_path / "made", "a", 5, order=[3, 3, 1, 2, 1])
  write_scenes(tmp_path / "out", [scene], format=format)
  assert essence(open_scenes(tmp_path / "out").read("a")) == essence(scene)


@pytest.mark.parametrize("format", FORMATS)
def test_overlaps_are_kept_or_said_to_be_lost(format, tmp_path):
  scene = random_scene(tmp_path / "made", "a", 6, overlapping=True)
  masks = scene.masks()
  lost = write_scenes(tmp_path / "out", [scene], format=format)
  said = any("overlaps" in line and "(1 of the scenes: a)" in line for line in lost)
  kept = essence(open_scenes(tmp_path / "out").read("a")) == essence(scene)
  assert said != kept or masks.sum(axis=0).max() < 2
  if format in ("coco", "assr", "irsr", "seqrank"):
    assert kept


@pytest.mark.parametrize("format", ["scenes", "rank_map"])
def test_an_object_wholly_under_others_is_refused_before_anything_is_written(format, tmp_path):
  scene = random_scene(tmp_path / "made", "a", 2)
  twin = SceneObject(9, scene.objects[0].run_lengths)
  objects = order_objects([*scene.objects, twin], [3, 2, 1])
  with pytest.raises(SceneError, match="lie wholly under others"):
    write_scenes(tmp_path / "out", [Scene("a", None, HEIGHT, WIDTH, objects)], format=format)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["assr", "irsr", "seqrank", "rank_map"])
def test_scenes_without_ranks_are_refused_where_ranks_are_all_there_is(format, tmp_path):
  scene = random_scene(tmp_path / "made", "a", 2)
  unranked = tuple(SceneObject(o.id, o.run_lengths) for o in scene.objects)
  with pytest.raises(SceneError, match=r"objects \[1, 2\] have no rank"):
    write_scenes(
      tmp_path / "out", [Scene("a", scene.image_file, HEIGHT, WIDTH, unranked)], format=format
    )
  assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_rank_files_hold_panoramas_only(tmp_path):
  mask = np.ones([20, 30], bool)
  objects = (SceneObject.from_mask(1, mask, rank=1, importance=1.0),)
  with pytest.raises(SceneError, match="2:1 panoramas only, not 30 x 20; write it as coco"):
    write_scenes(tmp_path / "out", [Scene("a", None, 20, 30, objects)], format="scenes")


def test_importance_and_ties_survive_in_scenes_and_coco(tmp_path):
  scene = random_scene(tmp_path / "made", "a", 3)
  made = [
    SceneObject(o.id * 1000, o.run_lengths, importance, rank)
    for o, importance, rank in zip(scene.objects, [0.5, 0.75, 0.5], [2, 1, 3], strict=True)
  ]
  changed = Scene("a", scene.image_file, HEIGHT, WIDTH, tuple(made))
  for format in ("scenes", "coco"):
    assert write_scenes(tmp_path / format, [changed], format=format) == []
    again = open_scenes(tmp_path / format).read("a").objects
    assert {(o.id, o.rank, o.importance) for o in again} == {
      (1000, 2, 0.5),
      (2000, 1, 0.75),
      (3000, 3, 0.5),
    }
  lost = write_scenes(tmp_path / "irsr", [changed], format="irsr")
  assert [line.split(" (")[0] for line in lost] == [
    "irsr cannot hold importance: only the order is kept",
    "irsr cannot hold object ids: numbered anew from 1",
  ]


def test_ids_beyond_16_bits_are_numbered_anew_and_said_so(tmp_path):
  scene = random_scene(tmp_path / "made", "a", 2)
  objects = order_objects(
    [SceneObject(70_000 + o.id, o.run_lengths) for o in scene.objects], [1, 2]
  )
  (line,) = write_scenes(
    tmp_path / "out", [Scene("a", scene.image_file, HEIGHT, WIDTH, objects)], format="scenes"
  )
  assert "object ids outside 1 ... 65535: numbered anew" in line
  assert sorted(o.id for o in open_scenes(tmp_path / "out").read("a").objects) == [1, 2]


def test_nothing_is_overwritten_unless_asked_for(tmp_path):
  scene = random_scene(tmp_path / "made", "a")
  out = tmp_path / "out"
  out.mkdir()
  write_scenes(out, [scene], format="coco")
  before = (out / "annotations.json").read_bytes()
  other = random_scene(tmp_path / "made", "a")
  with pytest.raises(SceneError, match="exists and is not empty"):
    write_scenes(out, [other], format="coco")
  assert (out / "annotations.json").read_bytes() == before
  write_scenes(out, [other], format="coco", overwrite=True)
  assert essence(open_scenes(out).read("a")) == essence(other)
  with pytest.raises(SceneError, match="exists and is not empty"):
    write_scenes(out / "annotations.json", [other], format="coco", overwrite=True)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
  scenes = [random_scene(tmp_path / "made", name) for name in "ab"]

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr("foir360_jax.scenes.writing.write_atomically", fail)
  with pytest.raises(OSError, match="disk full"):
    write_scenes(tmp_path / "out", scenes, format="assr")
  assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda a, b: ([a, a], {}), "2 scenes have the id a"),
    (lambda a, b: ([a, b], {"splits": {"train": ["a"]}}), "splits must name each scene once"),
    (lambda a, b: ([a], {"splits": {"train": ["a"], "test": ["a"]}}), "look at a"),
    (lambda a, b: ([a], {"splits": {"x/y": ["a"]}}), "cannot be the name of a file"),
    (lambda a, b: ([a, Scene("c", None, HEIGHT, WIDTH, ())], {}), "1 of 2 scenes have no picture"),
    (lambda a, b: ([Scene("../c", None, HEIGHT, WIDTH, ())], {}), "cannot be the name of a file"),
    (lambda a, b: ([a], {"format": "voc"}), "format 'voc' is not known; choose one of scenes"),
  ],
)
def test_what_cannot_be_written_is_refused(change, message, tmp_path):
  scenes, arguments = change(*(random_scene(tmp_path / "made", name) for name in "ab"))
  with pytest.raises(SceneError, match=message):
    write_scenes(tmp_path / "out", scenes, **{"format": "coco", **arguments})
  assert not (tmp_path / "out").exists()


def test_a_folder_of_no_format_says_what_was_looked_for(tmp_path):
  (tmp_path / "package.json").write_text('{"name": "x"}')
  with pytest.raises(SceneError) as error:
    open_scenes(tmp_path)
  for name, layout in FORMATS.items():
    assert f"{name}: {layout}" in str(error.value)
  with pytest.raises(SceneError, match="no such folder"):
    recognise(tmp_path / "absent")
  with pytest.raises(SceneError, match="is not coco; looked for"):
    open_scenes(tmp_path, format="coco")
  with pytest.raises(SceneError, match="is a file; assr is a folder"):
    open_scenes(tmp_path / "package.json", format="assr")
  with pytest.raises(SceneError, match="format 'x' is not known"):
    open_scenes(tmp_path, format="x")


def test_a_folder_of_two_formats_asks_which(tmp_path):
  scene = random_scene(tmp_path / "made", "a")
  write_scenes(tmp_path / "out", [scene], format="scenes")
  write_scenes(tmp_path / "out", [scene], format="coco", overwrite=True)
  with pytest.raises(SceneError, match="could be scenes or coco; say which by --format"):
    open_scenes(tmp_path / "out")
  assert open_scenes(tmp_path / "out", format="coco").format == "coco"


class Trap:
  def __reduce__(self):
    return (exec, ("raise SystemExit('the pickle was loaded')",))


def test_pickle_files_are_refused_unread_and_the_cure_works(tmp_path):
  records = [{"file_name": "a.jpg", "rank": np.arange(2), "counts": b"abc"}]
  (tmp_path / "Annotations").mkdir()
  path = tmp_path / "Annotations" / "train.pkl"
  path.write_bytes(pickle.dumps([Trap()]))
  for arguments in ({}, {"format": "irsr"}):
    for target in (tmp_path, path):
      with pytest.raises(SceneError, match="train.pkl: pickle files are refused") as error:
        open_scenes(target, **arguments)
  path.write_bytes(pickle.dumps(records))
  command = str(error.value).partition("python -c '")[2].rstrip("'")
  subprocess.run([sys.executable, "-c", command], cwd=path.parent, check=True)
  converted = json.loads(path.with_suffix(".json").read_text())
  assert converted == [{"file_name": "a.jpg", "rank": [0, 1], "counts": "abc"}]


@pytest.mark.parametrize("format", ["irsr", "seqrank", "coco", "assr", "scenes"])
def test_whatever_a_field_is_replaced_by_is_refused_by_one_line_or_read(format, tmp_path):
  """Replaces each value in the JSON in turn: no other exception may come out."""
  scenes = [random_scene(tmp_path / "made", name, 2) for name in "ab"]
  write_scenes(tmp_path / "out", scenes, format=format)
  rng = np.random.default_rng()
  path = next(
    file
    for file in (tmp_path / "out").rglob("*.json")
    if file.parent.name != "test" or format == "irsr"
  )
  text = path.read_text()
  junk = [None, -1, 10**40, 0.5, float("nan"), "x", "../x", "", [], {}, [[]], True, [1], {"a": 1}]

  def places(value, trail=()):
    if isinstance(value, dict | list):
      for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*trail, key)
        yield from places(part, (*trail, key))

  refused = 0
  for trail in list(places(json.loads(text))):
    content = json.loads(text)
    holder = content
    for key in trail[:-1]:
      holder = holder[key]
    holder[trail[-1]] = junk[rng.integers(len(junk))]
    path.write_text(json.dumps(content))
    try:
      for _, scene in open_scenes(tmp_path / "out", format=format, check_pictures=False).scan():
        assert isinstance(scene, Scene | SceneError)
        if isinstance(scene, SceneError):
          refused += 1
          assert "\n" not in str(scene)
    except SceneError as error:
      refused += 1
      assert "\n" not in str(error)
  assert refused > 10
