"""The pictures with a known order on which weak labels are fitted and judged, measured.

Where `evaluation.object_score` and `evaluation.weak_labels` get their examples from.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from foir360_jax.data import open_source
from foir360_jax.formats import open_scenes, read_panorama
from foir360_jax.weak_labels.examples import (
  Example,
  Labelled,
  measure_faces,
  measure_panoramas,
  read_faces,
  read_panoramas,
)
from foir360_jax.weak_labels.local import Saliency
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import Strategy

FACES = "fixations/crowd"


def measure_prepared(
  name: str,
  data_dir: str,
  split: str,
  *,
  saliency: Saliency,
  strategy: Strategy,
  object_score: ObjectScore,
) -> list[Example]:
  """Measures a split of a prepared data set: `FACES`, or one of panoramas with ranks.

  Raises:
    ValueError: the data set is missing.
  """
  source = open_source(name, data_dir, split)
  method = {"saliency": saliency, "strategy": strategy, "object_score": object_score}
  if name == FACES:
    return list(measure_faces(read_faces(source), **method))
  return list(measure_panoramas(read_panoramas(source), **method))


def measure_folder(
  folder: str | pathlib.Path,
  *,
  saliency: Saliency,
  strategy: Strategy,
  object_score: ObjectScore,
) -> list[Example]:
  """Measures the ranked panoramas of a folder of any format that `formats.open_scenes` reads.

  Raises:
    SceneError: the folder or one of its scenes cannot be used.
  """
  method = {"saliency": saliency, "strategy": strategy, "object_score": object_score}
  return list(measure_panoramas(_ranked_scenes(folder), **method))


def _ranked_scenes(folder: str | pathlib.Path) -> Iterator[Labelled]:
  for scene in open_scenes(folder):
    if len(scene.objects) >= 2 and scene.is_ranked and scene.image_file is not None:
      panorama = read_panorama(scene.image_file)
      masks = scene.masks()
      place = np.zeros((len(masks), 2))
      yield Labelled(scene.id, panorama, masks, np.asarray(scene.relevance()), place)
