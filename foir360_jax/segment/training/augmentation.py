"""Canvases for training: parts of pictures at drawn scales, joined, recoloured and blurred.

Whatever moves pixels moves the masks with them. Axes: N objects; masks are uint8 from 0 to 255, the
share of a pixel that belongs to the object.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from foir360_jax.scenes.run_lengths import RunLengths
from foir360_jax.segment.training.pictures import LabelledPicture

_GREY = 127  # beyond a picture's edge: zero for the network
_ASPECT = 0.15  # standard deviation of the log of the stretch of one axis against the other
_LEAST_SHARE = 0.2  # of an object that must be seen for it to be one


class Canvas(NamedTuple):
  """A picture to train on.

  Attributes:
    image: [h, w, 3] uint8 RGB.
    masks: N of [h, w] uint8.
    ignored: [h, w] uint8: crowds, and what is left of objects that are nearly hidden.
  """

  image: np.ndarray
  masks: list[np.ndarray]
  ignored: np.ndarray


class Settings(NamedTuple):
  """How canvases are drawn; shares are probabilities.

  Attributes:
    size: rows and columns.
    working_pixels: to which a picture is brought when it is segmented; scales are relative to it.
    scales: smallest and largest scale of a single picture.
    mosaic: share of canvases of four pictures.
    paste: share of the others onto which objects of another picture are pasted.
    blur: share that is scaled down and up again, as views of small panoramas look.
    colour: share whose colours change.
  """

  size: int
  working_pixels: int
  scales: tuple[float, float]
  mosaic: float
  paste: float
  blur: float
  colour: float


def draw_canvas(
  pictures: Sequence[LabelledPicture], index: int, settings: Settings, rng: np.random.Generator
) -> Canvas:
  """Draws a canvas of one picture, others may add to it.

  Args:
    pictures: all that may take part.
    index: the one that does.
    settings: see there.
    rng: of everything that is drawn.
  """
  size = settings.size, settings.size
  if rng.random() < settings.mosaic:
    canvas = _mosaic(pictures, index, settings, rng)
  else:
    canvas = draw_part(pictures[index], size, settings.scales, settings.working_pixels, rng)
    if rng.random() < settings.paste:
      other = pictures[int(rng.integers(len(pictures)))]
      source = draw_part(other, size, settings.scales, settings.working_pixels, rng)
      canvas = paste(canvas, source, rng)
  image = canvas.image
  if rng.random() < settings.colour:
    image = _recolour(image, rng)
  if rng.random() < settings.blur:
    image = _blur(image, rng)
  return canvas._replace(image=image)


def draw_part(
  picture: LabelledPicture,
  size: tuple[int, int],
  scales: tuple[float, float],
  working_pixels: int,
  rng: np.random.Generator,
) -> Canvas:
  """A part of a picture at a drawn scale, perhaps mirrored; grey beyond its edges.

  Args:
    picture: the whole.
    size: (h, w) of the part in its own pixels.
    scales: the scale is between them, evenly in its logarithm; at 1 the whole picture would have
      `working_pixels`.
    working_pixels: see there.
    rng: of everything that is drawn.
  """
  height, width = picture.image.shape[:2]
  nominal = np.sqrt(working_pixels / (height * width))
  scale = nominal * np.exp(rng.uniform(*np.log(scales)))
  stretch = np.exp(0.5 * _ASPECT * np.clip(rng.standard_normal(), -2, 2))
  scale_x, scale_y = scale * stretch, scale / stretch
  x = rng.uniform(*sorted((0.0, size[1] - width * scale_x)))
  y = rng.uniform(*sorted((0.0, size[0] - height * scale_y)))
  if rng.random() < 0.5:
    scale_x, x = -scale_x, x + width * scale_x
  # OpenCV counts from the centres of pixels, we from their corners.
  matrix = np.array(
    [[scale_x, 0, x + 0.5 * scale_x - 0.5], [0, scale_y, y + 0.5 * scale_y - 0.5]], np.float32
  )

  def moved(array: np.ndarray, beyond: int) -> np.ndarray:
    return cv2.warpAffine(
      array, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderValue=(beyond,) * 3
    )

  image = moved(picture.image, _GREY)
  ignored = np.zeros(size, np.uint8)
  for crowd in picture.crowds:
    ignored = np.maximum(ignored, moved(_bytes(crowd), 0))
  masks = []
  for encoded in picture.objects:
    whole = _bytes(encoded)
    mask = moved(whole, 0)
    if mask.sum(dtype=np.int64) >= _LEAST_SHARE * scale**2 * whole.sum(dtype=np.int64):
      masks.append(mask)
    else:
      ignored = np.maximum(ignored, mask)
  return Canvas(image, masks, ignored)


def _bytes(mask: RunLengths) -> np.ndarray:
  """[h, w] uint8 of 0 and 255."""
  return 255 * mask.mask().view(np.uint8)


def _mosaic(
  pictures: Sequence[LabelledPicture], index: int, settings: Settings, rng: np.random.Generator
) -> Canvas:
  """Four pictures side by side, smaller than one alone."""
  size = settings.size
  row, column = (round(size * rng.uniform(0.35, 0.65)) for _ in range(2))
  image = np.empty((size, size, 3), np.uint8)
  ignored = np.zeros((size, size), np.uint8)
  masks = []
  low, high = settings.scales
  first = rng.integers(4)
  for number in range(4):
    top, bottom = ((0, row), (row, size))[number // 2]
    left, right = ((0, column), (column, size))[number % 2]
    chosen = index if number == first else int(rng.integers(len(pictures)))
    part = draw_part(
      pictures[chosen],
      (bottom - top, right - left),
      (0.75 * low, 0.75 * high),
      settings.working_pixels,
      rng,
    )
    image[top:bottom, left:right] = part.image
    ignored[top:bottom, left:right] = part.ignored
    for mask in part.masks:
      masks.append(np.pad(mask, ((top, size - bottom), (left, size - right))))
  return Canvas(image, masks, ignored)


def paste(canvas: Canvas, source: Canvas, rng: np.random.Generator) -> Canvas:
  """Puts objects of another canvas of the same size over this one (Ghiasi et al., CVPR 2021).

  Objects beneath lose what is covered; those of which little is left become ignored.
  """
  chosen = [mask for mask in source.masks if rng.random() < 0.5][:6]
  if not chosen:
    return canvas
  covered = np.max(chosen, axis=0)
  soft = cv2.GaussianBlur(covered, (3, 3), 0)[..., None].astype(np.float32) / 255
  image = canvas.image * (1 - soft) + source.image * soft
  masks, ignored = [], np.minimum(canvas.ignored, 255 - covered)
  for mask in canvas.masks:
    left = np.minimum(mask, 255 - covered)
    if left.sum(dtype=np.int64) >= _LEAST_SHARE * mask.sum(dtype=np.int64):
      masks.append(left)
    else:
      ignored = np.maximum(ignored, left)
  return Canvas(np.round(image).astype(np.uint8), masks + chosen, ignored)


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Another exposure, white balance, contrast and saturation; a few without any colour."""
  gain = (rng.uniform(0.7, 1.3) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
  saturation = 0.0 if rng.random() < 0.08 else rng.uniform(0.5, 1.4)
  contrast = rng.uniform(0.75, 1.25)
  # One matrix for all of it: grey is the mean of the channels.
  matrix = saturation * np.eye(3) + (1 - saturation) / 3
  matrix = (contrast * gain[:, None] * matrix).astype(np.float32)
  shift = np.full((3, 1), 127 * (1 - contrast), np.float32)
  return cv2.transform(image, np.concatenate([matrix, shift], axis=1))


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  height, width = image.shape[:2]
  factor = np.exp(rng.uniform(np.log(1.3), np.log(3.5)))
  small = (max(1, round(width / factor)), max(1, round(height / factor)))
  image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
