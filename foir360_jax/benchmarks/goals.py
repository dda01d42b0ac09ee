"""The project's goals for its convolutions and losses, and whether measured rows reach them.

Goals hold for ratios within one race on two CPU threads, where absolute times mean little.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from foir360_jax.benchmarks.cases import PASSES, Case
from foir360_jax.benchmarks.race import OURS, PLANAR, TORCH_PLANAR, TORCH_SPHERE

GOAL_COLUMNS = {"goal": "", "asked": "", "measured": ".3g", "verdict": ""}
FORWARD, BOTH = PASSES
_LOSS_GOALS = {  # least times as fast as rax, and the stretch goal
  "pairwise_logistic": (6.0, 10.0),
  "lambdarank": (4.0, 8.0),
  "approx_ndcg": (4.0, 8.0),
  "softmax": (2.0, 3.0),
  "listmle": (1.0, 1.5),
}
QUADRATIC_LOSSES = ("pairwise_logistic", "pairwise_hinge", "lambdarank", "approx_ndcg")


class Goal(NamedTuple):
  """A limit on one measured figure; `stretch` goes beyond what is asked for."""

  goal: str
  measured: float
  limit: float
  stretch: float | None = None
  at_most: bool = True

  @property
  def verdict(self) -> str:
    """stretch, pass or MISSED."""
    sign = 1 if self.at_most else -1
    if self.stretch is not None and sign * self.measured <= sign * self.stretch:
      return "stretch"
    return "pass" if sign * self.measured <= sign * self.limit else "MISSED"

  def row(self) -> dict[str, Any]:
    """The goal as a row of a table."""
    sense = "<=" if self.at_most else ">="
    stretch = "" if self.stretch is None else f" (stretch {self.stretch:g})"
    return {
      "goal": self.goal,
      "asked": f"{sense} {self.limit:g}{stretch}",
      "measured": self.measured,
      "verdict": self.verdict,
    }


def convolution_goals(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """The goals that the rows of `race` speak to: full 3x3 convolutions at stride 1, float32."""
  by_key = {(row["case"], row["pass"], row["contestant"]): row for row in rows}
  names = dict.fromkeys(case for case, _, contestant in by_key if contestant == OURS)
  cases = [Case.parse(name) for name in names]
  goals = []
  for case in (case for case in cases if (case.size, case.stride, case.depthwise) == (3, 1, False)):
    for name in PASSES:
      goals += _goals_of_case(case, name, by_key)
  worst = max(
    (row["error"] for key, row in by_key.items() if key[1:] == (FORWARD, OURS)), default=None
  )
  if worst is not None:
    goals.append(Goal("largest forward error", worst, 1e-6))
  return [goal.row() for goal in goals]


def _goals_of_case(case: Case, name: str, by_key: Mapping[tuple, Mapping]) -> list[Goal]:
  ours = by_key.get((case.name, name, OURS))
  if ours is None:
    return []
  narrow, both, goals = case.channels < 128, name == BOTH, []

  def times(opponent: str) -> float | None:
    """How many times as fast ours is."""
    row = by_key.get((case.name, name, opponent))
    return None if row is None else row["min_ms"] / ours["min_ms"]

  where = f"{case.name} {name}"
  if planar := times(PLANAR):
    limits = (
      ((1.6, 1.25) if narrow else (1.1, 0.8)) if both else ((3.2, 2.2) if narrow else (2.2, 1.6))
    )
    goals.append(Goal(f"{where}: time / {PLANAR}'s", 1 / planar, *limits))
  if peer := times(TORCH_SPHERE):
    limits = (2.3, 3.5) if both else (1.4, 2.2)
    goals.append(Goal(f"{where}: {TORCH_SPHERE}'s time / ours", peer, *limits, at_most=False))
  if both and (planar := times(TORCH_PLANAR)):
    goals.append(Goal(f"{where}: time / {TORCH_PLANAR}'s", 1 / planar, 2.0))
  peer_peak = by_key.get((case.name, name, TORCH_SPHERE), {}).get("peak_mib")
  if both and peer_peak and ours.get("peak_mib"):
    goals.append(
      Goal(f"{where}: peak memory / {TORCH_SPHERE}'s", ours["peak_mib"] / peer_peak, 0.75)
    )
  if both and case.height == 128:
    goals.append(Goal(f"{where}: compile s", ours["compile_s"], 1.5))
  return goals


def loss_goals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """The goals for rows of the race of losses, at [16, 1024] against rax."""
  goals = []
  for row in (row for row in rows if row["shape"] == "16x1024" and row["speedup"] is not None):
    name = row["loss"]
    if name in _LOSS_GOALS:
      limits = _LOSS_GOALS[name]
      goals.append(Goal(f"{name}: times as fast as rax", row["speedup"], *limits, at_most=False))
    if name in QUADRATIC_LOSSES and row["memory_ratio"]:
      what = f"{name}: rax's temporary memory / ours"
      goals.append(Goal(what, row["memory_ratio"], 50.0, at_most=False))
  return [goal.row() for goal in goals]
