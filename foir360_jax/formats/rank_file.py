"""Rank files, `ranks/ID.json`: what prediction and weak labels write, and labels.

The format is described by `ranks.schema.json` (JSON Schema 2020-12) beside this module; the reader
checks what that says and what a schema cannot. Axes: N objects, H rows, W = 2 H columns.
"""

import json
import os
import pathlib
from typing import Any

import numpy as np

from foir360_jax.files.atomic_file import write_atomically
from foir360_jax.files.json_file import read_json
from foir360_jax.formats.ranked_objects import RankedObjects
from foir360_jax.formats.run_lengths import RunLengths

RANK_FILE_SCHEMA = json.loads(pathlib.Path(__file__).with_name("ranks.schema.json").read_text())
_JSON_TYPES = {
  "string": str,
  "integer": int,
  "number": (int, float),
  "array": list,
  "object": dict,
}


class RankFileError(ValueError):
  """A rank file cannot be used; one line says which, what is wrong in it, and what to do."""


def write_rank_file(path: str | os.PathLike, ranked: RankedObjects) -> None:
  """Writes ranked objects as JSON, whole or not at all; reading gives equal values back.

  Args:
    path: the file to write, usually `ranks/ID.json`; missing folders are made.
    ranked: the objects; N may be 0.
  """
  write_atomically(path, encode_rank_file(ranked))


def encode_rank_file(ranked: RankedObjects) -> bytes:
  """Returns the content of a rank file."""
  height, width = ranked.masks.shape[1:]
  objects = [
    {
      "id": int(ranked.ids[index]),
      "importance": _number(ranked.importance[index]),
      "rank": int(ranked.ranks[index]),
      "bfov_deg": [_number(value) for value in ranked.bfov_deg[index]],
      "bbox_px": ranked.bbox_px[index].tolist(),
      "area_sr": _number(ranked.area_sr[index]),
      "category": ranked.categories[index],
      "segmentation": RunLengths.from_mask(ranked.masks[index]).to_coco(),
    }
    for index in range(len(ranked))
  ]
  if ranked.confidence is not None:
    for entry, confidence in zip(objects, ranked.confidence, strict=True):
      entry["confidence"] = _number(confidence)
  # One line an object, which people can read and compare.
  head = json.dumps({"image": ranked.image, "height": height, "width": width}, ensure_ascii=False)
  lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in objects)
  return f'{head[:-1]}, "objects": [\n{lines}\n]}}\n'.encode()


def read_rank_file(path: str | os.PathLike, panorama: np.ndarray | None = None) -> RankedObjects:
  """Reads and checks a rank file.

  Args:
    path: a file as `write_rank_file` writes it; further fields are passed over.
    panorama: [H, W, 3] uint8, the picture it belongs to, if it is to be carried along.

  Returns:
    The objects with the values of the file; nothing is measured anew.

  Raises:
    RankFileError: the file is missing, no JSON, breaks the schema or contradicts itself or the
      panorama.
  """
  content = read_rank_records(path)
  height, width = content["height"], content["width"]
  if panorama is not None and panorama.shape[:2] != (height, width):
    raise RankFileError(
      f"{path}: is for {width} x {height} pixels, the panorama has "
      f"{panorama.shape[1]} x {panorama.shape[0]}; give the picture that was ranked"
    )
  masks = [entry["segmentation"].mask() for entry in content["objects"]]

  def column(name: str, dtype: type, *shape: int) -> np.ndarray:
    return np.array([entry[name] for entry in content["objects"]], dtype).reshape(-1, *shape)

  certain = bool(content["objects"]) and all("confidence" in entry for entry in content["objects"])
  return RankedObjects(
    masks=np.array(masks, bool).reshape(-1, height, width),
    importance=column("importance", np.float32),
    ranks=column("rank", np.int32),
    bfov_deg=column("bfov_deg", np.float32, 4),
    bbox_px=column("bbox_px", np.int32, 4),
    categories=tuple(entry["category"] for entry in content["objects"]),
    area_sr=column("area_sr", np.float32),
    ids=column("id", np.int64),
    panorama=panorama,
    image=content["image"],
    confidence=column("confidence", np.float32) if certain else None,
  )


def read_rank_records(path: str | os.PathLike) -> dict[str, Any]:
  """Returns the content of a rank file, checked, each segmentation as `RunLengths`.

  Raises:
    RankFileError: as `read_rank_file`.
  """
  path = pathlib.Path(path)
  content = read_json(path, RankFileError)
  try:
    _check_schema(content, RANK_FILE_SCHEMA, "the file")
    _check_order(content)
  except RankFileError as error:
    raise RankFileError(f"{path}: {error}") from None
  for index, entry in enumerate(content["objects"]):
    try:
      entry["segmentation"] = RunLengths.from_coco(
        entry["segmentation"], content["height"], content["width"]
      )
    except ValueError as error:
      raise RankFileError(f"{path}: objects[{index}].{error}") from None
  return content


def _number(value: np.float32) -> float:
  """Returns the shortest decimal that reads back as the same float32: 0.9, not 0.8999999762."""
  return float(str(value))


def _check_schema(value: Any, schema: dict[str, Any], where: str) -> None:
  """Raises RankFileError where `value` breaks the part of JSON Schema that our schema uses."""
  if "$ref" in schema:
    schema = RANK_FILE_SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
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
      _check_schema(value[name], part, name if where == "the file" else f"{where}.{name}")
  elif isinstance(value, list):
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
      raise RankFileError(f"{where} must have {schema['minItems']} entries, not {len(value)}")
    parts = schema.get("prefixItems") or [schema["items"]] * len(value)
    for index, (entry, part) in enumerate(zip(value, parts, strict=True)):
      _check_schema(entry, part, f"{where}[{index}]")
  elif isinstance(value, str):
    if len(value) < schema.get("minLength", 0):
      raise RankFileError(f"{where} must not be empty; see ranks.schema.json")
  elif not schema.get("minimum", -np.inf) <= value <= schema.get("maximum", np.inf):
    limits = [f"{name} {schema[name]}" for name in ("minimum", "maximum") if name in schema]
    raise RankFileError(f"{where} is {value}, outside {', '.join(limits)}; see ranks.schema.json")


def _check_order(content: dict[str, Any]) -> None:
  """Raises RankFileError for what a schema cannot say."""
  height, width, objects = content["height"], content["width"], content["objects"]
  if width != 2 * height:
    raise RankFileError(f"{width} x {height} is not 2:1; rank full equirectangular panoramas")
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
  if len({entry["id"] for entry in objects}) != len(objects):
    raise RankFileError("two objects have one id; number them as in their instance map")
