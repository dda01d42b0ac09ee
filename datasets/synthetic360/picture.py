"""A panorama to try a model on: of the test split's kind, but in no split, and larger."""

import pathlib

import numpy as np

from foir360_jax.files import save_image
from synthetic360.scene import render_scene

HEIGHT = 512
_SEED = (360, 9, 4)  # no split has the number 9


def write_picture(path: pathlib.Path) -> bool:
  """Renders the panorama, 1024 x 512, into a PNG; returns False if there is a file already."""
  if path.exists():
    return False
  scene = render_scene(np.random.default_rng(_SEED), HEIGHT, unseen=True)
  save_image(path, scene.image)
  return True
