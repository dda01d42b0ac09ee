"""What `Ranker` takes and how often it computes: paths, lists, one encoding, kept programs."""

import copy
import logging
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from foir360_jax.compilation import keep_compiled_programs
from foir360_jax.files import PanoramaError
from foir360_jax.files.placement import Pose
from foir360_jax.inference import Decision, Ranker
from foir360_jax.inference.ranker_input import InputPanorama
from foir360_jax.scenes import unpack_masks
from foir360_jax.sphere import resize_panorama


@pytest.fixture(scope="module")
def ranker(planar_model):
  return Ranker(planar_model, height=48, category_names=("disc", "box"), decision=Decision(0.3))


@pytest.fixture
def counted(ranker):
  """A copy of the ranker, and the list of programs that it calls: their names and batch sizes."""
  counting, calls = copy.copy(ranker), []
  counting._last = None

  def count(name):
    program = getattr(ranker, f"_{name}")

    def call(state, *arrays):
      calls.append((name, jax.tree.leaves(arrays)[0].shape[0]))
      return program(state, *arrays)

    setattr(counting, f"_{name}", call)

  for name in ("encode", "detect", "order"):
    count(name)
  return counting, calls


@pytest.fixture(scope="module")
def scenes(draw_batch):
  """Three panoramas of different sizes with 5, 0 and 3 masks of their sizes."""
  batch = draw_batch(np.random.default_rng(21), (5, 0, 3))
  pictures, masks = [], []
  for image, packed, count, scale in zip(
    batch["image"], batch["masks"], (5, 0, 3), (1, 2, 3), strict=True
  ):
    pictures.append(image.repeat(scale, axis=0).repeat(scale, axis=1))
    grown = unpack_masks(packed, 96)[:count].repeat(scale, axis=1)
    masks.append(grown.repeat(scale, axis=2))
  return pictures, masks


def assert_alike(found, expected):
  """Programs of different batch sizes round differently."""
  assert found.image == expected.image and len(found) == len(expected) > 0
  assert found.ids.tolist() == expected.ids.tolist()
  assert found.categories == expected.categories
  np.testing.assert_allclose(found.importance, expected.importance, atol=1e-4)
  assert found.masks.shape == expected.masks.shape
  assert (found.masks != expected.masks).mean() < 1e-3


def test_several_panoramas_are_ranked_as_each_alone(counted, scenes):
  ranker, calls = counted
  pictures = scenes[0]
  names = ["a.png", "", "c.png"]
  together = ranker(pictures, image=names)
  assert calls == [("encode", 4), ("detect", 4)]
  for picture, name, found in zip(pictures, names, together, strict=True):
    alone = ranker(picture, image=name)
    assert_alike(found, alone)
    np.testing.assert_allclose(found.detection_confidence, alone.detection_confidence, atol=1e-4)
    assert (found.detection_confidence > 0.3).all()
  assert ranker([]) == []


def test_masks_of_several_panoramas_are_ranked_as_those_of_each_alone(counted, scenes):
  ranker, calls = counted
  pictures, masks = scenes
  given = dict(categories=[None, [], ["box", "", "cat"]], ids=[[9, 8, 7, 6, 5], None, [1, 2, 3]])
  together = ranker.rank_masks(pictures, masks, **given)
  assert calls == [("encode", 4), ("order", 4)]
  assert [len(found) for found in together] == [5, 0, 3]
  assert together[1].masks.shape == (0, 96, 192)
  for index in (0, 2):
    one = {name: values[index] for name, values in given.items()}
    assert_alike(together[index], ranker.rank_masks(pictures[index], masks[index], **one))
  assert ranker.rank_masks([], []) == []


def test_what_fills_a_batch_changes_nothing(ranker, scenes):
  """The same program: bit for bit."""
  first, *others = scenes[0]
  results = [ranker([first, second, first])[0] for second in others]
  np.testing.assert_array_equal(results[0].importance, results[1].importance)
  np.testing.assert_array_equal(results[0].masks, results[1].masks)


def test_long_lists_go_through_batches_of_one_size(counted, scenes, monkeypatch):
  ranker, calls = counted
  monkeypatch.setattr("foir360_jax.inference.ranker._BATCH", 4)
  pictures = [scenes[0][index % 3] for index in range(5)]
  found = ranker(pictures)
  assert calls == [("encode", 4), ("detect", 4), ("encode", 1), ("detect", 1)]
  assert [x.masks.shape[1] for x in found] == [48, 96, 144, 48, 96]
  assert_alike(found[0], found[3])


def test_a_picture_is_encoded_once_whatever_is_asked_of_it(counted, scenes):
  ranker, calls = counted
  pictures, masks = scenes
  picture = pictures[0].copy()
  ranker(picture)
  few = ranker.rank_masks(picture, masks[0])
  many = ranker.rank_masks(picture, np.concatenate([masks[0]] * 4))  # another number of places
  assert calls == [("encode", 1), ("detect", 1), ("order", 1), ("order", 1)]
  assert (len(few), len(many)) == (5, 20)
  picture[:24] = 255 - picture[:24]  # the same array, and another picture
  ranker(picture)
  assert calls[4:] == [("encode", 1), ("detect", 1)]


def test_no_masks_need_no_model(counted, scenes):
  ranker, calls = counted
  for none in (np.zeros((0, 48, 96), bool), [], scenes[1][0][:0]):
    found = ranker.rank_masks(scenes[0][0], none, ids=[], categories=[], image="a.png")
    assert len(found) == 0 and found.masks.shape == (0, 48, 96) and found.image == "a.png"
  assert not calls


def test_a_part_of_the_sphere_has_no_object_where_there_is_no_picture(ranker, scenes):
  picture = scenes[0][0]
  whole = ranker(picture)
  data = np.zeros((48, 96), bool)
  data[10:40, 20:80] = True
  part = ranker(InputPanorama(picture, "a.jpg", data, Pose(heading_deg=90.0)))
  inside = (whole.masks & data).sum((1, 2))
  kept = (inside > 0) & (2 * inside >= whole.masks.sum((1, 2)))
  assert 0 < kept.sum() < len(whole)
  np.testing.assert_array_equal(part.masks, whole.masks[kept] & data)
  np.testing.assert_array_equal(part.importance, whole.importance[kept])
  assert part.pose == Pose(90.0) and part.image == "a.jpg"


def test_a_pil_image_is_taken_as_its_file_is(ranker, scenes, tmp_path):
  picture, exif = Image.fromarray(scenes[0][0][::-1, ::-1]), Image.Exif()
  exif[0x0112] = 3  # upside down
  picture.save(tmp_path / "a.png", exif=exif)
  with Image.open(tmp_path / "a.png") as opened:
    found = ranker(opened)
  assert found.image == "a.png"
  np.testing.assert_array_equal(found.panorama, scenes[0][0])
  assert ranker(Image.fromarray(scenes[0][0])).image == ""


def test_a_file_is_read_and_names_the_picture(ranker, scenes, tmp_path, monkeypatch):
  picture, masks = scenes[0][0], scenes[1][0]
  file = tmp_path / "küche.png"
  file.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
  expected = ranker(picture)
  monkeypatch.setenv("HOME", str(tmp_path))
  for path in (file, str(file), "~/küche.png"):
    found = ranker(path)
    assert found.image == "küche.png"
    np.testing.assert_array_equal(found.importance, expected.importance)
  assert ranker(file, image="b.png").image == "b.png"
  assert ranker.rank_masks(file, masks).image == "küche.png"
  assert [found.image for found in ranker([file, picture])] == ["küche.png", ""]
  with pytest.raises(PanoramaError, match=r"none\.jpg"):
    ranker(tmp_path / "none.jpg")


@pytest.mark.parametrize(
  ("given", "error", "message"),
  [
    (None, TypeError, "uint8 array .* path of a picture or a PIL image, not NoneType"),
    ({"a": 1}, TypeError, "not dict; for several give a list"),
    (np.zeros((2, 48, 96, 3), np.uint8), ValueError, r"list\(panoramas\)"),
    (np.zeros((48, 96, 4), np.uint8), ValueError, "give RGB, channels last, without alpha"),
    (np.zeros((48, 96), np.uint8), ValueError, "give RGB"),
    (np.zeros((48, 90, 3), np.uint8), ValueError, r"not uint8 \[48, 90, 3\]; .* twice as wide"),
    (np.zeros((0, 0, 3), np.uint8), ValueError, "full equirectangular panorama"),
    (np.zeros((48, 96, 3)), ValueError, r"not float64 .*np\.uint8\(255 \* panorama\)"),
  ],
)
def test_what_is_no_panorama_is_refused_in_one_line_that_helps(ranker, given, error, message):
  for call in (ranker, lambda x: ranker.rank_masks(x, []), lambda x: ranker([x])):
    with pytest.raises(error, match=message) as caught:
      call(given)
    assert "\n" not in str(caught.value)


def test_lists_that_do_not_fit_are_refused(ranker, scenes):
  pictures, masks = scenes
  with pytest.raises(ValueError, match="3 panoramas need 3 arrays of masks, not 2; give a list"):
    ranker.rank_masks(pictures, masks[:2])
  with pytest.raises(ValueError, match="3 panoramas need 3 names, not 'a.png'; give a list"):
    ranker(pictures, image="a.png")
  with pytest.raises(ValueError, match="3 panoramas need 3 lists of ids, not 1"):
    ranker.rank_masks(pictures, masks, ids=[[1]])
  empty = masks[2].copy()
  empty[1:] = False
  with pytest.raises(ValueError, match=r"panoramas\[2\]: masks \[1, 2\] have no pixel"):
    ranker.rank_masks(pictures, [*masks[:2], empty])
  with pytest.raises(ValueError, match=r"panoramas\[0\]: categories must be a list .* not 'disc'"):
    ranker.rank_masks(pictures, masks, categories=["disc", "disc", "box"])
  with pytest.raises(ValueError, match="4 ids do not fit 5 masks"):
    ranker.rank_masks(pictures[0], masks[0], ids=[1, 2, 3, 4])


def test_before_a_program_is_compiled_the_log_says_so_once(planar_model, scenes, caplog):
  ranker = Ranker(planar_model, height=48)
  caplog.set_level(logging.INFO, "foir360_jax")
  for _ in range(2):
    ranker(scenes[0][0])
  lines = [record.getMessage() for record in caplog.records]
  assert len(lines) == 2
  assert lines[0].startswith("compiling the encoder for batches of 1: up to a few minutes")
  assert lines[1].startswith("compiling the detection")


def test_resampled_pictures_of_a_list_are_those_of_each(counted, scenes):
  ranker, _ = counted
  seen = []
  ranker._encode = lambda state, batch: seen.append(batch)
  ranker._detect = None
  with pytest.raises(TypeError):
    ranker(scenes[0])
  for small, picture in zip(seen[0], scenes[0], strict=False):
    np.testing.assert_array_equal(small, np.round(resize_panorama(picture, 48)))
  assert not seen[0][3:].any()


@pytest.mark.parametrize(
  ("environment", "settings", "folder"),
  [
    ({"XDG_CACHE_HOME": "/caches"}, {}, "/caches/foir360_jax"),
    ({"JAX_COMPILATION_CACHE_DIR": ""}, {}, None),
    ({}, {"jax_compilation_cache_dir": "/mine"}, "/mine"),
    ({}, {"jax_enable_compilation_cache": False}, None),
  ],
)
def test_programs_are_kept_unless_the_user_decided(environment, settings, folder, monkeypatch):
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  settings = {"jax_compilation_cache_dir": None} | settings
  before = {name: getattr(jax.config, name) for name in settings}
  try:
    for name, value in settings.items():
      jax.config.update(name, value)
    keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == folder
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def test_to_import_the_package_changes_nothing_of_jax():
  code = """
import jax
before = dict(jax.config.values)
import foir360_jax, foir360_jax.weak_labels
foir360_jax.Ranker
print(jax.config.values == before)
"""
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert result.stdout.strip() == "True", result.stderr


def test_to_build_a_ranker_turns_the_cache_on(planar_model, monkeypatch):
  called = []
  monkeypatch.setattr(
    "foir360_jax.inference.ranker.keep_compiled_programs", lambda: called.append(1)
  )
  Ranker(planar_model, height=48)
  assert called == [1]
