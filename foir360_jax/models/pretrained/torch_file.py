"""Reads the tensors of a PyTorch checkpoint without PyTorch and without running anything in it.

Sits below the loaders of public weights. Such a file is a pickle, which could call any function of
Python, with the numbers beside it. This unpickler knows the few names that a dictionary of tensors
needs, every one replaced by an object of ours, and refuses the file at any other name.
"""

import collections
import io
import math
import os
import pathlib
import pickle
import re
import struct
import types
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_COPY_AGAIN = "copy or download it again"
_SAVE_AGAIN = "save it with torch.save(model.state_dict(), path)"

_BFLOAT16 = "bfloat16"  # NumPy has none: the bits are read, then widened
_DTYPES = types.MappingProxyType(
  {
    "BFloat16Storage": _BFLOAT16,
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
  }
)


class TorchFileError(ValueError):
  """A file gives no tensors; one line says which, why, and what to do."""


class _Storage(NamedTuple):
  """A run of numbers that tensors share; `key` names its bytes in the file."""

  key: str
  dtype: str
  length: int


class _Tensor(NamedTuple):
  """What a pickle says about a tensor: its place in a storage, in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read_torch_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a state dict that `torch.save` wrote, in the zip format or the one before it.

  A state dict that lies in a dictionary under "state_dict", beside other things, is found there.
  Nothing in the file is executed: besides dictionaries and tensors it may hold plain numbers and
  strings only.

  Args:
    path: a .pth or .pt file of little-endian numbers.

  Returns:
    The tensors by name, in the file's order: read-only views, which share memory where the tensors
    do. Float, integer and boolean types stay as they are; bfloat16 becomes float32.

  Raises:
    TorchFileError: missing, cut off, not such a file, one that refers to anything but tensors, or
      one whose tensors reach beyond what is stored.
  """
  path = pathlib.Path(path)
  try:
    data = path.read_bytes()
  except OSError as error:
    raise TorchFileError(f"{path}: cannot be read ({error.strerror}); check the path") from error
  try:
    read = _read_zip if data.startswith(b"PK\x03\x04") else _read_legacy
    found, storages = read(path, data)
    return {
      name: _view(path, name, tensor, storages) for name, tensor in _state_dict(path, found).items()
    }
  except TorchFileError:
    raise
  except Exception as error:  # broken bytes make pickle and zipfile raise nearly anything
    raise TorchFileError(
      f"{path}: not a file that torch.save wrote, or one that is cut off"
      f" ({type(error).__name__}); {_COPY_AGAIN}"
    ) from error


class _Function:
  """Stands for a function that a pickle may call; a pickle can change nothing about it."""

  __slots__ = ("_call",)
  _call: Callable[..., Any]

  def __init__(self, call):
    object.__setattr__(self, "_call", call)

  def __call__(self, *args):
    return self._call(*args)

  def __setattr__(self, name, value):
    raise AttributeError(name)


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


_GLOBALS = types.MappingProxyType(
  {
    ("collections", "OrderedDict"): _Function(collections.OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(lambda tensor, *_: tensor),
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
  }
)


class _Unpickler(pickle.Unpickler):
  """Builds dictionaries and `_Tensor`s, and nothing else."""

  def __init__(self, path, file):
    super().__init__(file, encoding="utf-8")
    self.path = path
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module, name):
    if (module, name) not in _GLOBALS:
      raise TorchFileError(
        f"{self.path}: refers to {f'{module}.{name}'!r}, and only tensors are read; {_SAVE_AGAIN}"
      )
    return _GLOBALS[module, name]

  def persistent_load(self, identity):
    kind, dtype, key, _, length, *view = identity
    if kind != "storage" or any(part is not None for part in view):
      raise TorchFileError(f"{self.path}: written by a very old PyTorch; {_SAVE_AGAIN} again")
    storage = _Storage(key, dtype, length)
    if not isinstance(key, str) or dtype not in _DTYPES.values() or not _is_size(length):
      raise TorchFileError(f"{self.path}: describes a storage that cannot be; {_COPY_AGAIN}")
    if self.storages.setdefault(key, storage) != storage:
      raise TorchFileError(f"{self.path}: describes storage {key!r} in two ways; {_COPY_AGAIN}")
    return storage


def _read_zip(path: pathlib.Path, data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
  """Returns the pickled object and the storages by key."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    members = {member.filename: member for member in archive.infolist()}
    pickles = [name for name in members if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
      raise TorchFileError(f"{path}: a zip file, but not one that torch.save wrote; check the path")
    root = pickles[0].removesuffix("data.pkl")

    def read(name: str) -> bytes:
      # torch.save never compresses; so no member can be larger than the file.
      if root + name not in members or members[root + name].compress_type != zipfile.ZIP_STORED:
        raise TorchFileError(f"{path}: {root + name!r} is missing or compressed; {_COPY_AGAIN}")
      return archive.read(root + name)

    if f"{root}byteorder" in members:
      _check_little_endian(path, read("byteorder") == b"little")
    unpickler = _Unpickler(path, io.BytesIO(read("data.pkl")))
    found = unpickler.load()
    storages = {
      key: _numbers(path, storage, read(f"data/{key}"), 0)
      for key, storage in unpickler.storages.items()
    }
  return found, storages


def _read_legacy(path: pathlib.Path, data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
  """Returns the pickled object and the storages by key.

  Five pickles (magic number, protocol, system, object, keys), then the storages in the order of
  the keys, each after its length as an int64.
  """
  file = io.BytesIO(data)
  if _Unpickler(path, file).load() != _LEGACY_MAGIC:
    raise TorchFileError(f"{path}: a pickle, but not one that torch.save wrote; check the path")
  if _Unpickler(path, file).load() != _LEGACY_PROTOCOL:
    raise TorchFileError(f"{path}: written by an unknown version of PyTorch; {_SAVE_AGAIN} again")
  _check_little_endian(path, _Unpickler(path, file).load()["little_endian"] is True)
  unpickler = _Unpickler(path, file)
  found = unpickler.load()
  keys = _Unpickler(path, file).load()
  if sorted(keys) != sorted(unpickler.storages):
    raise TorchFileError(f"{path}: its list of storages is not that of its tensors; {_COPY_AGAIN}")
  storages, start = {}, file.tell()
  for key in keys:
    storage = unpickler.storages[key]
    (length,) = struct.unpack_from("<q", data, start)
    if length != storage.length:
      raise TorchFileError(
        f"{path}: storage {key!r} has {length} numbers instead of {storage.length}; {_COPY_AGAIN}"
      )
    storages[key] = _numbers(path, storage, data, start + 8)
    start += 8 + length * _stored_dtype(storage).itemsize
  return found, storages


def _check_little_endian(path: pathlib.Path, little_endian: bool) -> None:
  if not little_endian:
    raise TorchFileError(f"{path}: its numbers are big-endian; save it on a little-endian machine")


def _stored_dtype(storage: _Storage) -> np.dtype:
  name = "uint16" if storage.dtype == _BFLOAT16 else storage.dtype
  return np.dtype(name).newbyteorder("<")


def _numbers(path: pathlib.Path, storage: _Storage, data: bytes, start: int) -> np.ndarray:
  """The numbers of a storage that begins at byte `start` of `data`, read-only."""
  dtype = _stored_dtype(storage)
  size, left = storage.length * dtype.itemsize, max(len(data) - start, 0)
  if size > left:
    raise TorchFileError(
      f"{path}: cut off: storage {storage.key!r} has {left} of {size} bytes; {_COPY_AGAIN}"
    )
  numbers = np.frombuffer(data, dtype, storage.length, start)
  if storage.dtype == _BFLOAT16:  # the upper half of a float32
    numbers = (numbers.astype("<u4") << 16).view("<f4")
    numbers.flags.writeable = False
  return numbers


def _state_dict(path: pathlib.Path, found: Any) -> dict[str, _Tensor]:
  """The dictionary of tensors in what was pickled."""
  if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
    found = found["state_dict"]
  if not isinstance(found, dict):
    raise TorchFileError(
      f"{path}: holds a {type(found).__name__}, no dictionary of tensors; {_SAVE_AGAIN}"
    )
  for name, tensor in found.items():
    if not isinstance(name, str) or not isinstance(tensor, _Tensor):
      raise TorchFileError(f"{path}: entry {name!r} is no tensor with a name; {_SAVE_AGAIN}")
  return found


def _view(
  path: pathlib.Path, name: str, tensor: _Tensor, storages: dict[str, np.ndarray]
) -> np.ndarray:
  """The tensor as a view of its storage; raises TorchFileError if it reaches beyond that."""
  storage, offset, shape, strides = tensor
  if (
    not isinstance(storage, _Storage)
    or len(shape) != len(strides)
    or not all(_is_size(number) for number in (offset, *shape, *strides))
  ):
    raise TorchFileError(f"{path}: {name!r} has no valid shape and strides; {_COPY_AGAIN}")
  steps = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
  last = offset + steps if math.prod(shape) else offset - 1
  if last >= storage.length:
    raise TorchFileError(
      f"{path}: {name!r} reaches to number {last} of a storage of {storage.length}; {_COPY_AGAIN}"
    )
  numbers = storages[storage.key]
  return np.ndarray(
    shape,
    numbers.dtype,
    buffer=numbers,
    offset=offset * numbers.itemsize,
    strides=[stride * numbers.itemsize for stride in strides],
  )


def _is_size(number: Any) -> bool:
  return type(number) is int and number >= 0  # a bool is an int, too
