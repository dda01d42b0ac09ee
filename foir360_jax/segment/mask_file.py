"""Masks of one picture in JSON, as other programs write them.

Read are COCO (`annotations` with `segmentation` and `category_id`, perhaps `score`, `images`,
`categories`; or a plain list of results) and what SAM's automatic mask generator gives
(`segmentation` as run lengths or nested lists of 0 and 1, `predicted_iou`, `stability_score`).
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from foir360_jax.files.json_file import field, inside, read_json
from foir360_jax.scenes.segmentation import read_declared_size, read_segmentation
from foir360_jax.segment.segmenter import SegmenterError

SCORES = ("score", "predicted_iou")
"""Fields that hold one, the first that is there counts; SAM's may exceed 1 by a little."""


@dataclasses.dataclass(frozen=True)
class MaskFile:
  """What a file holds.

  Attributes:
    path: the file.
    size: (h, w) of the picture it was made on, None where nothing in it says so.
    records: one JSON object a mask.
    categories: names by `category_id`.
  """

  path: pathlib.Path
  size: tuple[int, int] | None
  records: list[Mapping[str, Any]]
  categories: Mapping[int, str]

  def masks(self, size: tuple[int, int]) -> Iterator[tuple[float, str | int | None, np.ndarray]]:
    """Gives (score, category, mask [h, w] bool) of each object at a size.

    Raises:
      SegmenterError: a mask is none, or of another shape; the line names file and record.
    """
    check_shape(self.size or size, size, self.path)
    own = self.size or size
    for index, record in enumerate(self.records):
      with _naming(self.path), inside(f"annotations[{index}]"):
        score, category = self._score(record), self._category(record)
        mask = _resized(_mask(record["segmentation"], own), size)
      yield score, category, mask

  def _score(self, record: Mapping[str, Any]) -> float:
    name = next((name for name in SCORES if record.get(name) is not None), None)
    return min(max(float(field(record, name, "number")), 0.0), 1.0) if name else 1.0

  def _category(self, record: Mapping[str, Any]) -> str | int | None:
    number = record.get("category_id")
    if isinstance(number, int):
      return self.categories.get(number, number)
    name = record.get("category")
    return name if isinstance(name, str) else None


def read_mask_file(path: pathlib.Path) -> MaskFile:
  """Reads a file of masks; they themselves are read by `MaskFile.masks`.

  Raises:
    SegmenterError: it is missing, or of no such kind.
  """
  data = read_json(path, SegmenterError)
  with _naming(path):
    if isinstance(data, list):
      data = {"annotations": data}
    if not isinstance(data, dict) or not isinstance(data.get("annotations"), list):
      raise ValueError(
        "holds no masks; give COCO's annotations, or a list of objects with segmentation each"
      )
    records: list[Mapping[str, Any]] = []
    for index, record in enumerate(data["annotations"]):
      with inside(f"annotations[{index}]"):
        if not isinstance(record, dict) or record.get("segmentation") is None:
          raise ValueError(f"must be an object with segmentation, not {record!r:.40}")
      if not record.get("iscrowd"):  # a crowd is no one object
        records.append(record)
    pictures = {repr(r["image_id"]) for r in records if r.get("image_id") is not None}
    if len(pictures) > 1:
      raise ValueError(f"has masks of {len(pictures)} pictures; write a file for each")
    categories = {}
    for index, category in enumerate(field(data, "categories", "list", [])):
      with inside(f"categories[{index}]"):
        categories[field(category, "id", "integer")] = field(category, "name", "text")
    return MaskFile(path, _size(data, records), records, categories)


def check_shape(size: tuple[int, int], wanted: tuple[int, int], path: pathlib.Path) -> None:
  """Raises SegmenterError where a picture of one size is none of another size, only scaled.

  Sides that were rounded to whole pixels are allowed for.
  """
  if abs(size[0] * wanted[1] - size[1] * wanted[0]) > 0.5 * (wanted[0] + wanted[1]):
    raise SegmenterError(
      f"{path}: masks of {size[1]} x {size[0]} pixels for a view of {wanted[1]} x {wanted[0]}; make"
      " them on the view as it was written, or on that scaled as a whole"
    )


def _size(data: Mapping[str, Any], records: list[Mapping[str, Any]]) -> tuple[int, int] | None:
  """Returns (h, w) that a file declares, or that its first mask has."""
  images = field(data, "images", "list", [])
  for record in (images[0] if images else None, data.get("image"), data):
    if isinstance(record, dict) and (size := read_declared_size(record)):
      return size
  for record in records:
    segmentation = record["segmentation"]
    if isinstance(segmentation, dict):
      match segmentation.get("size"):
        case [int(height), int(width)]:
          return height, width
    elif _is_nested(segmentation):
      return len(segmentation), len(segmentation[0])
  return None


def _is_nested(segmentation: Any) -> bool:
  """Whether a list is rows of 0 and 1 rather than polygons: no polygon has such corners alone."""
  return (
    isinstance(segmentation, list)
    and len(segmentation) > 1
    and all(isinstance(row, list) for row in segmentation)
    and len({len(row) for row in segmentation}) == 1
    and all(value in (0, 1) for row in segmentation for value in row)
  )


def _mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
  if not _is_nested(segmentation):
    return read_segmentation(segmentation, *size).mask()
  mask = np.array(segmentation, bool)
  if mask.shape != size:
    raise ValueError(f"segmentation is {list(mask.shape)}, others or the file say {list(size)}")
  return mask


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Returns a mask at another size, its outline smooth: half-covered pixels decide."""
  if mask.shape == size:
    return mask
  shrinks = size[0] * size[1] < mask.size
  method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=method) > 0.5


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
  """Turns a ValueError inside it into a SegmenterError that names the file."""
  try:
    yield
  except SegmenterError:
    raise
  except ValueError as error:
    raise SegmenterError(f"{path}: {error}") from error
