"""Reads other people's JSON, with errors that say what is wrong and where.

The lowest layer of the readers; messages name the file only where it cannot be read at all.
`without_nan` is for writing.
"""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

_KINDS: Mapping[str, type | tuple[type, ...]] = {
  "text": str,
  "integer": int,
  "number": (int, float),
  "list": list,
  "object": dict,
}
_REQUIRED = object()
ESCAPES = "backslashreplace"
"""How text that is JSON is encoded: what is no UTF-8 in a path becomes an escape of JSON itself."""


def read_json(path: pathlib.Path, error_class: type[ValueError]) -> Any:
  """Returns what a JSON file holds.

  Raises:
    error_class: the file is missing or no JSON; one line that names it.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8-sig"))
  except OSError as error:
    raise error_class(f"{path}: cannot be read ({error.strerror}); check the path") from error
  except (ValueError, RecursionError) as error:
    raise error_class(f"{path}: not JSON ({error}); write it again") from error


def field(record: Any, name: str, kind: str, default: Any = _REQUIRED) -> Any:
  """Returns a field of a JSON object after a look at its kind.

  Args:
    record: what should be a JSON object.
    name: the field.
    kind: "text", "integer", "number" (finite), "list" or "object".
    default: returned where the field is missing or null; without it that is an error.

  Raises:
    ValueError: the field is missing or of another kind.

  >>> field({"rank": 2.0}, "rank", "integer")
  2
  """
  if not isinstance(record, Mapping):
    raise ValueError(f"must be an object with {name}, not {record!r:.40}")
  value = record.get(name)
  if value is None and default is not _REQUIRED:
    return default
  if value is None:
    raise ValueError(f"lacks {name}; add it")
  if kind == "integer" and isinstance(value, float) and value.is_integer():
    value = int(value)  # as JavaScript and pandas write whole numbers
  # bool is an int to Python, and JSON as Python reads it has NaN: neither is a number.
  if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
    raise ValueError(f"{name} must be of kind {kind}, not {value!r:.40}")
  if isinstance(value, int | float) and not abs(value) < 2**63:  # also of NaN
    raise ValueError(f"{name} is {value!r:.40}; give a finite number")
  return value


@contextlib.contextmanager
def inside(part: str) -> Iterator[None]:
  """Puts the part of a file, as "annotations[3]", before the message of a ValueError."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f"{part}: {error}") from error


def without_nan(value: Any) -> Any:
  """Returns plain values with null for NaN, which JSON does not have: the mean of nothing.

  >>> without_nan({"mean": float("nan"), "interval": [0.5, float("nan")]})
  {'mean': None, 'interval': [0.5, None]}
  """
  if isinstance(value, Mapping):
    return {key: without_nan(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [without_nan(item) for item in value]
  return None if isinstance(value, float) and math.isnan(value) else value
