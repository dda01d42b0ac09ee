"""Weak labels of folders: what is written, what is done again, and what is refused."""

import functools
import json
import os
import re
import shutil
import time

import cv2
import jax
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from foir360_jax.files import read_panorama, save_image
from foir360_jax.files.id_map_file import encode_id_map
from foir360_jax.inference import folder_runner, weak_labels
from foir360_jax.inference.output_folder import SETTINGS_FILE
from foir360_jax.inference.weak_labels import label_folder
from foir360_jax.saliency import SpectralResidual
from foir360_jax.scenes import FORMATS, RankedObjects, open_scenes, read_rank_file
from foir360_jax.sphere import solid_angle
from foir360_jax.weak_labels.object_score import (
  LOCAL_TERMS,
  PRIOR_TERMS,
  SALIENCY_SUM,
  ObjectScore,
)
from foir360_jax.weak_labels.program import Strategy, WeakRanks
from foir360_jax.weak_labels.rank import WeakRanker, describe_scene, ranked_objects
from rank360.dummy_scenes import write_dummy_data

BATCH_SIZE = 3
SCORE = ObjectScore(
  erasing=SALIENCY_SUM,
  local_views=tuple(np.linspace(0.5, 1.5, len(LOCAL_TERMS))),
  local_whole=tuple(np.linspace(0.4, 1.4, len(LOCAL_TERMS))),
  prior=tuple(np.linspace(0.5, 1.0, len(PRIOR_TERMS))),
  prior_weight=0.1,
  whole_weight=1.0,
  slope=0.2,
  intercept=0.0,
)


def stub_saliency(views):
  raise AssertionError("the stub needs no saliency")


def importance_of(panorama, areas):
  """The rule of the stub: of the picture and of the object, so that no mix-up goes unseen."""
  return (0.1 + areas) / (20 + panorama.mean())


class StubRanker:
  """Has what `label_folder` needs of a ranker; remembers the batches."""

  def __init__(self, *, before=lambda calls: None, saliency=stub_saliency, **strategy):
    self.strategy = Strategy(**strategy)
    self.saliency = saliency
    self.object_score = SCORE
    self.shapes, self.ranked, self.before = [], 0, before

  def rank(self, scenes):
    self.before(len(self.shapes))
    assert scenes.packed.shape[:3] == scenes.panorama.shape[:3]
    self.shapes.append((*scenes.where.shape, scenes.panorama.shape[1]))
    self.ranked += scenes.where.any(axis=1).sum()
    importance = np.array(
      [importance_of(*each) for each in zip(scenes.panorama, scenes.area, strict=True)]
    )
    # In the padding there is garbage that would not pass as importance.
    importance = np.where(scenes.where, importance, 7.0).astype(np.float32)
    agreement = np.where(scenes.where, np.abs(scenes.elevation), -3.0)
    return WeakRanks(importance, importance, agreement, scenes.where, np.int32(0))


def write_scene(folder, scene_id, rng, *, height=32, num_objects=3):
  """Writes a picture and its id map; the objects are columns of one pixel width and more."""
  picture = rng.integers(0, rng.integers(2, 256), (height, 2 * height, 3), np.uint8)
  save_image(folder / f"images/{scene_id}.png", picture)
  ids = rng.choice(np.arange(1, 300), num_objects, replace=False)
  id_map = np.zeros((height, 2 * height), int)
  starts = np.sort(rng.choice(2 * height, num_objects, replace=False))
  for number, start in zip(ids, starts, strict=True):
    id_map[height // 4 : rng.integers(height // 4 + 1, height), start:] = number
  instances = folder / "instances"
  instances.mkdir(exist_ok=True)
  (instances / f"{scene_id}.png").write_bytes(encode_id_map(id_map))


@pytest.fixture
def scenes(tmp_path):
  """Ten scenes of two sizes and two padded numbers of objects."""
  rng = np.random.default_rng(5)
  for index in range(10):
    count, height = (3, 11)[index % 4 == 0], (32, 40)[index % 3 == 0]
    write_scene(tmp_path / "scenes", f"s{index}", rng, height=height, num_objects=count)
  return tmp_path / "scenes"


def files_of(output):
  return [f for f in output.rglob("*") if f.is_file() and f.name not in (".lock", SETTINGS_FILE)]


def label(ranker, scenes, output, **options):
  lines = []
  options = {"batch_size": BATCH_SIZE, "say": lines.append, "overlays": False} | options
  return label_folder(ranker, scenes, output, **options), lines


def results(output):
  return {file.stem: file.read_bytes() for file in sorted((output / "ranks").glob("*.json"))}


def expected(scene):
  """What one panorama alone must get, object by object."""
  panorama = read_panorama(scene.image_file)
  areas = [solid_angle(item.mask) for item in scene.objects]
  return RankedObjects.from_masks(
    panorama,
    scene.masks(),
    [importance_of(panorama, area) for area in areas],
    [item.category for item in scene.objects],
    ids=[item.id for item in scene.objects],
    image=scene.image_file.name,
  )


def check_results(scenes, output):
  for scene in open_scenes(scenes):
    found = read_rank_file(output / f"ranks/{scene.id}.json")
    wanted = expected(scene)
    assert found.image == wanted.image and found.categories == wanted.categories
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_array_equal(found.ranks, wanted.ranks)
    np.testing.assert_array_equal(found.masks, wanted.masks)
    np.testing.assert_allclose(found.importance, wanted.importance, rtol=1e-5)
    assert found.agreement is not None and found.agreement.max() > 0


def test_every_panorama_gets_its_own_result_in_batches_of_one_size(scenes, tmp_path):
  ranker = StubRanker()
  summary, lines = label(ranker, scenes, tmp_path / "out", overlays=True)
  check_results(scenes, tmp_path / "out")
  assert summary.total == summary.ranked == ranker.ranked == 10
  assert summary.done_before == 0 and not summary.bad
  # 32 x 8, 32 x 16, 40 x 8, 40 x 16: of 5, 1, 2 and 2 scenes; batches are always full.
  assert {shape[0] for shape in ranker.shapes} == {BATCH_SIZE}
  assert sorted(shape[1:] for shape in ranker.shapes) == [
    *((8, 32), (8, 32), (8, 40)),
    *((16, 32), (16, 40)),
  ]
  assert sum(line.startswith("compiling for ") for line in lines) == 4
  overlays = sorted((tmp_path / "out/overlays").iterdir())
  assert [file.stem for file in overlays] == sorted(results(tmp_path / "out"))
  assert cv2.imread(str(overlays[0])).shape[1] >= 1024
  assert re.fullmatch(
    r"10 of 10 panoramas ranked, 0 done before, 0 bad; .* images/s without .* s of compilation"
    r" -> .*out",
    lines[-1],
  )


@pytest.mark.slow
def test_what_else_is_in_a_batch_does_not_matter(tmp_path):
  rng = np.random.default_rng(8)
  for index, count in enumerate((2, 5, 3)):
    write_scene(tmp_path / "scenes", f"s{index}", rng, height=64, num_objects=count)
  strategy = Strategy(max_erased=1, max_erased_whole=1)
  ranker = WeakRanker(SpectralResidual(), strategy=strategy, object_score=SCORE)
  summary, _ = label(ranker, tmp_path / "scenes", tmp_path / "out", batch_size=2)
  assert summary.ranked == 3 and not summary.bad
  for scene in open_scenes(tmp_path / "scenes"):
    found = read_rank_file(tmp_path / f"out/ranks/{scene.id}.json")
    panorama, masks = read_panorama(scene.image_file), scene.masks()
    twice = jax.tree.map(lambda x: np.stack([x, x]), describe_scene(panorama, masks))
    result = jax.device_get(ranker.rank(twice))  # the same program, compiled once
    ids = [item.id for item in scene.objects]
    alone = ranked_objects(result, 1, panorama, masks, ids=ids)
    np.testing.assert_array_equal(found.ids, alone.ids)
    np.testing.assert_allclose(found.importance, alone.importance, atol=1e-4)
    np.testing.assert_allclose(found.agreement, alone.agreement, atol=1e-3)


def test_names_and_order_of_the_files_do_not_matter(scenes, tmp_path):
  label(StubRanker(), scenes, tmp_path / "a")
  renamed = tmp_path / "renamed"
  names = {f"s{i}": f"t{j}" for i, j in enumerate(np.random.default_rng(1).permutation(10))}
  for part in ("images", "instances"):
    (renamed / part).mkdir(parents=True)
    for old, new in names.items():
      shutil.copy(scenes / part / f"{old}.png", renamed / part / f"{new}.png")
  label(StubRanker(), renamed, tmp_path / "b", batch_size=4)
  first, second = results(tmp_path / "a"), results(tmp_path / "b")
  for old, new in names.items():
    assert first[old].replace(old.encode(), new.encode()) == second[new]


def test_only_what_is_missing_is_done_again(scenes, tmp_path):
  label(StubRanker(), scenes, tmp_path / "out")
  before = results(tmp_path / "out")
  for index in range(0, 10, 2):
    (tmp_path / f"out/ranks/s{index}.json").unlink()
  kept = tmp_path / "out/ranks/s1.json"
  kept.write_bytes(kept.read_bytes() + b" ")
  ranker = StubRanker(views_at_once=3)  # changes the speed alone
  summary, lines = label(ranker, scenes, tmp_path / "out")
  assert (summary.total, summary.ranked, summary.done_before) == (10, 5, 5)
  assert ranker.ranked == 5
  assert lines[0].endswith("10 panoramas, 5 done before")
  assert results(tmp_path / "out") == before | {"s1": before["s1"] + b" "}
  again, _ = label(ranker, scenes, tmp_path / "out")
  assert again.ranked == 0 and again.done_before == 10 and ranker.ranked == 5


def test_ctrl_c_leaves_whole_files_and_the_next_run_goes_on(scenes, tmp_path):
  label(StubRanker(), scenes, tmp_path / "whole", overlays=True)

  def interrupt(calls):
    if calls == 3:
      raise KeyboardInterrupt

  lines = []
  with pytest.raises(KeyboardInterrupt):
    label(StubRanker(before=interrupt), scenes, tmp_path / "out", say=lines.append, overlays=True)
  assert not [file for file in files_of(tmp_path / "out") if file.suffix not in (".json", ".png")]
  done = results(tmp_path / "out")
  assert len(done) < 10
  assert lines[-1] == f"stopped; {len(done)} are done, and the same command goes on"
  for scene_id in done:
    assert cv2.imread(str(tmp_path / f"out/overlays/{scene_id}.png")) is not None
  summary, _ = label(StubRanker(), scenes, tmp_path / "out", overlays=True)
  assert (summary.ranked, summary.done_before) == (10 - len(done), len(done))
  assert results(tmp_path / "out") == results(tmp_path / "whole")


@pytest.mark.parametrize("fails_at", [1, 2, 9])
def test_a_write_that_fails_ends_the_run_and_leaves_no_half_file(
  scenes, tmp_path, monkeypatch, fails_at
):
  replace, calls = os.replace, []

  def fail(source, target):
    calls.append(target)
    if len(calls) > fails_at:
      raise OSError("disk full")
    replace(source, target)

  monkeypatch.setattr("os.replace", fail)
  with pytest.raises(OSError, match="disk full"):
    label(StubRanker(), scenes, tmp_path / "out", overlays=True)
  assert len(files_of(tmp_path / "out")) == fails_at - 1  # and the settings
  for scene_id in results(tmp_path / "out"):
    assert len(read_rank_file(tmp_path / f"out/ranks/{scene_id}.json")) in (3, 11)
    assert (tmp_path / f"out/overlays/{scene_id}.png").is_file()


def test_bad_panoramas_get_a_line_as_they_are_met_and_the_others_go_through(scenes, tmp_path):
  rng = np.random.default_rng(0)
  images, instances = scenes / "images", scenes / "instances"
  for index in range(6):
    write_scene(scenes, f"x{index}", rng)
  (images / "x0.png").unlink()
  (images / "x1.png").write_bytes((images / "x1.png").read_bytes()[:900])
  for file in (images / "x2.png", instances / "x2.png"):
    cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[:20])
  (instances / "x3.png").write_bytes(encode_id_map(np.arange(32 * 64).reshape(32, 64) % 130))
  (instances / "x4.png").write_bytes(encode_id_map(np.ones((32, 60), int)))
  write_scene(scenes, "x5", rng, height=24)
  cv2.imwrite(str(instances / "x6.png"), np.full((32, 64, 3), [1, 2, 3], np.uint8))
  shutil.copy(images / "s1.png", images / "x6.png")

  summary, lines = label(StubRanker(), scenes, tmp_path / "out")
  assert summary.ranked == 10 and len(results(tmp_path / "out")) == 10
  told = [line for line in lines if line.startswith("bad: ")]
  assert sorted(told) == [f"bad: {line}" for line in summary.bad]
  assert lines[-1].startswith("10 of 17 panoramas ranked, 0 done before, 7 bad; ")
  reasons = {
    "images/x0": "missing; add it",
    "images/x1.png": "not complete|cut off",
    "images/x2.png": "64 x 20 pixels is not 2:1; give a full panorama",
    "images/x3.png": "129 objects are more than 128; leave out the smallest",
    "images/x4.png": "64 x 32 pixels, its annotation says 60 x 32; resize",
    "images/x5.png": "48 x 24 pixels is too small; give at least 64 x 32",
    "instances/x6.png": "has colours .*; save it with one grey channel",
  }
  for line, (file, reason) in zip(sorted(summary.bad), reasons.items(), strict=True):
    assert str(scenes / file) in line and re.search(reason, line) and "\n" not in line
  again, _ = label(StubRanker(), scenes, tmp_path / "out")
  assert again.bad == summary.bad and again.done_before == 10


def test_panoramas_that_are_not_plain_get_results_of_what_is_read(tmp_path):
  """A row off 2:1, upside down, a part of the sphere, a name that is not UTF-8."""
  folder, rng = tmp_path / "in", np.random.default_rng(3)
  for name in ("off", "turned", "part", "plain"):
    write_scene(folder, name, rng)
  for file in (folder / "images/off.png", folder / "instances/off.png"):
    cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[:, :63])
  exif = Image.Exif()
  exif[0x0112] = 3
  xmp = " ".join(
    f'GPano:{name}Pixels="{value}"'
    for name, value in dict(
      FullPanoWidth=128, FullPanoHeight=64, CroppedAreaLeft=100, CroppedAreaTop=9
    ).items()
  )
  information = PngInfo()
  information.add_itxt("XML:com.adobe.xmp", xmp)
  for name, options in (("turned", {"exif": exif}), ("part", {"pnginfo": information})):
    file = folder / f"images/{name}.png"
    Image.open(file).save(file, **options)
  for part in ("images", "instances"):
    latin = os.fsdecode(os.fsencode(folder / part) + b"/caf\xe9.png")
    shutil.copy(folder / part / "plain.png", latin)
  summary, _ = label(StubRanker(), folder, tmp_path / "out", overlays=True)
  assert summary.ranked == 4
  (bad,) = summary.bad
  assert r"caf\udce9.png: the name is not UTF-8" in bad
  for scene_id, size in {"off": (32, 63), "turned": (32, 64), "part": (64, 128)}.items():
    found = read_rank_file(tmp_path / f"out/ranks/{scene_id}.json")
    assert found.masks.shape[1:] == size
    scene = open_scenes(folder).read(scene_id)
    assert scene.masks().sum() == found.masks.sum()
    assert read_panorama(scene.image_file).shape[:2] == size
    picture = cv2.imread(str(tmp_path / f"out/overlays/{scene_id}.png"))
    assert picture.shape[0] > picture.shape[1] * size[0] // size[1]  # and the legend
  part = read_rank_file(tmp_path / "out/ranks/part.json").masks.any(0)
  assert not part[:9].any() and not part[41:].any() and not part[:, 36:100].any()


def test_a_size_that_the_ranker_refuses_makes_bad_panoramas(scenes, tmp_path):
  ranker = StubRanker()
  rank = ranker.rank

  def refuse(batch):
    if batch.panorama.shape[1] == 40:
      raise ValueError("40 rows are\ntoo odd")
    return rank(batch)

  ranker.rank = refuse
  summary, _ = label(ranker, scenes, tmp_path / "out")
  assert summary.ranked == 6
  assert summary.bad == tuple(
    f"{scenes}/images/s{index}.png: 40 rows are too odd" for index in (0, 3, 6, 9)
  )


def test_a_panorama_without_objects_gets_an_empty_rank_file(scenes, tmp_path):
  (scenes / "instances/s3.png").write_bytes(encode_id_map(np.zeros((40, 80), int)))
  ranker = StubRanker()
  summary, _ = label(ranker, scenes, tmp_path / "out", overlays=True)
  assert summary.ranked == 10 and ranker.ranked == 9
  content = json.loads((tmp_path / "out/ranks/s3.json").read_text())
  assert content == {"image": "s3.png", "height": 40, "width": 80, "objects": []}
  assert (tmp_path / "out/overlays/s3.png").is_file()


@pytest.mark.parametrize("format", FORMATS)
def test_every_layout_is_ranked_and_its_own_ranks_are_not_read(tmp_path, format):
  write_dummy_data(tmp_path / "in", format=format)
  summary, _ = label(StubRanker(), tmp_path / "in", tmp_path / "out")
  assert summary.ranked == 5 and not summary.bad
  check_results(tmp_path / "in", tmp_path / "out")
  own = {scene.id: [item.rank for item in scene.objects] for scene in open_scenes(tmp_path / "in")}
  weak = {scene.id: expected(scene) for scene in open_scenes(tmp_path / "in")}
  order = {
    scene_id: [ranks[list(weak[scene_id].ids).index(i)] for i in sorted(weak[scene_id].ids)]
    for scene_id, ranks in ((scene_id, weak[scene_id].ranks) for scene_id in own)
  }
  assert order != own  # else nothing could be told from it


def test_other_settings_are_refused_by_name_and_redone_on_request(scenes, tmp_path):
  label(StubRanker(), scenes, tmp_path / "out", overlays=True)
  before = results(tmp_path / "out")
  other = StubRanker(collector="borda")
  with pytest.raises(ValueError, match="strategy.collector was 'bradley_terry', now it is 'borda'"):
    label(other, scenes, tmp_path / "out")
  assert results(tmp_path / "out") == before and other.ranked == 0
  for part in ("images", "instances"):
    (scenes / f"{part}/s9.png").unlink()
  # Of the results of both kinds, none of the old one stays.
  summary, _ = label(other, scenes, tmp_path / "out", overwrite=True)
  assert summary.ranked == 9 and summary.done_before == 0 and other.ranked == 9
  assert results(tmp_path / "out").keys() == before.keys() - {"s9"}
  assert not (tmp_path / "out/overlays/s9.png").exists()
  with pytest.raises(ValueError, match="strategy.collector was 'borda'"):
    label(StubRanker(), scenes, tmp_path / "out")


def test_weights_and_the_name_of_the_saliency_are_settings(scenes, tmp_path):
  class Weighted:
    def __init__(self, value):
      self.kernel = np.array([value, 2.0], np.float32)

  jax.tree_util.register_pytree_node(Weighted, lambda x: ((x.kernel,), None), lambda _, x: x[0])
  label(StubRanker(saliency=Weighted(1.0)), scenes, tmp_path / "out")
  same, _ = label(StubRanker(saliency=Weighted(1.0)), scenes, tmp_path / "out")
  assert same.done_before == 10
  with pytest.raises(ValueError, match="settings.json: saliency_sha256 was '.*--overwrite"):
    label(StubRanker(saliency=Weighted(1.001)), scenes, tmp_path / "out")
  with pytest.raises(ValueError, match="saliency was 'Weighted', now it is 'stub_saliency'"):
    label(StubRanker(), scenes, tmp_path / "out")


def test_a_saliency_without_a_name_of_its_own_is_refused(scenes, tmp_path):
  for saliency in (lambda views: views[..., 0], functools.partial(np.mean, axis=-1)):
    with pytest.raises(ValueError, match="cannot be told from another; give a function with"):
      label(StubRanker(saliency=saliency), scenes, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_told(scenes, tmp_path):
  (tmp_path / "out").write_text("mine")
  with pytest.raises(ValueError, match="out is a file; give a folder as --output"):
    label(StubRanker(), scenes, tmp_path / "out")
  assert (tmp_path / "out").read_text() == "mine"


def test_redoing_that_is_stopped_never_mixes_settings(scenes, tmp_path, monkeypatch):
  label(StubRanker(), scenes, tmp_path / "out")

  def interrupt(calls):
    if calls == 2:
      raise KeyboardInterrupt

  other = StubRanker(max_erased=2, before=interrupt)
  with pytest.raises(KeyboardInterrupt):
    label(other, scenes, tmp_path / "out", overwrite=True)
  summary, _ = label(StubRanker(max_erased=2), scenes, tmp_path / "out")
  assert summary.done_before <= 2 * BATCH_SIZE and summary.ranked + summary.done_before == 10

  # Stopped while the old results are removed: those that are left go with the old settings.
  with monkeypatch.context() as patch:
    patch.setattr("pathlib.Path.unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
      label(StubRanker(), scenes, tmp_path / "out", overwrite=True)
  with pytest.raises(ValueError, match="strategy.max_erased was 2, now it is 8"):
    label(StubRanker(), scenes, tmp_path / "out")


def test_redoing_one_folder_leaves_results_of_another_with_equal_settings(scenes, tmp_path):
  write_scene(tmp_path / "more", "other", np.random.default_rng(0))
  for folder in (scenes, tmp_path / "more"):
    label(StubRanker(), folder, tmp_path / "out")
  summary, _ = label(StubRanker(), tmp_path / "more", tmp_path / "out", overwrite=True)
  assert summary.ranked == 1 and len(results(tmp_path / "out")) == 11


def test_ranks_of_unknown_origin_are_not_overwritten_unasked(scenes, tmp_path):
  write_dummy_data(tmp_path / "human")
  before = results(tmp_path / "human")
  with pytest.raises(ValueError, match="nobody knows the settings of its 5 results .*--overwrite"):
    label(StubRanker(), scenes, tmp_path / "human")
  assert results(tmp_path / "human") == before
  assert not (tmp_path / "human" / SETTINGS_FILE).exists()


def test_overwriting_replaces_of_unknown_ranks_those_of_the_given_panoramas_alone(scenes, tmp_path):
  write_dummy_data(tmp_path / "human")
  before = results(tmp_path / "human")
  (tmp_path / "human/ranks/s3.json").write_text("old")
  (tmp_path / "human/overlays").mkdir()
  (tmp_path / "human/overlays/s3.png").write_text("old")
  summary, _ = label(StubRanker(), scenes, tmp_path / "human", overwrite=True)
  assert summary.ranked == 10 and not (tmp_path / "human/overlays/s3.png").exists()
  after = results(tmp_path / "human")
  assert {name: after[name] for name in before} == before and after["s3"] != b"old"
  # Nobody knows what the others were made with, so the folder cannot say what all were.
  assert not (tmp_path / "human" / SETTINGS_FILE).exists()
  with pytest.raises(ValueError, match="nobody knows the settings of its 15 results"):
    label(StubRanker(), scenes, tmp_path / "human")


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_folder_of_the_panoramas_is_no_place_for_results(scenes, overwrite):
  with pytest.raises(ValueError, match="is the folder of the panoramas"):
    label(StubRanker(), scenes, scenes / "images" / "..", overwrite=overwrite)
  assert not (scenes / "ranks").exists()


def test_a_folder_that_an_earlier_version_began_is_gone_on_with(scenes, tmp_path):
  out = tmp_path / "out"
  label(StubRanker(), scenes, out)
  settings = json.loads((out / SETTINGS_FILE).read_text())
  del settings["command"]
  (out / SETTINGS_FILE).unlink()
  (out / "weak_labels.json").write_text(json.dumps(settings))
  (out / "ranks/s1.json").unlink()
  with pytest.raises(ValueError, match="weak_labels.json: strategy.fill was 'pull_push', now"):
    label(StubRanker(fill="mean"), scenes, out)
  summary, _ = label(StubRanker(), scenes, out)
  assert (summary.ranked, summary.done_before) == (1, 9)
  assert (out / SETTINGS_FILE).is_file() and not (out / "weak_labels.json").exists()


def test_the_output_is_locked_while_it_is_written(scenes, tmp_path):
  messages = []

  def write_there_too(calls):
    if calls == 1:
      with pytest.raises(ValueError) as error:
        label(StubRanker(), scenes, tmp_path / "out")
      messages.append(str(error.value))

  summary, _ = label(StubRanker(before=write_there_too), scenes, tmp_path / "out")
  assert summary.ranked == 10 and "\n" not in messages[0]
  assert "out is being written by process" in messages[0]


def test_labels_of_another_version_of_the_method_are_refused(scenes, tmp_path, monkeypatch):
  label(StubRanker(), scenes, tmp_path / "out")
  before = results(tmp_path / "out")
  monkeypatch.setattr(weak_labels, "METHOD_VERSION", weak_labels.METHOD_VERSION + 1)
  with pytest.raises(ValueError, match="settings.json: method was 1, now it is 2; .*--overwrite"):
    label(StubRanker(), scenes, tmp_path / "out")
  assert results(tmp_path / "out") == before


def test_a_batch_that_the_device_has_no_memory_for_is_left_out(scenes, tmp_path):
  ranker = StubRanker()
  rank = ranker.rank

  def fill_up(batch):
    if batch.panorama.shape[1] == 40:
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    return rank(batch)

  ranker.rank = fill_up
  summary, lines = label(ranker, scenes, tmp_path / "out")
  assert summary.ranked == 6 and len(summary.bad) == 4
  assert all("little memory for its batch; lower config.batch_size" in line for line in summary.bad)


def test_a_bar_is_told_what_is_finished_and_then_no_line_repeats_it(scenes, tmp_path, monkeypatch):
  monkeypatch.setattr(folder_runner, "_SAY_EVERY_S", 0.0)
  (scenes / "images/s0.png").write_bytes(b"")
  shown = []
  _, lines = label(StubRanker(), scenes, tmp_path / "out", show=lambda *now: shown.append(now))
  assert shown == [(number, 10) for number in range(1, 11)]
  assert not [line for line in lines if " / 10" in line]


def test_the_home_folder_may_be_meant_by_a_tilde(scenes, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  summary, _ = label(StubRanker(), "~/scenes", "~/out")
  assert summary.ranked == 10 and len(results(tmp_path / "out")) == 10


def test_settings_that_cannot_be_read_are_named(scenes, tmp_path):
  label(StubRanker(), scenes, tmp_path / "out")
  (tmp_path / "out" / SETTINGS_FILE).write_text("{")
  with pytest.raises(ValueError, match="settings.json: does not say the settings any more"):
    label(StubRanker(), scenes, tmp_path / "out")
  summary, _ = label(StubRanker(), scenes, tmp_path / "out", overwrite=True)
  assert summary.ranked == 10


def test_folders_without_scenes_are_refused(tmp_path):
  (tmp_path / "empty/instances").mkdir(parents=True)
  with pytest.raises(ValueError, match="empty: holds no picture"):
    label(StubRanker(), tmp_path / "empty", tmp_path / "out")
  with pytest.raises(ValueError, match="absent: no such folder"):
    label(StubRanker(), tmp_path / "absent", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_progress_tells_counts_speed_and_what_is_left(scenes, tmp_path, monkeypatch):
  monkeypatch.setattr(folder_runner, "_SAY_EVERY_S", 0.0)
  (scenes / "images/s0.png").write_bytes(b"")
  _, lines = label(StubRanker(), scenes, tmp_path / "out")
  progress = [line for line in lines if " / " in line]
  assert progress[0] == "1 / 10, 0 images/s"  # the bad one
  assert len(progress) == 10
  for number, line in enumerate(progress[1:], 2):
    assert re.fullmatch(rf"{number} / 10, [\d.e+]+ images/s, \d+ s left", line)


def test_few_scenes_wait_for_others_of_their_shape_however_many_shapes_there_are():
  rng = np.random.default_rng(3)
  shapes = [(int(height), 8) for height in rng.integers(0, 40, 200)]
  taken, yielded = 0, 0

  def arriving():
    nonlocal taken
    for shape in shapes:
      taken += 1
      yield shape

  seen = []
  for batch in folder_runner._batches(arriving(), lambda item: item, 4):
    yielded += len(batch)
    assert taken - yielded <= 4 * 4
    assert len(set(batch)) == 1 and len(batch) <= 4
    seen += batch
  assert sorted(seen) == sorted(shapes)


def test_writing_does_not_fall_far_behind(scenes, tmp_path, monkeypatch):
  written = []

  def write_slowly(item, *_):
    time.sleep(0.05)
    written.append(item.scene.id)

  def check(calls):
    assert calls - len(written) <= 1 + 2  # one on the device, two being written

  monkeypatch.setattr(weak_labels, "write_result", write_slowly)
  label(StubRanker(before=check), scenes, tmp_path / "out", batch_size=1)
  assert len(written) == 10


def test_reading_goes_ahead_but_not_far():
  begun = []
  with folder_runner.ThreadPoolExecutor(2) as pool:
    read = folder_runner._read_ahead(pool, lambda x: begun.append(x) or x, map(str, range(50)), 4)
    assert next(read) == "0"
    assert len(begun) <= 5
    assert [*read] == [str(number) for number in range(1, 50)]
