"""Files of trained small segmenters: safetensors, with their settings in the metadata.

A file holds what was trained. The head is kept in half precision; of the encoder's matrices, what
training has added to the public weights, a byte each with one scale an output channel: 2.9 million
numbers that hardly moved.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
import scipy.special
from flax import nnx

from foir360_jax.files import write_atomically
from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.paths import expand
from foir360_jax.segment.small.network import SmallNetwork, encoder_arrays

COMMITTED = pathlib.Path(__file__).with_name("small_segmenter.safetensors")
"""The segmenter that comes with the package; `MODEL_CARD.md` beside it says what it is."""

_NAME = "small_segmenter.safetensors"  # in the folder of a run
_CURE = "train one with configs/segmenter.py, or install foir360_jax again"
_ADDED, _SCALE = ".added", ".scale"
_MOST = 127  # of a signed byte, as far from 0 on both sides


class Calibration(NamedTuple):
  """How scores become shares: log odds times a slope, plus an offset.

  Attributes:
    slope: above 0.
    offset: log odds.
    confidence: the calibrated score from which on a mask is given, unless another is asked for.
  """

  slope: float = 1.0
  offset: float = 0.0
  confidence: float = 0.5

  def __call__(self, scores: np.ndarray) -> np.ndarray:
    """Scores in [0, 1] as they come from the network -> the shares of right masks among such."""
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    odds = self.slope * np.log(clipped / (1 - clipped)) + self.offset
    return scipy.special.expit(odds).astype(np.float32)


def file_of_run(workdir: str | os.PathLike) -> pathlib.Path:
  """Where a run of configs/segmenter.py leaves its segmenter.

  >>> file_of_run("runs/segmenter").as_posix()
  'runs/segmenter/small_segmenter.safetensors'
  """
  return expand(workdir) / _NAME


def save_network(
  path: str | os.PathLike,
  network: SmallNetwork,
  backbone: EfficientNetLite0,
  calibration: Calibration,
  metadata: Mapping[str, str],
) -> None:
  """Writes a network.

  Args:
    path: the file.
    network: what `load_network` shall give back, up to rounding.
    backbone: with the public weights from which its encoder was trained.
    calibration: of its scores.
    metadata: what the file says of itself.
  """
  start = {name: np.asarray(x) for name, x in encoder_arrays(backbone).items()}
  tensors: dict[str, np.ndarray] = {}
  for name, value in named_arrays(network).items():
    if name in start:
      added = value - start[name]
      if not added.any():
        continue
      if added.ndim == 2:
        scale = np.maximum(np.abs(added).max(0) / _MOST, 1e-12).astype(np.float32)
        tensors[name + _ADDED] = np.round(added / scale).astype(np.int8)
        tensors[name + _SCALE] = scale
        continue
    tensors[name] = value.astype(np.float16)
  built_with = {
    "channels": network.channels,
    "mask_channels": network.mask_channels,
    "calibration": calibration._asdict(),
  }
  metadata = {**metadata, **{name: json.dumps(value) for name, value in built_with.items()}}
  write_atomically(path, safetensors.numpy.save(tensors, metadata=metadata))


def load_network(
  path: str | os.PathLike, backbone: EfficientNetLite0
) -> tuple[SmallNetwork, Calibration, dict[str, str]]:
  """Reads a network that `save_network` wrote.

  Args:
    path: the file.
    backbone: with the public weights, as it was written with.

  Returns:
    The network, the calibration of its scores, and what the file says of itself.

  Raises:
    ValueError: the file is missing or broken, or its arrays are not those of a small segmenter.
  """
  tensors, metadata = _read(path)
  try:
    channels, mask_channels = (int(metadata[name]) for name in ("channels", "mask_channels"))
    calibration = Calibration(**json.loads(metadata["calibration"]))
    network = nnx.eval_shape(lambda: SmallNetwork(channels, mask_channels, rngs=nnx.Rngs(0)))
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path}: its metadata do not name channels and calibration of a small segmenter; {_CURE}"
    ) from error
  graphdef, state = nnx.split(network)
  public = {name: np.asarray(x) for name, x in encoder_arrays(backbone).items()}
  leaves = []
  for name, abstract in _named(state).items():
    found, shape = tensors.pop(name, public.get(name)), abstract.shape
    if name + _ADDED in tensors:
      added, scale = tensors.pop(name + _ADDED), tensors.pop(name + _SCALE, np.zeros(0))
      fits = name in public and added.shape == shape and scale.shape == shape[-1:]
      found = public[name] + added.astype(np.float32) * scale if fits else None
    if found is None or found.shape != shape:
      got = "missing" if found is None else list(found.shape)
      raise ValueError(f"{path}: {name} is {got}, a small segmenter needs {list(shape)}; {_CURE}")
    leaves.append(jnp.asarray(found, jnp.float32))
  if tensors:
    raise ValueError(f"{path}: a small segmenter has no place for {', '.join(tensors)}; {_CURE}")
  state = jax.tree.unflatten(jax.tree.structure(state), leaves)
  return nnx.merge(graphdef, state), calibration, metadata


def _read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(
      f"{path}: no weights of a small segmenter can be read ({error}); {_CURE}"
    ) from error


def named_arrays(network: SmallNetwork) -> dict[str, np.ndarray]:
  """All arrays of a network: {"encoder.0.expand.kernel": [in, out]}."""
  return {name: np.asarray(leaf) for name, leaf in _named(nnx.state(network)).items()}


def _named(state: nnx.State) -> dict[str, Any]:
  return {
    jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): leaf
    for path, leaf in jax.tree.leaves_with_path(state)
  }
