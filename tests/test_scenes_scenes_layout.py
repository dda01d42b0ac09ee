import io
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from foir360_jax.scenes import SceneError, open_scenes, recognise, write_scenes

HEIGHT, WIDTH = 32, 64


def random_map(numbers=(1, 2, 7)):
  id_map = np.random.default_rng().choice([0, *numbers], [HEIGHT, WIDTH])
  id_map[0, : len(numbers)] = numbers
  return id_map


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


def save_picture(path, height=HEIGHT, width=WIDTH):
  save(path, np.random.default_rng().integers(0, 256, [height, width, 3], dtype=np.uint8))


def rank_content(id_map, order, **changes):
  """A rank file by hand: objects in the order of importance given."""
  objects = []
  for rank, number in enumerate(order, start=1):
    runs, value = [0], False
    for pixel in (id_map == number).T.ravel().tolist():
      if pixel != value:
        runs.append(0)
        value = pixel
      runs[-1] += 1
    objects.append(
      {
        "id": number,
        "importance": round(0.95 - 0.1 * rank, 2),
        "rank": rank,
        "bfov_deg": [0, 0, 10, 10],
        "bbox_px": [0, 0, 1, 1],
        "area_sr": 0.1,
        "category": f"kind {number}",
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": coco_text(runs)},
      }
    )
  return {"image": "a.jpg", "height": HEIGHT, "width": WIDTH, "objects": objects, **changes}


def coco_text(runs):
  """COCO's text of run lengths, letter by letter."""
  text = ""
  for index, run in enumerate(runs):
    value = run - runs[index - 2] if index > 2 else run
    more = True
    while more:
      bits = value & 31
      value >>= 5
      more = value != -1 if bits & 16 else value != 0
      text += chr(bits + 48 + 32 * more)
  return text


@pytest.fixture
def folder(tmp_path):
  """Two scenes: a with ranks 7, 1, 2 and b without."""
  for name in ("a", "b"):
    save_picture(tmp_path / "images" / f"{name}.jpg")
  id_map = random_map()
  save(tmp_path / "instances" / "a.png", id_map.astype(np.uint8))
  save(tmp_path / "instances" / "b.png", (random_map((5, 700))).astype(np.uint16))
  write_ranks(tmp_path, rank_content(id_map, [7, 1, 2]))
  return tmp_path


def write_ranks(folder, content):
  (folder / "ranks").mkdir(exist_ok=True)
  (folder / "ranks" / "a.json").write_text(json.dumps(content))


def read_ranks(folder):
  return json.loads((folder / "ranks" / "a.json").read_text())


def id_map_of(folder, name):
  return np.asarray(Image.open(folder / "instances" / f"{name}.png"))


def refused(folder, scene_id, message):
  """The one-line message with which a scene is refused while the others are read."""
  scenes = dict(open_scenes(folder).scan())
  error = scenes.pop(scene_id)
  assert isinstance(error, SceneError), error
  assert "\n" not in str(error) and str(folder) in str(error)
  assert message in str(error), error
  assert not any(isinstance(scene, SceneError) for scene in scenes.values())


def test_objects_have_the_masks_of_the_map_and_the_labels_of_the_rank_file(folder):
  scenes = open_scenes(folder)
  assert scenes.format == "scenes" and scenes.ids == ("a", "b") and scenes.splits == {}
  scene = scenes.read("a")
  assert scene.image_file == folder / "images" / "a.jpg" and scene.format == "scenes"
  assert (scene.height, scene.width) == (HEIGHT, WIDTH)
  assert [item.id for item in scene.objects] == [7, 1, 2]
  assert [item.rank for item in scene.objects] == [1, 2, 3]
  assert [item.importance for item in scene.objects] == [0.85, 0.75, 0.65]
  assert [item.category for item in scene.objects] == ["kind 7", "kind 1", "kind 2"]
  for item in scene.objects:
    np.testing.assert_array_equal(item.mask, id_map_of(folder, "a") == item.id)
  assert scene.notes == ()


def test_without_ranks_objects_are_there_all_the_same(folder):
  scene = open_scenes(folder).read("b")
  assert [(item.id, item.rank, item.importance) for item in scene.objects] == [
    (5, None, None),
    (700, None, None),
  ]
  np.testing.assert_array_equal(scene.masks()[1], id_map_of(folder, "b") == 700)


def test_rank_files_alone_are_a_folder_as_prediction_writes_it(folder, tmp_path_factory):
  alone = tmp_path_factory.mktemp("predicted")
  content = rank_content(np.ones([HEIGHT, WIDTH]), [1, 1])
  content["objects"][1] |= {"id": 2, "rank": 1}
  write_ranks(alone, content)
  scene = open_scenes(alone).read("a")
  assert scene.image_file is None and scene.masks().all() and len(scene.objects) == 2


def test_lists_give_the_splits_and_other_text_files_do_not(folder):
  (folder / "train.txt").write_text("b.jpg\n\n")
  (folder / "test_images.txt").write_text("\ufeffa\r\n", encoding="utf-8")
  (folder / "README.txt").write_text("what this is")
  assert open_scenes(folder).splits == {"train": ("b",), "test": ("a",)}


def test_an_id_that_is_listed_twice_or_is_not_there_is_refused(folder):
  (folder / "train.txt").write_text("a\n")
  (folder / "test.txt").write_text("a\n")
  refused(folder, "a", "a is listed in test.txt already")
  (folder / "test.txt").write_text("c\n")
  refused(folder, "c", "missing; add it")


def test_a_palette_map_counts_by_index(folder):
  picture = Image.fromarray(random_map((1, 2)).astype(np.uint8), mode="L")
  indexed = Image.new("P", picture.size)
  indexed.putdata(list(np.asarray(picture).ravel().tolist()))
  indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
  indexed.save(folder / "instances" / "b.png")
  scene = open_scenes(folder).read("b")
  assert [item.id for item in scene.objects] == [1, 2]
  np.testing.assert_array_equal(scene.masks()[0], np.asarray(picture) == 1)


def colours():
  return np.zeros([HEIGHT, WIDTH, 3], np.uint8)


def palette_with_transparency(path):
  Image.fromarray(random_map().astype(np.uint8)).convert("P").save(path, transparency=0)


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (lambda path: save(path, colours()), "has colours (RGB)"),
    (lambda path: save(path, np.zeros([HEIGHT, WIDTH, 4], np.uint8)), "has colours (RGBA)"),
    (lambda path: Image.new("LA", (WIDTH, HEIGHT)).save(path), "has a transparency channel"),
    (palette_with_transparency, "has a palette with transparency"),
    (lambda path: Image.new("F", (WIDTH, HEIGHT)).save(path, "TIFF"), "floating-point"),
    (lambda path: Image.new("I", (WIDTH, HEIGHT)).save(path, "TIFF"), "32-bit"),
    (lambda path: Image.new("L", (WIDTH, HEIGHT)).save(path, "JPEG"), "a JPEG file changes"),
    (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is not complete"),
    (lambda path: path.write_bytes(b""), "the file is empty"),
    (lambda path: path.write_bytes(b"no picture"), "not a picture"),
    (lambda path: path.unlink(), "missing; add it"),
    (
      lambda path: save(path, np.ones([HEIGHT, WIDTH + 1], np.uint8)),
      "its annotation says 65 x 32",
    ),
  ],
)
def test_a_map_that_is_none_is_refused(spoil, message, folder):
  spoil(folder / "instances" / "b.png")
  refused(folder, "b", message)


def bomb(path, width=60_000, height=60_000):
  """A PNG of some kilobytes that unpacks to gigabytes."""

  def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

  header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
  data = chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))


@pytest.mark.parametrize("name", ["images/b.jpg", "instances/b.png"])
def test_a_picture_that_unpacks_to_gigabytes_is_refused_unopened(name, folder):
  bomb(folder / name)
  refused(folder, "b", f"{name}: the picture has too many pixels")


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (lambda path: path.write_bytes(path.read_bytes()[:300]), "b.jpg: the picture is not complete"),
    (lambda path: path.unlink(), "missing; add it"),
    (lambda path: save_picture(path, 30, 60), "has 60 x 30 pixels, its annotation says 64 x 32"),
    (
      lambda path: save_picture(path.with_suffix(".png")),
      "b.jpg and b.png would have the same results, b",
    ),
  ],
)
def test_a_bad_picture_is_refused(spoil, message, folder):
  data = io.BytesIO()
  noise = np.random.default_rng().integers(0, 256, [HEIGHT, WIDTH, 3], dtype=np.uint8)
  Image.fromarray(noise).save(data, "JPEG", quality=95)
  (folder / "images" / "b.jpg").write_bytes(data.getvalue())
  spoil(folder / "images" / "b.jpg")
  refused(folder, "b", message)


def test_headers_do_where_only_annotations_are_wanted(folder):
  path = folder / "images" / "b.jpg"
  path.write_bytes(path.read_bytes()[:-200])
  refused(folder, "b", "not complete")
  assert open_scenes(folder, check_pictures=False).read("b").height == HEIGHT


def change_ranks(**changes):
  return lambda folder: write_ranks(folder, read_ranks(folder) | changes)


def change_object(index, **changes):
  def change(folder):
    content = read_ranks(folder)
    content["objects"][index] |= changes
    write_ranks(folder, content)

  return change


def drop_object(folder):
  content = read_ranks(folder)
  content["objects"].pop()
  write_ranks(folder, content)


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (drop_object, "a.json: has no rank for objects [2] of"),
    (change_object(2, id=9), "a.json: ranks objects [9], which"),
    (change_object(1, id=7), "a.json: two objects have one id"),
    (change_object(0, importance=float("nan")), "importance is nan"),
    (change_object(0, importance=2), "importance is 2, outside"),
    (change_object(2, rank=5), "leave a number out"),
    (change_object(1, rank=None), "rank must be of type integer"),
    (lambda folder: (folder / "ranks" / "a.json").write_text("{"), "a.json: not JSON"),
    (change_ranks(objects=3), "objects must be of type array"),
  ],
)
def test_bad_labels_are_refused(spoil, message, folder):
  spoil(folder)
  refused(folder, "a", message)


def test_labels_of_another_size_are_refused(folder):
  small = random_map()[:16, :32]
  content = rank_content(small, [7, 1, 2], height=16, width=32)
  for entry in content["objects"]:
    entry["segmentation"]["size"] = [16, 32]
  save(folder / "instances" / "a.png", random_map().astype(np.uint8))
  write_ranks(folder, content)
  refused(folder, "a", "is for 32 x 16 pixels")


def test_labels_that_seem_to_be_of_another_picture_are_noted(folder):
  id_map = np.roll(id_map_of(folder, "a") == 7, 5, axis=0) * 7
  other = rank_content(id_map, [7])["objects"][0]["segmentation"]
  change_object(0, segmentation=other)(folder)
  change_ranks(image="z.jpg")(folder)
  notes = open_scenes(folder).read("a").notes
  assert notes[0] == "the rank file names the picture z.jpg"
  change_ranks(image="b_a.jpg")(folder)
  assert open_scenes(folder).read("a").notes[0] == "the rank file names the picture b_a.jpg"
  assert notes[1].startswith("object 7 has another mask in the rank file")
  np.testing.assert_array_equal(
    open_scenes(folder).read("a").objects[0].mask, id_map_of(folder, "a") == 7
  )


def test_what_was_read_is_written_and_read_again(folder, tmp_path_factory):
  target = tmp_path_factory.mktemp("copy") / "scenes"
  scenes = list(open_scenes(folder))
  assert write_scenes(target, scenes, format="scenes", splits={"train": ["b"], "val": ["a"]}) == []
  assert recognise(target) == "scenes"
  again = open_scenes(target)
  assert again.splits == {"train": ("b",), "val": ("a",)}
  for before, after in zip(scenes, again, strict=True):
    assert before.objects == after.objects
    assert before.image_file.read_bytes() == after.image_file.read_bytes()


def test_real_panoramas_brought_to_this_layout_are_read(shared, tmp_path):
  manifest = json.loads((shared / "data" / "manifest.json").read_text())
  records = manifest["erp_annotated"]
  for record in records:
    for kind, source in (("images", record["rgb"]), ("instances", record["ids"])):
      target = tmp_path / kind / f"{record['id']}.png"
      target.parent.mkdir(exist_ok=True)
      target.write_bytes((shared / "data" / source).read_bytes())
  scenes = {scene.id: scene for scene in open_scenes(tmp_path)}
  assert len(scenes) == len(records) == 39
  for record in records:
    scene = scenes[record["id"]]
    assert [scene.width, scene.height] == record["size"]
    id_map = id_map_of(tmp_path, record["id"])
    assert len(scene.objects) == len(np.unique(id_map[id_map > 0]))
    for item in scene.objects:
      assert item.run_lengths.area() == np.count_nonzero(id_map == item.id)


@pytest.mark.parametrize("field", ["agreement", "detection_confidence"])
@pytest.mark.parametrize("complete", [True, False])
def test_optional_fields_of_rank_files_are_written_again(folder, tmp_path, field, complete):
  file = folder / "ranks" / "a.json"
  content = json.loads(file.read_text())
  for entry, value in zip(content["objects"], [0.25, 1.0, 0.5], strict=True):
    entry[field] = value
  if not complete:
    del content["objects"][1][field]
  file.write_text(json.dumps(content))
  scene = open_scenes(folder).read("a")
  losses = write_scenes(tmp_path / "new", [scene], format="scenes")
  written = json.loads((tmp_path / "new" / "ranks" / "a.json").read_text())["objects"]
  found = {entry["id"]: entry.get(field) for entry in written}
  assert found == ({7: 0.25, 1: 1.0, 2: 0.5} if complete else {7: None, 1: None, 2: None})
  assert any(field in line for line in losses) != complete


@pytest.mark.parametrize("scene_id", ["a", "test_a", "test_room_a", "room_a_0123abcd"])
def test_ids_that_begin_with_split_and_folders_are_of_the_picture_of_the_name(folder, scene_id):
  for file in [*folder.rglob("a.*")]:
    file.rename(file.with_stem(scene_id))
  assert not open_scenes(folder).read(scene_id).notes


def test_labels_without_pictures_say_where_these_belong(folder):
  shutil.rmtree(folder / "images")
  with pytest.raises(SceneError, match=r"a: has no picture; put it into .*/images"):
    open_scenes(folder).read("a").require_image_file()


def object_content(id_map, numbers, **changes):
  """An object file by hand, with a mask that overlaps the others."""
  content = rank_content(id_map, numbers, **changes)
  for index, entry in enumerate(content["objects"]):
    del entry["rank"], entry["importance"]
    entry["detection_confidence"] = round(0.5 + 0.1 * index, 2)
  return content


def write_objects(folder, content, name="a"):
  path = folder / "objects" / f"{name}.json"
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps(content))


def test_objects_that_overlap_and_have_no_ranks_are_read_from_an_object_file(tmp_path):
  save_picture(tmp_path / "images/a.jpg")
  whole = np.ones([HEIGHT, WIDTH], int)
  part = np.zeros_like(whole)
  part[4:9, 60:] = 3
  content = object_content(whole, [1])
  content["objects"] += object_content(part, [3])["objects"]
  write_objects(tmp_path, content)
  assert recognise(tmp_path) == "scenes"
  scene = open_scenes(tmp_path).read("a")
  assert [item.id for item in scene.objects] == [1, 3] and not scene.is_ranked
  assert (scene.masks() == np.stack([whole > 0, part > 0])).all()
  assert [item.category for item in scene.objects] == ["kind 1", "kind 3"]
  assert scene.objects[1].extra == {"detection_confidence": 0.5}
  # Beside the id map of these masks, and ranks of them.
  painted = np.where(part, 3, whole).astype(np.uint8)
  save(tmp_path / "instances/a.png", painted)
  (tmp_path / "ranks").mkdir()
  (tmp_path / "ranks/a.json").write_text('{"3": 1, "1": 2}')
  scene = open_scenes(tmp_path).read("a")
  assert [(item.id, item.rank, item.category) for item in scene.objects] == [
    (3, 1, "kind 3"),
    (1, 2, "kind 1"),
  ]
  assert (scene.masks() == np.stack([part > 0, whole > 0])).all()
  assert scene.objects[0].extra == {"detection_confidence": 0.5}


def test_an_object_file_and_an_id_map_of_other_objects_are_refused(tmp_path):
  save_picture(tmp_path / "images/a.jpg")
  id_map = random_map()
  write_objects(tmp_path, object_content(id_map, [1, 2, 7]))
  save(tmp_path / "instances/a.png", id_map.astype(np.uint8))
  assert len(open_scenes(tmp_path).read("a").objects) == 3
  id_map[0, 0] = 2
  save(tmp_path / "instances/a.png", id_map.astype(np.uint8))
  with pytest.raises(SceneError, match=r"objects.a\.json: has other objects than .*a\.png; remove"):
    open_scenes(tmp_path).read("a")


def test_an_object_file_is_checked_as_a_rank_file_is(tmp_path):
  save_picture(tmp_path / "images/a.jpg")
  id_map = random_map()
  for change, message in (
    (lambda c: c["objects"][0].pop("segmentation"), "lacks segmentation"),
    (lambda c: c["objects"][0].update(detection_confidence=2), "outside"),
    (lambda c: c["objects"][0].update(id=2), "two objects have one id"),
  ):
    content = object_content(id_map, [1, 2, 7])
    change(content)
    write_objects(tmp_path, content)
    with pytest.raises(SceneError, match=rf"objects.a\.json: .*{message}"):
      open_scenes(tmp_path).read("a")
