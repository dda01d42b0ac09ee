"""Makes small SCENES folders of painted shapes: the builder's `dummy_data`, and tests.

`python datasets/rank360/dummy_scenes.py FOLDER` writes what `dummy_data` holds. Axes: [H, W].
"""

import pathlib
import sys
import tempfile

import cv2
import numpy as np

from foir360_jax.files import save_image
from foir360_jax.scenes import Scene, SceneObject, write_scenes
from foir360_jax.scenes.scene import order_objects
from foir360_jax.sphere import directions_from_angles, pixel_directions

CATEGORIES = ("lamp", "plant", "toy")
MIN_PIXELS = 6


def draw_scene(
  rng: np.random.Generator, scene_id: str, folder: pathlib.Path, *, height: int, num_objects: int
) -> Scene:
  """Paints round objects on a graded background, and ranks them by chance.

  They do not overlap, so that every format holds them; the first lies across the seam. Where there
  is no room left there are fewer than asked for.

  Args:
    rng: draws everything.
    scene_id: its id.
    folder: where its picture is written, as PNG.
    height: rows; the panorama has twice as many columns.
    num_objects: at most this many objects.
  """
  directions = pixel_directions(height)
  grade = np.linspace(210, 60, height)[:, None, None] * [0.8, 0.9, 1.0]
  image = np.broadcast_to(grade, (height, 2 * height, 3)).astype(np.uint8).copy()
  free = np.ones((height, 2 * height), bool)
  objects = []
  largest_deg = 60 / np.sqrt(num_objects)
  for index in range(num_objects):
    lon_rad = np.pi if not index else rng.uniform(-np.pi, np.pi)
    centre = directions_from_angles(lon_rad, np.arcsin(rng.uniform(-0.8, 0.8)))
    radius_rad = np.radians(rng.uniform(0.3, 1) * largest_deg)
    mask = (directions @ centre > np.cos(radius_rad)) & free
    if mask.sum() < MIN_PIXELS:
      continue
    around = np.pad(mask.astype(np.uint8), ((0, 0), (1, 1)), mode="wrap")
    free &= cv2.dilate(around, np.ones((3, 3), np.uint8))[:, 1:-1] == 0
    image[mask] = rng.integers(30, 250, 3)
    category = CATEGORIES[int(rng.integers(len(CATEGORIES)))]
    objects.append(SceneObject.from_mask(len(objects) + 1, mask, category=category))
  file = folder / f"{scene_id}.png"
  save_image(file, image)
  objects = order_objects(objects, rng.permutation(len(objects)).tolist())
  return Scene(scene_id, file, height, 2 * height, objects)


def write_dummy_data(
  folder: pathlib.Path, *, format: str = "scenes", height: int = 32, num_scenes: int = 5
) -> list[Scene]:
  """Writes a folder of such scenes and returns them; the same at every call.

  Raises:
    SceneError: the folder is not empty.
  """
  rng = np.random.default_rng(360)
  with tempfile.TemporaryDirectory() as pictures:
    scenes = [
      draw_scene(rng, f"dummy_{i}", pathlib.Path(pictures), height=height, num_objects=4)
      for i in range(num_scenes)
    ]
    write_scenes(folder, scenes, format=format)
  return scenes


if __name__ == "__main__":
  write_dummy_data(pathlib.Path(sys.argv[1]))
