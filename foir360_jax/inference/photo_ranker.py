"""Ranked objects of any photographed panorama, without training: segmented in views, then ordered.

A segmenter of ordinary pictures looks through views of the sphere, its masks become one mask an
object (`segment`), and the objects are ordered by the solid angle that they take. Axes: N objects,
panoramas [H, 2 H, 3] (or a few rows off, see `is_panorama`).
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, overload

import numpy as np

from foir360_jax.compilation import keep_compiled_programs
from foir360_jax.files.panorama_file import resize_columns, stretch
from foir360_jax.files.picture_folder import picture_id
from foir360_jax.inference.ranker_input import (
  InputPanorama,
  Panorama,
  cut_to_data,
  open_panorama,
)
from foir360_jax.scenes import RankedObjects
from foir360_jax.segment.load import load_segmenter
from foir360_jax.segment.panorama import METHOD_VERSION, Mode, segment_panorama

_HALF_SR = 0.1  # as much as a disc of 20 degrees across


class PhotoRanker:
  """Finds the objects of photographed panoramas, and ranks them.

  To build one turns JAX's compilation cache on for the whole process, unless the user decided on
  it: see `compilation.keep_compiled_programs`. The first picture of a size compiles.

  Args:
    segmenter: its name ("small", "torchvision", "transformers:MODEL", "onnx:FILE", "masks:FOLDER"
      or an import path "package.module:Class"), or an instance; see `segment.load_segmenter`.
    views: "fast", or "full" for more of them.
    confidence: what the segmenter is less sure of in a view is left out, in [0, 1]; None: what
      suits the segmenter. An object's `detection_confidence` counts the views that miss it, too, so
      it may be lower.
    max_objects: the most that are kept of a panorama, those of the highest confidence; None: all.

  Raises:
    ValueError: no such segmenter, or an argument is out of range.

  Example::

    ranker = foir360_jax.PhotoRanker()
    ranked = ranker("panorama.jpg")
    ranked.ranks, ranked.importance, ranked.detection_confidence, ranked.masks
    ranked.save_json("ranks.json"); ranked.save_overlay("overlay.png")
    for ranked in ranker(path for path in pathlib.Path("photographs").glob("*.jpg")): ...
  """

  def __init__(
    self,
    segmenter: Any = "small",
    *,
    views: Mode = "fast",
    confidence: float | None = None,
    max_objects: int | None = None,
  ):
    if views not in ("fast", "full"):
      raise ValueError(f"views must be fast or full, not {views!r}")
    if confidence is not None and not 0 <= confidence <= 1:
      raise ValueError(f"confidence must be in [0, 1], not {confidence}")
    if max_objects is not None and max_objects < 1:
      raise ValueError(f"max_objects must be 1 or more, not {max_objects}")
    keep_compiled_programs()
    self.segmenter = load_segmenter(segmenter)
    self.views: Mode = views
    self.confidence = self.segmenter.confidence if confidence is None else confidence
    self.max_objects = max_objects

  @overload
  def __call__(self, picture: Panorama, *, image: str = "") -> RankedObjects: ...

  @overload
  def __call__(self, picture: list[Panorama] | tuple[Panorama, ...]) -> list[RankedObjects]: ...

  @overload
  def __call__(self, picture: Iterator[Panorama]) -> Iterator[RankedObjects]: ...

  def __call__(self, picture, *, image=""):
    """Ranks the objects of a panorama, or of each of several.

    Args:
      picture: a path, a PIL image or an array (see `ranker_input.Panorama`); a list of these; or an
        iterator, as a generator, whose pictures are taken one at a time.
      image: the name of one picture, for the rank file; "": that of the file.

    Returns:
      The objects, most important first; of a list a list, of an iterator an iterator.

    Raises:
      ValueError: a picture cannot be used, or the segmenter's answer.
      TypeError: it is none of the above.
    """
    if isinstance(picture, Iterator):
      return (self(one) for one in picture)
    if isinstance(picture, list | tuple):
      return [self(one) for one in picture]
    return by_solid_angle(self.segment(picture, image=image))

  def segment(self, picture: Panorama, *, image: str = "") -> RankedObjects:
    """Finds the objects of one panorama, not ranked: their importance is 0 and they share rank 1.

    They come by falling `detection_confidence`. Arguments and errors as of a call.
    """
    panorama = open_panorama(picture, image)
    height, width = panorama.pixels.shape[:2]
    data = with_data(panorama)
    on_sphere = None if data is None else resize_columns(data, 2 * height)
    found = segment_panorama(
      stretch(panorama.pixels),
      self.segmenter,
      views=self.views,
      confidence=self.confidence,
      max_objects=self.max_objects,
      data=on_sphere,
      image=picture_id(panorama.image) if panorama.image else "",
    )
    masks, kept = cut_to_data(resize_columns(found.masks, width), data)
    return RankedObjects.from_masks(
      panorama.pixels,
      masks,
      np.zeros(len(masks), np.float32),
      [name for name, keep in zip(found.categories, kept, strict=True) if keep],
      image=panorama.image,
      detection_confidence=found.scores[kept],
      pose=panorama.pose,
    )

  def settings(self) -> dict[str, Any]:
    """All that the objects depend on beside the panorama, as JSON values."""
    return {
      "segmenter": self.segmenter.describe(),
      "views": self.views,
      "confidence": self.confidence,
      "max_objects": self.max_objects,
      "method": METHOD_VERSION,
    }


def rank(picture, *, segmenter: Any = "small", image: str = "", **options: Any):
  """Finds and ranks the objects of a photographed panorama, or of each of several.

  The ranker is kept for the next call with the same arguments, so that a picture at a time costs no
  more than a list.

  Args:
    picture: see `PhotoRanker.__call__`; this and `image`.
    segmenter: see `PhotoRanker`.
    image: the name of one picture.
    **options: `views`, `confidence` and `max_objects` of `PhotoRanker`.

  Returns:
    `RankedObjects`; of a list a list, of an iterator an iterator.

  Raises:
    ValueError: see `PhotoRanker`; as the next.
    TypeError: see there.

  Example::

    ranked = foir360_jax.rank("panorama.jpg")
    for name, number in zip(ranked.categories, ranked.ranks): ...
  """
  return _kept_ranker(segmenter, **options)(picture, image=image)


@functools.lru_cache(maxsize=1)
def _kept_ranker(segmenter: Any, **options: Any) -> PhotoRanker:
  return PhotoRanker(segmenter, **options)


def by_solid_angle(objects: RankedObjects) -> RankedObjects:
  """Orders objects by the solid angle that they take, the larger the more important.

  The importance is the sigmoid of the logarithm of the solid angle, 1/2 at 0.1 steradians.
  """
  area = objects.area_sr.astype(np.float64)
  importance = (area / (area + _HALF_SR)).astype(np.float32)
  order = np.argsort(-importance, kind="stable")
  ranks = np.cumsum(np.diff(importance[order], prepend=np.inf) != 0).astype(np.int32)
  per_object = {
    name: getattr(objects, name)[order]
    for name in ("masks", "bfov_deg", "bbox_px", "area_sr", "ids", "detection_confidence")
  }
  return dataclasses.replace(
    objects,
    importance=importance[order],
    ranks=ranks,
    categories=tuple(objects.categories[index] for index in order),
    **per_object,
  )


def with_data(panorama: InputPanorama) -> np.ndarray | None:
  """Where there is a picture, [H, W] bool; None: everywhere.

  Besides what the file says, rows of one colour at the top and at the bottom are none: people fill
  what a camera did not see.
  """
  pixels = panorama.pixels
  filled = np.zeros(len(pixels), bool)
  for rows in (slice(None), slice(None, None, -1)):
    outermost = pixels[rows][0, 0]
    same = (pixels[rows] == outermost).all(axis=(1, 2))
    filled[rows][: len(same) if same.all() else int(same.argmin())] = True
  if np.count_nonzero(filled) < 2 or filled.all():  # a single row says nothing
    return panorama.data
  data = np.broadcast_to(~filled[:, None], pixels.shape[:2])
  return data if panorama.data is None else data & panorama.data
