"""Torch files made by hand, opcode by opcode, and by torch itself where it is installed."""

import collections
import pickle
import struct
import zipfile

import numpy as np
import pytest

from foir360_jax.models.pretrained import TorchFileError, read_torch_file

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
FORMATS = ("legacy", "zip")
every_format = pytest.mark.parametrize("file_format", FORMATS)


def value(x):
  return pickle.dumps(x, 2)[2:-1]  # without the opcodes that begin and end a pickle


def name_of(module, name):
  return f"c{module}\n{name}\n".encode()


def call(function, *arguments):
  return function + b"(" + b"".join(arguments) + b"tR"


def storage(kind, key, length, *, view=()):
  parts = [value("storage"), name_of("torch", kind), value(key), value("cpu"), value(length)]
  return b"(" + b"".join(parts + [value(part) for part in view]) + b"tQ"


def tensor(stored, offset, shape, strides):
  rebuild = name_of("torch._utils", "_rebuild_tensor_v2")
  hooks = call(name_of("collections", "OrderedDict"))
  return call(rebuild, stored, value(offset), value(shape), value(strides), value(False), hooks)


def dictionary(entries):
  pairs = b"".join(value(name) + entry for name, entry in entries.items())
  return call(name_of("collections", "OrderedDict")) + b"(" + pairs + b"u"


def write(path, file_format, opcodes, storages, *, system=SYSTEM, keys=None):
  """Writes a file as torch does; `storages` are arrays by key."""
  program = b"\x80\x02" + opcodes + b"."
  if file_format == "zip":
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("model/data.pkl", program)
      archive.writestr("model/byteorder", "little" if system["little_endian"] else "big")
      for key, numbers in storages.items():
        archive.writestr(f"model/data/{key}", numbers.tobytes())
    return path
  parts = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, system)]
  parts += [program, pickle.dumps(list(storages) if keys is None else keys, 2)]
  parts += [struct.pack("<q", numbers.size) + numbers.tobytes() for numbers in storages.values()]
  path.write_bytes(b"".join(parts))
  return path


def refusal(path):
  with pytest.raises(TorchFileError) as caught:
    read_torch_file(path)
  message = str(caught.value)
  assert message.startswith(f"{path}: ") and "\n" not in message
  return message


KINDS = {
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


@every_format
@pytest.mark.parametrize("seed", range(4))
def test_every_number_comes_from_its_place_in_the_storage(tmp_path, file_format, seed):
  rng = np.random.default_rng(seed)
  entries, storages, expected = {}, {}, {}
  for kind, dtype in KINDS.items():
    shape = tuple(int(size) for size in rng.integers(1, 4, rng.integers(0, 4)))
    strides = tuple(int(stride) for stride in rng.integers(0, 6, len(shape)))
    offset = int(rng.integers(0, 5))
    length = offset + 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    numbers = rng.integers(0, 100, length).astype(dtype)
    storages[f"key {kind}"] = numbers
    entries[kind] = tensor(storage(kind, f"key {kind}", length), offset, shape, strides)
    expected[kind] = np.empty(shape, dtype)
    for place in np.ndindex(shape):
      steps = sum(i * s for i, s in zip(place, strides, strict=True))
      expected[kind][place] = numbers[offset + steps]
  found = read_torch_file(write(tmp_path / "x.pth", file_format, dictionary(entries), storages))
  assert list(found) == list(expected)
  for name, numbers in found.items():
    assert numbers.dtype == expected[name].dtype and not numbers.flags.writeable
    np.testing.assert_array_equal(numbers, expected[name])


@every_format
def test_bfloat16_is_widened_without_loss(tmp_path, file_format):
  bits = np.array([0x3F80, 0xC040, 0x7F80, 0x0001], "<u2")
  entry = tensor(storage("BFloat16Storage", "0", 4), 0, (4,), (1,))
  path = write(tmp_path / "x.pth", file_format, dictionary({"a": entry}), {"0": bits})
  found = read_torch_file(path)["a"]
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, np.array([1, -3, np.inf, 2.0**-133], np.float32))


@every_format
def test_tensors_share_what_they_shared_and_may_be_empty(tmp_path, file_format):
  stored = storage("FloatStorage", "0", 6)
  entries = {
    "whole": tensor(stored, 0, (6,), (1,)),
    "odd": tensor(stored, 1, (3,), (2,)),
    "none": tensor(storage("FloatStorage", "1", 0), 0, (0, 3), (3, 1)),
  }
  storages = {"0": np.arange(6, dtype=np.float32), "1": np.zeros(0, np.float32)}
  found = read_torch_file(write(tmp_path / "x.pth", file_format, dictionary(entries), storages))
  assert np.shares_memory(found["whole"], found["odd"])
  assert found["odd"].tolist() == [1, 3, 5] and found["none"].shape == (0, 3)


@every_format
def test_a_state_dict_is_found_beside_other_things(tmp_path, file_format):
  entry = tensor(storage("FloatStorage", "0", 1), 0, (), ())
  opcodes = dictionary({"epoch": value(3), "state_dict": dictionary({"a": entry})})
  path = write(tmp_path / "x.pth", file_format, opcodes, {"0": np.ones(1, np.float32)})
  assert read_torch_file(path) == {"a": 1}


def stack_global(module, name):
  return value(module) + value(name) + b"\x93"


@every_format
@pytest.mark.parametrize(
  ("refused", "make"),
  [
    ("os.system", lambda command: call(name_of("os", "system"), value(command))),
    ("posix.system", lambda command: call(stack_global("posix", "system"), value(command))),
    ("os.system", lambda command: b"(" + value(command) + b"ios\nsystem\n"),
    ("builtins.eval", lambda command: call(name_of("builtins", "eval"), value("1 + 1"))),
    ("builtins.getattr", lambda command: name_of("builtins", "getattr")),
    ("torch.load", lambda command: call(name_of("torch", "load"), value("y.pth"))),
    ("collections.Counter", lambda command: call(name_of("collections", "Counter"))),
    ("collections.OrderedDict.update", lambda _: stack_global("collections", "OrderedDict.update")),
  ],
  ids=["system", "posix", "inst", "eval", "getattr", "load", "counter", "method"],
)
def test_a_file_that_refers_to_anything_but_tensors_is_refused(
  tmp_path, file_format, refused, make
):
  trace = tmp_path / "trace"
  opcodes = dictionary({"a": make(f"touch {trace}")})
  message = refusal(write(tmp_path / "x.pth", file_format, opcodes, {}))
  assert repr(refused) in message and "torch.save(model.state_dict(), path)" in message
  assert not trace.exists()


@pytest.mark.parametrize(
  "opcodes",
  [
    name_of("torch._utils", "_rebuild_tensor_v2") + value({"_call": 1}) + b"b",
    name_of("torch._utils", "_rebuild_tensor_v2") + value((None, {"_call": 1})) + b"b",
    name_of("collections", "OrderedDict") + value((None, {"__doc__": 1})) + b"b",
    call(name_of("torch", "FloatStorage"), value(1)),
    b"\x82\x01",  # an extension that nobody registered
  ],
  ids=["attribute", "slot", "type", "kind", "extension"],
)
def test_a_file_cannot_change_the_reader(tmp_path, opcodes):
  refusal(write(tmp_path / "x.pth", "zip", opcodes, {}))
  entry = tensor(storage("FloatStorage", "0", 1), 0, (1,), (1,))
  path = write(tmp_path / "y.pth", "zip", dictionary({"a": entry}), {"0": np.ones(1, np.float32)})
  assert read_torch_file(path)["a"].tolist() == [1]
  assert collections.OrderedDict.__doc__ != 1


@every_format
@pytest.mark.parametrize(
  ("offset", "shape", "strides"),
  [
    (0, (5,), (1,)),
    (1, (2, 2), (2, 1)),
    (5, (), ()),
    (5, (0,), (1,)),
    (-1, (2,), (1,)),
    (3, (2,), (-1,)),
    (0, (2, 2), (1,)),
    (0, (2.0,), (1,)),
    (0, (True,), (1,)),
  ],
)
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(
  tmp_path, file_format, offset, shape, strides
):
  entry = tensor(storage("FloatStorage", "0", 4), offset, shape, strides)
  numbers = {"0": np.ones(4, np.float32)}
  message = refusal(write(tmp_path / "x.pth", file_format, dictionary({"a": entry}), numbers))
  assert "'a' reaches to number" in message or "'a' has no valid shape" in message


@every_format
@pytest.mark.parametrize("length", [5, 2**40, -1, 2.0, None])
def test_a_storage_that_claims_more_than_the_file_has_is_refused(tmp_path, file_format, length):
  entry = tensor(storage("FloatStorage", "0", length), 0, (1,), (1,))
  path = write(
    tmp_path / "x.pth", file_format, dictionary({"a": entry}), {"0": np.ones(4, np.float32)}
  )
  refusal(path)


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
@every_format
def test_a_file_that_is_cut_off_is_refused(tmp_path, file_format, kept):
  entry = tensor(storage("FloatStorage", "0", 400), 0, (400,), (1,))
  numbers = {"0": np.ones(400, np.float32)}
  path = write(tmp_path / "x.pth", file_format, dictionary({"a": entry}), numbers)
  path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
  assert "cut off" in refusal(path) and "copy or download it again" in refusal(path)


def test_a_legacy_file_is_refused_where_its_lists_disagree(tmp_path):
  entry = tensor(storage("FloatStorage", "0", 1), 0, (1,), (1,))
  numbers = {"0": np.ones(1, np.float32)}
  path = write(tmp_path / "x.pth", "legacy", dictionary({"a": entry}), numbers, keys=["1"])
  assert "list of storages" in refusal(path)


ONE = storage("FloatStorage", "0", 1)


@every_format
@pytest.mark.parametrize(
  ("reason", "opcodes", "keys"),
  [
    ("holds a list", value([1, 2]), ""),
    ("entry 'epoch' is no tensor", dictionary({"epoch": value(3)}), ""),
    ("entry 1 is no tensor", dictionary({1: tensor(ONE, 0, (1,), (1,))}), "0"),
    ("entry 'a' is no tensor", dictionary({"a": ONE}), "0"),
    ("very old", dictionary({"a": storage("FloatStorage", "0", 1, view=[("v", 0, 1)])}), "0"),
    ("in two ways", dictionary({"a": ONE, "b": storage("IntStorage", "0", 1)}), "0"),
  ],
  ids=lambda x: "opcodes" if isinstance(x, bytes) else x,
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, file_format, reason, opcodes, keys):
  numbers = {key: np.ones(1, np.float32) for key in keys}
  assert reason in refusal(write(tmp_path / "x.pth", file_format, opcodes, numbers))


@every_format
def test_big_endian_numbers_are_refused(tmp_path, file_format):
  system = SYSTEM | {"little_endian": False}
  path = write(tmp_path / "x.pth", file_format, dictionary({}), {}, system=system)
  assert "big-endian" in refusal(path)


def test_other_files_are_refused(tmp_path):
  assert "check the path" in refusal(tmp_path / "missing.pth")
  assert "check the path" in refusal(tmp_path)
  path = tmp_path / "x.pth"
  for content in (b"", b"\x89PNG\r\n\x1a\n" + bytes(40), b"PK\x03\x04" + bytes(40)):
    path.write_bytes(content)
    assert "not a file that torch.save wrote" in refusal(path)
  path.write_bytes(pickle.dumps({"a": 1}))
  assert "not one that torch.save wrote" in refusal(path)
  path.write_bytes(pickle.dumps(MAGIC) + pickle.dumps(7))
  assert "unknown version" in refusal(path)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("readme", "hello")
  assert "a zip file, but not one that torch.save wrote" in refusal(path)


def test_a_compressed_storage_is_refused_before_it_is_unpacked(tmp_path):
  entry = tensor(storage("ByteStorage", "0", 10**6), 0, (10**6,), (1,))
  path = write(tmp_path / "x.pth", "zip", dictionary({"a": entry}), {})
  with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("model/data/0", bytes(10**6))
  assert "'model/data/0' is missing or compressed" in refusal(path)


@every_format
def test_what_torch_saves_is_read(tmp_path, file_format):
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  base = torch.randn(4, 5, 6)
  layer = torch.nn.BatchNorm2d(3)
  saved = {
    "base": base,
    "transposed": base.permute(2, 0, 1),
    "sliced": base[1:, ::2, 3],
    "expanded": torch.arange(3).expand(2, 3),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 3),
    "half": torch.randn(3).half(),
    "bfloat16": torch.randn(2, 3).bfloat16().T,
    "bool": torch.tensor([True, False]),
    "uint8": torch.arange(7, dtype=torch.uint8)[2:],
    "int32": torch.arange(3, dtype=torch.int32),
    "parameter": torch.nn.Parameter(torch.randn(3)),
    **layer.state_dict(prefix="layer."),
  }
  new_format = file_format == "zip"
  for content in (saved, {"epoch": 3, "state_dict": saved}):
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=new_format)
    found = read_torch_file(tmp_path / "x.pth")
    assert list(found) == list(saved)
    for name, numbers in found.items():
      expected = saved[name].detach()
      expected = (expected.float() if name == "bfloat16" else expected).numpy()
      assert numbers.dtype == expected.dtype
      np.testing.assert_array_equal(numbers, expected)
  assert np.shares_memory(found["base"], found["sliced"])

  state_dict = torch.nn.Linear(2, 3).state_dict()  # carries its version in an attribute
  torch.save(state_dict, tmp_path / "y.pth", _use_new_zipfile_serialization=new_format)
  assert list(read_torch_file(tmp_path / "y.pth")) == ["weight", "bias"]

  torch.save(torch.nn.Linear(2, 3), tmp_path / "z.pth", _use_new_zipfile_serialization=new_format)
  assert "'torch.nn.modules.linear.Linear'" in refusal(tmp_path / "z.pth")


def test_what_follows_the_last_storage_of_a_legacy_file_does_not_matter(tmp_path):
  entry = tensor(storage("DoubleStorage", "0", 2), 0, (2,), (1,))
  path = write(tmp_path / "x.pth", "legacy", dictionary({"a": entry}), {"0": np.array([1.5, 2.5])})
  path.write_bytes(path.read_bytes() + bytes(100))
  assert read_torch_file(path)["a"].tolist() == [1.5, 2.5]
