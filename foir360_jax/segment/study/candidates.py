"""What a segmenter finds in the views of a panorama, kept on disk.

A segmenter takes minutes for what a merge takes a second for. So candidates are kept, in a file for
each panorama, by view; a later call adds the views that are missing. Axes as of `segment.merge`.
"""

import hashlib
import io
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from foir360_jax.files import write_atomically
from foir360_jax.segment.merge import Candidates
from foir360_jax.segment.panorama import MAX_WORKING_HEIGHT, candidates_of, join_candidates
from foir360_jax.segment.segmenter import Segmenter
from foir360_jax.segment.views import View, render_views


class Seconds(NamedTuple):
  """What the steps took, over all views that were not known already."""

  views: int
  rendering: float
  segmenting: float
  bringing_back: float


def find_candidates(
  panorama: np.ndarray, views: Sequence[View], segmenter: Segmenter, confidence: float
) -> tuple[Candidates, Seconds]:
  """Finds the candidates of all views, brought onto the sphere.

  Args:
    panorama: [H, 2 H, 3] uint8.
    views: V of them.
    segmenter: of pictures.
    confidence: lower scores are left out.

  Returns:
    Candidates at min(H, `MAX_WORKING_HEIGHT`) rows, in the order of views; what it took.
  """
  height = min(len(panorama), MAX_WORKING_HEIGHT)
  found: list[Any] = [None] * len(views)
  rendering = segmenting = bringing_back = 0.0
  start = time.perf_counter()
  for indices, pictures in render_views(panorama, views):
    rendered = time.perf_counter()
    segments = segmenter(pictures, confidence)
    segmented = time.perf_counter()
    for index, of_view in zip(indices, segments, strict=True):
      found[index] = candidates_of(of_view, views[index], index, height)
    rendering += rendered - start
    segmenting += segmented - rendered
    start = time.perf_counter()
    bringing_back += start - segmented
  seconds = Seconds(len(views), rendering, segmenting, bringing_back)
  return join_candidates(found, height), seconds


def of_candidates(candidates: Candidates, chosen: np.ndarray) -> Candidates:
  """Those of the candidates that are chosen, by indices or [N] bool."""
  indices = np.arange(len(candidates.scores))[chosen]
  return Candidates(
    masks=candidates.masks[indices],
    scores=candidates.scores[indices],
    categories=tuple(candidates.categories[index] for index in indices),
    touches_border=candidates.touches_border[indices],
    view=candidates.view[indices],
  )


def of_views(
  candidates: Candidates, views: Sequence[View], wanted: Sequence[View], confidence: float
) -> tuple[Candidates, np.ndarray]:
  """The candidates of some of the views, `view` renumbered, from a confidence on.

  Returns:
    These candidates; their indices among all.
  """
  number = {view: index for index, view in enumerate(wanted)}
  places = np.array([number.get(view, -1) for view in views], np.int32)
  view = places[candidates.view]
  indices = np.flatnonzero((view >= 0) & (candidates.scores >= confidence))
  return _with_view(of_candidates(candidates, indices), view[indices]), indices


def _with_view(candidates: Candidates, view: np.ndarray) -> Candidates:
  # Not `_replace`: of named tuples with a length of their own it does not work.
  return Candidates(
    candidates.masks, candidates.scores, candidates.categories, candidates.touches_border, view
  )


class CandidateStore:
  """Candidates of panoramas, kept in a folder.

  Args:
    load_segmenter: makes the segmenter when it is first needed.
    confidence: the lowest that is asked for.
    folder: where they are kept; None: nowhere.

  Attributes:
    seconds: what finding took so far, one a panorama that was not wholly known.
  """

  def __init__(
    self,
    load_segmenter: Callable[[], Segmenter],
    confidence: float,
    folder: pathlib.Path | None = None,
  ):
    self._load = load_segmenter
    self._segmenter: Segmenter | None = None
    self._confidence = confidence
    self._folder = folder
    self.seconds: list[Seconds] = []

  @property
  def segmenter(self) -> Segmenter:
    """The segmenter, loaded once."""
    if self._segmenter is None:
      self._segmenter = self._load()
    return self._segmenter

  def seconds_a_view(self) -> dict[str, float]:
    """What finding took a view, the first panorama left out as programs are compiled for it."""
    later = self.seconds[1:] or self.seconds
    views = sum(seconds.views for seconds in later) or 1
    return {
      field: sum(getattr(seconds, field) for seconds in later) / views
      for field in Seconds._fields[1:]
    }

  def find(self, name: str, panorama: np.ndarray, views: Sequence[View]) -> Candidates:
    """Returns the candidates of all views of a panorama.

    Raises:
      ValueError: the folder holds those of another picture or segmenter.
    """
    kept = self._read(name, panorama)
    missing = [view for view in views if view not in kept]
    if missing:
      candidates, seconds = find_candidates(panorama, missing, self.segmenter, self._confidence)
      self.seconds.append(seconds)
      for index, view in enumerate(missing):
        kept[view] = of_candidates(candidates, candidates.view == index)
      self._write(name, panorama, kept)
    parts = [(kept[view], index) for index, view in enumerate(views)]
    return join_candidates(
      [_with_view(part, np.full(len(part.scores), index, np.int32)) for part, index in parts],
      min(len(panorama), MAX_WORKING_HEIGHT),
    )

  def _origin(self, panorama: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(panorama).tobytes()).hexdigest()
    return {
      "panorama": digest,
      "confidence": self._confidence,
      "segmenter": self.segmenter.describe(),
    }

  def _read(self, name: str, panorama: np.ndarray) -> dict[View, Candidates]:
    if self._folder is None or not (self._folder / f"{name}.npz").is_file():
      return {}
    file = self._folder / f"{name}.npz"
    with np.load(file) as content:
      text = json.loads(str(content["text"]))
      if text["origin"] != self._origin(panorama):
        raise ValueError(
          f"{file}: candidates of another picture, segmenter or confidence; give another --cache"
        )
      masks, scores = content["masks"], content["scores"]
      touches_border, place = content["touches_border"], content["view"]
    everything = Candidates(masks, scores, tuple(text["categories"]), touches_border, place)
    views = [View(**(record | {"size": tuple(record["size"])})) for record in text["views"]]
    return {view: of_candidates(everything, place == index) for index, view in enumerate(views)}

  def _write(self, name: str, panorama: np.ndarray, kept: dict[View, Candidates]) -> None:
    if self._folder is None:
      return
    text = {
      "origin": self._origin(panorama),
      "views": [view.__dict__ for view in kept],
      "categories": [category for part in kept.values() for category in part.categories],
    }
    buffer = io.BytesIO()
    np.savez_compressed(
      buffer,
      text=np.array(json.dumps(text)),
      masks=np.concatenate([part.masks for part in kept.values()]),
      scores=np.concatenate([part.scores for part in kept.values()]),
      touches_border=np.concatenate([part.touches_border for part in kept.values()]),
      view=np.repeat(np.arange(len(kept)), [len(part.scores) for part in kept.values()]),
    )
    write_atomically(self._folder / f"{name}.npz", buffer.getvalue())
