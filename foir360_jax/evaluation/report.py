"""Writes an evaluation's report: `metrics.json`, a table and a sheet of pictures."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from foir360_jax.data.source import PreparedSource
from foir360_jax.drawing.evaluation_sheet import SheetRow, evaluation_sheet
from foir360_jax.evaluation.baselines import TITLES
from foir360_jax.evaluation.evaluate import ImageResult
from foir360_jax.evaluation.recall_by_place import PLACES
from foir360_jax.files import save_image, write_atomically
from foir360_jax.files.json_file import without_nan
from foir360_jax.inference.decision import NEVER
from foir360_jax.inference.ranker import Ranker
from foir360_jax.metrics import ranks_from_relevance, sa_sor
from foir360_jax.scenes.packed_masks import unpack_masks

_ROWS = (
  ("model", "model"),
  ("rank_head_alone", "  its rank head without the REM"),
  *TITLES.items(),
  ("ceiling", "ceiling (noiseless importance)"),
)
_CRITERIA = {"sa_sor": "SA-SOR", "f1": "F1"}


def table(report: dict[str, Any]) -> str:
  """The report as text: SA-SOR of each ranker on ground-truth and on predicted masks."""
  truth, predicted = report["ground_truth_masks"], report.get("predicted_masks", {})
  column = "masks and categories" if report["condition_on_categories"] else "ground-truth masks"
  lines = [f"{'SA-SOR, mean [95 % interval]':34}{column:>24}{'predicted masks':>24}"]
  for key, title in _ROWS:
    if key in truth:
      lines.append(f"{title:34}{_cell(truth[key]):>24}{_cell(predicted.get(key)):>24}")
  if "gap_closed" in truth:
    shares = (part.get("gap_closed") for part in (truth, predicted))
    cells = ("-" if share is None else f"{share:.3f}" for share in shares)
    lines.append(f"{'share of the gap closed':34}" + "".join(f"{cell:>24}" for cell in cells))
  if not predicted:
    return "\n".join([*lines, f"{report['images']} images; the model does not detect objects"])
  counts = predicted["model"]
  lines.append(
    f"{report['images']} images: predicted masks used {counts['images_used']},"
    f" skipped {counts['images_skipped']}, undefined {counts['images_undefined']},"
    f" counted as zero {counts['images_counted_zero']}\n"
    f"detection confidence above {report['confidence_threshold']:g}, {_stop(report['stop_margin'])}"
    f" (chosen on {report['validation_split']} by {_CRITERIA[report['chosen_by']]}),"
    f" IoU {predicted['iou_threshold']:g}: recall {predicted['recall']:.3f},"
    f" F1 {predicted['f1']:.3f}, {predicted['predictions_per_image']:.1f} objects an image for"
    f" {predicted['objects_per_image']:.1f} in the ground truth"
  )
  for name, title in PLACES.items():
    here = predicted["recall_by_place"][name]
    if here["objects"]:
      low, high = here["interval_95"]
      share = f"{here['recall']:.3f} [{low:.3f}, {high:.3f}]"
      lines.append(f"  recall {title:34}{share:>22} of {here['objects']} objects")
  return "\n".join(lines)


def write_report(
  report: dict[str, Any],
  results: Sequence[ImageResult],
  workdir: pathlib.Path,
  *,
  ranker: Ranker,
  source: PreparedSource,
  sheet_images: int,
) -> None:
  """Writes `metrics.json`, `per_image.jsonl` and `evaluation.png` into the run's folder.

  Args:
    report: from `evaluate`.
    results: from `evaluate`; their scores allow paired comparisons between runs.
    workdir: the run's folder.
    ranker: draws the predicted ranks of the sheet.
    source: the split that was evaluated.
    sheet_images: rows of the sheet.
  """
  text = json.dumps(without_nan(report), indent=2, allow_nan=False, default=float)
  write_atomically(workdir / "metrics.json", (text + "\n").encode())
  rows = (
    {"index": result.index} | {name: float(score.value) for name, score in result.scores.items()}
    for result in results
  )
  lines = "".join(json.dumps(without_nan(row), allow_nan=False) + "\n" for row in rows)
  write_atomically(workdir / "per_image.jsonl", lines.encode())
  iou_threshold = report.get("predicted_masks", {}).get("iou_threshold", 0.5)
  sheet = [
    _sheet_row(source[index], source.category_names, ranker, iou_threshold)
    for index in range(min(sheet_images, len(source)))
  ]
  save_image(workdir / "evaluation.png", evaluation_sheet(sheet))


def _sheet_row(
  example: dict[str, Any], names: Sequence[str], ranker: Ranker, iou_threshold: float
) -> SheetRow:
  masks = unpack_masks(example["masks"], example["image"].shape[1])
  if ranker.detects:
    ranked = ranker(example["image"])
  else:
    numbers = example.get("category", np.full(len(masks), -1))
    categories = [names[number] if 0 <= number < len(names) else "" for number in numbers]
    ranked = ranker.rank_masks(example["image"], masks, categories=categories)
  score = sa_sor(
    masks,
    example["importance"],
    ranked.masks,
    ranked.importance,
    iou_threshold=iou_threshold,
  )
  return SheetRow(
    image_id=example["image_id"],
    panorama=example["image"],
    true_masks=masks,
    true_ranks=ranks_from_relevance(example["importance"]),
    predicted_masks=ranked.masks,
    predicted_ranks=ranked.ranks,
    sa_sor=None if np.isnan(score.value) else score.value,
  )


def _stop(margin: float) -> str:
  return "all of them picked" if margin == NEVER else f"picks stop at a margin of {margin:g}"


def _cell(summary: dict[str, Any] | None) -> str:
  if summary is None:
    return "-"
  low, high = summary["interval_95"]
  return f"{summary['mean']:.3f} [{low:.3f}, {high:.3f}]"
