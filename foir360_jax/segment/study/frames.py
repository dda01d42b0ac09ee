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
from foir360_jax.segment.study.baseline import candidate_overlaps, suppress, unpack
from foir360_jax.segment.study.candidates import MAX_WORKING_HEIGHT, CandidateStore, of_views
from foir360_jax.segment.study.measure import FrameFigures, measure_frame, summarise, table
from foir360_jax.segment.study.truth import read_frames
from foir360_jax.segment.view_masks import view_fields
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
    candidates = store.find(frame.name, frame.panorama, views)
    for row in rows:
      chosen = of_views(candidates, views, row.views, row.confidence)
      start = time.perf_counter()
      masks, scores = make_objects(row.way, chosen, row.views, len(frame.panorama))
      seconds.setdefault(row.name, []).append(time.perf_counter() - start)
      masks = masks[scores >= arguments.least_score]
      figures.setdefault(row.name, []).append(measure_frame(frame.masks, masks, arguments.best))
      if arguments.overlays:
        file = f"{frame.name}_{row.way}_{row.label}_{row.confidence:g}.png"
        drawn = Drawn(masks, np.arange(1, len(masks) + 1))
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


def make_objects(
  way: str, candidates: Candidates, views: Sequence[View], height: int
) -> tuple[np.ndarray, np.ndarray]:
  """Makes objects of candidates.

  Args:
    way: one of `WAYS`.
    candidates: at min(height, `MAX_WORKING_HEIGHT`) rows.
    views: all that were looked at.
    height: rows of the panorama.

  Returns:
    Masks [K, H, 2 H] bool, best first; their scores [K].
  """
  working = min(height, MAX_WORKING_HEIGHT)
  if way == "merge":
    objects = merge(
      candidates,
      view_fields(views, working),
      np.array([view.pixels_per_radian for view in views], np.float32),
      working,
      full_height=height,
    )
    return objects.masks, objects.scores
  masks = unpack(candidates.masks, working)
  if way == "baseline":
    kept, scores = suppress(candidates, candidate_overlaps(masks))
  else:
    kept = np.argsort(-candidates.scores, kind="stable")
    scores = candidates.scores[kept]
  masks = masks[kept]
  if height > working:
    masks = unpack_masks(resample_masks(pack_masks(masks), height), 2 * height)
  return masks, scores


if __name__ == "__main__":
  main()
