"""Fits the object score of the weak labels: `python -m foir360_jax.evaluation.object_score`.

Writes the coefficients of the method and of each variant of it. Local scores are fitted on the tune
part of `fixations/crowd` alone: what draws the eye is learned from people. The prior is fitted on
the same and on the first 100 panoramas of the validation split of `synthetic360/128x256`, which
weigh alike and have objects all over the sphere; its weight is chosen on the tune part and the next
100. The test parts are not opened. Nor is the train part of `crowd` of use here: the readout knows
where people looked in those pictures, so that its saliency would be trusted more than it deserves.

  python datasets/prepare.py --dataset=fixations/crowd --manual_dir=CROWD --data_dir=data
  python datasets/prepare.py --dataset=synthetic360/128x256 --data_dir=data
  python -m foir360_jax.evaluation.object_score --data_dir=data
"""

import argparse
import functools
import json
import pathlib
import sys

from foir360_jax.evaluation.weak_examples import FACES, measure_prepared
from foir360_jax.formats import write_atomically
from foir360_jax.saliency.build import NAMES, build_saliency
from foir360_jax.weak_labels.examples import Example
from foir360_jax.weak_labels.fit import fit_object_score
from foir360_jax.weak_labels.object_score import (
  COEFFICIENTS,
  LOCAL_TERMS,
  PRIOR_TERMS,
  SALIENCY_SUM,
  ObjectScore,
)
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.variants import VARIANTS

PANORAMAS = "synthetic360/128x256"
LOCAL_FROM = (FACES,)
SPLITS = {
  FACES: ("tune", "tune"),
  PANORAMAS: ("validation[:100]", "validation[100:200]"),
}
# Measurements depend on its `erasing` alone, which is not fitted.
START = ObjectScore(
  erasing=SALIENCY_SUM,
  local_views=(0.0,) * len(LOCAL_TERMS),
  local_whole=(0.0,) * len(LOCAL_TERMS),
  prior=(0.0,) * len(PRIOR_TERMS),
  prior_weight=1.0,
  whole_weight=1.0,
  slope=1.0,
  intercept=0.0,
)


def main():
  """Measures, fits, and writes; coefficients of other saliency models in the file stay."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data_dir", default="data", help="folder of the prepared data sets")
  parser.add_argument("--out", default=str(COEFFICIENTS), help="file of coefficients to write")
  parser.add_argument("--saliency", nargs="+", default=list(NAMES), choices=NAMES)
  arguments = parser.parse_args()
  path = pathlib.Path(arguments.out)
  content = json.loads(path.read_text()) if path.is_file() else {}
  try:
    for name in arguments.saliency:
      content[name] = fit_variants(name, arguments.data_dir)
      write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
      print(f"wrote {name} to {path}", flush=True)
  except ValueError as error:
    sys.exit(f"error: {error}")


def fit_variants(saliency_name: str, data_dir: str) -> dict:
  """Returns the coefficients of every variant, as they stand in the file."""
  saliency = build_saliency(saliency_name)

  @functools.cache
  def measured(name: str, split: str) -> list[Example]:
    examples = measure_prepared(
      name, data_dir, split, saliency=saliency, strategy=Strategy(), object_score=START
    )
    print(f"{saliency_name}: measured {len(examples)} pictures of {name} {split}", flush=True)
    return examples

  parts = [
    {name: measured(name, splits[index]) for name, splits in SPLITS.items()} for index in range(2)
  ]
  return {
    name: fit_object_score(*parts, variant, local_from=LOCAL_FROM).to_json()
    for name, variant in VARIANTS.items()
  }


if __name__ == "__main__":
  main()
