"""ASSR, IRSR/SIFR and SeqRank: layouts that list pictures with their objects in order."""

import json

import numpy as np
import pytest
from PIL import Image

from foir360_jax.scenes import SceneError, open_scenes, write_scenes

HEIGHT, WIDTH = 20, 30  # not 2:1, as most pictures of these data sets
NAMES = ("0001", "0002")


def save_picture(path, height=HEIGHT, width=WIDTH):
  path.parent.mkdir(parents=True, exist_ok=True)
  noise = np.random.default_rng().integers(0, 256, [height, width, 3], dtype=np.uint8)
  Image.fromarray(noise).save(path)


def boxes(count):
  """Boxes as polygons, and their masks."""
  rng = np.random.default_rng()
  masks = np.zeros([count, HEIGHT, WIDTH], bool)
  polygons = []
  for mask in masks:
    x, y = rng.integers(0, 20), rng.integers(0, 12)
    right, bottom = x + rng.integers(2, 10), y + rng.integers(2, 8)
    mask[y:bottom, x:right] = True
    polygons.append([[int(v) for v in (x, y, right, y, right, bottom, x, bottom)]])
  return polygons, masks


def write_json(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content))


def assr(folder, values):
  """ASSR by hand: split test, NAMES with the same objects; returns the masks."""
  polygons, masks = boxes(len(values))
  data = []
  for name in NAMES:
    save_picture(folder / "images" / "test" / f"{name}.jpg")
    save_picture(folder / "gt" / "test" / f"{name}.png")
    write_json(folder / "rank_order" / "test" / f"{name}.json", {"rank_order": values})
    objects = [{"bbox": [0, 0, 1, 1], "segmentation": polygon} for polygon in polygons]
    data.append({"img": f"{name}.jpg", "object_data": objects})
  write_json(folder / "obj_seg_data_test.json", data)
  (folder / "test_images.txt").write_text("\n".join(NAMES))
  return masks


def sifr(folder, values):
  polygons, masks = boxes(len(values))
  records = []
  for number, name in enumerate(NAMES):
    save_picture(folder / "test" / "rgb" / f"{name}.jpg")
    annotations = [
      {"bbox": [0, 0, 1, 1], "segmentation": polygon, "gt_rank": value}
      for polygon, value in zip(polygons, values, strict=True)
    ]
    record = {"file_name": f"{name}.jpg", "image_id": number, "annotations": annotations}
    records.append(record | {"height": HEIGHT, "width": WIDTH})
  write_json(folder / "test" / "test_annotations.json", records)
  return masks


def irsr(folder, values):
  """IRSR after its pickle file was turned into JSON: no sizes, ranks beside the annotations."""
  polygons, masks = boxes(len(values))
  records = []
  for name in NAMES:
    save_picture(folder / "Images" / "test" / "rgb" / f"{name}.jpg")
    annotations = [{"bbox": [0, 0, 1, 1], "segmentation": polygon} for polygon in polygons]
    records.append({"file_name": f"{name}.jpg", "rank": values, "annotations": annotations})
  write_json(folder / "Annotations" / "test.json", records)
  return masks


def seqrank(folder, values):
  polygons, masks = boxes(len(values))
  data = []
  for name in NAMES:
    save_picture(folder / "images" / "test" / f"{name}.jpg")
    annotations = [
      {"category_id": value, "segmentation": polygon}
      for polygon, value in zip(polygons, values, strict=True)
    ]
    record = {"image_name": name, "height": HEIGHT, "width": WIDTH, "annotations": annotations}
    data.append(record)
  write_json(folder / "test.json", {"__comment__": "made by hand", "data": data})
  return masks


LAYOUTS = {"assr": assr, "sifr": sifr, "irsr": irsr, "seqrank": seqrank}
VALUES = {
  "assr": [0.9, -1.3, 1.0, 0.5, 0.5],
  "sifr": [2, 0, 3, 1, 1],
  "irsr": [2, 0, 3, 1, 1],
  "seqrank": [2, 0, 3, 1, 1],
}
ANNOTATIONS = {
  "sifr": "test/test_annotations.json",
  "irsr": "Annotations/test.json",
  "seqrank": "test.json",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_objects_are_read_with_their_order(layout, tmp_path):
  masks = LAYOUTS[layout](tmp_path, VALUES[layout])
  scenes = open_scenes(tmp_path)
  assert scenes.format == layout.replace("sifr", "irsr")
  assert scenes.ids == NAMES and scenes.splits == {"test": NAMES}
  for scene in scenes:
    assert (scene.height, scene.width) == (HEIGHT, WIDTH)
    assert scene.image_file.name == f"{scene.id}.jpg"
    assert [item.id for item in scene.objects] == [1, 2, 3, 4, 5]
    assert [item.rank for item in scene.objects] == [2, 4, 1, 3, 3]
    assert [item.importance for item in scene.objects] == [0.8, 0.4, 1.0, 0.6, 0.6]
    np.testing.assert_array_equal(scene.masks(), masks)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_without_objects_is_a_scene(layout, tmp_path):
  LAYOUTS[layout](tmp_path, [])
  assert [len(scene.objects) for scene in open_scenes(tmp_path)] == [0, 0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_read_is_written_and_read_again(layout, tmp_path):
  LAYOUTS[layout](tmp_path / "in", VALUES[layout])
  source = open_scenes(tmp_path / "in")
  lost = write_scenes(tmp_path / "out", source, format=source.format, splits=source.splits)
  assert lost == []
  again = open_scenes(tmp_path / "out")
  assert again.splits == source.splits
  for before, after in zip(source, again, strict=True):
    assert [(o.run_lengths, o.rank) for o in before.objects] == [
      (o.run_lengths, o.rank) for o in after.objects
    ]
    for name in ("rank_order", "category_id", "segmentation"):
      kept = [item.extra.get(name) for item in before.objects]
      assert [item.extra.get(name) for item in after.objects] == kept, name


def refused(folder, message, scene_id="0002"):
  """Checks that a scene is refused by one line, and that the other goes through."""
  scenes = dict(open_scenes(folder).scan())
  error = scenes.pop(scene_id)
  assert isinstance(error, SceneError), error
  assert message in str(error) and str(folder) in str(error), error
  assert "\n" not in str(error)
  assert scenes and not any(isinstance(scene, SceneError) for scene in scenes.values())


def records_of(content):
  return content["data"] if isinstance(content, dict) else content


def change(layout, folder, spoil):
  path = folder / ANNOTATIONS[layout]
  content = json.loads(path.read_text())
  spoil(records_of(content)[1])
  write_json(path, content)


def in_first_annotation(**changes):
  return lambda record: record["annotations"][0].update(changes)


SPOILED = [
  (in_first_annotation(segmentation=[]), "annotations[0]: segmentation must be polygons"),
  (in_first_annotation(segmentation=[[0, 0, 40, 0, 9, 9]]), "leaves the picture of 30 x 20"),
  (in_first_annotation(segmentation=[[1, 1, 1, 1, 1, 1]]), "has no pixel"),
  (lambda record: record["annotations"].__setitem__(1, None), "annotations[1]: must be an object"),
  (lambda record: record.pop("annotations"), "lacks annotations"),
  (lambda record: record.update(annotations={}), "annotations must be of kind list"),
  (lambda record: record.update(height=21, width=30), "its annotation says 30 x 21"),
  (lambda record: record.update(height=None, width=30), "lacks height"),
]


@pytest.mark.parametrize("layout", ANNOTATIONS)
@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_bad_records_are_refused_and_the_good_ones_go_through(layout, spoil, message, tmp_path):
  LAYOUTS[layout](tmp_path, VALUES[layout])
  change(layout, tmp_path, spoil)
  refused(tmp_path, message)


@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), "2", None, True, float("inf")])
@pytest.mark.parametrize(("layout", "name"), [("sifr", "gt_rank"), ("seqrank", "category_id")])
def test_bad_ranks_are_refused(layout, name, value, tmp_path):
  LAYOUTS[layout](tmp_path, VALUES[layout])
  change(layout, tmp_path, in_first_annotation(**{name: value}))
  refused(tmp_path, "annotations[0]: " + ("lacks" if value is None else name))


@pytest.mark.parametrize(
  ("ranks", "message"),
  [
    ([2, 0, 3, 1], "has 5 objects and 4 ranks"),
    ([2, 0, 3, 1, -1], "rank[4]: rank is -1"),
    ("2", "rank must be of kind list"),
  ],
)
def test_bad_lists_of_ranks_are_refused(ranks, message, tmp_path):
  irsr(tmp_path, VALUES["irsr"])
  change("irsr", tmp_path, lambda record: record.update(rank=ranks))
  refused(tmp_path, message)


@pytest.mark.parametrize("layout", ANNOTATIONS)
def test_a_record_that_is_none_or_listed_twice_is_refused(layout, tmp_path):
  LAYOUTS[layout](tmp_path, VALUES[layout])
  path = tmp_path / ANNOTATIONS[layout]
  content = json.loads(path.read_text())
  records = records_of(content)
  records += [records[1], 7]
  write_json(path, content)
  scenes = dict(open_scenes(tmp_path).scan())
  assert "is listed twice" in str(scenes["0002"])
  assert "[3] must be an object" in str(scenes[f"{path.name}[3]"])
  assert len(scenes) == 3 and not isinstance(scenes["0001"], SceneError)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bad_pictures_are_refused(layout, tmp_path):
  LAYOUTS[layout](tmp_path, VALUES[layout])
  picture = open_scenes(tmp_path).read("0002").image_file
  picture.write_bytes(picture.read_bytes()[:-100])
  refused(tmp_path, "is not complete")
  picture.unlink()
  refused(tmp_path, "picture 0002")


@pytest.mark.parametrize("layout", ["sifr", "seqrank"])
def test_annotations_without_any_picture_are_read_by_their_sizes(layout, tmp_path):
  masks = LAYOUTS[layout](tmp_path, VALUES[layout])
  for picture in tmp_path.rglob("*.jpg"):
    picture.unlink()
  for scene in open_scenes(tmp_path):
    assert scene.image_file is None
    np.testing.assert_array_equal(scene.masks(), masks)


def test_without_picture_and_size_nothing_can_be_read(tmp_path):
  irsr(tmp_path, VALUES["irsr"])
  for picture in tmp_path.rglob("*.jpg"):
    picture.unlink()
  assert all("neither a picture nor" in str(error) for _, error in open_scenes(tmp_path).scan())


def test_a_picture_name_cannot_lead_out_of_the_folder(tmp_path):
  sifr(tmp_path / "in", VALUES["sifr"])
  save_picture(tmp_path / "secret.jpg")
  change("sifr", tmp_path / "in", lambda record: record.update(file_name="../../../secret.jpg"))
  refused(tmp_path / "in", "is no name of a file inside", scene_id="secret")


def test_one_json_file_is_opened_as_its_folder(tmp_path):
  masks = seqrank(tmp_path, VALUES["seqrank"])
  write_json(tmp_path / "other.json", {"data": 3})
  scenes = open_scenes(tmp_path / "test.json")
  assert scenes.format == "seqrank"
  np.testing.assert_array_equal(scenes.read("0001").masks(), masks)


# ASSR has files of its own.


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ([0.9, -1.3, 1.0, 0.5], "has 5 objects, rank_order/test/0002.json 4 numbers"),
    ([0.9, -1.3, 1.0, 0.5, float("nan")], "rank_order[4]: value is nan"),
    ([0.9, -1.3, 1.1, 0.5, 0.5], "rank_order[2]: is 1.1, above 1.0"),
    ([0.9, None, 1.0, 0.5, 0.5], "rank_order[1]: lacks value"),
    (0.9, "rank_order must be of kind list"),
  ],
)
def test_bad_rank_orders_are_refused(values, message, tmp_path):
  assr(tmp_path, VALUES["assr"])
  write_json(tmp_path / "rank_order" / "test" / "0002.json", {"rank_order": values})
  refused(tmp_path, message)


def test_missing_rank_orders_are_refused(tmp_path):
  assr(tmp_path, VALUES["assr"])
  (tmp_path / "rank_order" / "test" / "0002.json").unlink()
  refused(tmp_path, "0002.json: cannot be read")


def test_masks_and_names_of_assr_must_be_in_one_order(tmp_path):
  assr(tmp_path, VALUES["assr"])
  path = tmp_path / "obj_seg_data_test.json"
  data = json.loads(path.read_text())
  write_json(path, [data[0], data[1] | {"img": "0007"}])
  refused(tmp_path, "[1] is of 0007, test_images.txt has 0002 there")
  write_json(path, [data[0], {"object_data": data[1]["object_data"]}])
  assert len(open_scenes(tmp_path).read("0002").objects) == 5
  write_json(path, data[:1])
  with pytest.raises(SceneError, match="has 1 pictures, test_images.txt 2 names"):
    open_scenes(tmp_path)
  path.unlink()
  with pytest.raises(SceneError, match="obj_seg_data_test.json: missing"):
    open_scenes(tmp_path)


def test_one_name_in_two_splits_of_assr_is_two_scenes(tmp_path):
  assr(tmp_path, VALUES["assr"])
  for path in [*tmp_path.rglob("test"), *tmp_path.glob("*test*")]:
    if path.is_dir():
      for file in path.iterdir():
        other = path.with_name("train") / file.name
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(file.read_bytes())
    else:
      path.with_name(path.name.replace("test", "train")).write_bytes(path.read_bytes())
  scenes = open_scenes(tmp_path)
  assert scenes.ids == ("test_0001", "test_0002", "train_0001", "train_0002")
  assert scenes.splits["train"] == ("train_0001", "train_0002")
  assert scenes.read("train_0001").image_file.parent.name == "train"


def test_the_grey_levels_of_assr_are_those_of_its_authors(tmp_path):
  assr(tmp_path / "in", VALUES["assr"])
  scene = open_scenes(tmp_path / "in").read("0001")
  write_scenes(tmp_path / "out", [scene], format="assr")
  grey = np.asarray(Image.open(tmp_path / "out" / "gt" / "test" / "0001.png"))
  assert set(np.unique(grey).tolist()) <= {0, 255, 229}
  assert set(np.unique(grey).tolist()) & {255, 229}
