"""Segmenters by name, import path or instance, and what is said where there is none."""

import dataclasses
import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest
from PIL import Image

from foir360_jax.scenes.run_lengths import RunLengths
from foir360_jax.segment import Segmenter, SegmenterError, load_segmenter

OWN = '''
import numpy as np

class Bright:
  """Finds what is bright."""

  categories = ("lamp",)
  version = "3"
  settings = {"level": 200}

  def __call__(self, picture, confidence=0.5):
    mask = picture.min(-1) > self.settings["level"]
    return [(0.9, 0, mask, False)] if mask.any() else []

class NeedsMore:
  def __init__(self, weights):
    pass

class Outer:
  class Inner(Bright):
    pass

number = 3
'''


@pytest.fixture
def own_module(tmp_path, monkeypatch):
  (tmp_path / "own_segmenters.py").write_text(OWN)
  (tmp_path / "own_broken.py").write_text("1 / 0")
  (tmp_path / "own_lacking.py").write_text("import no_such_library")
  monkeypatch.syspath_prepend(tmp_path)
  yield
  for name in ("own_segmenters", "own_broken", "own_lacking"):
    sys.modules.pop(name, None)


def refusal(source, **settings):
  with pytest.raises(SegmenterError) as caught:
    load_segmenter(source, **settings)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def picture_with_a_lamp():
  picture = np.zeros((1, 6, 8, 3), np.uint8)
  picture[0, 1:3, 2:5] = 255
  return picture


@pytest.mark.parametrize("name", ["own_segmenters:Bright", "own_segmenters:Outer.Inner"])
def test_a_class_of_ones_own_is_found_by_its_import_path(own_module, name):
  segmenter = load_segmenter(name)
  assert segmenter.describe() == {"name": name, "version": "3", "settings": {"level": 200}}
  (found,) = segmenter(picture_with_a_lamp(), 0.1)
  assert found.categories == ("lamp",) and found.masks.sum() == 6


def test_instances_classes_and_loaded_segmenters_are_taken_too(own_module):
  kind = type(load_segmenter("own_segmenters:Bright")._instance)
  loaded = load_segmenter(kind())
  assert loaded.name == "own_segmenters:Bright"
  assert load_segmenter(kind).name == loaded.name
  assert load_segmenter(loaded) is loaded and isinstance(loaded, Segmenter)
  assert "settings already" in refusal(kind(), level=3)
  assert "cannot be called" in refusal(3)


@pytest.mark.parametrize(
  ("source", "words"),
  [
    ("torchvison", "did you mean torchvision?"),
    ("torchvison:maskrcnn", "did you mean torchvision:maskrcnn?"),
    ("yolo", "there are small, torchvision[:MODEL], transformers[:MODEL], onnx:FILE"),
    ("model.onnx", "write onnx:model.onnx"),
    ("tests", "write masks:tests"),
    ("onnx", "is written onnx:FILE"),
    ("masks:", "is written masks:FOLDER"),
    ("small:large", "is written small"),
    ("masks:no/such/folder", "there is no such folder"),
    ("no_such_module:Class", "put its folder on PYTHONPATH"),
    ("own_segmenters:Brigth", "did you mean Bright?"),
    ("own_segmenters:number", "has no class number"),
    ("own_segmenters:NeedsMore", "has to take no argument"),
    ("own_broken:Class", "ZeroDivisionError"),
    ("own_lacking:Class", "it needs no_such_library, which is not installed"),
  ],
)
def test_what_is_no_segmenter_gets_one_line_with_the_cure(own_module, source, words):
  assert words in refusal(source)


@pytest.mark.parametrize("source", ["torchvision", "transformers:some/model", "onnx:model.onnx"])
def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it(
  monkeypatch, source
):
  for name in ("torch", "torchvision", "transformers", "onnxruntime"):
    monkeypatch.setitem(sys.modules, name, None)
  line = refusal(source)
  assert "not installed" in line and "pip install 'foir360_jax[segment]'" in line


def test_the_embedded_segmenter_takes_settings_and_names_wrong_ones():
  if importlib.util.find_spec("foir360_jax.segment.small") is None:
    pytest.skip("the embedded segmenter is not there")
  assert load_segmenter("small").name
  assert "no_such_setting" in refusal("small", no_such_setting=1)


@dataclasses.dataclass(frozen=True)
class View:
  name: str
  size: tuple[int, int]


def test_a_segmenter_is_told_image_and_views_only_where_it_names_them():
  class Ordinary:
    def __call__(self, picture, **options):
      assert set(options) == {"confidence"}
      return []

  class Knows:
    needs_pixels = False

    def views_of(self, image, views):
      return views[1:]

    def segment_batch(self, pictures, confidence, *, image, views):
      return [[(1.0, f"{image} {view.name}", np.ones((2, 3), bool), False)] for view in views]

  views = (View("a", (2, 3)), View("b", (2, 3)))
  pictures = np.zeros((2, 2, 3, 3), np.uint8)
  ordinary, knows = load_segmenter(Ordinary()), load_segmenter(Knows())
  assert ordinary.needs_pixels and not knows.needs_pixels
  assert ordinary.views_of("x", views) == views and knows.views_of("x", views) == views[1:]
  assert [len(found) for found in ordinary(pictures, 0.5, image="x", views=views)] == [0, 0]
  found = knows(pictures, 0.5, image="x", views=views)
  assert [answer.categories for answer in found] == [("x a",), ("x b",)]


def code_of_the_page(heading):
  """The first block of Python below a heading of docs/segmenters.md."""
  page = (pathlib.Path(__file__).parents[1] / "docs/segmenters.md").read_text()
  return page.split(f"\n## {heading}\n")[1].split("```python\n")[1].split("```")[0]


def test_the_segmenter_of_ones_own_on_the_page_works_as_it_stands(tmp_path, monkeypatch):
  (tmp_path / "red_of_the_page.py").write_text(code_of_the_page("A segmenter of your own"))
  monkeypatch.syspath_prepend(tmp_path)
  picture = np.full((1, 20, 30, 3), 90, np.uint8)
  picture[0, 3:8, 4:9] = picture[0, 10:15, 25:] = (255, 0, 0)
  (found,) = load_segmenter("red_of_the_page:RedThings")(picture, 0.5)
  assert found.categories == ("red thing",) * 2 and found.masks.sum((1, 2)).tolist() == [25, 25]
  assert found.touches_border.tolist() == [False, True]


def test_masks_written_as_on_the_page_come_back(tmp_path, monkeypatch):
  mask = np.zeros((20, 30), bool)
  mask[5:9, 6:20] = True

  class Generator:
    def __init__(self, sam, output_mode):
      assert output_mode == "coco_rle"

    def generate(self, picture):
      assert picture.shape == (20, 30, 3)
      segmentation = RunLengths.from_mask(mask).to_coco()
      return [{"segmentation": segmentation, "area": 56, "predicted_iou": 0.9}]

  class Sam:
    def __init__(self, checkpoint):
      pass

    def to(self, device):
      return self

  fake = types.ModuleType("segment_anything")
  fake.SamAutomaticMaskGenerator, fake.sam_model_registry = Generator, {"vit_b": Sam}
  monkeypatch.setitem(sys.modules, "segment_anything", fake)
  monkeypatch.chdir(tmp_path)
  (tmp_path / "views/room").mkdir(parents=True)
  Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save("views/room/fov090_lat+00_lon+000.png")
  exec(compile(code_of_the_page("Masks of other programs"), "segmenters.md", "exec"), {})
  segmenter = load_segmenter("masks:views")
  views = segmenter.views_of("room", [View("fov090_lat+00_lon+000", (20, 30))])
  pictures = np.zeros((1, 20, 30, 3), np.uint8)
  (found,) = segmenter(pictures, 0.5, image="room", views=views)
  np.testing.assert_array_equal(found.masks, mask[None])
