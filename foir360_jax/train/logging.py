"""Logging of a run: a progress line, `metrics.jsonl` and TensorBoard.

Knows nothing of devices: it is given metrics that are on the host.
"""

import datetime
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorboardX import SummaryWriter


def summarize(window: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Returns the means over the steps of a window.

  Args:
    window: what `train_step` gave at each step, on the host; at least one step.

  Returns:
    `loss`, `gradient_norm` and `parameter_norm`, means over the steps, and `terms/NAME`, the sum
    of the term's sums by the sum of its counts; terms that counted nothing are left out.

  Example:
    >>> metrics = {"loss": 2.0, "gradient_norm": 1.0, "parameter_norm": 3.0}
    >>> first, second = {"terms": {"dice": (1.0, 1)}}, {"terms": {"dice": (1.0, 3)}}
    >>> summarize([metrics | first, metrics | second])["terms/dice"]
    0.5
  """
  keys = ("loss", "gradient_norm", "parameter_norm")
  row = {key: math.fsum(float(metrics[key]) for metrics in window) / len(window) for key in keys}
  for term in window[0]["terms"]:
    total, count = (
      math.fsum(float(metrics["terms"][term][i]) for metrics in window) for i in (0, 1)
    )
    if count:
      row[f"terms/{term}"] = total / count
  return row


def progress_line(
  step: int, steps: int, row: Mapping[str, float], terms: Iterable[str], seconds_left: float
) -> str:
  """Returns one line for people.

  Example:
    >>> row = {"loss": 1.5, "terms/dice": 0.25, "images_per_second": 34.0}
    >>> progress_line(50, 1500, row, ["dice", "rank"], seconds_left=341.2)
    'step 50/1500  loss 1.5  dice 0.25  34.0 images/s  0:05:41 left'
  """
  shown = [f"{term} {row[f'terms/{term}']:.4g}" for term in terms if f"terms/{term}" in row]
  left = datetime.timedelta(seconds=round(max(seconds_left, 0.0)))
  parts = [f"step {step}/{steps}", f"loss {row['loss']:.4g}", *shown]
  return "  ".join([*parts, f"{row['images_per_second']:.1f} images/s", f"{left} left"])


class MetricsLog:
  """Writes rows of metrics to `WORKDIR/metrics.jsonl` and `WORKDIR/tensorboard`; a context manager.

  Args:
    workdir: the run's folder; it must exist.
    step: the step from which the run goes on. What an earlier, interrupted run wrote beyond it is
      dropped, so each step stands there once.
  """

  def __init__(self, workdir: str | pathlib.Path, step: int):
    path = pathlib.Path(workdir) / "metrics.jsonl"
    kept = [line for line in _lines(path) if (made := _step(line)) is not None and made <= step]
    replacement = path.with_suffix(".jsonl.tmp")
    replacement.write_text("".join(kept))
    replacement.replace(path)  # at once: a kill in between loses nothing
    self._file = path.open("a")
    self._tensorboard = SummaryWriter(
      str(path.with_name("tensorboard")), purge_step=step + 1 if step else None
    )

  def __enter__(self) -> "MetricsLog":
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()
    self._tensorboard.close()

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Appends a row, readable at once."""
    print(json.dumps({"step": step, **row}), file=self._file, flush=True)
    for key, value in row.items():
      self._tensorboard.add_scalar(key, value, step)
    self._tensorboard.flush()


def _lines(path: pathlib.Path) -> list[str]:
  return path.read_text().splitlines(keepends=True) if path.exists() else []


def _step(line: str) -> int | None:
  """The step of a row; None for the half line that a killed run leaves."""
  try:
    return json.loads(line)["step"] if line.endswith("\n") else None
  except json.JSONDecodeError:
    return None
