import copy
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from foir360_jax.files.panorama_file import read_pixels
from foir360_jax.scenes import RunLengths, SceneError, open_scenes, write_scenes

HEIGHT, WIDTH = 16, 32


def runs_of(mask):
  flat = np.concatenate([[False], mask.T.ravel(), [False]])
  borders = np.flatnonzero(flat[1:] != flat[:-1])
  return np.diff([0, *borders.tolist(), mask.size]).tolist()


@pytest.fixture
def masks():
  rng = np.random.default_rng()
  masks = rng.random([4, HEIGHT, WIDTH]) < 0.4
  masks[0] = False
  masks[0, 2:6, 3:9] = True
  return masks


@pytest.fixture
def content(masks):
  """Two pictures, three objects in the three forms and a crowd, with fields nobody knows."""
  size = [HEIGHT, WIDTH]
  compressed = coco_mask.encode(np.asfortranarray(masks[2], np.uint8))["counts"].decode()
  shared = {"bbox": [0.5, 1.0, 2.0, 3.0], "image_id": 50, "category_id": 3}
  return {
    "info": {"year": 2025, "contributor": "Ä"},
    "licenses": [{"id": 1, "name": "none"}],
    "categories": [
      {"id": 3, "name": "dog", "supercategory": "animal"},
      {"id": 9, "name": "car", "keypoints": ["wheel"]},
    ],
    "version": [1, 2],
    "images": [
      {"id": 50, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH, "license": 1},
      {"id": 7, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH, "date_captured": "x"},
    ],
    "annotations": [
      {
        **shared,
        **{"id": 100, "rank": 2, "area": 24.0, "iscrowd": 0, "attributes": {"seen": [1]}},
        "segmentation": [[3, 2, 9, 2, 9, 6, 3, 6]],
      },
      {
        **shared,
        **{"id": 5, "rank": 1, "category_id": 9, "area": 1, "score": 0.25},
        "segmentation": {"size": size, "counts": runs_of(masks[1])},
      },
      {**shared, "id": 6, "rank": 2, "segmentation": {"size": size, "counts": compressed}},
      {
        **shared,
        **{"id": 8, "iscrowd": 1},
        "segmentation": {"size": size, "counts": runs_of(masks[3])},
      },
    ],
  }


@pytest.fixture
def folder(content, tmp_path):
  folder = tmp_path / "coco"
  (folder / "images").mkdir(parents=True)
  for image in content["images"]:
    noise = np.random.default_rng().integers(0, 256, [HEIGHT, WIDTH, 3], dtype=np.uint8)
    Image.fromarray(noise).save(folder / "images" / image["file_name"])
  store(folder, content)
  return folder


def store(folder, content):
  (folder / "annotations.json").write_text(json.dumps(content))


def test_objects_are_read_in_every_form_of_mask(folder, masks):
  scenes = open_scenes(folder)
  assert scenes.format == "coco" and scenes.ids == ("a", "b") and scenes.splits == {}
  scene = scenes.read("b")
  np.testing.assert_array_equal(scene.masks(), masks)
  assert [item.id for item in scene.objects] == [100, 5, 6, 8]
  assert [item.rank for item in scene.objects] == [2, 1, 2, None]
  assert [item.importance for item in scene.objects] == [2 / 3, 1.0, 2 / 3, None]
  assert [item.category for item in scene.objects] == ["dog", "car", "dog", "dog"]
  assert scene.objects[3].extra["iscrowd"] == 1
  assert scenes.read("a").objects == ()


def test_a_round_trip_loses_nothing(folder, content, tmp_path):
  assert write_scenes(tmp_path / "out", open_scenes(folder), format="coco") == []
  again = json.loads((tmp_path / "out" / "annotations.json").read_text())
  for name in ("images", "annotations"):
    again[name].sort(key=lambda record: record["id"])
    content[name].sort(key=lambda record: record["id"])
  assert again == content
  for image in content["images"]:
    copied = tmp_path / "out" / "images" / image["file_name"]
    assert copied.read_bytes() == (folder / "images" / image["file_name"]).read_bytes()


def test_a_round_trip_with_splits_keeps_one_file_each(folder, tmp_path):
  splits = {"train": ("a",), "test": ("b",)}
  scenes = list(open_scenes(folder))
  assert write_scenes(tmp_path / "out", scenes, format="coco", splits=splits) == []
  again = open_scenes(tmp_path / "out")
  assert again.splits == splits
  assert [scene.objects for scene in again] == [scene.objects for scene in scenes]


def test_pictures_beside_the_file_do_and_one_file_is_a_folder(folder, masks):
  for picture in (folder / "images").iterdir():
    picture.rename(folder / picture.name)
  for path in (folder, folder / "annotations.json"):
    scene = open_scenes(path).read("b")
    assert scene.image_file == folder / "b.jpg"
    np.testing.assert_array_equal(scene.masks(), masks)


def test_annotations_alone_have_no_pictures_but_one_missing_is_an_error(folder):
  (folder / "images" / "a.jpg").unlink()
  with pytest.raises(SceneError, match="picture a.jpg is not in"):
    open_scenes(folder).read("a")
  (folder / "images" / "b.jpg").unlink()
  assert [scene.image_file for scene in open_scenes(folder)] == [None, None]


def test_importance_alone_gives_the_ranks(folder, content):
  for annotation, value in zip(content["annotations"], [0.2, 0.9, 0.2, 0.0], strict=True):
    annotation.pop("rank", None)
    annotation["importance"] = value
  store(folder, content)
  objects = open_scenes(folder).read("b").objects
  assert [(item.rank, item.importance) for item in objects] == [
    (2, 0.2),
    (1, 0.9),
    (2, 0.2),
    (3, 0),
  ]


def test_any_field_can_give_the_order(folder, content):
  for annotation, value in zip(content["annotations"][:3], [5, -1.5, 0], strict=True):
    annotation["visiting_order"] = value
  store(folder, content)
  for name, ranks in (("visiting_order", [3, 1, 2, None]), ("-visiting_order", [1, 3, 2, None])):
    scene = open_scenes(folder, rank_field=name).read("b")
    assert [item.rank for item in scene.objects] == ranks
  with pytest.raises(SceneError, match="rank_field is for coco"):
    open_scenes(folder, format="seqrank", rank_field="x")


def test_without_any_order_objects_are_unranked(folder, content):
  for annotation in content["annotations"]:
    annotation.pop("rank", None)
  store(folder, content)
  scene = open_scenes(folder).read("b")
  assert all(item.rank is None for item in scene.objects) and not scene.is_ranked


def in_annotation(index, **changes):
  return lambda content: content["annotations"][index].update(changes)


def in_image(index, **changes):
  return lambda content: content["images"][index].update(changes)


SPOILED = [
  (in_annotation(0, rank=4), "ranks [1, 2, 4] are not dense"),
  (in_annotation(0, rank=0), "annotations[0]: rank is 0; 1 is the most important"),
  (in_annotation(0, rank=float("nan")), "annotations[0]: rank must be of kind integer"),
  (in_annotation(0, rank="first"), "annotations[0]: rank must be of kind integer"),
  (in_annotation(0, rank=None), "objects [100] have no rank while others have"),
  (in_annotation(0, importance=0.5), "annotations [1, 2] have no importance while others have"),
  (in_annotation(0, importance=-0.5), "importance is -0.5, outside [0, 1]"),
  (in_annotation(0, importance=float("nan")), "importance is nan"),
  (in_annotation(0, id=5), "ids [5] belong to two objects"),
  (in_annotation(0, id=None), "annotations[0]: lacks id"),
  (in_annotation(0, category_id=77), "category_id 77 is not among the categories"),
  (in_annotation(0, segmentation=None), "segmentation must be polygons or run lengths"),
  (in_annotation(0, segmentation=[[0, 0, 99, 0, 9, 9]]), "leaves the picture of 32 x 16"),
  (in_annotation(0, segmentation={"size": [32, 16], "counts": [1, 511]}), "resample the mask"),
  (in_annotation(1, segmentation={"size": [16, 32], "counts": [512]}), "has no pixel"),
  (in_image(0, width=33), "its annotation says 33 x 16"),
  (in_image(0, height=None), "lacks height"),
  (in_image(0, height="16"), "height must be of kind integer"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_bad_records_are_refused_and_the_good_ones_go_through(spoil, message, folder, content):
  spoil(content)
  store(folder, content)
  scenes = dict(open_scenes(folder).scan())
  assert isinstance(scenes["b"], SceneError), scenes["b"]
  assert message in str(scenes["b"]) and str(folder) in str(scenes["b"])
  assert "\n" not in str(scenes["b"])
  assert not isinstance(scenes["a"], SceneError)


@pytest.mark.parametrize(
  ("spoil", "bad"),
  [
    (in_annotation(0, image_id=51), "annotations have image_id 51"),
    (in_annotation(0, image_id=None), "annotations[0] lacks image_id"),
    (in_annotation(0, image_id=[50]), "annotations[0] lacks image_id"),
    (lambda content: content["annotations"].append(4), "annotations[4] lacks image_id"),
    (lambda content: content["images"].append({"id": 3}), "images[2] lacks file_name"),
    (lambda content: content["images"].append(None), "images[2] must be an object"),
    (lambda content: content["images"].append({"file_name": "c.jpg"}), "images[2] lacks id"),
  ],
)
def test_records_that_belong_to_no_scene_are_reported_beside_the_scenes(
  spoil, bad, folder, content
):
  spoil(content)
  store(folder, content)
  scenes = dict(open_scenes(folder).scan())
  errors = [scene for scene in scenes.values() if isinstance(scene, SceneError)]
  assert len(scenes) == 3 and len(errors) == 1 and bad in str(errors[0])


def test_pictures_of_one_id_are_refused(folder, content):
  content["images"][1]["id"] = 50
  store(folder, content)
  errors = [error for _, error in open_scenes(folder).scan()]
  assert len(errors) == 2 and all("share the id 50" in str(error) for error in errors)


def test_a_declared_size_of_gigabytes_is_refused(folder, content):
  for picture in (folder / "images").iterdir():
    picture.unlink()
  content["images"][0] |= {"height": 10**6, "width": 10**6}
  content["annotations"][1]["segmentation"] = {"size": [10**6, 10**6], "counts": [0, 10**12]}
  store(folder, content)
  with pytest.raises(SceneError, match="is no size of a picture"):
    open_scenes(folder).read("b")


def test_what_changed_since_is_written_anew(folder, content, masks, tmp_path):
  scene = open_scenes(folder).read("b")
  turned = RunLengths.from_mask(~masks[0])
  first = dataclasses.replace(scene.objects[0], run_lengths=turned, category="car")
  second = dataclasses.replace(scene.objects[1], importance=0.75, category="bird")
  third = dataclasses.replace(scene.objects[2], category="")
  changed = dataclasses.replace(scene, objects=(first, second, third, scene.objects[3]))
  write_scenes(tmp_path / "out", [changed], format="coco")
  again = open_scenes(tmp_path / "out")
  objects = again.read("b").objects
  for before, after in zip(changed.objects, objects, strict=True):
    assert (before.run_lengths, before.category) == (after.run_lengths, after.category)
    assert (before.rank, before.importance) == (after.rank, after.importance)
  record = objects[0].extra
  assert record["area"] == turned.area() and record["attributes"] == {"seen": [1]}


def test_importance_that_ranks_do_not_say_is_written(folder, content, tmp_path):
  for annotation, value in zip(content["annotations"][:3], [0.3, 0.9, 0.25], strict=True):
    annotation["importance"] = value
  store(folder, content)
  scene = open_scenes(folder).read("b")
  write_scenes(tmp_path / "out", [scene], format="coco")
  assert open_scenes(tmp_path / "out").read("b").objects == scene.objects


def test_two_collections_join_with_ids_of_their_own(folder, content, tmp_path):
  other = tmp_path / "other"
  (other / "images").mkdir(parents=True)
  Image.new("RGB", (WIDTH, HEIGHT)).save(other / "images" / "c.jpg")
  second = copy.deepcopy(content)
  second["images"] = [second["images"][0] | {"file_name": "c.jpg"}]
  second["categories"] = [{"id": 3, "name": "tree"}, {"id": 9, "name": "car"}]
  second["info"] = {}
  store(other, second)
  scenes = [*open_scenes(folder), *open_scenes(other)]
  lost = write_scenes(tmp_path / "out", scenes, format="coco")
  assert [line.split(" (")[0] for line in lost] == [
    "coco cannot hold info, licences and the like of more than one collection",
    "coco cannot hold two pictures of one id: numbered anew",
    "coco cannot hold two annotations of one id: numbered anew",
  ]
  for before, after in zip(scenes, open_scenes(tmp_path / "out"), strict=True):
    assert [(o.id, o.run_lengths, o.rank, o.category) for o in before.objects] == [
      (o.id, o.run_lengths, o.rank, o.category) for o in after.objects
    ]


def test_a_scene_of_a_new_id_is_written_under_it(folder, tmp_path):
  scenes = [dataclasses.replace(scene, id=f"new {scene.id}") for scene in open_scenes(folder)]
  scenes = [dataclasses.replace(scene, id="z") if "a" in scene.id else scene for scene in scenes]
  (line,) = write_scenes(tmp_path / "out", scenes, format="coco")
  assert "named by the id (2 of the scenes: z, new b)" in line
  again = open_scenes(tmp_path / "out")
  assert again.ids == ("new b", "z")
  assert again.read("new b").objects == scenes[1].objects


def test_one_name_in_two_splits_can_be_written_as_one_file(folder, content, tmp_path):
  both = tmp_path / "both"
  for split in ("train", "test"):
    (both / "images" / split).mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
      picture = (folder / "images" / name).read_bytes()
      (both / "images" / split / name).write_bytes(picture)
    (both / "annotations").mkdir(exist_ok=True)
    (both / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
  scenes = open_scenes(both)
  assert scenes.ids == ("test_a", "test_b", "train_a", "train_b")
  lost = write_scenes(tmp_path / "out", scenes, format="coco", splits=scenes.splits)
  assert lost == []
  assert open_scenes(tmp_path / "out").splits == scenes.splits
  lost = write_scenes(tmp_path / "one", scenes, format="coco")
  assert [line.split(" (")[0].partition("cannot hold ")[2] for line in lost] == [
    "picture names that do not give the ids: named by the id",
    "two pictures of one id: numbered anew",
    "two annotations of one id: numbered anew",
  ]
  again = open_scenes(tmp_path / "one")
  assert [scene.id for scene in again] == list(scenes.ids)
  for before, after in zip(scenes, again, strict=True):
    assert [o.run_lengths for o in before.objects] == [o.run_lengths for o in after.objects]


def turned(folder, orientation, rgb, data=b""):
  """Stores a picture so that viewers show it as `rgb`."""
  stored = {1: rgb, 3: np.rot90(rgb, 2), 6: np.rot90(rgb, 1)}[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = folder / "images" / "b.jpg"
  Image.fromarray(stored).save(path, "WEBP", lossless=True, exif=exif, xmp=data)


def coloured(masks):
  rgb = np.zeros((*masks.shape[1:], 3), np.uint8)
  for index, mask in enumerate(masks):
    rgb[mask] = 50 * (index + 1)
  return rgb


def assert_placed(scene, masks, rgb):
  """Each mask lies on the pixels on which it was drawn."""
  read = read_pixels(scene.image_file)
  assert read.shape[:2] == (scene.height, scene.width)
  for item, mask in zip(scene.objects, masks, strict=True):
    np.testing.assert_array_equal(read[item.mask], rgb[mask])
    assert item.run_lengths.area() == mask.sum()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_masks_drawn_in_a_viewer_fit_the_picture(orientation, folder, masks):
  rgb = coloured(masks)
  turned(folder, orientation, rgb)
  for check_pictures in (True, False):
    scene = open_scenes(folder, check_pictures=check_pictures).read("b")
    assert_placed(scene, masks, rgb)
    assert any("EXIF orientation" in note for note in scene.notes) == (orientation != 1)


def test_masks_of_stored_pixels_are_turned_where_their_size_says_so(folder, content, masks):
  """Row 0 of the annotations is the left edge of what a viewer shows."""
  rgb = coloured(masks)
  turned(folder, 6, rgb)
  (image,) = (image for image in content["images"] if image["id"] == 50)
  image["height"], image["width"] = image["width"], image["height"]
  for annotation, mask in zip(content["annotations"], masks, strict=True):
    annotation["segmentation"] = RunLengths.from_mask(np.rot90(mask, 1)).to_coco()
  store(folder, content)
  assert_placed(open_scenes(folder).read("b"), masks, rgb)


POSE = "GPano:PoseHeadingDegrees='90' GPano:PoseRollDegrees='4'"


def test_a_part_of_the_sphere_and_its_masks_are_placed_and_written_back(folder, masks, tmp_path):
  rgb, (height, width) = coloured(masks), masks.shape[1:]
  names = ("FullPanoHeight", "FullPanoWidth", "CroppedAreaTop", "CroppedAreaLeft")
  values = (3 * height, 3 * width, height, width)
  fields = " ".join(f'GPano:{n}Pixels="{v}"' for n, v in zip(names, values, strict=True))
  turned(folder, 1, rgb, f"<rdf:Description {fields} {POSE}/>".encode())
  scene = open_scenes(folder).read("b")
  assert (scene.height, scene.width) == (3 * height, 3 * width)
  assert scene.extra["pose_deg"] == [90.0, 0.0, 4.0]
  assert_placed(scene, masks, rgb)
  for format in ("coco", "seqrank", "irsr"):
    ranked = dataclasses.replace(scene, objects=scene.objects[:3])
    lost = write_scenes(tmp_path / "out" / format, [ranked], format=format)
    assert not any("pose" in line for line in lost)
    again = open_scenes(tmp_path / "out" / format).read("b")
    assert sorted(item.run_lengths.area() for item in again.objects) == sorted(
      mask.sum() for mask in masks[:3]
    )
    assert (again.height, again.width) == (3 * height, 3 * width)
  with pytest.raises(SceneError, match="b: a part of the sphere, which assr cannot say"):
    write_scenes(tmp_path / "assr", [ranked], format="assr")


def test_a_name_that_is_not_utf8_is_a_line_and_others_go_through(folder, content):
  content["images"][0]["file_name"] = "caf\udce9.jpg"
  store(folder, content)
  scenes = dict(open_scenes(folder).scan())
  good = [scene for scene in scenes.values() if not isinstance(scene, SceneError)]
  assert len(good) == 1
  assert r"the name caf\udce9.jpg is not UTF-8" in str(scenes[r"caf\udce9"])


def test_a_file_name_and_its_file_may_differ_in_the_unicode_form(folder, content, masks):
  (image,) = (image for image in content["images"] if image["id"] == 50)
  image["file_name"] = "k\u00fcche.jpg"
  store(folder, content)
  (folder / "images/b.jpg").rename(folder / "images/ku\u0308che.jpg")
  scene = open_scenes(folder).read("k\u00fcche")
  assert scene.image_file == folder / "images/ku\u0308che.jpg"
  np.testing.assert_array_equal(scene.masks(), masks)
