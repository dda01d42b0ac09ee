"""ImageNet weights of torchvision's ResNet-50, from a downloaded file."""

import os
from collections.abc import Iterator, Mapping

import numpy as np
from flax import nnx

from foir360_jax.models.encoders.contract import Padding
from foir360_jax.models.encoders.resnet50 import ResNet50
from foir360_jax.models.pretrained.folding import Convolution, fill_folded
from foir360_jax.models.pretrained.tensor_file import read_tensors

_EPSILON = 1e-5  # of the batch normalisation
_UNUSED = ("fc.",)  # the head, which classifies


def load_resnet50(
  path: str | os.PathLike,
  *,
  sha256: str | None = None,
  padding: Padding = "sphere",
  sphere_from_stride: int | None = None,
) -> ResNet50:
  """Builds ResNet-50 with weights of torchvision's, or of any file with the same names.

  Args:
    path: a .pth or .safetensors file; see `read_tensors`.
    sha256: what its SHA-256 begins with; None: what the file's name says, see `read_tensors`.
    padding: see `ResNet50`.
    sphere_from_stride: see `ResNet50`.

  Raises:
    ValueError: the file cannot be read, is not the one of the checksum, or is of another network.
  """
  tensors = read_tensors(path, sha256=sha256)
  return resnet50_from_tensors(tensors, padding=padding, sphere_from_stride=sphere_from_stride)


def resnet50_from_tensors(
  tensors: Mapping[str, np.ndarray],
  *,
  padding: Padding = "sphere",
  sphere_from_stride: int | None = None,
) -> ResNet50:
  """Builds ResNet-50 from the tensors of a state dict, batch normalisation folded in.

  Args:
    tensors: by torchvision's names, kernels [out, in, k, k].
    padding: see `ResNet50`.
    sphere_from_stride: see `ResNet50`.

  Raises:
    ValueError: a tensor is missing, has another shape, or is none that this network knows.
  """
  model = nnx.eval_shape(
    lambda: ResNet50(padding=padding, sphere_from_stride=sphere_from_stride, rngs=nnx.Rngs(0))
  )
  return fill_folded(
    model,
    _convolutions(model),
    tensors,
    network="ResNet-50",
    epsilon=_EPSILON,
    unused=_UNUSED,
  )


def _convolutions(model: ResNet50) -> Iterator[Convolution]:
  yield Convolution(model.stem, "conv1.weight", "bn1")
  for level, blocks in enumerate(model.stages, start=1):
    for index, block in enumerate(blocks):
      prefix = f"layer{level}.{index}."
      parts = (block.reduce, block.convolve, block.expand)
      for number, part in enumerate(parts, start=1):
        yield Convolution(part, f"{prefix}conv{number}.weight", f"{prefix}bn{number}")
      if block.shortcut is not None:
        yield Convolution(block.shortcut, f"{prefix}downsample.0.weight", f"{prefix}downsample.1")
