"""Which candidates are objects: thresholds tuned on validation and kept in the checkpoint.

Detections are filtered by a confidence threshold, and by the margin at which the recurrent module
stops. Both are chosen together, by the predicted masks.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np

from foir360_jax.files import write_atomically

NEVER = -100.0
"""A margin below all others: the recurrent module never stops before the last candidate."""

_FILE = "decision.json"
_RENAMED = {"turns": "yaw_augmentation"}  # in checkpoints of version 0.1.0


class Decision(NamedTuple):
  """The thresholds; the defaults are those of runs that were never evaluated.

  Attributes:
    confidence_threshold: candidates of at most this detection confidence are left out, in [0, 1).
    stop_margin: the recurrent module stops before the first object that it prefers to stopping by
      at most this much, in logits.
    yaw_augmentation: number of rotated copies of a picture with which they were chosen, see
      `PanoRank.encode`.
  """

  confidence_threshold: float = 0.3
  stop_margin: float = NEVER
  yaw_augmentation: int = 1

  def keeps(self, confidence: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Bool `[m]` for the confidence and the margin `[m]` of candidates."""
    return (confidence > self.confidence_threshold) & (margin > self.stop_margin)

  def save(self, checkpoint: pathlib.Path) -> bool:
    """Puts the decision into the folder of a checkpoint; False if that is there no more."""
    if not checkpoint.is_dir():
      return False
    text = json.dumps(self._asdict(), indent=2) + "\n"
    write_atomically(checkpoint / _FILE, text.encode())
    return True

  @staticmethod
  def is_chosen(checkpoint: pathlib.Path) -> bool:
    """Whether a checkpoint has one."""
    return (checkpoint / _FILE).is_file()

  @classmethod
  def load(cls, checkpoint: pathlib.Path) -> Self:
    """Reads the decision of a checkpoint; the defaults, where none was made yet."""
    file = checkpoint / _FILE
    if not file.is_file():
      return cls()
    return cls(**{_RENAMED.get(name, name): x for name, x in json.loads(file.read_text()).items()})


def choose(
  thresholds: Sequence[float],
  stop_margins: Sequence[float],
  score: Callable[[int, float], float],
) -> tuple[int, float, dict[str, dict[str, float]]]:
  """Tries all pairs.

  Args:
    thresholds: of confidence.
    stop_margins: see `Decision`.
    score: of the index of a threshold and a margin; higher is better, nan is none.

  Returns:
    the index of the best threshold, the best margin, and the scores by margin and threshold. Of
    equal ones the first.
  """
  curves = [[score(level, margin) for level in range(len(thresholds))] for margin in stop_margins]
  table = np.array(curves, float)
  best = 0 if np.isnan(table).all() else int(np.nanargmax(table))
  row, level = divmod(best, table.shape[1])
  named = {
    f"{margin:g}": dict(zip(map(str, thresholds), curve, strict=True))
    for margin, curve in zip(stop_margins, curves, strict=True)
  }
  return level, float(stop_margins[row]), named
