"""Rank files, `ranks/ID.json`: reading and writing of what rankers produce and labels hold.

The format is described by `ranks.schema.json` (JSON Schema 2020-12) beside this module; the reader
checks what that says and what a schema cannot. Object files, `objects/ID.json`, are the same
without ranks and importance: what a segmenter found. Axes: N objects, H rows, W = 2 H columns
(but for a few rows, see `is_panorama`).
"""

import copy
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from foir360_jax.files.json_file import ESCAPES, read_json
from foir360_jax.files.panorama_file import is_panorama
from foir360_jax.paths import expand
from foir360_jax.scenes.run_lengths import RunLengths

RANK_FILE_SCHEMA = json.loads(pathlib.Path(__file__).with_name("ranks.schema.json").read_text())
_LABEL_SCHEMA = copy.deepcopy(RANK_FILE_SCHEMA)  # beside an id map, which says the rest
_LABEL_SCHEMA["required"] = ["objects"]
_LABEL_SCHEMA["$defs"]["object"]["required"] = ["id", "rank"]
_ORDER_FIELDS = ("importance", "rank")
_OBJECT_SCHEMA = copy.deepcopy(RANK_FILE_SCHEMA)
for _name in _ORDER_FIELDS:
  _OBJECT_SCHEMA["$defs"]["object"]["required"].remove(_name)
OPTIONAL_FIELDS = ("detection_confidence", "agreement")
"""Of an object, in [0, 1]: what only some methods tell; `RankedObjects` explains them."""

_RENAMED = {"confidence": "agreement"}  # in files of version 0.1.0, where weak labels alone had it
_JSON_TYPES: Mapping[str, type | tuple[type, ...]] = {
  "string": str,
  "integer": int,
  "number": (int, float),
  "array": list,
  "object": dict,
}


class RankFileError(ValueError):
  """A rank file cannot be used; one line says which, what is wrong in it, and what to do."""


def encode_rank_records(content: Mapping[str, Any]) -> bytes:
  """Returns a rank file: what `RankedObjects.to_dict` gives as JSON, one line an object.

  So that people can read and compare it.
  """
  head = {name: value for name, value in content.items() if name != "objects"}
  lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in content["objects"])
  text = f'{json.dumps(head, ensure_ascii=False)[:-1]}, "objects": [\n{lines}\n]}}\n'
  return text.encode(errors=ESCAPES)


def read_rank_records(path: str | os.PathLike) -> dict[str, Any]:
  """Returns the content of a rank file, checked, each segmentation as `RunLengths`.

  Fields have the names of now.

  Raises:
    RankFileError: the file is missing, no JSON, breaks the schema or contradicts itself.
  """
  path = expand(path)
  content = read_json(path, RankFileError)
  try:
    _check_schema(content, RANK_FILE_SCHEMA, "the file")
    _check_order(content)
    _decode(content, content["height"], content["width"])
  except RankFileError as error:
    raise RankFileError(f"{path}: {error}") from None
  return content


def encode_object_records(content: Mapping[str, Any]) -> bytes:
  """Returns an object file: the content of a rank file without importance and ranks."""
  objects = [
    {name: value for name, value in entry.items() if name not in _ORDER_FIELDS}
    for entry in content["objects"]
  ]
  return encode_rank_records({**content, "objects": objects})


def read_object_records(path: str | os.PathLike) -> dict[str, Any]:
  """Returns the content of an object file, checked, each segmentation as `RunLengths`.

  Objects may have any order; importance and ranks, which a whole rank file has, are left out.

  Raises:
    RankFileError: as `read_rank_records`.
  """
  path = expand(path)
  content = read_json(path, RankFileError)
  try:
    _check_schema(content, _OBJECT_SCHEMA, "the file", _OBJECT_SCHEMA)
    _check_size_and_ids(content)
    _decode(content, content["height"], content["width"])
  except RankFileError as error:
    raise RankFileError(f"{path}: {error}") from None
  for entry in content["objects"]:
    for name in _ORDER_FIELDS:
      entry.pop(name, None)
  return content


def read_rank_labels(path: str | os.PathLike, height: int, width: int) -> dict[str, Any]:
  """Returns the content of a rank file that lies beside an id map or an object file.

  These hold the masks.

  It needs the `id` and the `rank` of each object, in any order; or it is a plain object of ranks by
  ids, `{"7": 1, "3": 2}`. What else a rank file has may be there, and is checked. The importance is
  (n - rank + 1) / n where none is given.

  Args:
    path: the file.
    height: rows of the masks.
    width: their columns.

  Raises:
    RankFileError: as `read_rank_records`, or it has the importance of some objects only.
  """
  path = pathlib.Path(path)
  content = _ranks_by_id(read_json(path, RankFileError))
  try:
    _check_schema(content, _LABEL_SCHEMA, "the file", _LABEL_SCHEMA)
    objects = content["objects"]
    without = [entry["id"] for entry in objects if "importance" not in entry]
    if without and len(without) < len(objects):
      raise RankFileError(
        f"objects {without} have no importance while others have; give all or none"
      )
    for entry in objects:
      entry.setdefault("importance", (len(objects) - entry["rank"] + 1) / len(objects))
      entry.setdefault("category", "")
    objects.sort(key=lambda entry: (entry["rank"], -entry["importance"]))
    content = {"image": "", "height": height, "width": width} | content
    _check_order(content)
    _decode(content, content["height"], content["width"])
  except RankFileError as error:
    raise RankFileError(f"{path}: {error}") from None
  return content


def _ranks_by_id(content: Any) -> Any:
  """Returns ranks by ids as the content of a rank file; other content as it is."""
  if not isinstance(content, dict) or "objects" in content or not content:
    return content
  if not all(name.isdecimal() for name in content):
    return content
  return {"objects": [{"id": int(name), "rank": rank} for name, rank in content.items()]}


def _decode(content: dict[str, Any], height: int, width: int) -> None:
  """Gives fields the names of now, and puts `RunLengths` in place of each segmentation."""
  for index, entry in enumerate(content["objects"]):
    for old, new in _RENAMED.items():
      if old in entry:
        entry.setdefault(new, entry.pop(old))
    if "segmentation" in entry:
      try:
        entry["segmentation"] = RunLengths.from_coco(entry["segmentation"], height, width)
      except ValueError as error:
        raise RankFileError(f"objects[{index}].{error}") from None


def _check_schema(
  value: Any, schema: dict[str, Any], where: str, root: dict[str, Any] = RANK_FILE_SCHEMA
) -> None:
  """Raises RankFileError where `value` breaks the part of JSON Schema that our schema uses."""
  if "$ref" in schema:
    schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
  # bool is an int to Python, and JSON as Python reads it has NaN, neither of which is a number.
  expected = _JSON_TYPES[schema["type"]]
  if not isinstance(value, expected) or isinstance(value, bool):
    raise RankFileError(f"{where} must be of type {schema['type']}, not {value!r:.40}")
  if isinstance(value, dict):
    missing = [name for name in schema["required"] if name not in value]
    if missing:
      raise RankFileError(f"{where} lacks {', '.join(missing)}; see ranks.schema.json")
    for name, part in schema["properties"].items():
      if name not in value:  # not required
        continue
      _check_schema(value[name], part, name if where == "the file" else f"{where}.{name}", root)
  elif isinstance(value, list):
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
      raise RankFileError(f"{where} must have {schema['minItems']} entries, not {len(value)}")
    parts = schema.get("prefixItems") or [schema["items"]] * len(value)
    for index, (entry, part) in enumerate(zip(value, parts, strict=True)):
      _check_schema(entry, part, f"{where}[{index}]", root)
  elif isinstance(value, str):
    if len(value) < schema.get("minLength", 0):
      raise RankFileError(f"{where} must not be empty; see ranks.schema.json")
  elif not schema.get("minimum", -np.inf) <= value <= schema.get("maximum", np.inf):
    limits = [f"{name} {schema[name]}" for name in ("minimum", "maximum") if name in schema]
    raise RankFileError(f"{where} is {value}, outside {', '.join(limits)}; see ranks.schema.json")


def _check_size_and_ids(content: dict[str, Any]) -> None:
  """Raises RankFileError for what a schema cannot say of any objects."""
  height, width, objects = content["height"], content["width"], content["objects"]
  if not is_panorama(height, width):
    raise RankFileError(f"{width} x {height} is not 2:1; rank full equirectangular panoramas")
  if len({entry["id"] for entry in objects}) != len(objects):
    raise RankFileError("two objects have one id; number them as in their instance map")


def _check_order(content: dict[str, Any]) -> None:
  """Raises RankFileError for what a schema cannot say of ranked objects."""
  _check_size_and_ids(content)
  objects = content["objects"]
  ranks = [entry["rank"] for entry in objects]
  importance = [entry["importance"] for entry in objects]
  if ranks != sorted(ranks):
    raise RankFileError(f"objects are not sorted by rank: {ranks}; sort them")
  if set(ranks) != set(range(1, len(set(ranks)) + 1)):
    raise RankFileError(f"ranks {ranks} leave a number out; count 1, 2, 3, ... (ties share one)")
  if importance != sorted(importance, reverse=True):
    raise RankFileError(
      f"importance {importance} grows with the rank; 1 is the most important rank, 1.0 the "
      "highest importance"
    )
