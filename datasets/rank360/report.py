"""The report of `--check`: what is wrong in a folder and what its labels look like, as text.

`page` makes the HTML with pictures of the same.
"""

import collections
import os
import pathlib

import numpy as np

from foir360_jax.files import write_atomically
from rank360.checks import ERROR, NOTE
from rank360.page import build_page
from rank360.review import Review
from rank360.statistics import Statistics, measure_labels

TEXT_FILE, PAGE_FILE = "report.txt", "report.html"


def write_report(review: Review, output: str | os.PathLike) -> str:
  """Writes `report.txt` and `report.html` into a folder and returns the text."""
  labels = measure_labels(review)
  text = report_text(review, labels)
  write_atomically(pathlib.Path(output) / TEXT_FILE, text.encode(errors="backslashreplace"))
  write_atomically(
    pathlib.Path(output) / PAGE_FILE, build_page(review, labels).encode(errors="backslashreplace")
  )
  return text


def report_text(review: Review, labels: Statistics) -> str:
  """Returns the report as text: counts, every finding in a line, the labels in numbers."""
  errors, notes = list(review.findings(ERROR)), list(review.findings(NOTE))
  lines = [
    f"{review.path}: {review.format}, {len(review.records)} records, {len(review.good)} good, "
    f"{len(review.bad)} bad ({len(errors)} errors, {len(notes)} notes)",
    f"splits by {review.split_rule}",
    *(f"note: {note}" for note in review.notes),
    "of the good records: " + ", ".join(f"{name} {n}" for name, n in labels.splits.items()),
  ]
  for severity, findings in (("errors", errors), ("notes", notes)):
    kinds = collections.Counter(finding.kind for finding in findings).most_common()
    lines += ["", f"{severity}: " + (", ".join(f"{kind} {n}" for kind, n in kinds) or "none")]
    lines += [f"  {finding.line()}" for finding in findings]
  return "\n".join([*lines, "", *label_lines(labels), ""])


def label_lines(labels: Statistics) -> list[str]:
  """Returns the statistics of the good records, a line each."""
  counts = labels.objects_per_image
  if not counts.sum():
    return ["no objects in good records"]
  ranks = ", ".join(f"{rank}: {count}" for rank, count in labels.rank_counts.items())
  categories = ", ".join(f"{name} {count}" for name, count in labels.categories.items())
  return [
    f"objects: {counts.sum()} in {len(counts)} pictures, {counts.min()} to {counts.max()}, "
    f"median {np.median(counts):g}; {labels.tied_objects} share a rank",
    f"objects of each rank: {ranks}",
    f"categories: {categories}",
    f"importance and nearness to the horizon, {_correlation(labels.by_latitude)}",
    f"importance and solid angle, {_correlation(labels.by_area)}",
  ]


def _correlation(values: np.ndarray) -> str:
  if not len(values):
    return "Spearman's rho: no picture with two objects to order"
  low, high = np.percentile(values, [10, 90])
  return (
    f"Spearman's rho in {len(values)} pictures: mean {values.mean():.3f} "
    f"(10th to 90th percentile {low:.3f} to {high:.3f})"
  )
