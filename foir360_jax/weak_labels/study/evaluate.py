"""Evaluates the weak labels against people's ranks and synthetic360's rule, beside baselines.

The method beside simple baselines and beside itself without one of its parts, on pictures that
neither the readout nor the object score has seen: the test parts of `fixations/crowd` (people) and
of `synthetic360/128x256` (a stated rule), and, with `--scenes`, any folder of ranked panoramas.
Given masks throughout. SA-SOR (rule "irsr"), the share of pairs in the right order, and the paired
difference between the method and each of the others, all with 95 % bootstrap intervals.

  python -m foir360_jax.weak_labels.study.evaluate --data_dir=data --out=weak_labels.json

Figures for development, on train, tune and validation, are printed by `fit_object_score`.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from foir360_jax.files import write_atomically
from foir360_jax.files.json_file import without_nan
from foir360_jax.saliency.build import NAMES, build_saliency
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.study.judge import judge, table, values_of
from foir360_jax.weak_labels.study.sources import FACES, PANORAMAS, measure_folder, measure_prepared
from foir360_jax.weak_labels.study.variants import VARIANTS


def main():
  """Measures, prints the tables, writes the JSON."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data_dir", default="data", help="folder of the prepared data sets")
  parser.add_argument("--out", required=True, help="JSON file for all figures")
  parser.add_argument("--saliency", default="learned", choices=NAMES)
  parser.add_argument("--scenes", help="also a folder of ranked panoramas, of any format")
  parser.add_argument(
    "--groups",
    default=".*",
    help="regular expression: what begins an id of --scenes and is its group",
  )
  arguments = parser.parse_args()
  report: dict[str, Any] = {"saliency": arguments.saliency, "sources": {}}
  try:
    for source, figures in measure_and_judge(arguments):
      print(table(source, figures), flush=True)
      report["sources"][source] = figures
      text = json.dumps(without_nan(report), indent=2, allow_nan=False) + "\n"
      write_atomically(arguments.out, text.encode())
  except (ValueError, re.error) as error:
    sys.exit(f"error: {error}")
  print(f"wrote {arguments.out}")


def measure_and_judge(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
  """The figures of each source; a folder of the user's first, which may be at fault."""
  name = arguments.saliency
  scores = {variant: ObjectScore.load(name, variant) for variant in VARIANTS}
  saliency, strategy, score = build_saliency(name), Strategy(), scores["full"]
  if arguments.scenes:
    re.compile(arguments.groups)
    examples = measure_folder(
      arguments.scenes, saliency=saliency, strategy=strategy, object_score=score
    )
    groups = [group_of(example.name, arguments.groups) for example in examples]
    yield arguments.scenes, judge(examples, values_of(examples, scores), groups)
  for source in (FACES, PANORAMAS):
    examples = measure_prepared(
      source,
      arguments.data_dir,
      "test",
      saliency=saliency,
      strategy=strategy,
      object_score=score,
    )
    yield source, judge(examples, values_of(examples, scores))


def group_of(name: str, pattern: str) -> str:
  """What the pattern finds at the start of an id; an id without it is a group by itself.

  >>> group_of("choir_3", r".*(?=_)"), group_of("room", r".*(?=_)")
  ('choir', 'room')
  """
  found = re.match(pattern, name)
  return found.group() if found else name


if __name__ == "__main__":
  main()
