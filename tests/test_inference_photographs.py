"""Photographs to ranked objects: the ranker, the folders that it writes, the commands."""

import inspect
import json
import types

import cv2
import jsonschema
import numpy as np
import pytest
from PIL import Image

import foir360_jax
from foir360_jax.cli.command import main
from foir360_jax.files import PanoramaError, save_image
from foir360_jax.files.placement import Pose
from foir360_jax.inference import PhotoRanker
from foir360_jax.inference.photographs import rank_photographs, segment_photographs, write_views
from foir360_jax.inference.ranker_input import InputPanorama
from foir360_jax.scenes import RANK_FILE_SCHEMA, open_scenes, read_rank_file
from foir360_jax.sphere import regions

HEIGHT, WIDTH = 64, 128
COLOURS = {"apple": (220, 30, 30), "leaf": (30, 180, 40), "sea": (30, 60, 220)}


class ByColour:
  """Finds what is painted in one of the three colours, exactly."""

  categories = tuple(COLOURS)
  version = "1"
  settings = types.MappingProxyType({"tolerance": 60})

  def __init__(self):
    self.settings = dict(self.settings)

  def __call__(self, picture, confidence=0.5):
    reach = self.settings["tolerance"]
    for index, colour in enumerate(COLOURS.values()):
      low, high = (np.clip(np.add(colour, sign * reach), 0, 255) for sign in (-1, 1))
      mask = cv2.inRange(picture, low, high) > 0
      if mask.sum() >= 4:
        rim = np.ones_like(mask)
        rim[1:-1, 1:-1] = False
        yield 0.9, index, mask, bool((mask & rim).any())


@pytest.fixture(scope="module")
def picture():
  """A large apple across the seam, a leaf on the horizon and a small sea in the south."""
  picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
  picture += (np.arange(HEIGHT) // 2).astype(np.uint8)[:, None, None]  # no row of one colour
  picture[:, ::2] += 5
  for left, centre in ((0, (2, 30)), (0, (2 + WIDTH, 30))):
    cv2.ellipse(picture, centre, (12, 9), left, 0, 360, COLOURS["apple"], -1)
  cv2.rectangle(picture, (60, 28), (69, 35), COLOURS["leaf"], -1)
  cv2.rectangle(picture, (90, 44), (97, 48), COLOURS["sea"], -1)
  return picture


@pytest.fixture(scope="module")
def ranker():
  return PhotoRanker(ByColour(), confidence=0.3)


@pytest.fixture
def folder(picture, tmp_path):
  """Two good pictures, one cut off, one that is not 2:1, and a text."""
  folder = tmp_path / "photographs"
  save_image(folder / "a.png", picture)
  Image.fromarray(picture).save(folder / "b.jpg", quality=95)
  (folder / "cut.jpg").write_bytes((folder / "b.jpg").read_bytes()[:300])
  save_image(folder / "flat.png", picture[:40])
  (folder / "notes.txt").write_text("x")
  return folder


def truth(picture, name):
  return (picture == COLOURS[name]).all(-1)


def iou(first, second):
  return (first & second).sum() / (first | second).sum()


def test_objects_are_found_whole_and_ordered_by_solid_angle(ranker, picture):
  ranked = ranker(picture, image="a.png")
  assert ranked.categories == ("apple", "leaf", "sea") and ranked.ranks.tolist() == [1, 2, 3]
  for mask, name in zip(ranked.masks, ranked.categories, strict=True):
    assert iou(mask, truth(picture, name)) > 0.75
  assert (np.diff(ranked.area_sr) < 0).all() and ranked.image == "a.png"
  expected = ranked.area_sr / (ranked.area_sr + 0.1)
  np.testing.assert_allclose(ranked.importance, expected, rtol=1e-6)
  assert ((ranked.detection_confidence > 0.3) & (ranked.detection_confidence <= 1)).all()
  assert ranked.bbox_px[0, 0] + ranked.bbox_px[0, 2] > WIDTH  # across the seam


def test_paths_images_arrays_lists_and_generators_are_taken(ranker, picture, folder):
  expected = ranker(picture)
  for found in (
    ranker([folder / "a.png", Image.fromarray(picture)]),
    list(ranker(x for x in (str(folder / "a.png"), picture))),
  ):
    assert len(found) == 2
    for one in found:
      np.testing.assert_array_equal(one.masks, expected.masks)
  assert ranker(()) == []
  with pytest.raises(TypeError, match="not NoneType"):
    ranker(None)
  with pytest.raises(PanoramaError, match="flat.png"):
    ranker(folder / "flat.png")


def test_the_function_keeps_its_ranker(picture, monkeypatch):
  built = []
  original = PhotoRanker.__init__

  def count(self, *given, **options):
    built.append(options)
    original(self, *given, **options)

  monkeypatch.setattr(PhotoRanker, "__init__", count)
  segmenter = ByColour()
  first = foir360_jax.rank(picture, segmenter=segmenter, confidence=0.3)
  again = foir360_jax.rank([picture], segmenter=segmenter, confidence=0.3)
  assert first.to_dict() == again[0].to_dict() and len(built) == 1


def test_masks_have_the_size_of_a_picture_a_few_rows_off_and_its_pose(ranker, picture):
  odd = cv2.resize(picture, (WIDTH + 1, HEIGHT))
  found = ranker(InputPanorama(odd, "odd.png", None, Pose(heading_deg=10.0)))
  assert found.masks.shape[1:] == (HEIGHT, WIDTH + 1) and found.pose.heading_deg == 10
  assert found.categories[0] == "apple"


def test_where_there_is_no_picture_there_is_no_object(ranker, picture):
  part = picture.copy()
  part[:20] = 0
  part[52:] = (30, 60, 220)  # filled by one colour, and that of the sea
  found = ranker(part)
  assert not found.masks[:, :20].any() and not found.masks[:, 52:].any()
  assert "apple" in found.categories
  data = np.zeros((HEIGHT, WIDTH), bool)
  data[:, 50:80] = True
  assert ranker(InputPanorama(picture, "", data)).categories == ("leaf",)


def test_at_most_so_many_objects_of_the_highest_confidence_are_kept(picture):
  class Unsure(ByColour):
    def __call__(self, picture, confidence=0.5):
      for score, index, mask, border in super().__call__(picture):
        yield score - 0.1 * index, index, mask, border

  found = PhotoRanker(Unsure(), confidence=0.3, max_objects=2)(picture)
  assert sorted(found.categories) == ["apple", "leaf"]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"views": "many"}, "views must be fast or full"),
    ({"confidence": 1.5}, "confidence must be in"),
    ({"max_objects": 0}, "max_objects must be 1 or more"),
  ],
)
def test_arguments_out_of_range_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    PhotoRanker(ByColour(), **options)


def test_a_folder_is_ranked_and_bad_pictures_get_a_line(ranker, picture, folder, tmp_path):
  lines, output = [], tmp_path / "out"
  summary = rank_photographs(ranker, folder, output, say=lines.append)
  assert (summary.ranked, len(summary.bad)) == (2, 2)
  assert lines[0] == "passed over, as no pictures by their names: notes.txt"
  for scene_id, name in (("a", "a.png"), ("b", "b.jpg")):
    content = json.loads((output / f"ranks/{scene_id}.json").read_text())
    jsonschema.validate(content, RANK_FILE_SCHEMA)
    assert content["image"] == name and (output / f"overlays/{scene_id}.png").is_file()
    assert read_rank_file(output / f"ranks/{scene_id}.json").categories[0] == "apple"
  settings = json.loads((output / "settings.json").read_text())
  assert settings["command"] == "rank" and settings["order"] == "solid angle"
  assert settings["segmenter"]["version"] == "1"
  assert settings["segmenter"]["settings"] == {"tolerance": 60}
  again = rank_photographs(ranker, folder, output, say=lines.append)
  assert (again.ranked, again.done_before) == (0, 2)
  other = PhotoRanker(ByColour(), confidence=0.4)
  with pytest.raises(ValueError, match=r"confidence was 0\.3, now it is 0\.4"):
    rank_photographs(other, folder, output, say=lines.append)


def test_segmented_photographs_are_scenes(ranker, picture, folder, tmp_path):
  output = tmp_path / "scenes"
  segment_photographs(ranker, folder, output, say=lambda line: None)
  opened = open_scenes(output)
  assert opened.ids == ("a", "b") and opened.format == "scenes"
  for scene_id, suffix in (("a", ".png"), ("b", ".jpg")):
    scene = opened.read(scene_id)
    assert scene.image_file == output / f"images/{scene_id}{suffix}" and not scene.is_ranked
    assert scene.image_file.read_bytes() == (folder / f"{scene_id}{suffix}").read_bytes()
    found = ranker.segment(folder / f"{scene_id}{suffix}")
    np.testing.assert_array_equal(scene.masks(), found.masks)
    assert tuple(item.category for item in scene.objects) == found.categories
    assert all(0.3 < item.extra["detection_confidence"] <= 1 for item in scene.objects)
  # As a picture of another kind, again.
  (folder / "b.jpg").unlink()
  save_image(folder / "b.png", picture)
  segment_photographs(ranker, folder, output, overwrite=True, say=lambda line: None)
  assert [path.name for path in sorted((output / "images").iterdir())] == ["a.png", "b.png"]


def test_views_are_written_with_where_they_look(picture, folder, tmp_path):
  lines, output = [], tmp_path / "views"
  summary = write_views("fast", folder, output, say=lines.append)
  assert (summary.ranked, len(summary.bad)) == (2, 2)
  content = json.loads((output / "a/views.json").read_text())
  assert content["image"] == "a.png" and len(content["views"]) >= 10
  for view in content["views"]:
    with Image.open(output / f"a/{view['name']}.png") as opened:
      assert opened.size == (view["width"], view["height"])
  ahead = min(
    (view for view in content["views"] if view["fov_deg"] < 180),
    key=lambda view: abs(view["lon_deg"]) + abs(view["lat_deg"]),
  )
  with Image.open(output / f"a/{ahead['name']}.png") as opened:
    middle = np.asarray(opened)[ahead["height"] // 2, ahead["width"] // 2]
  row = int((90 - ahead["lat_deg"]) / 180 * HEIGHT)
  column = int((ahead["lon_deg"] + 180) / 360 * WIDTH)
  near = picture[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3).astype(int)
  assert np.abs(near - middle).sum(-1).min() < 40
  assert write_views("fast", folder, output, say=lines.append).done_before == 2


def test_the_commands_rank_and_segment_with_a_segmenter_by_import_path(
  folder, tmp_path, capsys, monkeypatch
):
  source = inspect.getsource(ByColour).replace("class ByColour", "class Mine")
  head = f"import types\nimport cv2\nimport numpy as np\nCOLOURS = {COLOURS}\n\n"
  (tmp_path / "mine.py").write_text(head + source)
  monkeypatch.syspath_prepend(tmp_path)
  words = [str(folder), "--segmenter=mine:Mine", "--confidence=0.3"]
  assert main(["rank", *words, f"--output={tmp_path}/out"]) == 1  # two are bad
  assert len(list((tmp_path / "out/ranks").iterdir())) == 2
  assert main(["segment", *words, f"--output={tmp_path}/scenes"]) == 1
  assert len(open_scenes(tmp_path / "scenes").read("a").objects) == 3
  assert main(["segment", str(folder), f"--write_views={tmp_path}/views"]) == 1
  capsys.readouterr()
  for flags, message in (
    ([], "segment needs --output=SCENES for the objects, or --write_views=FOLDER"),
    (["--write_views=v", "--confidence=0.5"], "--confidence says nothing to --write_views"),
    (["--output=o", "--views=many"], "give one of fast, full"),
    (["--output=o", "--segmenter=smal"], "small"),
  ):
    assert main(["segment", str(folder), *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_pose_gives_bearings_in_the_rank_file(ranker, picture, tmp_path):
  ranked = ranker(InputPanorama(picture, "a.png", None, Pose(heading_deg=100.0)))
  ranked.save_json(tmp_path / "a.json")
  objects = json.loads((tmp_path / "a.json").read_text())["objects"]
  leaf = objects[1]
  assert leaf["category"] == "leaf"
  assert leaf["bearing_deg"][0] == pytest.approx((100 + leaf["bfov_deg"][0]) % 360, abs=1e-3)
  longitude, _ = regions.bounding_fov_deg(ranked.masks[1])[:2]
  assert leaf["bfov_deg"][0] == pytest.approx(longitude, abs=1e-3)
