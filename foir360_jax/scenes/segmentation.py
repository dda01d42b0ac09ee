"""Segmentations of COCO and its relatives, read into run lengths.

Polygons, uncompressed and compressed run lengths; between the readers of JSON and `run_lengths`.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco_mask

from foir360_jax.files.json_file import field, inside
from foir360_jax.scenes.run_lengths import RunLengths

MAX_OUTSIDE_PX = 1.0  # polygons on pixel edges, or rounded, may leave the picture by this much


def read_segmentation(segmentation: Any, height: int, width: int) -> RunLengths:
  """Returns the mask of a COCO segmentation.

  Args:
    segmentation: polygons (lists x1, y1, x2, y2 ... in pixels; together they are one object), or
      `{"size": [H, W], "counts": ...}` with a list of runs or their compressed text.
    height: rows of the picture.
    width: its columns.

  Raises:
    ValueError: it is none of these, leaves the picture, is of another size or has no pixel.

  >>> read_segmentation([[1, 0, 3, 0, 3, 2, 1, 2]], 4, 8).area()
  4
  """
  if isinstance(segmentation, dict):
    return RunLengths.from_coco(segmentation, height, width)
  if not isinstance(segmentation, list) or not segmentation:
    raise ValueError(
      f"segmentation must be polygons or run lengths, not {segmentation!r:.40}; add the mask"
    )
  for index, polygon in enumerate(segmentation):
    _check_polygon(polygon, f"segmentation[{index}]", height, width)
  polygons = [[float(value) for value in polygon] for polygon in segmentation]
  merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
  return RunLengths.from_coco(
    {"size": [height, width], "counts": merged["counts"].decode("ascii")}, height, width
  )


def read_masks(records: Sequence[Any], list_name: str, height: int, width: int) -> list[RunLengths]:
  """Returns the masks of a JSON list of objects that have a `segmentation` each.

  Raises:
    ValueError: as `read_segmentation`; the message names the record.
  """
  masks = []
  for index, record in enumerate(records):
    with inside(f"{list_name}[{index}]"):
      if not isinstance(record, dict) or "segmentation" not in record:
        raise ValueError(f"must be an object with segmentation, not {record!r:.40}")
      masks.append(read_segmentation(record["segmentation"], height, width))
  return masks


def read_declared_size(record: Any) -> tuple[int, int] | None:
  """Returns (height, width) of a JSON record, None where it gives neither.

  Raises:
    ValueError: only one is there, or it is no integer.
  """
  if isinstance(record, dict) and record.get("height") is None and record.get("width") is None:
    return None
  return field(record, "height", "integer"), field(record, "width", "integer")


def write_segmentation(run_lengths: RunLengths, original: Any = None) -> Any:
  """Returns what JSON may hold for a mask: the original form if it still is this mask.

  Args:
    run_lengths: the mask.
    original: the segmentation that it was once read from, if any.

  Returns:
    `original`, or else compressed run lengths.
  """
  with contextlib.suppress(ValueError):
    if read_segmentation(original, run_lengths.height, run_lengths.width) == run_lengths:
      return original
  return run_lengths.to_coco()


def planar_box(run_lengths: RunLengths) -> list[float]:
  """Returns COCO's bbox [x, y, width, height] of a mask; one cut by the seam is W wide.

  >>> planar_box(RunLengths(2, 3, b"132"))
  [0.0, 0.0, 2.0, 2.0]
  """
  return coco_mask.toBbox(run_lengths.to_coco()).tolist()


def _check_polygon(polygon: Any, where: str, height: int, width: int) -> None:
  """Raises ValueError for a polygon that pycocotools would misread or clip."""
  if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
    raise ValueError(f"{where} must be a list x1, y1, x2, y2, x3, y3 ..., not {polygon!r:.40}")
  for value in polygon:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) < 2**63:  # also of NaN
      raise ValueError(f"{where} holds {value!r:.40}; give finite numbers")
  for name, values, limit in (("x", polygon[::2], width), ("y", polygon[1::2], height)):
    for value in values:
      if not -MAX_OUTSIDE_PX <= value <= limit + MAX_OUTSIDE_PX:
        raise ValueError(
          f"{where} leaves the picture of {width} x {height} pixels at {name} = {value:.6g}; clip "
          "it, or cut it in two where it passes the seam"
        )
