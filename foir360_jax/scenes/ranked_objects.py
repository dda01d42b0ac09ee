"""RankedObjects: the objects of one panorama with masks, importance and ranks.

What the ranker and the weak labels return and what rank files hold. Axes: N objects, H rows (row 0
north-most), W columns (column 0 starts at longitude -pi); 2 H, but for a few rows (`is_panorama`).
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from foir360_jax.drawing import draw_overlay
from foir360_jax.files import save_image, write_atomically
from foir360_jax.files.panorama_file import is_panorama, resize_columns
from foir360_jax.files.placement import Pose
from foir360_jax.scenes.rank_file import (
  OPTIONAL_FIELDS,
  RankFileError,
  encode_rank_records,
  read_rank_records,
)
from foir360_jax.scenes.run_lengths import RunLengths
from foir360_jax.sphere import bearings_deg, regions


@dataclasses.dataclass(frozen=True, eq=False)
class RankedObjects:
  """The objects of one panorama, most important first. Build it by `from_masks`.

  Attributes:
    masks: [N, H, W] bool; may overlap; an object cut by the seam is one object.
    importance: [N] float32 in [0, 1], falling; where a model ranks, on a scale of this panorama
      alone (its losses know only the order within a picture).
    ranks: [N] int32, 1 = most important, dense (ties share a rank: 1, 1, 2).
    bfov_deg: [N, 4] float32: longitude and latitude of the centre, width and height of the box on
      the sphere, in degrees.
    bbox_px: [N, 4] int32: x, y, width, height in pixels; x + width passes W where the seam is cut.
    categories: N names, "" where unknown.
    area_sr: [N] float32, solid angle in steradians.
    ids: [N] int64, the objects' numbers in the instance map or file they come from.
    panorama: [H, W, 3] uint8 RGB, or None where only labels were read.
    image: name of the picture file, "" if there is none.
    detection_confidence: [N] float32 in [0, 1], how surely each is an object, on one scale for all
      panoramas of a model that detects; None where masks were provided.
    agreement: [N] float32 in [0, 1], where weak labels tell: the share of an object's comparisons
      with others, over all views, that agree with the final order; else None.
    pose: how the camera was held, where the picture says so by GPano fields; else None.
  """

  masks: np.ndarray
  importance: np.ndarray
  ranks: np.ndarray
  bfov_deg: np.ndarray
  bbox_px: np.ndarray
  categories: tuple[str, ...]
  area_sr: np.ndarray
  ids: np.ndarray
  panorama: np.ndarray | None = None
  image: str = ""
  detection_confidence: np.ndarray | None = None
  agreement: np.ndarray | None = None
  pose: Pose | None = None

  def __len__(self) -> int:
    return len(self.masks)

  @classmethod
  def from_masks(
    cls,
    panorama: np.ndarray,
    masks: np.ndarray,
    importance: np.ndarray | Sequence[float],
    categories: Sequence[str] | None = None,
    *,
    ids: np.ndarray | Sequence[int] | None = None,
    image: str = "",
    detection_confidence: np.ndarray | Sequence[float] | None = None,
    agreement: np.ndarray | Sequence[float] | None = None,
    pose: Pose | None = None,
  ) -> Self:
    """Ranks objects by their importance and measures their boxes and areas on the sphere.

    Args:
      panorama: [H, W, 3] uint8 RGB, W = 2 H but for a few rows (`is_panorama`).
      masks: [N, H, W] bool, at least one pixel each; N may be 0.
      importance: [N] in [0, 1]; equal values share a rank and keep their order.
      categories: N names; None: unknown.
      ids: [N] whole numbers, 0 or more, no two equal; None: 1 ... N in the order given.
      image: name of the picture file.
      detection_confidence: [N] in [0, 1], or None.
      agreement: [N] in [0, 1], or None.
      pose: of the camera, or None.

    Raises:
      ValueError: shapes, types or values that do not fit together.

    Example:
      >>> masks = np.zeros([2, 32, 64], bool)
      >>> masks[0, :8], masks[1, 20:24, 5:9] = True, True
      >>> ranked = RankedObjects.from_masks(
      ...   np.zeros([32, 64, 3], np.uint8), masks, [0.25, 0.75], ["sky", "dog"]
      ... )
      >>> ranked.categories, ranked.ranks.tolist(), ranked.bbox_px[0].tolist()
      (('dog', 'sky'), [1, 2], [5, 20, 4, 4])
    """
    masks, importance = np.asarray(masks), np.asarray(importance, np.float32)
    num_objects = len(masks)
    categories = ("",) * num_objects if categories is None else tuple(categories)
    ids = np.arange(1, num_objects + 1) if ids is None else np.asarray(ids)
    _check(np.asarray(panorama), masks, importance, categories, ids)
    detection_confidence = _checked_shares(
      "detection_confidence", detection_confidence, num_objects
    )
    agreement = _checked_shares("agreement", agreement, num_objects)

    order = np.argsort(-importance, kind="stable")
    masks, importance = masks[order], importance[order]
    on_sphere = resize_columns(masks, 2 * masks.shape[1])
    # Falling importance: a rank begins wherever the value changes.
    ranks = np.cumsum(np.diff(importance, prepend=np.inf) != 0)
    return cls(
      masks=masks,
      importance=importance,
      ranks=ranks.astype(np.int32),
      bfov_deg=_measure(regions.bounding_fov_deg, on_sphere, np.float32),
      bbox_px=_measure(regions.bounding_box_px, masks, np.int32),
      categories=tuple(str(categories[index]) for index in order),
      area_sr=np.array([regions.solid_angle(mask) for mask in on_sphere], np.float32),
      ids=ids[order].astype(np.int64),
      panorama=np.asarray(panorama),
      image=image,
      detection_confidence=None if detection_confidence is None else detection_confidence[order],
      agreement=None if agreement is None else agreement[order],
      pose=pose,
    )

  @property
  def bearings_deg(self) -> np.ndarray | None:
    """[N, 2] compass bearings, clockwise from north, and elevations of the objects' centres.

    None where the pose is not known. See `sphere.bearings_deg`.
    """
    if self.pose is None:
      return None
    longitude, latitude = self.bfov_deg[:, :2].astype(np.float64).T
    bearings = bearings_deg(longitude, latitude, **self.pose._asdict())
    return bearings.astype(np.float32)

  def to_dict(self) -> dict[str, Any]:
    """Returns the content of the rank file as plain values; see `ranks.schema.json`.

    Example:
      >>> masks = np.ones([1, 32, 64], bool)
      >>> ranked = RankedObjects.from_masks(np.zeros([32, 64, 3], np.uint8), masks, [0.9])
      >>> ranked.to_dict()["objects"][0]["importance"]
      0.9
    """
    height, width = self.masks.shape[1:]
    known = {name: getattr(self, name) for name in OPTIONAL_FIELDS}
    known = {name: values for name, values in known.items() if values is not None}
    bearings = self.bearings_deg
    pose = {} if self.pose is None else {"pose_deg": list(self.pose)}
    objects = [
      {
        "id": int(self.ids[index]),
        "importance": _number(self.importance[index]),
        "rank": int(self.ranks[index]),
        **{name: _number(values[index]) for name, values in known.items()},
        "bfov_deg": [_number(value) for value in self.bfov_deg[index]],
        **({} if bearings is None else {"bearing_deg": [_number(x) for x in bearings[index]]}),
        "bbox_px": self.bbox_px[index].tolist(),
        "area_sr": _number(self.area_sr[index]),
        "category": self.categories[index],
        "segmentation": RunLengths.from_mask(self.masks[index]).to_coco(),
      }
      for index in range(len(self))
    ]
    return {"image": self.image, "height": height, "width": width, **pose, "objects": objects}

  def save_json(self, path: str | os.PathLike) -> None:
    """Writes the rank file, usually `ranks/ID.json`; `read_rank_file` gives equal values back.

    It is written whole or not at all; missing folders are made.
    """
    write_atomically(path, encode_rank_records(self.to_dict()))

  def save_overlay(self, path: str | os.PathLike) -> None:
    """Writes the panorama with the ranked objects drawn on it, as a PNG.

    Raises:
      ValueError: there is no panorama to draw on.
    """
    if self.panorama is None:
      raise ValueError(f"{path}: no panorama to draw on; pass it to read_rank_file")
    save_image(path, draw_overlay(self.panorama, self))


def read_rank_file(path: str | os.PathLike, panorama: np.ndarray | None = None) -> RankedObjects:
  """Reads and checks a rank file.

  Args:
    path: a file as `RankedObjects.save_json` writes it; further fields are passed over.
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

  def optional(name: str) -> np.ndarray | None:
    entries = content["objects"]
    there = bool(entries) and all(name in entry for entry in entries)
    return column(name, np.float32) if there else None

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
    pose=Pose(*content["pose_deg"]) if "pose_deg" in content else None,
    **{name: optional(name) for name in OPTIONAL_FIELDS},
  )


def _number(value: np.float32) -> float:
  """Returns the shortest decimal that reads back as the same float32: 0.9, not 0.8999999762."""
  return float(str(value))


def _measure(
  function: Callable[[np.ndarray], np.ndarray], masks: np.ndarray, dtype: type
) -> np.ndarray:
  """Returns `function` of each mask as [N, 4]."""
  return np.array([function(mask) for mask in masks], dtype).reshape(-1, 4)


def _checked_shares(
  name: str, values: np.ndarray | Sequence[float] | None, num_objects: int
) -> np.ndarray | None:
  """Returns them as float32, or raises ValueError."""
  if values is None:
    return None
  values = np.asarray(values, np.float32)
  if values.shape != (num_objects,) or not np.all((values >= 0) & (values <= 1)):
    raise ValueError(f"{name} needs a value in [0, 1] for each of the {num_objects} masks")
  return values


def _check(
  panorama: np.ndarray,
  masks: np.ndarray,
  importance: np.ndarray,
  categories: Sequence[str],
  ids: np.ndarray,
) -> None:
  """Raises ValueError with one line for the first argument that does not fit."""
  if panorama.dtype != np.uint8 or panorama.ndim != 3 or panorama.shape[-1] != 3:
    raise ValueError(
      f"panorama must be uint8 [H, W, 3], not {panorama.dtype} {list(panorama.shape)}"
    )
  height, width = panorama.shape[:2]
  if not is_panorama(height, width):
    raise ValueError(f"panorama must be twice as wide as high, not {width} x {height}")
  num_objects = len(masks)
  if masks.dtype != bool or masks.shape != (num_objects, height, width):
    raise ValueError(
      f"masks must be bool [N, {height}, {width}] like the panorama, "
      f"not {masks.dtype} {list(masks.shape)}"
    )
  for name, values in (("importance", importance), ("categories", categories), ("ids", ids)):
    if np.shape(values) != (num_objects,):
      raise ValueError(
        f"{name} needs one value for each of the {num_objects} masks, not {list(np.shape(values))}"
      )
  if not np.all((importance >= 0) & (importance <= 1)):
    raise ValueError(
      "importance must lie in [0, 1]; give (n - rank + 1) / n where only ranks exist"
    )
  whole = ids.dtype.kind in "iu" or not num_objects  # an empty list has no kind
  if not whole or any(not 0 <= number < 2**63 for number in ids.tolist()):
    raise ValueError(f"ids must be whole numbers, 0 or more and below 2**63, not {ids.tolist()}")
  if len(np.unique(ids)) != num_objects:
    raise ValueError(f"ids must be all different, not {ids.tolist()}")
  empty = np.flatnonzero(~masks.any(axis=(1, 2)))
  if len(empty):
    raise ValueError(f"masks {empty.tolist()} have no pixel; leave such objects out")
