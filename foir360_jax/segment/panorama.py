"""The objects of a photographed panorama: views, a segmenter, masks back on the sphere, the merge.

Axes: V views, H x 2 H of the panorama, row 0 north-most. Candidates of all views are kept as bits
of at most `MAX_WORKING_HEIGHT` rows; objects get masks of all H rows.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np

from foir360_jax.segment.merge import Candidates, MergedObjects, MergeSettings, merge
from foir360_jax.segment.packed_overlap import PackedMasks
from foir360_jax.segment.segmenter import Segmenter, Segments
from foir360_jax.segment.view_masks import to_sphere, view_fields
from foir360_jax.segment.views import Mode, View, plan_views, render_views

METHOD_VERSION = 1
"""Of all that makes objects of a segmenter's answers; another one, other objects."""
MAX_WORKING_HEIGHT = 512
_LEAST_DATA = 0.02  # share of a view that must hold picture


def segment_panorama(
  panorama: np.ndarray,
  segmenter: Segmenter,
  *,
  views: Mode | Sequence[View] = "fast",
  confidence: float | None = None,
  max_objects: int | None = None,
  data: np.ndarray | None = None,
  image: str = "",
  settings: MergeSettings | None = None,
  timings: dict[str, float] | None = None,
) -> MergedObjects:
  """Finds the objects of a panorama.

  Args:
    panorama: [H, 2 H, 3] uint8 RGB.
    segmenter: of pictures.
    views: "fast", "full", or views of one's own.
    confidence: what the segmenter is less sure of is left out; None: what suits the segmenter.
    max_objects: the best that are kept; None: all.
    data: [H, 2 H] bool, where a partial panorama has picture; None: everywhere. Views without are
      not looked at, and masks end where it ends.
    image: the panorama's name, for a segmenter that goes by it.
    settings: of the merge; default `MergeSettings()`.
    timings: seconds are added to its entries "rendering", "segmenter", "back-projection" and
      "merge".

  Raises:
    ValueError: the panorama is not uint8 [H, 2 H, 3], or `data` not bool [H, 2 H].
    SegmenterError: the segmenter's answers are not what they should be.
  """
  panorama = np.asarray(panorama)
  full_height = len(panorama)
  height = min(full_height, MAX_WORKING_HEIGHT)
  watch = _Watch({} if timings is None else timings)
  confidence = segmenter.confidence if confidence is None else confidence
  planned = plan_views(full_height, views) if isinstance(views, str) else tuple(views)
  planned = segmenter.views_of(image, planned)
  if data is not None and (data.dtype != bool or data.shape != panorama.shape[:2]):
    raise ValueError(
      f"data is bool {list(panorama.shape[:2])}, not {data.dtype} {list(data.shape)}"
    )
  with watch.during("back-projection"):
    fields = fields_of(planned, height)
    if data is not None:
      bits = _packed_data(data, height)
      whole = PackedMasks(fields, height).areas
      fields &= bits
      looked_at = PackedMasks(fields, height).areas >= _LEAST_DATA * np.maximum(whole, 1e-12)
      planned = tuple(view for view, look in zip(planned, looked_at, strict=True) if look)
      fields = fields[looked_at]
  parts: list[Candidates] = []
  render = render_views if segmenter.needs_pixels else _black_views
  batches = iter(render(panorama, planned))
  while True:
    with watch.during("rendering"):
      batch = next(batches, None)
    if batch is None:
      break
    indices, pictures = batch
    with watch.during("segmenter"):
      seen = [planned[index] for index in indices]
      answers = segmenter(pictures, confidence, image=image, views=seen)
    with watch.during("back-projection"):
      parts += [
        candidates_of(answer, planned[index], index, height)
        for index, answer in zip(indices, answers, strict=True)
      ]
  with watch.during("merge"):
    candidates = join_candidates(parts, height)
    if data is not None:
      candidates.masks[:] &= bits
    objects = merge(
      candidates,
      fields,
      np.array([view.pixels_per_radian for view in planned]),
      height,
      settings=settings,
      full_height=full_height,
      max_objects=max_objects,
    )
    if data is not None:
      objects.masks[:] &= data
  return objects


def _black_views(
  panorama: np.ndarray, views: Sequence[View]
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
  """What `render_views` gives, for a segmenter that does not look."""
  for index, view in enumerate(views):
    yield (index,), np.zeros((1, *view.size, 3), np.uint8)


def fields_of(views: Sequence[View], height: int) -> np.ndarray:
  """What each view sees, for the merge: [V, P / 8] uint8.

  As `segment.view_masks.view_fields`, but the flat panorama sees all but the columns at its seam:
  there it ends as other views do at their borders.
  """
  fields = view_fields(views, height)
  for view, bits in zip(views, fields, strict=True):
    if view.is_flat:
      seen = np.unpackbits(bits).reshape(height, 2 * height)
      seam = round(view.lon_rad / np.pi * height)  # the middle column's opposite
      seen[:, [(seam - 1) % (2 * height), seam % (2 * height)]] = 0
      bits[:] = np.packbits(seen)
  return fields


class _Watch:
  def __init__(self, seconds: dict[str, float]):
    self._seconds = seconds

  @contextmanager
  def during(self, part: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
      yield
    finally:
      self._seconds[part] = self._seconds.get(part, 0.0) + time.perf_counter() - start


def candidates_of(found: Segments, view: View, index: int, height: int) -> Candidates:
  """What was found in a view, on the sphere, less what falls between pixels there."""
  bits = to_sphere(found.masks, view, height)
  kept = np.flatnonzero(bits.any(axis=1))
  return Candidates(
    masks=bits[kept],
    scores=found.scores[kept],
    categories=tuple(found.categories[place] for place in kept),
    touches_border=_is_cut(found, view)[kept],
    view=np.full(len(kept), index, np.int32),
  )


def _is_cut(found: Segments, view: View) -> np.ndarray:
  """Whether the border of its view cuts a mask, [N] bool.

  The upper and lower borders of the flat panorama are the poles, where nothing ends.
  """
  masks = found.masks
  margin = max(1, masks.shape[2] // 160) if view.is_flat else 1
  sides = masks[:, :, :margin].any(axis=(1, 2)) | masks[:, :, -margin:].any(axis=(1, 2))
  if view.is_flat:
    return np.asarray(sides)
  cut = found.touches_border | sides | masks[:, [0, -1]].any(axis=(1, 2))
  return np.asarray(cut)


def join_candidates(parts: Sequence[Candidates], height: int) -> Candidates:
  """Candidates of one panorama one after the other; there may be none."""
  nothing = np.zeros((0, -(-height * height // 4)), np.uint8)
  return Candidates(
    masks=np.concatenate([nothing, *(part.masks for part in parts)]),
    scores=np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)]),
    categories=tuple(name for part in parts for name in part.categories),
    touches_border=np.concatenate([np.zeros(0, bool), *(part.touches_border for part in parts)]),
    view=np.concatenate([np.zeros(0, np.int32), *(part.view for part in parts)]),
  )


def _packed_data(data: np.ndarray, height: int) -> np.ndarray:
  size = (2 * height, height)
  if data.shape[0] == height:
    return np.packbits(data)
  resized = cv2.resize(data.astype(np.float32), size, interpolation=cv2.INTER_AREA)
  return np.packbits(resized >= 0.5)
