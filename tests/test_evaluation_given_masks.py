"""Ranking the masks that a folder brings: results, bad scenes, nothing lost."""

import cv2
import jax
import numpy as np
import pytest

from foir360_jax.inference.predict import rank_folder_masks
from foir360_jax.scenes import RankedObjects, read_rank_file


class ByArea:
  """A ranker that knows nothing but the size of a mask."""

  category_names = ("box", "", "disc")

  def __init__(self, unknown=()):
    self.unknown = set(unknown)

  def unknown_names(self, categories):
    return self.unknown

  def rank_masks(self, panorama, masks, **names):
    share = masks.mean((1, 2)) if len(masks) else np.zeros(0)
    return RankedObjects.from_masks(panorama, masks, share.astype(np.float32), **names)


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
  failed = rank_folder_masks(ByArea(), scenes, output, say=lines.append)
  skipped = [line for line in lines if line.startswith("skipped ")]
  assert failed == len(skipped) == 2 and len(lines) == 4
  assert any("flat" in line for line in skipped) and any("odd" in line for line in skipped)
  assert all("\n" not in line for line in lines)
  for scene_id, height in (("a", 32), ("b", 48)):
    ranked = read_rank_file(output / "ranks" / f"{scene_id}.json")
    assert ranked.ids.tolist() == [4, 9] and ranked.image == f"{scene_id}.png"
    assert ranked.masks.shape == (2, height, 2 * height)
    assert ranked.masks[0, 2:6, 1:9].all() and ranked.masks[0].sum() == 32
    assert (output / "overlays" / f"{scene_id}.png").is_file()
  assert not (output / "ranks" / "flat.json").exists()


@pytest.mark.parametrize("width", [62, 63, 65, 66])
def test_masks_are_stretched_with_their_panorama(tmp_path, width):
  for name, channels in (("images", 3), ("instances", 1)):
    (tmp_path / "in" / name).mkdir(parents=True)
    picture = np.zeros((32, width, channels), np.uint8)
    picture[10:20, -9:] = 5
    cv2.imwrite(str(tmp_path / "in" / name / "a.png"), picture)
  lines = []
  assert rank_folder_masks(ByArea(), tmp_path / "in", tmp_path / "out", say=lines.append) == 0, (
    lines
  )
  (mask,) = read_rank_file(tmp_path / "out/ranks/a.json").masks
  assert mask.shape == (32, 64) and mask[10:20, -8:].all() and not mask[:, :-10].any()


def test_a_panorama_that_the_device_has_no_memory_for_is_left_out(scenes, tmp_path):
  class Full(ByArea):
    def rank_masks(self, panorama, masks, **names):
      if len(panorama) == 48:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
      return super().rank_masks(panorama, masks, **names)

  lines = []
  assert rank_folder_masks(Full(), scenes, tmp_path / "out", say=lines.append) == 4 - 1
  assert any(line.endswith("b: the device has too little memory for it") for line in lines)
  assert (tmp_path / "out/ranks/a.json").is_file()


def test_what_is_done_is_left_out_when_asked(scenes, tmp_path):
  output, lines = tmp_path / "out", []
  rank_folder_masks(ByArea(), scenes, output, say=lines.append)
  (output / "overlays/b.png").unlink()  # stopped between the two files
  lines.clear()
  assert rank_folder_masks(ByArea(), scenes, output, skip_done=True, say=lines.append) == 2
  assert lines[0] == f"1 of 4 are done already in {output}" and len(lines) == 4
  assert (output / "overlays/b.png").is_file()


def test_categories_that_the_model_does_not_know_are_listed_at_the_end(scenes, tmp_path):
  lines = []
  rank_folder_masks(ByArea({"sofa", "cat"}), scenes, tmp_path / "out", say=lines.append)
  assert len(lines) == 5
  assert lines[-1] == (
    "the model does not know cat, sofa and ranked these by their looks; it knows box, disc"
  )


def test_results_are_only_replaced_when_asked(scenes, tmp_path):
  output = tmp_path / "out"
  rank_folder_masks(ByArea(), scenes, output, say=lambda line: None)
  with pytest.raises(ValueError, match="a.json exists .4 such files.; give .*--overwrite"):
    rank_folder_masks(ByArea(), scenes, output)
  assert rank_folder_masks(ByArea(), scenes, output, overwrite=True, say=lambda line: None) == 2


def test_the_folder_of_the_panoramas_is_no_place_for_results(scenes):
  with pytest.raises(ValueError, match="is the folder of the panoramas; give another --output"):
    rank_folder_masks(ByArea(), scenes, scenes)


def test_the_flag_is_for_prediction_alone(call_command):
  flags = ("--rank_masks", "--config=configs/tiny.py", "--workdir=runs/none")
  result = call_command(*flags)
  assert result.returncode != 0
  assert "--rank_masks is for --mode=predict" in result.stdout + result.stderr
