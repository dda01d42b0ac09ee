"""The wheel is whole: what people install ranks a photograph without any extra, and no clone."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import numpy as np
import pytest

from foir360_jax.files import save_image
from foir360_jax.scenes import read_rank_file

ROOT = pathlib.Path(__file__).parents[1]


def unpacked_wheel(folder):
  """Builds the wheel of a copy of this checkout, which stays as it is, and unpacks it."""
  copy = folder / "copy"
  ignored = shutil.ignore_patterns("__pycache__")
  shutil.copytree(ROOT / "foir360_jax", copy / "foir360_jax", ignore=ignored)
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, copy)
  command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, copy]
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  if result.returncode and "No matching distribution found for setuptools" in result.stderr:
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


BLOCK = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] in {blocked}:
      raise ModuleNotFoundError(f"only an extra installs {{name}}", name=name)
sys.meta_path.insert(0, Block())
"""


def test_a_photograph_is_ranked_from_the_wheel_without_extras(tmp_path):
  wheel = unpacked_wheel(tmp_path)
  for name in (
    "scenes/ranks.schema.json",
    "saliency/fixation_readout.safetensors",
    "segment/small/small_segmenter.safetensors",
    "segment/small/MODEL_CARD.md",
    "py.typed",
  ):
    assert (wheel / "foir360_jax" / name).is_file(), name

  picture = np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8)
  picture[20:44, 40:70] = (200, 30, 30)
  save_image(tmp_path / "room.png", picture)
  blocked = extras_only()
  assert {"torch", "onnxruntime"} <= blocked
  code = (
    BLOCK.format(blocked=blocked) + "import foir360_jax\nprint(foir360_jax.__file__)\n"
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
