"""The segmenter that comes with the package: class-agnostic, small, and quick on a CPU.

A picture is brought to about `working_pixels` pixels with sides that are multiples of 32, whatever
its own size is: so objects have the sizes that were trained. Masks go back as log odds, linearly
interpolated, so that outlines are smooth. Axes: V pictures, K proposals.
"""

import functools
import math
import os
from typing import Any

import cv2
import jax
import numpy as np

from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.models.pretrained import load_efficientnet_lite0
from foir360_jax.segment.small.network import CELL, FROZEN_STAGES, MASK_STRIDE, SmallNetwork
from foir360_jax.segment.small.proposals import Proposals, propose
from foir360_jax.segment.small.weights import COMMITTED, load_network

Found = tuple[float, None, np.ndarray, bool]
"""Score, no category, mask [h, w] bool, whether the picture's border may cut the object."""

_VERSION = "1"  # of the committed weights
_BORDER = 2  # pixels of the working picture


class SmallSegmenter:
  """Finds objects of any kind in ordinary pictures; see `foir360_jax.segment.segmenter`.

  Scores are calibrated: of masks with the score s about a share s is an annotated object of COCO at
  IoU 0.5.

  Args:
    weights: a file of a run; None: the committed one.
    working_pixels: to which a picture is brought. More finds smaller objects, and takes longer in
      proportion; trained for 512 x 512.
    proposals: K, the most that are looked at; not more than these are given.
    overlap: IoU from which on a mask repeats a better one.

  Raises:
    ValueError: the weights cannot be used.
  """

  name = "small"
  categories: tuple[str, ...] = ()

  def __init__(
    self,
    weights: str | os.PathLike | None = None,
    *,
    working_pixels: int = 512 * 512,
    proposals: int = 128,
    overlap: float = 0.6,
  ):
    self._backbone = load_efficientnet_lite0(padding="zero")
    path = COMMITTED if weights is None else weights
    self._network, self.calibration, self.metadata = load_network(path, self._backbone)
    self._working_pixels = working_pixels
    self.version = _VERSION if weights is None else str(weights)
    self.settings: dict[str, Any] = {
      "working_pixels": working_pixels,
      "proposals": proposals,
      "overlap": overlap,
    }
    self._propose = functools.partial(_propose, number=proposals, overlap=overlap)

  @property
  def confidence(self) -> float:
    """The score from which on masks are given, unless another is asked for."""
    return self.calibration.confidence

  def __call__(self, picture: np.ndarray, confidence: float | None = None) -> list[Found]:
    """Objects of one picture [h, w, 3]; see `segment_batch`."""
    return self.segment_batch(picture[None], confidence)[0]

  def segment_batch(
    self, pictures: np.ndarray, confidence: float | None = None
  ) -> list[list[Found]]:
    """Objects of pictures, each list by falling score. The first call of a size compiles.

    Args:
      pictures: [V, h, w, 3] uint8 RGB.
      confidence: objects of a lower score are left out; None: the default one.

    Raises:
      ValueError: they are no such pictures.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
      raise ValueError(
        f"pictures must be uint8 [V, h, w, 3], not {pictures.dtype} {list(pictures.shape)}"
      )
    least = self.confidence if confidence is None else confidence
    # One picture is computed while the masks of the one before are brought to its size.
    waiting: list[Proposals] = []
    answers = []
    for picture in pictures:
      waiting.append(self._start(picture))
      if len(waiting) > 1:
        answers.append(self._finish(waiting.pop(0), pictures.shape[1:3], least))
    answers += [self._finish(last, pictures.shape[1:3], least) for last in waiting]
    return answers

  def _start(self, picture: np.ndarray) -> Proposals:
    size = working_size(picture.shape[:2], self._working_pixels)
    return self._propose(self._backbone, self._network, resized(picture, size))

  def _finish(self, proposals: Proposals, size: tuple[int, ...], least: float) -> list[Found]:
    raw = np.asarray(proposals.scores)
    scores = self.calibration(raw)
    kept = np.flatnonzero((raw > 0) & (scores >= least))
    logits = np.asarray(proposals.logits)
    found = []
    for index in kept:
      mask = cv2.resize(logits[index], size[::-1], interpolation=cv2.INTER_LINEAR) > 0
      if mask.any():
        found.append((float(scores[index]), None, mask, _touches_border(logits[index] > 0)))
    return found


@functools.partial(jax.jit, static_argnames=("number", "overlap"))
def _propose(
  backbone: EfficientNetLite0,
  network: SmallNetwork,
  picture: jax.Array,
  *,
  number: int,
  overlap: float,
) -> Proposals:
  places = network(backbone.stages(picture[None], FROZEN_STAGES))
  height, width, _ = picture.shape
  return propose(places, (height, width), number, overlap)


def working_size(size: tuple[int, ...], pixels: int) -> tuple[int, int]:
  """(h, w) of a picture, in multiples of 32, with about so many pixels and its shape.

  >>> working_size((360, 480), 512 * 512), working_size((320, 320), 512 * 512)
  ((448, 576), (512, 512))
  """
  scale = math.sqrt(pixels / (size[0] * size[1]))
  height, width = (max(CELL, CELL * round(scale * length / CELL)) for length in size[:2])
  return height, width


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """A picture [h, w, 3] uint8 at another size; areas are averaged where it shrinks."""
  shrinks = size[0] * size[1] < picture.shape[0] * picture.shape[1]
  method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  return cv2.resize(picture, size[::-1], interpolation=method)


def _touches_border(mask: np.ndarray) -> bool:
  """Whether an object may go on beyond a picture, of its mask at stride 4."""
  width = -(-_BORDER // MASK_STRIDE)
  edges = (mask[:width], mask[-width:], mask[:, :width], mask[:, -width:])
  return any(bool(edge.any()) for edge in edges)
