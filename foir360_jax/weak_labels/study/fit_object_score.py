"""Fits the coefficients of the object score of the weak labels.

Writes the coefficients of the method and of each variant of it, fitted on the faces of
`fixations/crowd` (train and tune), which people ranked, and on the first 100 panoramas of the
validation split of `synthetic360/128x256`, which have objects of all kinds all over the sphere. For
the prior both weigh alike; for local scores the panoramas weigh a tenth, since what draws the eye
is to be learned from people. The weights of prior and views are chosen on the faces and the next
100. The test parts are not opened.

A readout knows where people looked in the pictures that it was trained on, so that its saliency
would be trusted more there than it deserves. So each face is measured by a readout that has not
seen its picture: the folds that a run of `configs/fixation.py` leaves.

At last it tells how well that does on faces to which it was not fitted, with coefficients fitted on
four fifths of the pictures and judged on the last, and on the panoramas by which only weights were
chosen. The fifths are not those folds: the readouts that measured all others would then have
learned from the very pictures of the last, and corrections fitted to them go the other way.

  foir360 prepare --dataset=fixations/crowd --manual_dir=CROWD --data_dir=data
  foir360 prepare --dataset=fixations/osie --manual_dir=OSIE --data_dir=data
  foir360 prepare --dataset=synthetic360/128x256 --data_dir=data
  foir360 train --config=configs/fixation.py --workdir=runs/fixation \
    --config.data.train_split=train+tune --config.data.folds=3
  python -m foir360_jax.weak_labels.study.fit_object_score --data_dir=data --readouts=runs/fixation
"""

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np

from foir360_jax.files import write_atomically
from foir360_jax.paths import expand
from foir360_jax.saliency.build import NAMES, build_saliency
from foir360_jax.weak_labels.object_score import (
  COEFFICIENTS,
  LOCAL_TERMS,
  PRIOR_TERMS,
  SALIENCY_SUM,
  ObjectScore,
)
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.study.examples import Example
from foir360_jax.weak_labels.study.fit import fit_object_score
from foir360_jax.weak_labels.study.judge import judge, table, values_of
from foir360_jax.weak_labels.study.sources import (
  FACES,
  PANORAMAS,
  measure_prepared,
  measure_unseen_faces,
)
from foir360_jax.weak_labels.study.variants import VARIANTS

LOCAL_WEIGHTS = {FACES: 0.9, PANORAMAS: 0.1}
FACES_SPLIT = "train+tune"
PANORAMAS_SPLITS = ("validation[:100]", "validation[100:200]")  # to fit, to choose weights
FIFTHS = 5
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
STRATEGY = Strategy()


def main():
  """Measures, fits, and writes; coefficients of other saliency models in the file stay."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data_dir", default="data", help="folder of the prepared data sets")
  parser.add_argument("--out", default=str(COEFFICIENTS), help="file of coefficients to write")
  parser.add_argument("--saliency", nargs="+", default=list(NAMES), choices=NAMES)
  parser.add_argument(
    "--readouts",
    default="runs/fixation",
    help="for saliency learned: the run of configs/fixation.py, with folds, that gave the readout",
  )
  arguments = parser.parse_args()
  path = expand(arguments.out)
  content = json.loads(path.read_text()) if path.is_file() else {}
  try:
    for name in arguments.saliency:
      faces = measure_ranked_faces(name, arguments.data_dir, arguments.readouts)
      panoramas = measure_ranked_panoramas(name, arguments.data_dir)
      scores = fit_variants(faces, panoramas)
      content[name] = {variant: score.to_json() for variant, score in scores.items()}
      write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
      print(f"wrote {name} to {path}", flush=True)
      print(cross_validate(faces, panoramas), flush=True)
      chosen_by = panoramas[1]
      figures = judge(chosen_by, values_of(chosen_by, scores))
      print(table(f"{PANORAMAS} {PANORAMAS_SPLITS[1]}", figures), flush=True)
  except ValueError as error:
    sys.exit(f"error: {error}")


def measure_ranked_faces(saliency_name: str, data_dir: str, readouts: str) -> list[Example]:
  """The faces, by a saliency that has not seen their pictures."""
  if saliency_name == "learned":
    faces = measure_unseen_faces(
      readouts, data_dir, FACES_SPLIT, strategy=STRATEGY, object_score=START
    )
  else:
    saliency = build_saliency(saliency_name)
    faces = measure_prepared(
      FACES, data_dir, FACES_SPLIT, saliency=saliency, strategy=STRATEGY, object_score=START
    )
  print(f"{saliency_name}: measured {len(faces)} pictures of {FACES} {FACES_SPLIT}", flush=True)
  return faces


def measure_ranked_panoramas(saliency_name: str, data_dir: str) -> list[list[Example]]:
  """The panoramas to fit to, and those to choose weights by."""
  saliency = build_saliency(saliency_name)
  return [
    measure_prepared(
      PANORAMAS, data_dir, split, saliency=saliency, strategy=STRATEGY, object_score=START
    )
    for split in PANORAMAS_SPLITS
  ]


def fit_variants(
  faces: Sequence[Example], panoramas: Sequence[Sequence[Example]]
) -> dict[str, ObjectScore]:
  """The coefficients of every variant."""
  train, tune = ({FACES: faces, PANORAMAS: part} for part in panoramas)
  return {
    name: fit_object_score(train, tune, variant, local_weights=LOCAL_WEIGHTS)
    for name, variant in VARIANTS.items()
  }


def cross_validate(faces: Sequence[Example], panoramas: Sequence[Sequence[Example]]) -> str:
  """The table of figures on each fifth of the faces, by coefficients fitted to the others."""
  order = np.random.default_rng(0).permutation(len(faces))
  judged: list[Example] = []
  values: dict[str, list] = {name: [] for name in VARIANTS}
  for part in np.array_split(order, FIFTHS):
    left_out = [faces[index] for index in part.tolist()]
    others = [faces[index] for index in np.setdiff1d(order, part).tolist()]
    for name, of_part in values_of(left_out, fit_variants(others, panoramas)).items():
      values[name] += of_part
    judged += left_out
  return table(f"{FACES} {FACES_SPLIT}, in {FIFTHS} parts", judge(judged, values))


if __name__ == "__main__":
  main()
