"""Measures the merge on made-up scenes whose masks are corrupted as segmenters corrupt them.

  python -m foir360_jax.segment.study.corrupted --scenes=30
  python -m foir360_jax.segment.study.corrupted --correlation=.5    # errors alike in all views
  python -m foir360_jax.segment.study.corrupted --exact             # no faults

A row for each kind of scene: the share of objects found (IoU .9 by solid angle; .75 where they are
less than 8 pixels across), at IoU .9, .75 and .5, duplicates an object, false masks a scene, how
often a right result scores above another (AUC), seconds of the merge. With --data_dir also scenes
of a prepared data set, rendered ones of synthetic360 for example. Objects that cover the nadir are
taken for surroundings, and so are left out of the shares; how many is said.
"""

import argparse
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from foir360_jax.data import open_source
from foir360_jax.scenes import unpack_masks
from foir360_jax.segment.merge import MergeSettings, merge
from foir360_jax.segment.panorama import fields_of
from foir360_jax.segment.study.corruption import (
  Corruption,
  corrupted_candidates,
  exact_candidates,
  small_views,
)
from foir360_jax.segment.study.judge import judge
from foir360_jax.segment.study.scenes import KINDS, covers_nadir, made_up_scene
from foir360_jax.segment.views import MODES, View, plan_views

HEIGHT = 256
_PLANNED_HEIGHT = 512  # of the panoramas whose views are taken; their size is `VIEW_SIDE`
Scene = tuple[np.ndarray, tuple[str, ...]]


class Row(NamedTuple):
  """What a kind of scene gave; see the module."""

  kind: str
  objects: int
  at_nadir: int
  found: float
  at_90: float
  at_75: float
  at_50: float
  duplicates: float
  false: float
  auc: float
  merge_s: float


def main() -> None:
  """Measures and prints a row for each kind."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--scenes", type=int, default=30, help="a kind")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--views", default="full", choices=MODES)
  parser.add_argument("--exact", action="store_true", help="masks without faults")
  parser.add_argument("--correlation", type=float, default=0.0, help="of errors between views")
  parser.add_argument("--flat_score", type=float, default=1.0, help="factor of the flat panorama")
  parser.add_argument("--no_categories", action="store_true", help="of a class-agnostic segmenter")
  parser.add_argument("--threshold", type=float, default=0.35, help="least score of an object")
  parser.add_argument("--data_dir", help="also scenes of a prepared data set")
  parser.add_argument("--dataset", default="synthetic360/128x256")
  parser.add_argument("--split", default="validation")
  arguments = parser.parse_args()
  print("| kind | objects | found | .9 | .75 | .5 | duplicates | false | AUC | merge s |")
  print("|---|---|---|---|---|---|---|---|---|---|")
  try:
    for row in measure(arguments):
      note = f" ({row.at_nadir} at the nadir)" if row.at_nadir else ""
      shares = " | ".join(f"{share:.3f}" for share in row[3:7])
      print(
        f"| {row.kind} | {row.objects}{note} | {shares} | {row.duplicates:.3f} | {row.false:.2f} |"
        f" {row.auc:.3f} | {row.merge_s:.2f} |",
        flush=True,
      )
  except ValueError as error:
    sys.exit(f"error: {error}")


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
  """The rows of all kinds, by the command's arguments."""
  sources: dict[str, Any] = {
    kind: [_made_up(kind, arguments.seed + i) for i in range(arguments.scenes)] for kind in KINDS
  }
  if arguments.data_dir:
    sources[arguments.dataset] = _prepared(
      arguments.dataset, arguments.data_dir, arguments.split, arguments.scenes
    )
  views = small_views(plan_views(_PLANNED_HEIGHT, arguments.views))
  corruption = None
  if not arguments.exact:
    corruption = Corruption(correlation=arguments.correlation, flat_score=arguments.flat_score)
  settings = MergeSettings(least_score=arguments.threshold)
  for kind, scenes in sources.items():
    seeds = [[arguments.seed + i, zlib.crc32(kind.encode())] for i in range(len(scenes))]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    yield _row(
      kind, scenes, rngs, views, corruption, settings, categories=not arguments.no_categories
    )


def _row(
  kind: str,
  scenes: Sequence[Scene],
  rngs: Sequence[np.random.Generator],
  views: Sequence[View],
  corruption: Corruption | None,
  settings: MergeSettings,
  *,
  categories: bool,
) -> Row:
  fine = np.array([view.pixels_per_radian for view in views])
  found, iou, scores, right = [], [], [], []
  at_nadir = duplicates = false = objects = 0
  seconds = 0.0
  for (masks, names), rng in zip(scenes, rngs, strict=True):
    height = masks.shape[1]
    if not categories:
      names = ("",) * len(names)
    if corruption is None:
      candidates = exact_candidates(masks, names, views)
    else:
      candidates = corrupted_candidates(rng, masks, names, views, corruption)
      if not categories:
        candidates = candidates._replace(categories=("",) * len(candidates.scores))
    start = time.process_time()
    merged = merge(candidates, fields_of(views, height), fine, height, settings=settings)
    seconds += time.process_time() - start
    judged = judge(merged.masks, masks)
    kept = np.ones(len(masks), bool)
    if settings.surroundings is not None:
      kept = ~covers_nadir(masks, settings.surroundings.nadir_deg)
    found.append(judged.found[kept])
    iou.append(judged.iou[kept])
    scores.append(merged.scores)
    right.append(judged.right)
    objects += len(masks)
    at_nadir += int((~kept).sum())
    duplicates += int(judged.duplicate.sum())
    false += int(judged.false.sum())
  every_iou = np.concatenate(iou)
  return Row(
    kind=kind,
    objects=objects,
    at_nadir=at_nadir,
    found=float(np.concatenate(found).mean()),
    at_90=float((every_iou >= 0.9).mean()),
    at_75=float((every_iou >= 0.75).mean()),
    at_50=float((every_iou >= 0.5).mean()),
    duplicates=duplicates / max(objects, 1),
    false=false / len(scenes),
    auc=_auc(np.concatenate(scores), np.concatenate(right)),
    merge_s=seconds / len(scenes),
  )


def _auc(scores: np.ndarray, right: np.ndarray) -> float:
  """The share of pairs of a right and a wrong result in the right order; 1 where there is none."""
  pairs = scores[right][:, None] > scores[~right]
  return float(pairs.mean()) if pairs.size else 1.0


def _made_up(kind: str, seed: int) -> Scene:
  return made_up_scene(np.random.default_rng([seed, zlib.crc32(kind.encode()), 1]), kind, HEIGHT)


def _prepared(name: str, data_dir: str, split: str, count: int) -> list[Scene]:
  source = open_source(name, data_dir, f"{split}[:{count}]")
  scenes = []
  for index in range(len(source)):
    example = source[index]
    masks = unpack_masks(example["masks"], 2 * example["masks"].shape[1])
    names = tuple(source.category_names[number] for number in example["category"])
    scenes.append((masks, names))
  return scenes


if __name__ == "__main__":
  main()
