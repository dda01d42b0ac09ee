"""Set-up shared by all tests: four CPU devices, parsed absl flags, a tiny model and its data.

Most of the time goes into compiling, so programs are compiled without costly optimizations and kept
in the user's cache: modules that need the same program share it, on all workers, as do the commands
that tests start and the next run.
"""

import contextlib
import fcntl
import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags
from flax import nnx

from fixations.fixations_dataset_builder import Builder
from fixations.split_list import split_of_picture
from foir360_jax.cli.command import main
from foir360_jax.config import base_config
from foir360_jax.models import build_model, parameter_keys
from foir360_jax.models.encoders import build_encoder
from foir360_jax.models.encoders.build import SMALL
from foir360_jax.sphere import pixel_directions

ROOT = pathlib.Path(__file__).parents[1]
PLAIN_EMITTERS = "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
MAX_PROGRAMS_BYTES = 2**30  # a whole run writes about a fifth of it


def _programs_folder() -> pathlib.Path:
  """Makes the folder of compiled programs of these versions; drops what has not been read for long.

  JAX could do the latter (`jax_compilation_cache_max_size`), but lists and reads the whole folder,
  under a lock, for each program that it writes: half a second each where there are 5,000.
  """
  folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "foir360_jax"
  python = f"py{sys.version_info.major}.{sys.version_info.minor}"
  programs = folder / f"tests-{jax.__version__}-{jaxlib.__version__}-{python}"
  programs.mkdir(parents=True, exist_ok=True)
  files = []
  for file in folder.glob("tests-*/*"):  # those of other versions too: one bound for all
    with contextlib.suppress(FileNotFoundError):  # another run drops it at the same time
      status = file.stat()
      files.append((max(status.st_atime, status.st_mtime), status.st_size, file))
  size = sum(size for _, size, _ in files)
  for _, file_size, file in sorted(files):
    if size <= MAX_PROGRAMS_BYTES:
      break
    file.unlink(missing_ok=True)
    size -= file_size
  return programs


if "PYTEST_XDIST_WORKER" not in os.environ:  # workers get the environment of who starts them
  if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_programs_folder())
  # In the environment, for workers and for the commands that tests start.
  os.environ |= {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # XLA's emitters of fused loops before those built on MLIR: less than half of the time. Where a
    # version of XLA has them no longer, it ignores this.
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {PLAIN_EMITTERS}".strip(),
  }
# Tracing makes millions of objects that stay; to look through them again and again took a tenth of
# the time.
gc.freeze()
gc.set_threshold(200_000, 20, 20)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_num_cpu_devices", 4)
flags.FLAGS.mark_as_parsed()  # grain reads them


@pytest.fixture(scope="session")
def run_command():
  """A function that runs a command of the project as a user does, from its root."""

  def run(*command):
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

  return run


@pytest.fixture
def run_here(capsys):
  """A function that runs `foir360 WORDS` in this process, with a result as of `run_command`."""

  def run(*words):
    capsys.readouterr()
    code = main(list(map(str, words)))
    return subprocess.CompletedProcess(words, code, *capsys.readouterr())

  return run


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
  """A function `(name, make)` that returns a folder which `make(folder)` filled, in one worker.

  The other workers of the run wait for it and share it, so nothing may change it afterwards.
  """
  root = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    root = root.parent

  def folder_of(name, make):
    folder, complete = root / name, root / f"{name}.complete"
    with (root / f"{name}.lock").open("a") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
      if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)  # another worker may have failed half-way
        folder.mkdir()
        make(folder)
        complete.touch()
    return folder

  return folder_of


@pytest.fixture(scope="session")
def prepared(made_once, run_command) -> pathlib.Path:
  """A data_dir with synthetic360/tests: 12, 4 and 4 scenes of 32 x 64 pixels."""

  def make(data_dir):
    result = run_command(
      "datasets/prepare.py", "--dataset=synthetic360/tests", f"--data_dir={data_dir}"
    )
    assert result.returncode == 0, result.stderr

  return made_once("prepared", make)


def _tiny_config():
  config = base_config()
  config.data.name = "synthetic360/tests"
  config.data.height = 48
  config.data.max_objects = 6
  config.data.batch_size = 2
  config.data.num_threads = 0
  config.model.widths = (8, 8, 16, 16)
  config.model.sphere_from_stride = 16  # kernels on the sphere are there, in a few layers
  config.model.feature_channels = 16
  config.model.mask_channels = 20
  config.model.num_queries = 8
  config.model.decoder_layers = 1
  config.evaluate.batch_size = 2
  config.evaluate.confidence_thresholds = (0.05, 0.3)
  config.evaluate.sheet_images = 2
  return config


@pytest.fixture(scope="session")
def make_tiny_config():
  """A function that builds `tiny_config`."""
  return _tiny_config


@pytest.fixture
def tiny_config():
  """The smallest model that has every part; 48 rows are the fewest that it takes."""
  return _tiny_config()


@pytest.fixture(scope="session")
def draw_parameters():
  """A function that builds a module with parameters drawn by NumPy.

  That is quicker than to compile the initializers; and no bias is 0, which would hide errors.
  """

  def draw(path, parameter):
    name = jax.tree_util.keystr(path)
    rng = np.random.default_rng(list(name.encode()))
    values = rng.normal(size=parameter.shape)
    if "kernel" in name:
      values *= np.sqrt(1.5 / np.prod(parameter.shape[:-1]))
    else:
      values = 0.2 * values + ("scale" in name)
    return jnp.asarray(values, parameter.dtype)

  def build(function):
    graphdef, abstract = nnx.split(nnx.eval_shape(function))
    return nnx.merge(graphdef, jax.tree.map_with_path(draw, abstract))

  return build


@pytest.fixture(scope="session")
def tiny_model(draw_parameters):
  """A model of `tiny_config` that finds several objects; do not change its parameters."""
  model = draw_parameters(lambda: build_model(_tiny_config()))
  decoder = model.query_decoder
  decoder.object_head.layers[-1].bias[...] += 5.0  # confident, whatever the parameters are
  decoder.mask_head.embed.layers[-1].kernel[...] *= 0.1
  decoder.mask_head.features.kernel[...] *= 0.3
  return model


@pytest.fixture(scope="session")
def draw_batch():
  """A function `(rng, numbers of objects, max_objects)` that draws a batch for `tiny_model`."""
  height = 48
  directions = np.asarray(pixel_directions(height))

  def draw(rng, counts, max_objects=6):
    where = np.arange(max_objects) < np.array(counts)[:, None]
    centres = rng.normal(size=(*where.shape, 3))
    centres /= np.linalg.norm(centres, axis=-1, keepdims=True)
    radius_rad = np.deg2rad(rng.uniform(8, 25, where.shape))
    cosine = np.einsum("bnx,hwx->bnhw", centres, directions)
    masks = (cosine > np.cos(radius_rad)[..., None, None]) & where[..., None, None]
    shades = rng.uniform(20, 235, (*where.shape, 3))
    image = rng.uniform(60, 190, (len(counts), height, 2 * height, 3))
    for index in range(max_objects):
      image = np.where(masks[:, index, ..., None], shades[:, index, None, None], image)
    return {
      "image": image.astype(np.uint8),
      "masks": np.packbits(masks, axis=-1),
      "where": where,
      "relevance": np.where(where, rng.random(where.shape), 0).astype(np.float32),
      "category": np.where(where, rng.integers(0, 12, where.shape), -1).astype(np.int32),
      "true_importance": np.where(where, rng.random(where.shape), 0).astype(np.float32),
      "example_where": np.ones(len(counts), bool),
      "index": np.arange(len(counts), dtype=np.int32),
      "seed": rng.integers(0, 2**32, len(counts), dtype=np.uint32),
    }

  return draw


class _PoolingBackbone(nnx.Module):
  """Stands for EfficientNet-Lite0 where its weights do not matter: the same maps, soon compiled."""

  def __init__(self):
    rng = np.random.default_rng(0)
    self.kernels = nnx.List(
      nnx.Param(jnp.asarray(rng.normal(size=(3, channels)) / 64, jnp.float32))
      for channels in (40, 80, 112, 192, 320)
    )

  def stages(self, image, numbers):
    """`[B, H, W, 3]` in [0, 255] -> `{number: [B, H / stride, W / stride, C]}`, rounded up."""
    assert numbers == (3, 4, 5, 6, 7)
    maps = {}
    strides = (8, 16, 16, 32, 32)
    for number, stride, kernel in zip(numbers, strides, self.kernels, strict=True):
      padding = [(0, 0), *((0, -length % stride) for length in image.shape[1:3]), (0, 0)]
      x = jnp.pad(image - 128, padding)
      x = x.reshape(len(x), -1, stride, x.shape[2] // stride, stride, 3).mean((2, 4))
      maps[number] = jnp.abs(x @ kernel[...])
    return maps


@pytest.fixture(scope="session")
def pooling_backbone():
  """A quick backbone with the interface of EfficientNet-Lite0."""
  return _PoolingBackbone()


@pytest.fixture(scope="session")
def prepared_fixations(made_once) -> pathlib.Path:
  """A data_dir with fixations/crowd (48 x 64) and osie (72 x 96): 3, 2 and 1 pictures each.

  Pictures are noise with a bright square, at which half of the fixations are.
  """
  return made_once("prepared_fixations", _prepare_fixations)


def _prepare_fixations(data_dir):
  for number, (name, height) in enumerate((("crowd", 48), ("osie", 72))):
    folder = data_dir / f"{name}_folder"
    folder.mkdir()
    rng = np.random.default_rng(number)
    left = {"train": 3, "tune": 2, "test": 1}
    annotation, index = {}, 0
    while any(left.values()):
      image_id, index = f"made_up_{index}", index + 1
      split = split_of_picture(name, image_id)
      if not left[split]:
        continue
      left[split] -= 1
      width = height * 4 // 3
      image = rng.integers(0, 120, (height, width, 3), np.uint8)
      top, left_edge = rng.integers(0, height - 16), rng.integers(0, width - 16)
      image[top : top + 16, left_edge : left_edge + 16] = 240
      cv2.imwrite(str(folder / f"{image_id}.jpg"), image)
      fixations = []
      for subject in range(4):
        fixations.append([subject, 0, width / 2, height / 2, 200])  # forced
        for order in range(1, 5):
          x, y = rng.uniform(0, width), rng.uniform(0, height)
          if order % 2:
            x, y = left_edge + rng.uniform(0, 16), top + rng.uniform(0, 16)
          fixations.append([subject, order, x, y, 250])
      annotation[image_id] = {"size": [width, height], "fix": fixations}
      if name == "crowd":
        annotation[image_id]["faces"] = []
    (folder / "ann.json").write_text(json.dumps(annotation))
    builder = Builder(config=name, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """The folder with oracle cases and real pictures that some checkouts have beside them."""
  folder = pathlib.Path(
    os.environ.get("FOIR360_SHARED", pathlib.Path(__file__).parents[2] / "shared")
  )
  if not folder.is_dir():
    pytest.skip(f"no shared data at {folder} (set FOIR360_SHARED)")
  return folder


@pytest.fixture(scope="session")
def planar_model(tiny_model, draw_parameters):
  """`tiny_model` with a planar encoder of fewer blocks: half of the operations of a step.

  For what does not depend on the encoder.
  """
  model = nnx.clone(tiny_model)
  sizes = dict(widths=model.encoder.widths, blocks=(0, 0, 0, 0), sphere_from_stride=32)
  model.encoder = draw_parameters(lambda: build_encoder(SMALL, **sizes, rngs=parameter_keys(0)))
  return model
