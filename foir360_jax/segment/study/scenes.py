"""Made-up masks on the sphere, of the kinds that merging views finds hard, and their views.

Objects are superellipses in azimuthal equidistant coordinates, the earlier ones in front. Axes: N
objects, H x 2 H of the panorama, h x w of a view; row 0 north-most.
"""

import functools
from collections.abc import Sequence

import cv2
import numpy as np

from foir360_jax.segment.views import View
from foir360_jax.sphere import (
  directions_from_angles,
  pixel_areas,
  pixel_directions,
  pixels_from_directions,
  view_directions,
)

KINDS = ("mixed", "seam", "poles", "large", "thin", "touching")
"""Objects of all sizes anywhere; across the seam; at the poles; larger than a view; thin; rows of
three that touch."""
CATEGORIES = tuple(f"kind {number}" for number in range(12))
_LEAST_PX = 60
_PAD = 8  # columns by which a panorama goes on beyond its seam


def made_up_scene(
  rng: np.random.Generator, kind: str, height: int
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Draws the objects of a scene.

  Args:
    rng: source of all chance.
    kind: one of `KINDS`.
    height: H.

  Returns:
    Masks, [N, H, 2 H] bool, which do not overlap, each of at least 60 pixels where H is 256; their
    categories, N names.
  """
  drawn = [_blob(height, *place) for place in _PLACES[kind](rng)]
  masks = np.stack(drawn)
  for index in range(1, len(masks)):
    masks[index] &= ~masks[:index].any(axis=0)
  numbers = rng.integers(len(CATEGORIES), size=len(masks))
  if kind == "touching":  # neighbours are alike
    numbers = np.repeat(numbers[::3], 3)
  large = masks.sum(axis=(1, 2)) > _LEAST_PX * (height / 256) ** 2
  names = tuple(CATEGORIES[number] for number in numbers[large])
  return masks[large], names


def masks_in_view(masks: np.ndarray, view: View) -> np.ndarray:
  """What a view sees of masks [N, H, 2 H]: [N, h, w] bool."""
  if not len(masks):
    return np.zeros((0, *view.size), bool)
  height, width = masks.shape[1:]
  if view.is_flat:
    shift = -round(view.lon_rad / (2 * np.pi) * width)
    size = view.size[::-1]
    return np.stack(
      [
        cv2.resize(np.roll(mask, shift, 1).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for mask in masks
      ]
    ) > 0.5  # fmt: skip
  padded = np.pad(masks.astype(np.uint8) * 255, ((0, 0), (0, 0), (_PAD, _PAD)), mode="wrap")
  maps = _maps(view, height)
  return np.stack([cv2.remap(mask, *maps, cv2.INTER_LINEAR) for mask in padded]) > 127


@functools.lru_cache(maxsize=128)
def _maps(view: View, height: int) -> tuple[np.ndarray, np.ndarray]:
  """Columns and rows [h, w] float32 on a padded panorama."""
  row, column = pixels_from_directions(
    view_directions(view.lon_rad, view.lat_rad, view.fov_deg, view.size), height
  )
  return (column + _PAD).astype(np.float32), np.clip(row, 0, height - 1).astype(np.float32)


def covers_nadir(masks: np.ndarray, radius_deg: float) -> np.ndarray:
  """Whether masks [N, H, 2 H] cover half of the disc around the nadir, [N] bool."""
  height = masks.shape[1]
  disc = pixel_directions(height)[..., 2] < -np.cos(np.radians(radius_deg))
  areas = pixel_areas(height) * disc
  return np.einsum("nhw,hw->n", masks, areas) > 0.5 * areas.sum()


_Place = tuple[float, float, float, float, float, float]
"""Longitude and latitude of the centre, half axes and the turn in degrees; the exponent."""


def _blob(
  height: int, lon: float, lat: float, along: float, across: float, turn: float, power: float
) -> np.ndarray:
  lon_rad, lat_rad, turn_rad = np.radians([lon, lat, turn])
  axes = [
    directions_from_angles(lon_rad, lat_rad),
    directions_from_angles(lon_rad + np.pi / 2, 0.0),
    directions_from_angles(lon_rad, lat_rad + np.pi / 2),
  ]
  ahead, east, north = np.moveaxis(pixel_directions(height) @ np.array(axes, np.float32).T, -1, 0)
  distance = np.degrees(np.arccos(np.clip(ahead, -1, 1)))
  angle = np.arctan2(north, east) - turn_rad
  u, v = distance * np.cos(angle) / along, distance * np.sin(angle) / across
  return np.abs(u) ** power + np.abs(v) ** power < 1


def _mixed(rng: np.random.Generator) -> Sequence[_Place]:
  places = []
  for _ in range(int(rng.integers(8, 22))):
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1))) if rng.random() < 0.25 else rng.normal(-4, 20)
    size, stretch = np.clip(np.exp(rng.normal(np.log(9), 0.5)), 3.5, 32), np.exp(rng.normal(0, 0.3))
    turn, power = rng.uniform(0, 180), rng.uniform(1.2, 4)
    places.append((rng.uniform(-180, 180), lat, size * stretch, size / stretch, turn, power))
  return sorted(places, key=lambda place: place[2] * place[3])


def _seam(rng: np.random.Generator) -> Sequence[_Place]:
  return [
    (180 + rng.uniform(-9, 9), -60 + 24 * i, *_axes(rng, (8, 25), (5, 11)), 0, _power(rng))
    for i in range(6)
  ]


def _poles(rng: np.random.Generator) -> Sequence[_Place]:
  at_poles = [
    (*_at(rng, sign, (75, 90)), *_axes(rng, (8, 25), (8, 20)), rng.uniform(0, 180), _power(rng))
    for sign in (-1, 1)
  ]
  near = [
    (
      90 * i,
      (-1, 1)[i % 2] * rng.uniform(48, 58),
      *_axes(rng, (6, 14), (6, 10)),
      rng.uniform(0, 180),
      _power(rng),
    )
    for i in range(4)
  ]
  return at_poles + near


def _large(rng: np.random.Generator) -> Sequence[_Place]:
  large = [
    (
      180 * i + rng.uniform(-17, 17),
      rng.uniform(-20, 20),
      *_axes(rng, (50, 75), (22, 45)),
      rng.uniform(-30, 30),
      _power(rng),
    )
    for i in range(2)
  ]
  small = [
    (
      180 * i + 90 + rng.uniform(-11, 11),
      rng.uniform(-10, 10),
      *_axes(rng, (5, 10), (5, 10)),
      rng.uniform(0, 180),
      _power(rng),
    )
    for i in range(2)
  ]
  return large + small


def _thin(rng: np.random.Generator) -> Sequence[_Place]:
  return [
    (
      60 * i + rng.uniform(-11, 11),
      rng.uniform(-25, 25),
      *_axes(rng, (30, 60), (1.5, 3)),
      (0, 90)[i % 2] + rng.uniform(-17, 17),
      3.0,
    )
    for i in range(6)
  ]


def _touching(rng: np.random.Generator) -> Sequence[_Place]:
  places = []
  for i in range(6):
    width = rng.uniform(6, 12)
    lat = rng.uniform(-4, 4) + (i % 3 - 1) * 25
    for j in range(3):
      places.append((60 * i + j * width, lat, width / 2, width * rng.uniform(1.3, 2), 0, 3.0))
  return places


def _at(rng: np.random.Generator, sign: int, lats: tuple[float, float]) -> tuple[float, float]:
  return rng.uniform(-180, 180), sign * rng.uniform(*lats)


def _axes(
  rng: np.random.Generator, along: tuple[float, float], across: tuple[float, float]
) -> tuple[float, float]:
  return rng.uniform(*along), rng.uniform(*across)


def _power(rng: np.random.Generator) -> float:
  return rng.uniform(1.6, 4)


_PLACES = {
  "mixed": _mixed,
  "seam": _seam,
  "poles": _poles,
  "large": _large,
  "thin": _thin,
  "touching": _touching,
}
