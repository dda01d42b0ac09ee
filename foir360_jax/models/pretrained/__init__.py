"""Public pretrained weights, read from files into modules of this package."""

from foir360_jax.models.pretrained.efficientnet_lite0 import (
  has_efficientnet_lite0,
  load_efficientnet_lite0,
)
from foir360_jax.models.pretrained.encoder import PACKAGE, load_encoder_weights
from foir360_jax.models.pretrained.report import Report
from foir360_jax.models.pretrained.resnet50 import load_resnet50
from foir360_jax.models.pretrained.tensor_file import read_tensors
from foir360_jax.models.pretrained.torch_file import TorchFileError, read_torch_file

__all__ = [
  "PACKAGE",
  "Report",
  "TorchFileError",
  "has_efficientnet_lite0",
  "load_efficientnet_lite0",
  "load_encoder_weights",
  "load_resnet50",
  "read_tensors",
  "read_torch_file",
]
