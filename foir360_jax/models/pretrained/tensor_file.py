"""Reads files of public weights into tensors by name, comparing checksums."""

import hashlib
import os
import pathlib
import re

import numpy as np
import safetensors
import safetensors.numpy

from foir360_jax.models.pretrained.torch_file import TorchFileError, read_torch_file

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})$")  # resnet50-0676ba61.pth, as torchvision does


def read_tensors(path: str | os.PathLike, *, sha256: str | None = None) -> dict[str, np.ndarray]:
  """Reads the tensors of a file without PyTorch and without running code from it.

  Args:
    path: .safetensors, or what `torch.save` wrote (.pth, .pt, .bin).
    sha256: what the SHA-256 of the file must begin with, in hexadecimal; None: what its name ends
      with after a dash, as names of torchvision do, where it does.

  Raises:
    ValueError: the file cannot be read, is of no such kind, or has another checksum.
  """
  path = pathlib.Path(path)
  named = _HASH_IN_NAME.search(path.stem)
  wanted = sha256 or (named and named[1])
  try:
    data = path.read_bytes()
  except OSError as error:
    raise TorchFileError(f"{path}: cannot be read ({error.strerror}); give the file") from error
  found = hashlib.sha256(data).hexdigest()
  if wanted and not found.startswith(wanted.lower()):
    raise TorchFileError(f"{path}: its SHA-256 is {found}, not {wanted}...; download it again")
  if path.suffix != ".safetensors":
    return read_torch_file(path)
  try:
    return safetensors.numpy.load(data)
  except safetensors.SafetensorError as error:
    raise TorchFileError(f"{path}: no safetensors file ({error}); download it again") from error
