import copy
import dataclasses
import json

import jsonschema
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from foir360_jax.scenes import (
  RANK_FILE_SCHEMA,
  RankedObjects,
  RankFileError,
  open_scenes,
  read_rank_file,
)

HEIGHT, WIDTH = 32, 64
VALIDATOR = jsonschema.Draft202012Validator(RANK_FILE_SCHEMA)


@pytest.fixture
def ranked():
  rng = np.random.default_rng()
  masks = rng.random([7, HEIGHT, WIDTH]) < rng.random([7, 1, 1])
  masks[:, 3, 5] = True
  masks[0] = True
  importance = np.append(rng.random(6), 0.5).round(3)
  importance[1] = importance[2]
  return RankedObjects.from_masks(
    rng.integers(0, 256, [HEIGHT, WIDTH, 3], dtype=np.uint8),
    masks,
    importance,
    ["", "Straßenbahn", '"quoted"', "car", "树", "car", "dog"],
    ids=rng.permutation(100)[:7] + 1,
    image="scene.jpg",
  )


@pytest.fixture
def content(ranked, tmp_path):
  ranked.save_json(tmp_path / "content.json")
  return json.loads((tmp_path / "content.json").read_text(encoding="utf-8"))


def read_content(content, tmp_path, **arguments):
  (tmp_path / "changed.json").write_text(json.dumps(content))
  return read_rank_file(tmp_path / "changed.json", **arguments)


def test_reading_gives_back_exactly_what_was_written(ranked, tmp_path):
  ranked.save_json(tmp_path / "ranks" / "scene.json")
  again = read_rank_file(tmp_path / "ranks" / "scene.json", ranked.panorama)
  for field in dataclasses.fields(RankedObjects):
    expected, found = getattr(ranked, field.name), getattr(again, field.name)
    assert type(found) is type(expected), field.name
    if isinstance(expected, np.ndarray):
      assert found.dtype == expected.dtype, field.name
      np.testing.assert_array_equal(found, expected, err_msg=field.name)
    else:
      assert found == expected, field.name


@pytest.fixture(params=["detection_confidence", "agreement"])
def field(request):
  return request.param


@pytest.fixture
def unsure(ranked, field):
  return dataclasses.replace(ranked, **{field: np.linspace(0, 1, 7, dtype=np.float32)})


def test_optional_fields_are_written_where_they_are_known(ranked, unsure, field, tmp_path):
  unsure.save_json(tmp_path / "a.json")
  found = read_rank_file(tmp_path / "a.json")
  np.testing.assert_array_equal(getattr(found, field), getattr(unsure, field))
  assert (found.detection_confidence is None) != (found.agreement is None)
  VALIDATOR.validate(json.loads((tmp_path / "a.json").read_text(encoding="utf-8")))
  ranked.save_json(tmp_path / "b.json")
  assert field not in (tmp_path / "b.json").read_text(encoding="utf-8")


def test_an_optional_field_of_some_objects_alone_is_none(unsure, field, tmp_path):
  unsure.save_json(tmp_path / "a.json")
  content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
  del content["objects"][3][field]
  assert getattr(read_content(content, tmp_path), field) is None


def test_scenes_keep_optional_fields_beside_the_known_ones(unsure, field, tmp_path):
  unsure.save_json(tmp_path / "scenes/ranks/a.json")
  (scene,) = open_scenes(tmp_path / "scenes")
  kept = [item.extra for item in scene.objects]
  assert kept == [{field: float(str(value))} for value in getattr(unsure, field)]


def test_what_version_0_1_0_called_confidence_is_read_as_agreement(content, tmp_path):
  for number, entry in enumerate(content["objects"]):
    entry["confidence"] = number / 8
  VALIDATOR.validate(content)
  found = read_content(content, tmp_path)
  np.testing.assert_array_equal(found.agreement, np.arange(7) / 8)
  assert found.detection_confidence is None
  assert "confidence" not in found.to_dict()["objects"][0]


def test_no_objects_come_back_with_their_shapes(tmp_path):
  none = np.zeros([0, HEIGHT, WIDTH], bool)
  ranked = RankedObjects.from_masks(np.zeros([HEIGHT, WIDTH, 3], np.uint8), none, [])
  ranked.save_json(tmp_path / "none.json")
  again = read_rank_file(tmp_path / "none.json")
  assert again.masks.shape == none.shape and again.bfov_deg.shape == (0, 4)
  assert again.panorama is None


def test_floats_are_written_as_short_decimals(ranked, content):
  assert [entry["importance"] for entry in content["objects"]] == [
    round(float(value), 3) for value in ranked.importance
  ]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_the_masks(ranked, content):
  for mask, entry in zip(ranked.masks, content["objects"], strict=True):
    np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]).astype(bool), mask)


def test_the_schema_is_valid_and_accepts_what_is_written(content):
  jsonschema.Draft202012Validator.check_schema(RANK_FILE_SCHEMA)
  VALIDATOR.validate(content)


def test_fields_that_the_format_does_not_know_are_passed_over(content, tmp_path):
  content["annotator"] = "A"
  content["objects"][0]["votes"] = [1, 2, 1]
  assert len(read_content(content, tmp_path)) == len(content["objects"])


def set_in(path, value):
  def change(content):
    for key in path[:-1]:
      content = content[key]
    content[path[-1]] = value

  return change


def drop(path):
  def change(content):
    for key in path[:-1]:
      content = content[key]
    del content[path[-1]]

  return change


OUTSIDE_THE_SCHEMA = [
  (drop(["width"]), "the file lacks width"),
  (drop(["objects", 0, "segmentation"]), r"objects\[0\] lacks segmentation"),
  (drop(["objects", 0, "segmentation", "counts"]), "segmentation lacks counts"),
  (set_in(["objects"], {}), "objects must be of type array"),
  (set_in(["image"], None), "image must be of type string"),
  (set_in(["height"], 32.5), "height must be of type integer"),
  (set_in(["objects", 1], 3), r"objects\[1\] must be of type object"),
  (set_in(["objects", 1, "rank"], 0), r"objects\[1\].rank is 0, outside minimum 1"),
  (set_in(["objects", 1, "rank"], True), "must be of type integer"),
  (set_in(["objects", 0, "importance"], 1.01), "importance is 1.01, outside"),
  (set_in(["objects", 0, "importance"], "high"), "must be of type number"),
  (set_in(["objects", 2, "bbox_px"], [1, 2, 3]), "must have 4 entries, not 3"),
  (set_in(["objects", 2, "bbox_px", 0], -1), r"bbox_px\[0\] is -1"),
  (set_in(["objects", 2, "bfov_deg", 1], 91), r"bfov_deg\[1\] is 91"),
  (set_in(["objects", 2, "area_sr"], 13), "area_sr is 13"),
  (set_in(["objects", 2, "confidence"], 1.5), r"objects\[2\].confidence is 1.5, outside"),
  (set_in(["objects", 2, "confidence"], -0.5), r"confidence is -0.5, outside"),
  (set_in(["objects", 2, "confidence"], None), "confidence must be of type number"),
  (set_in(["objects", 2, "agreement"], 1.5), r"objects\[2\].agreement is 1.5, outside"),
  (set_in(["objects", 2, "detection_confidence"], -1), "detection_confidence is -1, outside"),
  (set_in(["objects", 2, "segmentation", "counts"], ""), "counts must not be empty"),
]


@pytest.mark.parametrize(("change", "message"), OUTSIDE_THE_SCHEMA)
def test_reader_and_schema_refuse_the_same_files(change, message, content, tmp_path):
  change(content)
  assert not VALIDATOR.is_valid(content)
  with pytest.raises(RankFileError, match=message) as error:
    read_content(content, tmp_path)
  assert "changed.json: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (set_in(["width"], WIDTH + 6), "not 2:1"),
    (set_in(["objects", 0, "importance"], float("nan")), "importance is nan"),
    (set_in(["objects", 0, "rank"], 5), "not sorted by rank"),
    (set_in(["objects", 6, "rank"], 9), "leave a number out"),
    (set_in(["objects", 6, "importance"], 1), "grows with the rank"),
    (set_in(["objects", 0, "segmentation", "size"], [WIDTH, HEIGHT]), "resample the mask"),
    (set_in(["objects", 0, "segmentation", "counts"], "PPYo1"), "not a run-length encoding"),
    (set_in(["objects", 0, "segmentation", "counts"], "o"), "not a run-length encoding"),
    (set_in(["objects", 0, "segmentation", "counts"], "é💥"), "not a run-length encoding"),
    (set_in(["objects", 0, "segmentation", "counts"], "PP2"), "has no pixel"),
  ],
)
def test_what_a_schema_cannot_say_is_checked_too(change, message, content, tmp_path):
  change(content)
  with pytest.raises(RankFileError, match=message) as error:
    read_content(content, tmp_path)
  assert "\n" not in str(error.value)


def test_two_objects_of_one_id_are_refused(content, tmp_path):
  content["objects"][1]["id"] = content["objects"][0]["id"]
  with pytest.raises(RankFileError, match="two objects have one id"):
    read_content(content, tmp_path)


def test_every_truncated_mask_is_refused(content, tmp_path):
  counts = content["objects"][0]["segmentation"]["counts"]
  rng = np.random.default_rng()
  for length in rng.integers(1, len(counts), size=min(20, len(counts))):
    changed = copy.deepcopy(content)
    changed["objects"][0]["segmentation"]["counts"] = counts[:length]
    with pytest.raises(RankFileError, match="run-length"):
      read_content(changed, tmp_path)


def test_a_panorama_of_another_size_is_refused(content, tmp_path):
  with pytest.raises(RankFileError, match="give the picture that was ranked"):
    read_content(content, tmp_path, panorama=np.zeros([64, 128, 3], np.uint8))


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\udcff"])
def test_files_that_are_no_json_are_named(text, tmp_path):
  (tmp_path / "broken.json").write_bytes(text.encode(errors="surrogateescape"))
  with pytest.raises(RankFileError, match=r"broken.json: not JSON"):
    read_rank_file(tmp_path / "broken.json")


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(RankFileError, match=r"absent.json: cannot be read"):
    read_rank_file(tmp_path / "absent.json")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(ranked, tmp_path, monkeypatch):
  path = tmp_path / "a.json"
  ranked.save_json(path)
  before = path.read_bytes()

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr("os.replace", fail)
  with pytest.raises(OSError, match="disk full"):
    dataclasses.replace(ranked, image="other.jpg").save_json(path)
  assert path.read_bytes() == before
  assert list(tmp_path.iterdir()) == [path]


def test_numbers_of_annotation_files_stay_what_they_are(tmp_path):
  """COCO counts from 0, and a crowd there has a number beyond 32 bits."""
  ids = [0, 900_100_259_990, 2**31]
  masks = np.zeros((3, 8, 16), bool)
  masks[np.arange(3), 1, [1, 5, 9]] = True
  panorama = np.zeros((8, 16, 3), np.uint8)
  ranked = RankedObjects.from_masks(panorama, masks, [0.9, 0.5, 0.1], ids=ids)
  ranked.save_json(tmp_path / "a.json")
  assert read_rank_file(tmp_path / "a.json").ids.tolist() == ids
  text = (tmp_path / "a.json").read_text()
  (tmp_path / "b.json").write_text(text.replace(str(ids[1]), str(2**63)))
  with pytest.raises(RankFileError, match=r"b.json: objects\[1\].id is 9223372036854775808"):
    read_rank_file(tmp_path / "b.json")
