"""Measures masks of annotated panoramas: what a segmenter finds through views, merged.

A row for each set of views, confidence (of candidates) and way to make objects of them: `merge`,
`baseline` (see `segment.study.baseline`), or `candidates` as they are. What the columns mean is
said in `segment.study.measure`.

  python -m foir360_jax.segment.study.frames FOLDER --segmenter=package.module:Class \
    --views fast full --confidence 0.25 0.1 --cache=CACHE --out=frames.json

FOLDER is one of `segment.study.collages`, or any annotated panoramas, see `segment.study.truth`.
With --cache the segmenter looks at each view once, whatever is merged later. Seconds in the JSON
are of what was found in this run.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from foir360_jax.drawing import draw_overlay
from foir360_jax.files import save_image, write_atomically
from foir360_jax.files.json_file import without_nan
from foir360_jax.paths import expand
from foir360_jax.scenes.packed_masks import pack_masks, resample_masks, unpack_masks
from foir360_jax.segment.load import load_segmenter
from foir360_jax.segment.merge import Candidates, merge
from foir360_jax.segment.packed_overlap import PackedMasks
from foir360_jax.segment.panorama import MAX_WORKING_HEIGHT, fields_of
from foir360_jax.segment.study.baseline import suppress, unpack
from foir360_jax.segment.study.candidates import CandidateStore, of_views
from foir360_jax.segment.study.measure import (
  Compared,
  FrameFigures,
  compare,
  measure_frame,
  summarise,
  table,
)
from foir360_jax.segment.study.truth import Frame, read_frames
from foir360_jax.segment.views import MODES, View, plan_views

WAYS = ("baseline", "merge", "candidates")
"""How objects are made; candidates as they are tell what a merge could find at most."""


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table: which views, of candidates from which confidence on, merged how."""

  way: str
  label: str
  views: tuple[View, ...]
  confidence: float

  @property
  def name(self) -> str:
    """In the table."""
    return f"{self.way}, {self.label} ({len(self.views)} views), confidence {self.confidence:g}"


class Drawn(NamedTuple):
  """What an overlay shows: objects, best first."""

  masks: np.ndarray
  ranks: np.ndarray


def main() -> None:
  """Measures, prints the table, writes the JSON."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--views", nargs="+", default=["fast"], choices=MODES)
  parser.add_argument("--ways", nargs="+", default=list(WAYS[:2]), choices=WAYS)
  arguments = parse(parser)
  try:
    figures = measure_rows(
      arguments,
      lambda height: [
        Row(way, mode, plan_views(height, mode), confidence)
        for confidence in arguments.confidence
        for way in arguments.ways
        for mode in arguments.views
      ],
    )
  except ValueError as error:
    sys.exit(f"error: {error}")
  print(figures["table"])


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
  """Adds what all commands that measure have in common, and reads the command line."""
  parser.add_argument("frames", help="folder of annotated panoramas")
  parser.add_argument("--segmenter", default="small", help="its name, or package.module:Class")
  parser.add_argument("--confidence", nargs="+", type=float, default=[0.25, 0.1])
  parser.add_argument("--best", nargs="+", type=int, default=[8], help="numbers of masks a frame")
  parser.add_argument("--least_score", type=float, default=0.0, help="of the objects in the end")
  parser.add_argument("--cache", help="folder in which candidates are kept")
  parser.add_argument("--limit", type=int, help="how many frames")
  parser.add_argument("--out", help="JSON file for all figures")
  parser.add_argument("--overlays", help="folder for pictures of the objects, one a row and frame")
  return parser.parse_args()


def measure_rows(
  arguments: argparse.Namespace, rows_for: Callable[[int], Sequence[Row]]
) -> dict[str, Any]:
  """Measures all rows on all frames of a folder; writes the figures if `arguments.out` says where.

  Args:
    arguments: see `parse`.
    rows_for: the rows for a panorama of that many rows of pixels; as many and alike for each.

  Returns:
    JSON values: `table` (Markdown), `rows` (name, figures, seconds of merging a frame), `seconds`
    (of finding, a view), `frames` (names), `segmenter`.
  """
  store = CandidateStore(
    lambda: load_segmenter(arguments.segmenter),
    min(arguments.confidence),
    expand(arguments.cache) if arguments.cache else None,
  )
  names: list[str] = []
  groups: list[str] = []
  videos: list[str] = []
  figures: dict[str, list[FrameFigures]] = {}
  seconds: dict[str, list[float]] = {}
  for frame in itertools.islice(read_frames(arguments.frames), arguments.limit):
    rows = rows_for(len(frame.panorama))
    views = tuple(dict.fromkeys(view for row in rows for view in row.views))
    objects = FrameObjects(frame, store.find(frame.name, frame.panorama, views), views)
    for row in rows:
      start = time.perf_counter()
      compared, masks = objects.of_row(row, arguments.least_score)
      seconds.setdefault(row.name, []).append(time.perf_counter() - start)
      figures.setdefault(row.name, []).append(measure_frame(compared, arguments.best))
      if arguments.overlays:
        file = f"{frame.name}_{row.way}_{row.label}_{row.confidence:g}.png"
        drawn = Drawn(masks(), np.arange(1, len(compared.areas) + 1))
        save_image(expand(arguments.overlays) / file, draw_overlay(frame.panorama, drawn))
    names.append(frame.name)
    groups.append(frame.group)
    videos.append(frame.video)
    print(f"measured {len(names)} frames, to {frame.name}", file=sys.stderr, flush=True)
  if not names:
    raise ValueError(f"{arguments.frames}: holds no annotated panorama")
  summaries = {
    name: summarise(of_row, groups, videos, arguments.best) for name, of_row in figures.items()
  }
  report = {
    "table": table(list(summaries.items()), store.segmenter.name),
    "segmenter": store.segmenter.describe(),
    "least_score": arguments.least_score,
    "frames": names,
    "rows": [
      {"name": name, "seconds_a_frame": float(np.mean(seconds[name])), **summary}
      for name, summary in summaries.items()
    ],
    "seconds_a_view": store.seconds_a_view(),
  }
  if arguments.out:
    text = json.dumps(without_nan(report), indent=2, allow_nan=False) + "\n"
    write_atomically(expand(arguments.out), text.encode())
  return report


class FrameObjects:
  """The objects of a frame, made in all ways; what rows share is worked out once.

  Args:
    frame: with its truth.
    candidates: of all views, at min(H, `MAX_WORKING_HEIGHT`) rows.
    views: all of them.
  """

  def __init__(self, frame: Frame, candidates: Candidates, views: Sequence[View]):
    self._frame = frame
    self._candidates = candidates
    self._views = views
    self._full = len(frame.panorama)
    self._height = min(self._full, MAX_WORKING_HEIGHT)

  @functools.cached_property
  def _shared(self) -> np.ndarray:
    return PackedMasks(self._candidates.masks, self._height).overlaps()

  @functools.cached_property
  def _compared(self) -> Compared:
    return compare(self._frame.masks, self._unpacked(np.arange(len(self._candidates.scores))))

  def _unpacked(self, indices: np.ndarray) -> np.ndarray:
    """Masks of candidates at all rows of the panorama."""
    masks = unpack(self._candidates.masks[indices], self._height)
    if self._full > self._height:
      masks = unpack_masks(resample_masks(pack_masks(masks), self._full), 2 * self._full)
    return masks

  def of_row(self, row: Row, least_score: float) -> tuple[Compared, Callable[[], np.ndarray]]:
    """Makes the objects of a row.

    Returns:
      Those with a score that is high enough, best first, beside the truth; how to get their masks,
      [K, H, 2 H] bool.
    """
    chosen, indices = of_views(self._candidates, self._views, row.views, row.confidence)
    if row.way == "merge":
      objects = merge(
        chosen,
        fields_of(row.views, self._height),
        np.array([view.pixels_per_radian for view in row.views]),
        self._height,
        full_height=self._full,
      )
      masks = objects.masks[objects.scores >= least_score]
      return compare(self._frame.masks, masks), lambda: masks
    if row.way == "baseline":
      kept, scores = suppress(chosen, self._shared[np.ix_(indices, indices)])
    else:
      kept = np.argsort(-chosen.scores, kind="stable")
      scores = chosen.scores[kept]
    kept = indices[kept[scores >= least_score]]
    return self._compared.of(kept), lambda: self._unpacked(kept)


if __name__ == "__main__":
  main()
