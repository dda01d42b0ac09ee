"""Pictures with the masks of their objects, for training and for measuring.

Two layouts are read: a folder with `ann.json` ({key: {size, licence, source, split, objects}}) and
KEY.jpg, and any COCO instances JSON with the folder of its pictures. Of the pictures that may be
trained on, a fixed share is kept apart to choose everything by: which these are follows from a hash
of a picture's key alone, so that it never changes.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from foir360_jax.paths import expand
from foir360_jax.scenes.run_lengths import RunLengths
from foir360_jax.scenes.segmentation import read_segmentation

PARTS = ("train", "validation", "test")

FREE_LICENCES = ("CC BY 2.0", "CC BY-SA 2.0", "no known copyright restrictions")
"""Under which pictures may be changed and used for anything."""

_VALIDATION_SHARE = 0.1256  # of the hash's range: 77 of the 577 of coco_small
_COCO_NAMES = {  # by the end of a licence's address in COCO's list
  "/by-nc-sa/2.0": "CC BY-NC-SA 2.0",
  "/by-nc/2.0": "CC BY-NC 2.0",
  "/by-nc-nd/2.0": "CC BY-NC-ND 2.0",
  "/by/2.0": "CC BY 2.0",
  "/by-sa/2.0": "CC BY-SA 2.0",
  "/by-nd/2.0": "CC BY-ND 2.0",
  "/commons/usage": "no known copyright restrictions",
}


class LabelledPicture(NamedTuple):
  """A picture whose objects are known.

  Attributes:
    key: its name without the ending.
    image: [h, w, 3] uint8 RGB.
    objects: masks [h, w]; may be none.
    crowds: the same, of regions with objects that nobody has told apart.
    licence: as the file says, "" where it does not.
    source: its address, "" where it is not known.
  """

  key: str
  image: np.ndarray
  objects: tuple[RunLengths, ...]
  crowds: tuple[RunLengths, ...]
  licence: str
  source: str


class _Entry(NamedTuple):
  """What the file of annotations says of a picture; its run lengths are not read yet."""

  file: pathlib.Path
  size: tuple[int, int]
  part: str
  licence: str
  source: str
  objects: list[tuple[Any, bool]]  # segmentation, is a crowd


def is_kept_apart(key: str) -> bool:
  """Whether a picture that might be trained on is kept for choosing settings.

  >>> is_kept_apart("000000000025"), is_kept_apart("000000000030")
  (False, False)
  """
  digest = hashlib.sha256(f"small segmenter {key}".encode()).digest()
  return int.from_bytes(digest[:8]) < _VALIDATION_SHARE * 2**64


def read_pictures(
  data_dir: str | os.PathLike,
  part: str,
  *,
  annotations: str = "",
  licences: str = "all",
) -> list[LabelledPicture]:
  """Reads the pictures of one part, in the order of their keys.

  Args:
    data_dir: the folder of pictures, `~` is the user's folder.
    part: "train", "validation" or "test"; see the module. A COCO file has no "test".
    annotations: a COCO instances JSON; "": `ann.json` in the folder.
    licences: "all", or "free": only pictures under `FREE_LICENCES`.

  Raises:
    ValueError: a file is missing or is not of these layouts, or there is no picture.
  """
  folder = expand(data_dir)
  path = expand(annotations) if annotations else folder / "ann.json"
  content = _read_json(path)
  try:
    entries = (_coco if "annotations" in content else _compact)(content, folder)
    chosen = {key: entry for key, entry in entries.items() if entry.part == part}
    if licences == "free":
      chosen = {key: entry for key, entry in chosen.items() if entry.licence in FREE_LICENCES}
    if not chosen:
      raise ValueError(f"{path}: has no pictures of part {part}; its parts are {_counts(entries)}")
    return [_read_picture(key, chosen[key], path) for key in sorted(chosen)]
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(
      f"{path}: is neither a COCO instances JSON nor an ann.json ({error!r}); see"
      " foir360_jax/segment/training/pictures.py for both"
    ) from error


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{path}: no annotations can be read ({error}); set config.data.data_dir to a folder with"
      " ann.json, or config.data.annotations to a COCO instances JSON"
    ) from error
  if not isinstance(content, dict):
    raise ValueError(f"{path}: holds no JSON object; give a COCO instances JSON or an ann.json")
  return content


def _part(key: str, split: str) -> str:
  return "validation" if split == "train" and is_kept_apart(key) else split


def _compact(content: dict[str, Any], folder: pathlib.Path) -> dict[str, _Entry]:
  """Entries of an ann.json, whose sizes are (width, height)."""
  return {
    key: _Entry(
      folder / f"{key}.jpg",
      (int(entry["size"][1]), int(entry["size"][0])),
      _part(key, entry["split"]),
      entry.get("licence", ""),
      entry.get("source", ""),
      [(found["segmentation"], bool(found["iscrowd"])) for found in entry["objects"]],
    )
    for key, entry in content.items()
  }


def _coco(content: dict[str, Any], folder: pathlib.Path) -> dict[str, _Entry]:
  addresses = {licence["id"]: licence["url"] for licence in content.get("licenses", [])}
  entries = {}
  for image in content["images"]:
    key = pathlib.PurePath(image["file_name"]).stem
    address = addresses.get(image.get("license"), "").rstrip("/")
    named = [name for end, name in _COCO_NAMES.items() if address.endswith(end)]
    entries[image["id"]] = _Entry(
      folder / image["file_name"],
      (image["height"], image["width"]),
      _part(key, "train"),
      named[0] if named else address,
      image.get("flickr_url") or image.get("coco_url") or "",
      [],
    )
  for found in content["annotations"]:
    segmentation = found["segmentation"], bool(found.get("iscrowd", 0))
    entries[found["image_id"]].objects.append(segmentation)
  return {entry.file.stem: entry for entry in entries.values()}


def _counts(entries: Mapping[str, _Entry]) -> str:
  parts = [entry.part for entry in entries.values()]
  return ", ".join(f"{part} ({parts.count(part)})" for part in sorted(set(parts))) or "none"


def _read_picture(key: str, entry: _Entry, annotations: pathlib.Path) -> LabelledPicture:
  image = cv2.imread(str(entry.file), cv2.IMREAD_COLOR_RGB)
  if image is None:
    raise ValueError(f"{entry.file}: no picture can be read; it is named in {annotations}")
  if image.shape[:2] != entry.size:
    raise ValueError(
      f"{entry.file}: has {image.shape[1]} x {image.shape[0]} pixels, its annotations are for"
      f" {entry.size[1]} x {entry.size[0]}"
    )
  masks: dict[bool, list[RunLengths]] = {False: [], True: []}
  for segmentation, is_crowd in entry.objects:
    try:
      masks[is_crowd].append(read_segmentation(segmentation, *entry.size))
    except ValueError as error:
      if "no pixel" not in str(error):  # COCO has some outlines that are thinner than one
        raise ValueError(f"{annotations}: picture {key}: {error}") from error
  objects, crowds = tuple(masks[False]), tuple(masks[True])
  return LabelledPicture(key, image, objects, crowds, entry.licence, entry.source)


def licence_counts(pictures: Iterable[LabelledPicture]) -> dict[str, int]:
  """How many pictures there are of each licence."""
  names = [picture.licence for picture in pictures]
  return {name: names.count(name) for name in sorted(set(names))}
