"""What figures were measured on, and how they are kept: a text table to read, JSON to compute with.

The GPU benchmark runs where little more than JAX is, so importing this needs no more than that.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import jax

_ROOT = pathlib.Path(__file__).parents[2]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "rax")
Row = Mapping[str, Any]


def environment() -> dict[str, Any]:
  """Describes the machine, the versions and the time, as JSON values; None where unknown."""
  versions: dict[str, str | None] = {}
  for package in _PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = None
  return {
    "device": jax.devices()[0].device_kind,
    "num_devices": jax.device_count(),
    "cpu": _cpu_model(),
    "threads": num_threads(),
    "python": platform.python_version(),
    "versions": versions,
    "commit": _commit(),
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
  }


def describe(environment: Mapping[str, Any]) -> str:
  """The line that stands above a table."""
  versions = ", ".join(f"{k} {v}" for k, v in environment["versions"].items() if v)
  machine = environment["cpu"]
  if environment["device"] != "cpu":
    machine = f"{environment['num_devices']} x {environment['device']}, {machine}"
  commit = f", commit {environment['commit']}" if environment["commit"] else ""
  return (
    f"{machine}, {environment['threads']} threads; Python {environment['python']}, {versions};"
    f" {environment['date']}{commit}"
  )


def num_threads() -> int:
  """Threads that this process may use: all of the machine's, unless it is bound to some of them."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def text_table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
  """Aligns rows under the names of their columns.

  Args:
    rows: values by column; what is missing or None shows as -.
    columns: format of each column shown, by name; those with an empty format are text.

  >>> rows = [{"name": "ours", "ms": 1.234}, {"name": "theirs"}]
  >>> print(text_table(rows, {"name": "", "ms": ".1f"}))
  name     ms
  ours    1.2
  theirs    -
  """
  cells = [list(columns)]
  for row in rows:
    values = (row.get(name) for name in columns)
    cells.append(
      ["-" if v is None else format(v, f) for v, f in zip(values, columns.values(), strict=True)]
    )
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  aligns = [">" if form else "<" for form in columns.values()]
  lines = (
    "  ".join(
      f"{cell:{align}{width}}" for cell, align, width in zip(line, aligns, widths, strict=True)
    )
    for line in cells
  )
  return "\n".join(line.rstrip() for line in lines)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes one JSON value completely or not at all; a file of that name is replaced."""
  # Imported here because it brings the picture formats along, and `append_json` needs none of it.
  from foir360_jax.files import write_atomically

  write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def append_json(path: str | os.PathLike, row: Row) -> None:
  """Adds one line of JSON to a file; what stands there stays, even after a run that was cut off."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("ab+") as file:
    if file.tell():
      file.seek(-1, os.SEEK_END)
      if file.read(1) != b"\n":  # an earlier run was cut off within a line
        file.write(b"\n")
    file.write(json.dumps(row).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _cpu_model() -> str:
  try:
    found = re.search(
      r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE
    )
  except OSError:
    found = None
  return found[1] if found else platform.processor() or platform.machine()


def _commit() -> str | None:
  """The commit of the checkout that this package runs from, with -dirty if files were changed."""
  if not (_ROOT / ".git").exists():
    return None
  try:
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None
