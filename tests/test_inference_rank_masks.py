"""Ranking the masks that a folder provides: results, bad scenes, nothing lost."""

import cv2
import jax
import numpy as np
import pytest

from foir360_jax.cli.command import main
from foir360_jax.inference.output_folder import SETTINGS_FILE
from foir360_jax.inference.predict import rank_provided_masks
from foir360_jax.scenes import RankedObjects, read_rank_file


class ByArea:
  """A ranker that knows nothing but the size of a mask."""

  category_names = ("box", "", "disc")

  def __init__(self, unknown=(), **decision):
    self.unknown, self.decision = set(unknown), decision

  def settings(self, *, rank_masks):
    assert rank_masks
    return {"parameters_sha256": "0123", **self.decision}

  def unknown_names(self, categories):
    return self.unknown

  def rank_masks(self, panorama, masks, **names):
    share = masks.mean((1, 2)) if len(masks) else np.zeros(0)
    return RankedObjects.from_masks(
      panorama.pixels, masks, share.astype(np.float32), image=panorama.image, **names
    )


@pytest.fixture
def scenes(tmp_path):
  """Two good scenes, one whose instances have another size, one whose picture is not 2:1."""
  folder = tmp_path / "scenes"
  for name in ("images", "instances"):
    (folder / name).mkdir(parents=True)
  rng = np.random.default_rng(0)
  for scene_id, size in (("a", (32, 64)), ("b", (48, 96)), ("flat", (32, 80)), ("odd", (48, 96))):
    instances = np.zeros(size if scene_id != "odd" else (32, 64), np.uint8)
    instances[2:6, 1:9], instances[6:8, 3:5] = 4, 9
    picture = rng.integers(0, 255, (*size, 3), np.uint8)
    cv2.imwrite(str(folder / "images" / f"{scene_id}.png"), picture)
    cv2.imwrite(str(folder / "instances" / f"{scene_id}.png"), instances)
  return folder


def test_every_scene_gets_the_ranks_of_its_masks_and_bad_ones_a_line(scenes, tmp_path):
  lines, output = [], tmp_path / "out"
  summary = rank_provided_masks(ByArea(), scenes, output, say=lines.append)
  bad = sorted(line for line in lines if line.startswith("bad: "))
  assert bad == [f"bad: {line}" for line in summary.bad] and len(bad) == 2 and len(lines) == 7
  told = [line for line in lines if line.startswith("compiling the model: ")]
  assert len(told) == 1  # two good ones, of two sizes
  assert "flat" in bad[0] and "odd" in bad[1]
  assert lines[0] == f"{scenes}: 4 panoramas, 0 done before"
  assert lines[-1].startswith("2 of 4 panoramas ranked, 0 done before, 2 bad; ")
  assert all("\n" not in line for line in lines)
  for scene_id, height in (("a", 32), ("b", 48)):
    ranked = read_rank_file(output / "ranks" / f"{scene_id}.json")
    assert ranked.ids.tolist() == [4, 9] and ranked.image == f"{scene_id}.png"
    assert ranked.masks.shape == (2, height, 2 * height)
    assert ranked.masks[0, 2:6, 1:9].all() and ranked.masks[0].sum() == 32
    assert (output / "overlays" / f"{scene_id}.png").is_file()
  assert not (output / "ranks" / "flat.json").exists()


@pytest.mark.parametrize("width", [62, 63, 65, 66])
def test_masks_a_row_off_2_to_1_come_back_as_they_were(tmp_path, width):
  for name, channels in (("images", 3), ("instances", 1)):
    (tmp_path / "in" / name).mkdir(parents=True)
    picture = np.zeros((32, width, channels), np.uint8)
    picture[10:20, -9:] = 5
    cv2.imwrite(str(tmp_path / "in" / name / "a.png"), picture)
  lines = []
  assert not rank_provided_masks(ByArea(), tmp_path / "in", tmp_path / "out", say=lines.append).bad
  (mask,) = read_rank_file(tmp_path / "out/ranks/a.json").masks
  np.testing.assert_array_equal(mask, picture[..., 0] > 0)


def test_a_panorama_that_the_device_has_no_memory_for_is_left_out(scenes, tmp_path):
  class Full(ByArea):
    def rank_masks(self, panorama, masks, **names):
      if len(panorama.pixels) == 48:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
      return super().rank_masks(panorama, masks, **names)

  lines = []
  assert len(rank_provided_masks(Full(), scenes, tmp_path / "out", say=lines.append).bad) == 3
  assert any(line.endswith("b: the device has too little memory for it") for line in lines)
  assert (tmp_path / "out/ranks/a.json").is_file()


def test_the_same_command_goes_on_with_what_is_not_done(scenes, tmp_path):
  output, lines = tmp_path / "out", []
  rank_provided_masks(ByArea(), scenes, output, say=lines.append)
  (output / "ranks/b.json").unlink()  # stopped between the two files
  before = (output / "ranks/a.json").stat().st_mtime_ns
  lines.clear()
  summary = rank_provided_masks(ByArea(), scenes, output, say=lines.append)
  assert (summary.ranked, summary.done_before, len(summary.bad)) == (1, 1, 2)
  assert lines[0] == f"{scenes}: 4 panoramas, 1 done before"
  assert (output / "ranks/a.json").stat().st_mtime_ns == before


def test_the_rank_file_is_written_after_the_overlay(scenes, tmp_path, monkeypatch):
  order = []
  for name in ("save_json", "save_overlay"):
    monkeypatch.setattr(RankedObjects, name, lambda self, path: order.append(path.suffix))
  rank_provided_masks(ByArea(), scenes, tmp_path / "out", say=lambda line: None)
  assert order == [".png", ".json"] * 2


def test_results_of_another_decision_are_refused_by_name(scenes, tmp_path):
  output, say = tmp_path / "out", lambda line: None
  rank_provided_masks(ByArea(yaw_augmentation=1), scenes, output, say=say)
  with pytest.raises(ValueError, match="model.yaw_augmentation was 1, now it is 4; .*--overwrite"):
    rank_provided_masks(ByArea(yaw_augmentation=4), scenes, output, say=say)
  (scenes / "images/b.png").unlink()
  (scenes / "instances/b.png").unlink()
  summary = rank_provided_masks(ByArea(yaw_augmentation=4), scenes, output, overwrite=True, say=say)
  assert summary.ranked == 1 and not (output / "ranks/b.json").exists()


def test_ctrl_c_says_what_is_done(scenes, tmp_path):
  class Stopped(ByArea):
    def rank_masks(self, panorama, masks, **names):
      if len(panorama.pixels) == 48:
        raise KeyboardInterrupt
      return super().rank_masks(panorama, masks, **names)

  lines = []
  with pytest.raises(KeyboardInterrupt):
    rank_provided_masks(Stopped(), scenes, tmp_path / "out", say=lines.append)
  done = len(list((tmp_path / "out/ranks").glob("*.json")))
  assert lines[-1] == f"stopped; {done} are done, and the same command goes on"
  with pytest.raises(KeyboardInterrupt):
    rank_provided_masks(Stopped(), scenes, tmp_path / "out", overwrite=True, say=lines.append)
  assert lines[-1].endswith(" are done, and the same command without --overwrite goes on")
  summary = rank_provided_masks(ByArea(), scenes, tmp_path / "out", say=lines.append)
  assert summary.ranked + summary.done_before == 2


def test_categories_that_the_model_does_not_know_are_listed_at_the_end(scenes, tmp_path):
  lines = []
  rank_provided_masks(ByArea({"sofa", "cat"}), scenes, tmp_path / "out", say=lines.append)
  assert lines[-1] == (
    "the model does not know cat, sofa and ranked these by their looks; it knows box, disc"
  )


def test_what_an_earlier_version_predicted_is_replaced_when_asked(scenes, tmp_path):
  output, say = tmp_path / "out", lambda line: None
  rank_provided_masks(ByArea(), scenes, output, say=say)
  (output / SETTINGS_FILE).unlink()  # earlier versions wrote none
  (output / "ranks/a.json").write_text("old")
  with pytest.raises(ValueError, match="nobody knows the settings of its 2 results .*--overwrite"):
    rank_provided_masks(ByArea(), scenes, output, say=say)
  assert (output / "ranks/a.json").read_text() == "old"
  assert rank_provided_masks(ByArea(), scenes, output, overwrite=True, say=say).ranked == 2
  assert len(read_rank_file(output / "ranks/a.json")) == 2
  assert rank_provided_masks(ByArea(), scenes, output, say=say).done_before == 2


def test_the_folder_of_the_panoramas_is_no_place_for_results(scenes):
  with pytest.raises(ValueError, match="is the folder of the panoramas, .*another --output"):
    rank_provided_masks(ByArea(), scenes, scenes)


def test_the_flag_is_for_prediction_alone(capsys):
  for flag in ("--rank_masks", "--rank_masks"):
    assert main([flag, "--config=configs/tiny.py", "--workdir=runs/none"]) == 2
    assert f"error: {flag} is for predict; leave it out" in capsys.readouterr().err
