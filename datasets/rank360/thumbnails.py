"""Small pictures of records with their objects drawn in, for the report. Axes: [H, W, 3], RGB."""

import cv2
import numpy as np

from foir360_jax.drawing.overlay import draw_numbers, paint_masks, rank_colours, resize
from foir360_jax.files.panorama_file import read_pixels
from foir360_jax.scenes import Scene
from rank360.columns import decode

WIDTH = 800
JPEG_QUALITY = 80


def draw_thumbnail(scene: Scene, *, number_by: str) -> bytes:
  """Returns a JPEG of a scene's picture, each object tinted, outlined and numbered.

  Args:
    scene: a scene with a picture.
    number_by: "rank", or "id" as findings name objects; unranked ones have one colour.
  """
  items = sorted(scene.objects, key=lambda item: item.rank or 0)
  masks = np.array([decode(item.run_lengths) for item in items], bool).reshape(
    -1, scene.height, scene.width
  )
  picture = read_pixels(scene.image_file)
  height = max(1, round(WIDTH * scene.height / scene.width))
  picture, masks = resize(picture, masks, height, WIDTH)
  colours = rank_colours(np.array([item.rank or 1 for item in items], int))
  picture = paint_masks(picture, masks, colours, dim=0.8, grey=0.4, strength=0.4)
  numbers = np.array([getattr(item, number_by) for item in items], int)
  draw_numbers(picture, masks, numbers, colours, min_size=11, max_size=24)
  quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
  return cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)[1].tobytes()
