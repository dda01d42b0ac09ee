"""What the annotations of a COCO file say of its objects: numbers, categories, order, crowds.

Tools differ here: ids may be numbers, text or UUIDs, and what a person filled in stands in the
annotation or in its `attributes` (CVAT, Datumaro). Below `coco`, which reads files and masks.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from foir360_jax.files.json_file import field, inside
from foir360_jax.metrics import ranks_from_relevance
from foir360_jax.scenes.scene import importance_of

_NO_ORDER = {
  *("area", "category_id", "id", "ignore", "image_id", "importance", "iscrowd", "object_id"),
  *("keyframe", "occluded", "rank", "rotation", "score", "track_id"),
}
_NAMED_FIELDS = 8


def key_of(number: Any) -> Hashable:
  """Returns by what an id is told from others: 7, 7.0 and "7" are one id.

  >>> key_of(7.0) == key_of("7"), key_of("a1-b2")
  (True, 'a1-b2')
  """
  if isinstance(number, float) and number.is_integer():
    number = int(number)
  return str(number) if isinstance(number, int | str) else number


def object_numbers(annotations: Sequence[Mapping[str, Any]]) -> tuple[list[int], str]:
  """Returns the number of each object of a picture, and a note, "" where there is none.

  `object_id` counts before `id`. Ids that are no whole numbers, as UUIDs, cannot be numbers of
  objects: then the objects of the picture are numbered from 1, in the order of the file.

  Raises:
    ValueError: an annotation lacks its id, or it is of another kind.
  """
  numbers, names = [], []
  for index, annotation in enumerate(annotations):
    with inside(f"annotations[{index}]"):
      given = annotation.get("object_id")
      given = annotation.get("id") if given is None else given
      if isinstance(given, str) and given.isdecimal():
        given = int(given)
      if isinstance(given, str) and given:
        names.append(given)
      else:
        numbers.append(field({"id": given}, "id", "integer"))
  if not names:
    return numbers, ""
  note = f"ids of objects are no numbers, as {names[0]!r:.40}: numbered in the order of the file"
  return list(range(1, len(annotations) + 1)), note


def category_names(
  annotations: Sequence[Mapping[str, Any]], categories: Sequence[Any]
) -> list[str]:
  """Returns the name of each annotation's category, "" where it has none.

  Raises:
    ValueError: a category is not among the categories, or one of these has no id or no name.
  """
  names = {}
  for index, category in enumerate(categories):
    with inside(f"categories[{index}]"):
      names[_id_of(category, "id")] = field(category, "name", "text")
  found = []
  for index, annotation in enumerate(annotations):
    with inside(f"annotations[{index}]"):
      number = annotation.get("category_id")
      key = None if number is None else _id_of(annotation, "category_id")
      if names and key is not None and key not in names:
        raise ValueError(f"category_id {number!r:.40} is not among the categories; add it there")
      found.append(names.get(key, ""))
  return found


def orders(
  annotations: Sequence[Mapping[str, Any]], rank_field: str | None
) -> list[tuple[float | None, int | None]]:
  """Returns (importance, rank) of each annotation, (None, None) where it has neither."""
  if rank_field is not None:
    sign = 1 if rank_field.startswith("-") else -1
    given = _column(annotations, rank_field.removeprefix("-"), "number")
    ranks = _ranks([None if value is None else sign * value for value in given])
    return _with_importance(ranks, [None] * len(ranks))
  importance = _column(annotations, "importance", "number")
  ranks = _column(annotations, "rank", "integer")
  for index, value in enumerate(importance):
    if value is not None and not 0 <= value <= 1:
      raise ValueError(f"annotations[{index}]: importance is {value}, outside [0, 1]; scale it")
  for index, rank in enumerate(ranks):
    if rank is not None and rank < 1:
      raise ValueError(f"annotations[{index}]: rank is {rank}; 1 is the most important")
  if not any(rank is not None for rank in ranks):
    ranks = _ranks(importance)
  return _with_importance(ranks, importance)


def has_field(annotations: Iterable[Any], name: str) -> bool:
  """Whether an annotation, or its attributes, have a field."""
  return any(
    isinstance(annotation, dict) and _value(annotation, name) is not None
    for annotation in annotations
  )


def number_fields(annotations: Iterable[Any]) -> list[str]:
  """Returns the names of fields with numbers, which might be the order of the objects."""
  names: dict[str, None] = {}
  for annotation in annotations:
    if isinstance(annotation, dict):
      for part in (annotation, _attributes(annotation)):
        names |= {name: None for name, value in part.items() if _is_number(value)}
  return [name for name in names if name not in _NO_ORDER]


def how_to_rank(annotations: Iterable[Any]) -> str:
  """Returns half a line for annotations without ranks: which of their fields may be meant."""
  names = number_fields(annotations)
  cure = "give each a field rank (1 = most important)"
  if not names:
    return f"{cure}; no other field has numbers"
  more = " ..." if len(names) > _NAMED_FIELDS else ""
  return (
    f"{cure}, or name the field that orders them by --rank_field (--gt_rank_field,"
    f" --pred_rank_field of score); fields with numbers: {', '.join(names[:_NAMED_FIELDS])}{more}"
  )


def all_marked_as_crowd(annotations: Sequence[Any]) -> bool:
  """Whether every annotation of a file has `iscrowd` set.

  COCO marks by it the few regions in which single objects cannot be told apart, CVAT every mask
  that was painted. A file of crowds alone would be none of objects: there it says nothing.
  """
  return bool(annotations) and all(
    isinstance(annotation, dict) and annotation.get("iscrowd") for annotation in annotations
  )


def _id_of(record: Any, name: str) -> Hashable:
  """Returns the key of an id that is a whole number or text."""
  value = record.get(name) if isinstance(record, Mapping) else None
  return key_of(field(record, name, "text" if isinstance(value, str) else "integer"))


def _attributes(annotation: Mapping[str, Any]) -> Mapping[str, Any]:
  attributes = annotation.get("attributes")
  return attributes if isinstance(attributes, dict) else {}


def _value(annotation: Mapping[str, Any], name: str) -> Any:
  """Returns a field of an annotation, or of its attributes; None where neither has it."""
  value = annotation.get(name)
  return _attributes(annotation).get(name) if value is None else value


def _is_number(value: Any) -> bool:
  if isinstance(value, str):
    return _number(value) is not value
  return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> Any:
  """Returns text that is a number as one, as tools write what was chosen from a list."""
  if isinstance(value, str):
    try:
      return float(value)
    except ValueError:
      pass
  return value


def _column(annotations: Sequence[Mapping[str, Any]], name: str, kind: str) -> list[Any]:
  """Returns a field of all annotations, None where it is missing."""
  values = []
  for index, annotation in enumerate(annotations):
    with inside(f"annotations[{index}]"):
      values.append(field({name: _number(_value(annotation, name))}, name, kind, None))
  return values


def _ranks(values: Sequence[float | None]) -> list[int | None]:
  """Returns dense ranks of values, higher = more important; None stays None."""
  known = {index: value for index, value in enumerate(values) if value is not None}
  ranks: list[int | None] = [None] * len(values)
  for index, rank in zip(known, ranks_from_relevance(list(known.values())), strict=True):
    ranks[index] = int(rank)
  return ranks


def _with_importance(
  ranks: Sequence[int | None], importance: Sequence[float | None]
) -> list[tuple[float | None, int | None]]:
  """Puts (n - rank + 1) / n where no importance is given; refuses to mix both."""
  missing = [index for index, value in enumerate(importance) if value is None]
  ranked = [index for index, rank in enumerate(ranks) if rank is not None]
  partly = [index for index in missing if index in ranked]
  if partly and len(partly) < len(ranked):
    raise ValueError(f"annotations {partly} have no importance while others have; give all or none")
  found = []
  for value, rank in zip(importance, ranks, strict=True):
    if rank is not None and value is None:
      value = importance_of(rank, len(ranked))
    found.append((None if value is None else float(value), rank))
  return found
