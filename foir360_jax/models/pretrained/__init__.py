"""Public weights, read from the files of installed packages into modules of this package."""

from foir360_jax.models.pretrained.efficientnet_lite0 import (
  has_efficientnet_lite0,
  load_efficientnet_lite0,
)
from foir360_jax.models.pretrained.torch_file import TorchFileError, read_torch_file

__all__ = [
  "TorchFileError",
  "has_efficientnet_lite0",
  "load_efficientnet_lite0",
  "read_torch_file",
]
