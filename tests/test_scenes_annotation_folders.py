"""Folders of annotations as people and their tools really make them: read, or refused in a line."""

import doctest
import json
import shutil
import uuid

import numpy as np
import pytest
from PIL import Image

from foir360_jax.files import id_map_file, listing, picture_file
from foir360_jax.scenes import (
  SceneError,
  coco_annotations,
  foreign_tools,
  open_scenes,
  recognise,
  write_scenes,
)
from foir360_jax.scenes.annotation_files import find_annotation_files

HEIGHT, WIDTH = 16, 32
RANKS = (2, 1, 3)
SQUARES = ([2, 2, 8, 2, 8, 9, 2, 9], [12, 1, 20, 1, 20, 14, 12, 14], [24, 4, 30, 4, 30, 8, 24, 8])
CATEGORIES = [{"id": number, "name": name} for number, name in enumerate("abc", start=1)]


def annotation_of(number, image_id, rank, square, **fields):
  record = {"id": number, "image_id": image_id, "category_id": RANKS.index(rank) + 1}
  return {**record, "segmentation": [square], "rank": rank, "iscrowd": 0, **fields}


def content_of(*names, **fields):
  """COCO's content: pictures numbered from 1, three objects each."""
  images, annotations = [], []
  for image_id, name in enumerate(names, start=1):
    images.append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
    for rank, square in zip(RANKS, SQUARES, strict=True):
      number = len(annotations) + 1
      annotations.append(annotation_of(number, image_id, rank, square, **fields))
  return {"images": images, "annotations": annotations, "categories": [dict(x) for x in CATEGORIES]}


def store(file, content):
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_text(json.dumps(content))


def paint(*files):
  for file in files:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 20, 60)).save(file)


def move_ranks(content, name="rank", place="attributes", convert=float):
  """Puts the ranks where tools have them."""
  for annotation in content["annotations"]:
    value = convert(annotation.pop("rank"))
    annotation |= {place: {name: value, "occluded": False}} if place else {name: value}
  return content


def orders_of(folder, **options):
  return {
    scene.id: [(item.rank, item.category) for item in scene.objects]
    for scene in open_scenes(folder, **options)
  }


EXPECTED = [(2, "a"), (1, "b"), (3, "c")]


@pytest.fixture
def folder(tmp_path):
  """Two pictures beside one file."""
  paint(tmp_path / "in/images/a.png", tmp_path / "in/images/b.png")
  store(tmp_path / "in/annotations.json", content_of("a.png", "b.png"))
  return tmp_path / "in"


@pytest.mark.parametrize(
  ("json_file", "picture_folder"),
  [
    ("annotations/instances_default.json", "images/default"),  # CVAT
    ("annotations/instances_Train.json", "images/Train"),
    ("Annotations/instances_mine.JSON", "Images/mine"),
    ("labels.json", "data"),  # FiftyOne
    ("train/labels.json", "train/data"),
    ("train/_annotations.coco.json", "train"),  # Roboflow
    ("Valid/annotations/labels.json", "Valid/images"),
  ],
)
def test_pictures_are_found_where_tools_put_them(json_file, picture_folder, tmp_path):
  paint(tmp_path / picture_folder / "a.png", tmp_path / picture_folder / "B.PNG")
  store(tmp_path / json_file, content_of("a.png", "b.png"))
  assert orders_of(tmp_path) == {"a": EXPECTED, "b": EXPECTED}
  assert [scene.image_file.name for scene in open_scenes(tmp_path)] == ["a.png", "B.PNG"]


def test_a_folder_a_split_with_a_file_of_its_own_gives_the_splits(tmp_path):
  for split, name in (("train", "a"), ("Valid", "b"), ("test", "c")):
    paint(tmp_path / split / f"{name}.png")
    store(tmp_path / split / "_annotations.coco.json", content_of(f"{name}.png"))
  assert open_scenes(tmp_path).splits == {"train": ("a",), "valid": ("b",), "test": ("c",)}
  assert orders_of(tmp_path) == dict.fromkeys("abc", EXPECTED)


def test_pictures_that_are_not_there_name_the_folders_that_were_tried(folder):
  shutil.rmtree(folder / "images")
  scene = open_scenes(folder).read("a")
  assert scene.image_file is None
  with pytest.raises(SceneError) as error:
    scene.require_image_file()
  assert f"a: picture a.png is not in {folder}: looked for in images" in str(error.value)
  assert "data, the folder itself; put it in one of them" in str(error.value)


def test_a_picture_of_two_splits_is_one_that_cannot_be_used(tmp_path):
  paint(*(tmp_path / f"images/{name}.png" for name in "abc"))
  store(tmp_path / "annotations/instances_train.json", content_of("a.png", "b.png"))
  for name in ("a.png", "A.PNG"):  # one file, in either spelling
    store(tmp_path / "annotations/instances_test.json", content_of(name, "c.png"))
    opened = open_scenes(tmp_path)
    (bad,) = set(opened.ids) - {"b", "c"}
    assert opened.splits == {"train": tuple(sorted((bad, "b"))), "test": tuple(sorted((bad, "c")))}
    with pytest.raises(SceneError, match=rf"{name} is in test and in train; keep it in one split"):
      opened.read(bad)


def test_pictures_of_one_name_in_the_folders_of_their_splits_are_two(tmp_path):
  for split in ("train", "test"):
    paint(tmp_path / split / "a.png")
    store(tmp_path / split / "labels.json", content_of("a.png"))
  assert orders_of(tmp_path) == {"test_a": EXPECTED, "train_a": EXPECTED}


def test_pictures_whose_names_differ_by_the_suffix_alone_are_named(folder):
  paint(folder / "images/a.bmp")
  store(folder / "annotations.json", content_of("a.png", "a.bmp", "b.png"))
  opened = open_scenes(folder)
  with pytest.raises(SceneError, match=r"a\.png and a\.bmp would have the same results; rename"):
    opened.read("a")
  assert len(opened.read("b").objects) == 3
  store(folder / "annotations.json", content_of("a.png", "images/a.png", "b.png"))
  with pytest.raises(SceneError, match=r"a\.png and images/a\.png are one picture; remove one"):
    open_scenes(folder).read("a")


def test_what_only_looks_like_a_picture_has_its_own_line(folder, monkeypatch):
  monkeypatch.setattr(picture_file, "_reads_heif", lambda: False)
  (folder / "images/a.png").unlink()
  (folder / "images/a.png").symlink_to(folder / "gone.png")
  (folder / "images/b.png").rename(folder / "images/b.heic")
  store(folder / "annotations.json", content_of("a.png", "b.heic"))
  opened = open_scenes(folder)
  with pytest.raises(SceneError, match=r"a\.png: a link to .*gone\.png"):
    opened.read("a")
  with pytest.raises(SceneError, match=r"b\.heic: HEIC is not read; .*convert it"):
    opened.read("b")
  paint(folder / "images/b.jpg")  # converted, as the line says; the annotations stay as they are
  assert opened.ids == ("a", "b") and len(open_scenes(folder).read("b").objects) == 3


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_grey_panoramas_without_masks_are_no_rank_maps(suffix, tmp_path):
  grey = np.random.default_rng(0).integers(60, 200, (64, 128), np.uint8)
  Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
  with pytest.raises(SceneError, match=r"no known format \(pictures, but no masks or ranks\)"):
    open_scenes(tmp_path)
  Image.fromarray(np.kron([[0, 9], [5, 0]], np.ones([32, 64])).astype(np.uint8)).save(
    tmp_path / "b.png"
  )
  opened = open_scenes(tmp_path)  # one of them is a map: the other is told what is wrong with it
  assert opened.format == "rank_map" and len(opened.read("b").objects) == 2
  with pytest.raises(SceneError, match=rf"a\.{suffix}"):
    opened.read("a")
  with pytest.raises(SceneError, match=r"b: .*b\.png has no picture; put maps into .*rank_maps"):
    opened.read("b").require_image_file()


def test_folders_in_which_there_is_nothing_and_pictures_are_named(folder, tmp_path):
  (tmp_path / "empty").mkdir()
  store(tmp_path / "out/settings.json", {"command": "predict"})
  for path, line in (
    (tmp_path / "empty", "empty: is empty; give the folder"),
    (tmp_path / "out", "out: holds no results; rank pictures"),
    (folder / "images/a.png", r"a\.png: is a picture; give the folder"),
  ):
    with pytest.raises(SceneError, match=line):
      open_scenes(path)


def test_what_systems_leave_in_folders_is_no_annotation(folder):
  for name in ("._annotations.json", ".DS_Store", "images/._a.png", "Thumbs.db", "._train.txt"):
    (folder / name).write_bytes(b"\0\5\x16\7")
  opened = open_scenes(folder)
  assert opened.ids == ("a", "b") and opened.notes == () and opened.splits == {}


@pytest.mark.parametrize("format", ["scenes", "assr", "rank_map"])
def test_hidden_files_are_passed_over_in_every_layout(format, folder, tmp_path):
  write_scenes(tmp_path / "out", open_scenes(folder), format=format)
  expected = open_scenes(tmp_path / "out")
  for file in [file for file in (tmp_path / "out").rglob("*") if file.is_file()]:
    file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")
  (tmp_path / "out/__MACOSX").mkdir()
  opened = open_scenes(tmp_path / "out")
  assert opened.format == format and opened.ids == expected.ids
  assert opened.splits == expected.splits
  for before, after in zip(expected, opened, strict=True):
    assert before.objects == after.objects


def test_capital_letters_in_names_of_folders_do_not_matter(folder, tmp_path):
  for format in ("scenes", "assr", "rank_map"):
    out = tmp_path / format
    write_scenes(out, open_scenes(folder), format=format, splits={"test": ("a", "b")})
    names = sorted(path for path in out.rglob("*") if path.is_dir() or path.parent == out)
    for path in reversed(names):
      path.rename(path.with_name(path.name.capitalize()))
    opened = open_scenes(out)
    assert opened.format == format and opened.splits == {"test": ("a", "b")}
    assert all(scene.image_file for scene in opened)


def test_a_json_of_another_kind_is_passed_over_and_named(folder):
  (folder / "log.json").write_text('{"epoch": 1}\n{"epoch": 2}\n')
  store(folder / "classes.json", {"a": 1})
  store(folder / "captions.json", {"images": [], "annotations": [{"caption": "x"}]})
  opened = open_scenes(folder)
  assert opened.ids == ("a", "b") and len(opened.notes) == 3
  for name in (
    "log.json: not JSON",
    "classes.json: holds no annot",
    "captions.json: holds no annot",
  ):
    (note,) = [note for note in opened.notes if name in note]
    assert note.endswith("; passed over")
  # What speaks of a split and is broken would be lost.
  (folder / "test.json").write_text("{")
  with pytest.raises(SceneError, match=r"test\.json: not JSON"):
    open_scenes(folder)


def test_a_copy_of_the_annotations_is_passed_over_and_another_version_refused(folder):
  content = json.loads((folder / "annotations.json").read_text())
  (folder / "annotations_backup.json").write_text(json.dumps(content, indent=1))
  opened = open_scenes(folder)
  assert opened.ids == ("a", "b") and opened.splits == {}
  (note,) = opened.notes
  assert note.endswith("annotations_backup.json: is a copy of annotations.json; passed over")
  content["annotations"][0]["rank"] = 1
  store(folder / "annotations_backup.json", content)
  with pytest.raises(SceneError, match=r"of pictures of which annotations\.json is, too \(2, as a"):
    open_scenes(folder)


def test_files_of_different_pictures_stay_splits_of_their_own(folder):
  paint(folder / "images/c.png")
  store(folder / "more.json", content_of("c.png"))
  assert open_scenes(folder).splits == {"annotations": ("a", "b"), "more": ("c",)}


@pytest.mark.parametrize("convert", [str, lambda number: f"{uuid.UUID(int=number)}"])
@pytest.mark.parametrize("which", ["image", "object", "category", "image_id alone"])
def test_ids_may_be_text(convert, which, folder):
  content = content_of("a.png", "b.png")
  if which == "object":
    for annotation in content["annotations"]:
      annotation["id"] = convert(annotation["id"])
  elif which == "category":
    for record in [*content["annotations"], *content["categories"]]:
      name = "category_id" if "category_id" in record else "id"
      record[name] = convert(record[name])
  else:
    for image in content["images"] if which == "image" else ():
      image["id"] = convert(image["id"])
    for annotation in content["annotations"]:
      annotation["image_id"] = (convert if which == "image" else str)(annotation["image_id"])
  store(folder / "annotations.json", content)
  assert orders_of(folder) == {"a": EXPECTED, "b": EXPECTED}
  scene = open_scenes(folder).read("b")
  plain = which != "object" or convert is str
  assert [item.id for item in scene.objects] == ([4, 5, 6] if plain else [1, 2, 3])
  assert len(scene.notes) == (not plain)


def test_ids_may_count_from_zero(folder):
  content = content_of("images\\a.png", "images\\b.png")
  for record in content["annotations"]:
    record |= {name: record[name] - 1 for name in ("id", "image_id", "category_id")}
  for image in content["images"]:
    image["id"] -= 1
  content["categories"] = [dict(x, id=x["id"] - 1) for x in CATEGORIES]
  store(folder / "annotations.json", content)
  assert orders_of(folder) == {"a": EXPECTED, "b": EXPECTED}
  assert [item.id for item in open_scenes(folder).read("a").objects] == [0, 1, 2]


@pytest.mark.parametrize("convert", [float, str])
def test_ranks_are_found_in_the_attributes(convert, folder):
  store(folder / "annotations.json", move_ranks(content_of("a.png", "b.png"), convert=convert))
  assert orders_of(folder) == {"a": EXPECTED, "b": EXPECTED}


def test_ranks_by_another_name_are_hinted_at_and_found_by_it(folder):
  store(folder / "annotations.json", move_ranks(content_of("a.png", "b.png"), "order"))
  scene = open_scenes(folder).read("a")
  with pytest.raises(SceneError, match="by --rank_field .*fields with numbers: order$"):
    scene.ranks()
  assert orders_of(folder, rank_field="order") == {"a": EXPECTED, "b": EXPECTED}
  with pytest.raises(SceneError, match="no annotation has a field 'prio'; .* numbers: order$"):
    open_scenes(folder, rank_field="-prio")


def test_masks_that_are_all_marked_as_crowds_are_objects_and_a_few_are_not(folder):
  content = content_of("a.png", "b.png", iscrowd=1)
  for annotation in content["annotations"]:
    del annotation["rank"]
  store(folder / "annotations.json", content)
  opened = open_scenes(folder)
  assert "all annotations are marked iscrowd" in opened.notes[0]
  assert [len(scene.without_crowds().objects) for scene in opened] == [3, 3]
  content["annotations"][0]["iscrowd"] = 0
  store(folder / "annotations.json", content)
  first, second = open_scenes(folder)
  assert open_scenes(folder).notes == ()
  assert len(first.without_crowds().objects) == 1 and not second.without_crowds().objects
  assert first.without_crowds().notes[0].endswith("or set iscrowd to 0")
  for annotation in content["annotations"]:  # whatever has a rank is an object
    annotation["rank"] = RANKS[(annotation["id"] - 1) % 3]
  store(folder / "annotations.json", content)
  assert [len(scene.without_crowds().objects) for scene in open_scenes(folder)] == [3, 3]


def test_boxes_without_masks_are_refused_in_one_whole_line(folder):
  for empty in (None, []):
    content = content_of("a.png", "b.png", segmentation=empty, bbox=[1, 1, 5, 5])
    store(folder / "annotations.json", content)
    with pytest.raises(SceneError, match="boxes and no masks .*segmentation.* from the boxes$"):
      open_scenes(folder)


def test_pictures_of_one_name_in_several_folders_get_ids_of_their_own(folder):
  names = ["a/x.png", "b\\x.png", "a_x.png", "y.png"]
  paint(*(folder / "images" / name.replace("\\", "/") for name in names))
  store(folder / "annotations.json", content_of(*names))
  ids = open_scenes(folder).ids
  assert len(ids) == 4 and {"a_x", "b_x", "y"} < set(ids)
  (other,) = set(ids) - {"a_x", "b_x", "y"}
  assert other.startswith("a_x_") and len(other) == len("a_x_") + 8
  store(folder / "annotations.json", content_of(*reversed(names)))
  assert open_scenes(folder).ids == ids
  assert open_scenes(folder).read(other).image_file == folder / "images/a/x.png"
  assert open_scenes(folder).read("a_x").image_file == folder / "images/a_x.png"


@pytest.mark.parametrize(
  ("content", "tool"),
  [
    ({"shapes": [], "imagePath": "a.png", "version": "5.4.1"}, "LabelMe"),
    ({"size": {"height": 16, "width": 32}, "objects": [], "tags": []}, "Supervisely"),
    ([{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": []}]}], "Label Studio"),
    ([{"id": 1, "image": "a.png", "annotation_id": 2, "lead_time": 1.0}], "Label Studio"),
    ({"_via_img_metadata": {}}, "VGG Image Annotator"),
    ({"a.png123": {"filename": "a.png", "regions": []}}, "VGG Image Annotator"),
    ({"item": {"name": "a.png"}, "annotations": []}, "V7 Darwin"),
    ([{"data_row": {"id": "x"}, "projects": {}}], "Labelbox"),
  ],
)
def test_the_json_of_annotation_programs_is_named_with_the_way_in(content, tool, tmp_path):
  paint(tmp_path / "a.png")
  store(tmp_path / "a.json", content)
  with pytest.raises(SceneError) as error:
    recognise(tmp_path)
  line = str(error.value)
  assert f"holds JSON of {tool}, which is not read; " in line and line.endswith("in a field rank")
  assert "COCO" in line and "\n" not in line


def test_a_smoothed_map_is_refused_and_single_numbers_along_edges_are_noted(tmp_path):
  id_map = np.zeros((64, 128), np.uint8)
  id_map[10:40, 20:60], id_map[30:60, 80:100], id_map[5:15, 90:120] = 80, 160, 240
  (tmp_path / "instances").mkdir()
  Image.fromarray(id_map).save(tmp_path / "instances/a.png")
  scene = open_scenes(tmp_path).read("a")
  assert len(scene.objects) == 3 and scene.notes == ()
  sliver = id_map.copy()
  sliver[10:40, 60] = 40  # between 80 and 0, all along
  Image.fromarray(sliver).save(tmp_path / "instances/a.png")
  (note,) = open_scenes(tmp_path).read("a").notes
  assert "numbers 40 occur only along edges" in note
  small = Image.fromarray(id_map)
  for method in ("BILINEAR", "BICUBIC", "LANCZOS", "HAMMING"):
    small.resize((90, 45), Image.Resampling[method]).save(tmp_path / "instances/a.png")
    with pytest.raises(SceneError, match=r"instances/a\.png: .* resize it by nearest pixel$"):
      open_scenes(tmp_path).read("a")
  small.resize((90, 45), Image.Resampling.NEAREST).save(tmp_path / "instances/a.png")
  assert len(open_scenes(tmp_path).read("a").objects) == 3
  (tmp_path / "instances").rename(tmp_path / "rank_maps")
  small.resize((90, 45), Image.Resampling.BILINEAR).save(tmp_path / "rank_maps/a.png")
  with pytest.raises(SceneError, match="resize it by nearest pixel"):
    open_scenes(tmp_path).read("a")


def test_beside_an_id_map_ids_and_ranks_are_enough(tmp_path):
  id_map = np.zeros((HEIGHT, WIDTH), np.uint8)
  id_map[2:8, 2:9], id_map[1:14, 12:20], id_map[4:8, 24:30] = 1, 2, 3
  for folder in ("instances", "ranks"):
    (tmp_path / folder).mkdir()
  Image.fromarray(id_map).save(tmp_path / "instances/a.png")
  file = tmp_path / "ranks/a.json"
  objects = [{"id": number, "rank": rank} for number, rank in zip((1, 2, 3), RANKS, strict=True)]
  for content in ({"objects": objects}, {"1": 2, "2": 1, "3": 3}):
    store(file, content)
    scene = open_scenes(tmp_path).read("a")
    assert {item.id: item.rank for item in scene.objects} == {1: 2, 2: 1, 3: 3}
    assert [item.importance for item in scene.objects] == [1.0, 2 / 3, 1 / 3]
  objects[0] |= {"category": "x", "importance": 0.5}
  store(file, {"objects": objects})
  with pytest.raises(SceneError, match=r"ranks/a\.json: objects \[2, 3\] have no importance"):
    open_scenes(tmp_path).read("a")
  store(file, {"objects": [{"id": 1}]})
  with pytest.raises(SceneError, match=r"ranks/a\.json: objects\[0\] lacks rank"):
    open_scenes(tmp_path).read("a")
  shutil.rmtree(tmp_path / "instances")
  store(file, {"objects": objects})
  with pytest.raises(SceneError, match="the file lacks image, height, width"):
    open_scenes(tmp_path).read("a")


def test_looking_at_a_folder_twice_reads_its_files_once(folder, monkeypatch):
  find_annotation_files(folder)
  monkeypatch.setattr("foir360_jax.scenes.annotation_files.read_json", None)
  assert list(find_annotation_files(folder).by_format) == ["coco"]


@pytest.mark.parametrize("module", [listing, id_map_file, coco_annotations, foreign_tools])
def test_examples_in_the_documentation_hold(module):
  result = doctest.testmod(module)
  assert result.attempted and not result.failed
