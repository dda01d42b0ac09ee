"""Files of trained readouts: safetensors, with their settings in the metadata."""

import json
import os
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from foir360_jax.files import write_atomically
from foir360_jax.paths import expand
from foir360_jax.saliency.readout import FixationReadout

COMMITTED = pathlib.Path(__file__).with_name("fixation_readout.safetensors")
"""The readout that comes with the package; its metadata say how it was made."""

_NAME = "fixation_readout.safetensors"  # in the folder of a run
_CURE = "train one with configs/fixation.py, or install foir360_jax again"


def file_of_run(workdir: str | os.PathLike, fold: int | None = None) -> pathlib.Path:
  """Where a run of configs/fixation.py leaves its readout, or the one that never saw a fold.

  >>> file_of_run("runs/fixation", 2).as_posix()
  'runs/fixation/without_2/fixation_readout.safetensors'
  """
  folder = expand(workdir)
  return (folder if fold is None else folder / f"without_{fold}") / _NAME


def save_readout(
  path: str | os.PathLike,
  readout: FixationReadout,
  metadata: Mapping[str, str],
  extra: Mapping[str, np.ndarray] | None = None,
) -> None:
  """Writes a readout as float32.

  Args:
    path: the file.
    readout: what `load_readout` shall give back.
    metadata: what the file says of itself.
    extra: further arrays by name, which `load_readout` leaves alone.
  """
  tensors = {name: np.asarray(value) for name, value in _named(nnx.state(readout)).items()}
  channels = [layer.kernel.shape[0] for layer in readout.layers]
  built_with = {"channels": channels, "enlargement": readout.enlargement}
  metadata = {**metadata, **{name: json.dumps(value) for name, value in built_with.items()}}
  data = safetensors.numpy.save({**tensors, **(extra or {})}, metadata=metadata)
  write_atomically(path, data)


def load_readout(path: str | os.PathLike = COMMITTED) -> FixationReadout:
  """Reads a readout that `save_readout` wrote.

  Raises:
    ValueError: the file is missing or broken, or its arrays are not those of a readout.
  """
  tensors, metadata = read_tensors(path)
  try:
    channels = tuple(int(width) for width in json.loads(metadata["channels"]))
    enlargement = float(json.loads(metadata["enlargement"]))
    readout = nnx.eval_shape(lambda: FixationReadout(channels, enlargement, rngs=nnx.Rngs(0)))
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path}: its metadata do not name channels and enlargement of a readout; {_CURE}"
    ) from error
  graphdef, state = nnx.split(readout)
  for name, abstract in _named(state).items():
    shape = tensors[name].shape if name in tensors else "missing"
    if shape != abstract.shape:
      raise ValueError(f"{path}: {name} is {shape}, a readout needs {abstract.shape}; {_CURE}")
  leaves = [jnp.asarray(tensors[name], jnp.float32) for name in _named(state)]
  return nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(state), leaves))


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads all arrays and the metadata of a safetensors file.

  Raises:
    ValueError: the file is missing or broken.
  """
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(f"{path}: no weights of a readout can be read ({error}); {_CURE}") from error


def _named(state: nnx.State) -> dict[str, jax.Array]:
  """{"layers.0.kernel": array}."""
  return {
    jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): leaf
    for path, leaf in jax.tree.leaves_with_path(state)
  }
