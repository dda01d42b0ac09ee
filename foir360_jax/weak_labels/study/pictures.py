"""Photographs in place of panoramas: crops as views.

The picture is its own view, as the whole panorama is one; crops of it take the place of the
perspective views. Axes: V crops; N objects; h x w pixels; g x k cells.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.batch import Array
from foir360_jax.weak_labels.local import Views

_product = functools.partial(jnp.einsum, precision="highest")


class CropPlan(NamedTuple):
  """Which parts of a picture are views; pictures are 4:3 or nearly so.

  Attributes:
    whole_size: (height, width) of the picture as a view.
    crop_size: (height, width) of a crop as a view.
    share: sides of a crop over those of the picture.
    cell: pixels of a view's cell along each side.
    solid_angle: of the whole picture in steradians; pictures do not tell theirs.
    height_deg: of the whole picture; the horizon is taken to be in its middle.
  """

  whole_size: tuple[int, int] = (336, 448)
  crop_size: tuple[int, int] = (168, 224)
  share: float = 0.5
  cell: int = 4
  solid_angle: float = 0.8  # of 60 by 46 degrees
  height_deg: float = 46.0

  def corners(self) -> tuple[tuple[float, float], ...]:
    """The top left corners of the crops, as shares of the picture's height and width."""
    end = 1 - self.share
    return ((0, 0), (0, end), (end, 0), (end, end), (end / 2, end / 2))


DEFAULT_PLAN = CropPlan()


def picture_views(
  image: Array, masks: Array, where: Array, plan: CropPlan = DEFAULT_PLAN
) -> tuple[Views, Views]:
  """Cuts a picture into views.

  Args:
    image: [H, W, 3] RGB in [0, 255].
    masks: [N, H, W] bool.
    where: [N] bool, False for padding.
    plan: the views.

  Returns:
    The crops, V = 5, and the picture as the only view.
  """
  end = plan.share
  windows = tuple(((y, y + end), (x, x + end)) for y, x in plan.corners())
  crops = [_cut(image, masks, where, window, plan.crop_size, plan) for window in windows]
  whole = _cut(image, masks, where, ((0.0, 1.0), (0.0, 1.0)), plan.whole_size, plan)
  return jax.tree.map(lambda *x: jnp.stack(x), *crops), jax.tree.map(lambda x: x[None], whole)


def _cut(image, masks, where, window, size, plan: CropPlan) -> Views:
  """One view, without the leading axis."""
  masks = jnp.where(where[:, None, None], masks, False).astype(jnp.float32)
  pixels, cells = [], []
  for length, (start, end), count in zip(image.shape[:2], window, size, strict=True):
    pixels.append(_interpolation(length, start * length, end * length, count))
    cells.append(_means(length, start * length, end * length, count // plan.cell))
  share = (window[0][1] - window[0][0]) * (window[1][1] - window[1][0])
  num_cells = len(cells[0]), len(cells[1])
  return Views(
    images=_product("hr,rcx,wc->hwx", pixels[0], jnp.asarray(image, jnp.float32), pixels[1]),
    coverage=_product("gr,nrc,kc->ngk", cells[0], masks, cells[1]),
    cell_areas=jnp.full(num_cells, share * plan.solid_angle / (num_cells[0] * num_cells[1])),
    object_areas=masks.mean((1, 2)) * plan.solid_angle,
    where=where,
  )


def _means(size: int, start: float, end: float, cells: int) -> np.ndarray:
  """[cells, size] float32: means over equal parts of the interval from `start` to `end` pixels."""
  edges = np.linspace(start, end, cells + 1)
  pixel = np.arange(size)
  overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
  return (np.maximum(overlap, 0) / np.diff(edges)[:, None]).astype(np.float32)


def _interpolation(size: int, start: float, end: float, pixels: int) -> np.ndarray:
  """[pixels, size] float32: a triangle as wide as the pitch of the coarser of the two grids."""
  pitch = (end - start) / pixels
  centre = start + (np.arange(pixels)[:, None] + 0.5) * pitch
  weight = np.maximum(0, 1 - abs(np.arange(size) + 0.5 - centre) / max(pitch, 1.0))
  return (weight / weight.sum(1, keepdims=True)).astype(np.float32)
