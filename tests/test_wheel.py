"""The wheel is whole: what people install ranks a photograph without any extra, and no clone."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import numpy as np
import pytest

from foir360_jax.files import save_image
from foir360_jax.scenes import read_rank_file

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """The unpacked wheel of this checkout."""
  folder = tmp_path_factory.mktemp("wheel")
  command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), ROOT]
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  if result.returncode and "setuptools" in result.stderr:
    pytest.skip("the build backend cannot be fetched")
  assert result.returncode == 0, result.stderr
  (file,) = folder.glob("foir360_jax-*.whl")
  zipfile.ZipFile(file).extractall(folder / "site")
  return folder / "site"


def extras_only():
  """What only extras install, by the names under which it is imported."""
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

  def names(requirements):
    return {re.split(r"[\[<>=;!~ ]", line)[0].lower().replace("-", "_") for line in requirements}

  extras = set().union(*(names(lines) for lines in project["optional-dependencies"].values()))
  return extras - names(project["dependencies"]) - {"jax", "foir360_jax", "pytest", "ruff", "mypy"}


def test_a_photograph_is_ranked_from_the_wheel_without_extras(wheel, tmp_path):
  picture = np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8)
  picture[20:44, 40:70] = (200, 30, 30)
  save_image(tmp_path / "room.png", picture)
  blocked = extras_only()
  assert {"torch", "onnxruntime"} <= blocked
  code = (
    f"import sys\nfor name in {sorted(blocked)}: sys.modules[name] = None\n"
    "import foir360_jax\nprint(foir360_jax.__file__)\n"
    "from foir360_jax.cli.command import main\n"
    "sys.exit(main(['rank', 'room.png', '--output=out']))\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", code],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(wheel)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith(str(wheel))
  read_rank_file(tmp_path / "out/ranks/room.json")
  assert (tmp_path / "out/overlays/room.png").is_file()


def test_the_wheel_holds_weights_schema_and_model_card(wheel):
  for name in (
    "scenes/ranks.schema.json",
    "saliency/fixation_readout.safetensors",
    "segment/small/small_segmenter.safetensors",
    "segment/small/MODEL_CARD.md",
    "py.typed",
  ):
    assert (wheel / "foir360_jax" / name).is_file(), name
  assert not (wheel / "tests").exists()
