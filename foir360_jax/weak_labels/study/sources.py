"""Where examples come from: prepared data sets, and folders of ranked panoramas.

Where `weak_labels.study.fit_object_score` and `weak_labels.study.evaluate` get their examples from.
"""

import functools
import json
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from foir360_jax.data import open_source
from foir360_jax.files import read_panorama
from foir360_jax.files.panorama_file import stretch_with_masks
from foir360_jax.inference.described_scene import check_scene
from foir360_jax.models.pretrained import load_efficientnet_lite0
from foir360_jax.saliency import LearnedSaliency, load_readout
from foir360_jax.saliency.fixations.pictures import fold_of
from foir360_jax.saliency.readout_file import COMMITTED, file_of_run, read_tensors
from foir360_jax.scenes import SceneError, open_scenes
from foir360_jax.weak_labels.local import Saliency
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.study.examples import (
  Example,
  Labelled,
  measure_faces,
  measure_panoramas,
  read_faces,
  read_panoramas,
)

FACES = "fixations/crowd"
PANORAMAS = "synthetic360/128x256"


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
  measure = (
    functools.partial(measure_faces, read_faces(source))
    if name == FACES
    else functools.partial(measure_panoramas, read_panoramas(source))
  )
  return list(measure(saliency=saliency, strategy=strategy, object_score=object_score))


def measure_unseen_faces(
  readouts: str | pathlib.Path,
  data_dir: str,
  split: str,
  *,
  strategy: Strategy,
  object_score: ObjectScore,
) -> list[Example]:
  """Measures the ranked faces of a split, each by the readout that has not seen its picture.

  Args:
    readouts: a run of configs/fixation.py with folds; its readout must be the committed one.
    data_dir: folder of the prepared data sets.
    split: of `FACES`; pictures of the run.
    strategy: how views are ranked.
    object_score: gives what is erased first.

  Raises:
    ValueError: the data set or a readout is missing, or the run is of another readout.
  """
  tensors, metadata = read_tensors(file_of_run(readouts))
  committed, _ = read_tensors(COMMITTED)
  if tensors.keys() != committed.keys() or any(
    not np.array_equal(tensors[name], committed[name]) for name in tensors
  ):
    raise ValueError(
      f"{file_of_run(readouts)}: is not the readout that is used, {COMMITTED.name}; copy it there"
      " first, or name the run that it comes from: --readouts=FOLDER"
    )
  folds = json.loads(metadata["settings"])["data"].get("folds", 0)
  if not folds:
    raise ValueError(f"{readouts}: a run without folds; train with --config.data.folds=3")
  source = open_source(FACES, data_dir, split)
  backbone = load_efficientnet_lite0(padding="zero")
  examples: list[Example] = []
  for fold in range(folds):
    examples += measure_faces(
      _of_fold(read_faces(source), fold, folds),
      saliency=LearnedSaliency(backbone, load_readout(file_of_run(readouts, fold))),
      strategy=strategy,
      object_score=object_score,
    )
    print(f"measured {len(examples)} pictures, to fold {fold} of {folds}", flush=True)
  return examples


def measure_folder(
  folder: str | pathlib.Path,
  *,
  saliency: Saliency,
  strategy: Strategy,
  object_score: ObjectScore,
) -> list[Example]:
  """Measures the ranked panoramas of a folder of any format that `scenes.open_scenes` reads.

  Raises:
    SceneError: the folder or one of its scenes cannot be used, or nothing in it is ranked.
  """
  scenes = _ranked_scenes(folder)
  examples = list(
    measure_panoramas(scenes, saliency=saliency, strategy=strategy, object_score=object_score)
  )
  if not examples:
    raise SceneError(f"{folder}: holds no panorama with a picture and two ranked objects")
  return examples


def _of_fold(pictures: Iterable[Labelled], fold: int, folds: int) -> Iterator[Labelled]:
  return (picture for picture in pictures if fold_of(picture.name, folds) == fold)


def _ranked_scenes(folder: str | pathlib.Path) -> Iterator[Labelled]:
  for scene in (scene.without_crowds() for scene in open_scenes(folder)):
    if len(scene.objects) >= 2 and scene.is_ranked and scene.image_file is not None:
      check_scene(scene, scene.image_file)
      panorama, masks = stretch_with_masks(read_panorama(scene.image_file), scene.masks())
      place = np.zeros((len(masks), 2))
      yield Labelled(scene.id, panorama, masks, np.asarray(scene.relevance()), place)
