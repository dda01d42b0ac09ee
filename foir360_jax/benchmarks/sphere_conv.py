"""The spherical convolution against its opponents: `python -m foir360_jax.benchmarks.sphere_conv`.

Prints a table a case and the goals; `--out=FILE` writes the figures as JSON. All contestants of a
case take turns in one process. PyTorch and XLA use all threads.
"""

import argparse
import sys
from collections.abc import Sequence

from foir360_jax.benchmarks.cases import PASSES, Case
from foir360_jax.benchmarks.goals import GOAL_COLUMNS, convolution_goals
from foir360_jax.benchmarks.options import comma_separated, one_of
from foir360_jax.benchmarks.race import CONTESTANTS, FORCED, OURS, opponents, peak_mib, race
from foir360_jax.benchmarks.record import describe, environment, text_table, write_json

MAIN_CASES = ("conv3-2x128x256x64", "conv3-2x64x128x128", "conv3-2x32x64x256")
_FURTHER_CASES = (
  "conv5-2x64x128x128",
  "conv3s2-2x64x128x128",
  "depthwise3-2x64x128x128",
  "depthwise5-2x64x128x128",
  "depthwise3-2x128x256x64",
  "depthwise5-2x128x256x64",
)
COLUMNS = {
  "case": "",
  "pass": "",
  "contestant": "",
  "min_ms": ".2f",
  "median_ms": ".2f",
  "ratio": ".2f",
  "error": ".0e",
  "compile_s": ".2f",
  "temporary_mib": ".0f",
  "peak_mib": ".0f",
}


def main(argv: Sequence[str] | None = None) -> None:
  """The command."""
  options = _parse(argv)
  names = [OURS, *opponents(), *(FORCED if options.formulations else ())]
  if options.only:
    names = [name for name in names if name in options.only]
    if not names:
      sys.exit(
        "--only leaves no contestant: PyTorch's need torch (extra bench), forced ones"
        " --formulations"
      )
  about = environment()
  print(describe(about), flush=True)
  rows = []
  for case in options.shapes:
    limits = dict(rounds=options.rounds, budget_s=options.budget_s)
    group = list(race(case, names, options.passes, **limits))
    if options.peak_memory:
      for row in group:
        row["peak_mib"] = peak_mib(row["contestant"], case, row["pass"] == PASSES[1])
    print(f"\n{text_table(group, COLUMNS)}", flush=True)
    rows += group
  goals = convolution_goals(rows)
  print(f"\n{text_table(goals, GOAL_COLUMNS)}")
  if options.out:
    write_json(options.out, {"environment": about, "rows": rows, "goals": goals})


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
  parser.add_argument(
    "--shapes",
    type=comma_separated(Case.parse),
    help="cases, as the first column names them, with commas",
  )
  parser.add_argument(
    "--only",
    type=comma_separated(one_of(CONTESTANTS)),
    help="contestants, as the third column names them, with commas",
  )
  parser.add_argument("--pass", dest="passes", choices=PASSES, help="default both")
  parser.add_argument(
    "--formulations", action="store_true", help="each formulation of ours as well"
  )
  parser.add_argument("--quick", action="store_true", help="main shapes, 5 rounds, no peak memory")
  parser.add_argument("--rounds", type=int, help="default 15")
  parser.add_argument("--budget_s", type=float, default=60.0, help="seconds for each pass")
  parser.add_argument("--out", help="JSON file")
  options = parser.parse_args(argv)
  options.passes = [options.passes] if options.passes else PASSES
  options.peak_memory = not options.quick
  options.rounds = options.rounds or (5 if options.quick else 15)
  usual = MAIN_CASES if options.quick else MAIN_CASES + _FURTHER_CASES
  options.shapes = options.shapes or [Case.parse(name) for name in usual]
  return options


if __name__ == "__main__":
  main()
