"""The command `weak_labels.study.evaluate`: a folder of the user's first, and no figure is lost."""

import dataclasses
import json
import sys

import cv2
import numpy as np
import pytest

from foir360_jax.files import save_image
from foir360_jax.scenes import Scene, SceneObject, write_scenes
from foir360_jax.weak_labels.study import evaluate as weak_labels


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  """Two ranked panoramas and an unranked one."""
  folder = tmp_path_factory.mktemp("ranked")
  rng = np.random.default_rng(0)
  made = []
  for name in ("video_1", "video_2", "unranked"):
    picture = cv2.resize(rng.integers(90, 120, (8, 16, 3)).astype(np.uint8), (128, 64))
    objects = []
    for number in (1, 2, 3):
      mask = np.zeros((64, 128), bool)
      mask[20 : 24 + 4 * number, 30 * number : 30 * number + 9] = True
      picture[mask] = 40 * number
      rank = {} if name == "unranked" else {"rank": number, "importance": (4 - number) / 3}
      objects.append(SceneObject.from_mask(number, mask, **rank))
    save_image(folder / f"{name}.png", picture)
    made.append(Scene(name, folder / f"{name}.png", 64, 128, tuple(objects), "", ()))
  write_scenes(folder / "scenes", made, format="scenes")
  unranked = [
    dataclasses.replace(
      made[0],
      objects=tuple(dataclasses.replace(x, rank=None, importance=None) for x in made[0].objects),
    )
  ]
  write_scenes(folder / "none", unranked, format="scenes")
  return folder


def run(monkeypatch, *arguments):
  """Runs the command on no prepared data; returns its last line."""
  monkeypatch.setattr(sys, "argv", ["weak_labels", "--saliency=spectral", *map(str, arguments)])
  with pytest.raises(SystemExit) as error:
    weak_labels.main()
  return str(error.value)


def test_figures_of_a_folder_stay_when_the_data_sets_are_missing(
  scenes, tmp_path, monkeypatch, capsys
):
  out, folder = tmp_path / "report.json", scenes / "scenes"
  groups = r".*(?=_\d)"
  message = run(
    monkeypatch,
    f"--out={out}",
    f"--data_dir={tmp_path}",
    f"--scenes={folder}",
    f"--groups={groups}",
  )
  assert message.startswith("error: no prepared data set in") and "fixations/crowd" in message
  report = json.loads(out.read_text())
  assert report["saliency"] == "spectral" and list(report["sources"]) == [str(folder)]
  figures = report["sources"][str(folder)]
  assert (figures["pictures"], figures["groups"], figures["objects"]) == (2, 1, 6)
  # Rank 1 is the smallest object of the three, by construction.
  assert figures["rankers"]["area"]["sa_sor"]["mean"] == pytest.approx(-1)
  assert figures["rankers"]["area"]["sa_sor"]["interval_95"] == [None, None]  # of one group
  assert f"| {folder}: 2 pictures, 6 objects |" in capsys.readouterr().out


@pytest.mark.parametrize(
  "scenes_name, groups, message",
  [
    ("scenes", "(", "error: missing ), unterminated subpattern"),
    ("none", ".*", "none: holds no panorama with a picture and two ranked objects"),
    ("nowhere", ".*", "nowhere"),
  ],
)
def test_what_is_wrong_with_a_folder_is_said_before_anything_is_measured(
  scenes, tmp_path, monkeypatch, scenes_name, groups, message
):
  def measure_prepared(*_, **__):
    raise AssertionError("too late")

  monkeypatch.setattr(weak_labels, "measure_prepared", measure_prepared)
  arguments = f"--scenes={scenes / scenes_name}", f"--groups={groups}"
  assert message in run(monkeypatch, f"--out={tmp_path / 'report.json'}", *arguments)
  assert not (tmp_path / "report.json").exists()
