"""Makes panoramas with exact masks out of annotated pictures, to choose by.

Pictures are put onto the sphere as if photographed from its middle: somewhere, 40 to 110 degrees
wide, upright, two thirds of them around the horizon, none over another. What lies behind them is
another picture, blurred until nothing is left to find. Truth are the pictures' objects of 8 pixels
across or more; smaller ones and crowds are marked `iscrowd`.

  python -m foir360_jax.segment.study.collages COCO_SMALL --out=collages --number=60 --height=512

COCO_SMALL is a folder of `KEY.jpg` and `ann.json`: for each key `split`, `size` (width, height) and
`objects` (`category`, `iscrowd`, `segmentation` in run lengths). OUT is a folder that
`scenes.open_scenes` reads (COCO). Of the same seed and pictures the same comes out.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from foir360_jax.files import save_image, write_atomically
from foir360_jax.files.json_file import read_json
from foir360_jax.files.panorama_file import read_pixels
from foir360_jax.paths import expand
from foir360_jax.scenes import RunLengths
from foir360_jax.sphere import directions_from_angles, pad_sphere, pixel_directions, solid_angle

FOVS_DEG = (40.0, 110.0)
MOST_PICTURES = 10
_TRIES = 60
_COARSE = 64  # rows of the panorama on which it is tried whether a picture has room
_LEAST_ACROSS = 8
_FADE = 0.03  # of a picture's width, over which it goes over into what is behind


class Picture(NamedTuple):
  """An annotated picture: its file, and its objects as `ann.json` has them."""

  file: pathlib.Path
  objects: Sequence[Mapping[str, Any]]


class Collage(NamedTuple):
  """A panorama with truth.

  Attributes:
    panorama: [H, 2 H, 3] uint8.
    masks: [N, H, 2 H] bool, each with a pixel or more.
    categories: N names.
    is_crowd: [N] bool: no object to be found.
  """

  panorama: np.ndarray
  masks: np.ndarray
  categories: tuple[str, ...]
  is_crowd: np.ndarray


def main() -> None:
  """Writes the collages."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("pictures", help="folder of pictures with ann.json")
  parser.add_argument("--out", required=True, help="folder to write")
  parser.add_argument("--split", default="train", help="of the pictures")
  parser.add_argument("--names", help="JSON list of the names of those pictures that are used")
  parser.add_argument("--number", type=int, default=60)
  parser.add_argument("--height", type=int, default=512)
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args()
  try:
    pictures = read_pictures(arguments.pictures, arguments.split, arguments.names)
    collages = make_collages(pictures, arguments.number, arguments.height, arguments.seed)
    objects = write_collages(expand(arguments.out), collages)
  except ValueError as error:
    sys.exit(f"error: {error}")
  print(f"wrote {arguments.number} panoramas with {objects} objects to {arguments.out}")


def read_pictures(
  folder: str | pathlib.Path, split: str, names: str | pathlib.Path | None = None
) -> list[Picture]:
  """Lists the annotated pictures of a split, of these names alone where they are given.

  Raises:
    ValueError: a file cannot be read, or there is no such picture.
  """
  folder = expand(folder)
  annotations = read_json(folder / "ann.json", ValueError)
  wanted = set(read_json(expand(names), ValueError)) if names else None
  pictures = [
    Picture(folder / f"{key}.jpg", record["objects"])
    for key, record in sorted(annotations.items())
    if record["split"] == split and (wanted is None or key in wanted)
  ]
  if len(pictures) < 2:
    raise ValueError(f"{folder}: has {len(pictures)} pictures of the split {split!r}; give more")
  return pictures


def make_collages(
  pictures: Sequence[Picture], number: int, height: int, seed: int
) -> Iterator[Collage]:
  """Yields collages; each depends on the seed and its place alone."""
  for index in range(number):
    yield make_collage(np.random.default_rng([seed, index]), pictures, height)


def make_collage(rng: np.random.Generator, pictures: Sequence[Picture], height: int) -> Collage:
  """Puts up to `MOST_PICTURES` pictures side by side onto the sphere.

  Args:
    rng: for all that is drawn.
    pictures: which may be taken, each at most once.
    height: rows of the panorama.
  """
  behind, *chosen = rng.permutation(len(pictures))[: MOST_PICTURES + 1]
  panorama = background(read_pixels(pictures[behind].file), height)
  taken = np.zeros((_COARSE, 2 * _COARSE), bool)
  masks: list[np.ndarray] = []
  categories: list[str] = []
  is_crowd: list[bool] = []
  least = np.pi * (_LEAST_ACROSS / 2 * np.pi / height) ** 2
  for index in chosen:
    pixels = read_pixels(pictures[index].file)
    for _ in range(_TRIES):
      place = _place(rng)
      coarse = np.isfinite(coordinates(*place, pixels.shape[:2], _COARSE)[0])
      # A pixel more on each side, so that nothing overlaps on the finer grid either.
      around = cv2.dilate(
        pad_sphere(coarse[..., None].astype(np.uint8), 1)[..., 0], np.ones((3, 3))
      )
      if not (around[1:-1, 1:-1].astype(bool) & taken).any():
        break
    else:
      continue
    taken |= coarse
    row, column = coordinates(*place, pixels.shape[:2], height)
    panorama = _blend(panorama, pixels, row, column)
    for found in pictures[index].objects:
      flat = RunLengths.from_coco(found["segmentation"], *pixels.shape[:2]).mask()
      mask = put(flat[..., None].astype(np.float32), row, column)[..., 0] > 0.5
      if mask.any():
        masks.append(mask)
        categories.append(str(found["category"]))
        is_crowd.append(bool(found["iscrowd"]) or float(solid_angle(mask)) < least)
  return Collage(
    panorama,
    np.array(masks, bool).reshape(-1, height, 2 * height),
    tuple(categories),
    np.array(is_crowd, bool),
  )


def background(pixels: np.ndarray, height: int) -> np.ndarray:
  """A picture and its mirror image around the sphere, blurred; [H, 2 H, 3] uint8."""
  half = cv2.resize(pixels, (height, height), interpolation=cv2.INTER_AREA)
  margin = height // 2
  around = pad_sphere(np.concatenate([half, half[:, ::-1]], axis=1), margin)
  blurred = cv2.GaussianBlur(around, (0, 0), height / 10)
  return np.ascontiguousarray(blurred[margin:-margin, margin:-margin])


def coordinates(
  lon_rad: float, lat_rad: float, fov_deg: float, size: tuple[int, ...], height: int
) -> tuple[np.ndarray, np.ndarray]:
  """Where the pixels of a panorama lie in a picture on its tangent plane, upright.

  Args:
    lon_rad: of the picture's middle.
    lat_rad: likewise.
    fov_deg: of the picture's longer side.
    size: (h, w) of the picture.
    height: rows of the panorama.

  Returns:
    Rows and columns [H, 2 H]; NaN where the picture is not.
  """
  directions = pixel_directions(height).astype(np.float64)
  ahead = directions @ directions_from_angles(lon_rad, lat_rad)
  focal = max(size) / 2 / np.tan(np.radians(fov_deg) / 2)
  with np.errstate(divide="ignore", invalid="ignore"):
    scale = np.where(ahead > 1e-6, focal / ahead, np.nan)
  east = directions @ directions_from_angles(lon_rad + np.pi / 2, 0.0) * scale
  north = directions @ directions_from_angles(lon_rad, lat_rad + np.pi / 2) * scale
  row, column = (size[0] - 1) / 2 - north, (size[1] - 1) / 2 + east
  outside = ~((abs(north) <= size[0] / 2) & (abs(east) <= size[1] / 2))
  row[outside], column[outside] = np.nan, np.nan
  return row, column


def put(pixels: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
  """Samples a picture [h, w, C] at places [H, W], 0 where these are NaN; [H, W, C] float32.

  A picture that is finer than the panorama is first averaged to about its pitch.
  """
  inside = np.isfinite(row)
  # Of the pitch where it is coarsest, in the picture's middle.
  steps = np.abs(np.diff(row, axis=0))
  step = float(np.nanmedian(steps)) if np.isfinite(steps).any() else 1.0
  scale = min(1.0, 1.25 / max(step, 1e-6))
  size = tuple(max(1, round(length * scale)) for length in pixels.shape[:2])
  small = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
  small = small.reshape(*size, -1).astype(np.float32)
  places = [
    np.where(inside, (place + 0.5) * new / old - 0.5, 0).astype(np.float32)
    for place, new, old in zip((column, row), size[::-1], pixels.shape[1::-1], strict=True)
  ]
  sampled = cv2.remap(
    small, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
  )
  return np.where(inside[..., None], sampled.reshape(*row.shape, -1), 0)


def write_collages(folder: pathlib.Path, collages: Iterator[Collage]) -> int:
  """Writes pictures and `annotations.json`; returns how many objects there are to be found."""
  images: list[dict[str, Any]] = []
  annotations: list[dict[str, Any]] = []
  numbers: dict[str, int] = {}
  for collage in collages:
    image_id = len(images) + 1
    name = f"collage_{image_id - 1:03d}.png"
    save_image(folder / "images" / name, collage.panorama)
    height, width = collage.panorama.shape[:2]
    images.append({"id": image_id, "file_name": name, "height": height, "width": width})
    objects = zip(collage.masks, collage.categories, collage.is_crowd, strict=True)
    for mask, category, crowd in objects:
      annotations.append(
        {
          "id": len(annotations) + 1,
          "image_id": image_id,
          "category_id": numbers.setdefault(category, len(numbers) + 1),
          "iscrowd": int(crowd),
          "segmentation": RunLengths.from_mask(mask).to_coco(),
        }
      )
  categories = [{"id": number, "name": name} for name, number in numbers.items()]
  content = {"images": images, "annotations": annotations, "categories": categories}
  write_atomically(folder / "annotations.json", (json.dumps(content) + "\n").encode())
  return sum(not annotation["iscrowd"] for annotation in annotations)


def _place(rng: np.random.Generator) -> tuple[float, float, float]:
  """A random longitude, latitude and field of view."""
  lon_rad = rng.uniform(-np.pi, np.pi)
  anywhere = rng.random() < 1 / 3
  lat_rad = np.arcsin(rng.uniform(-1, 1)) if anywhere else np.radians(rng.normal(0, 15))
  return lon_rad, float(lat_rad), float(np.exp(rng.uniform(*np.log(FOVS_DEG))))


def _blend(
  panorama: np.ndarray, pixels: np.ndarray, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
  """Lays a picture over a panorama; it goes over into it along its border."""
  height, width = pixels.shape[:2]
  to_border = np.minimum.reduce([row, height - 1 - row, column, width - 1 - column])
  weight = np.clip(np.nan_to_num(to_border + 1, nan=0.0) / (_FADE * width), 0, 1)[..., None]
  mixed = panorama * (1 - weight) + put(pixels, row, column) * weight
  return np.rint(mixed).astype(np.uint8)


if __name__ == "__main__":
  main()
