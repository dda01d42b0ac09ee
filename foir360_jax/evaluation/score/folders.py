"""Scores two folders of ranked objects, picture by picture, in parallel and in bounded memory.

Between `scenes`, which reads the folders, and `report`. A process
holds the lists of the folders and the masks of one picture, cut to their boxes. Axes: masks [H, W].
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from foir360_jax.files.panorama_file import is_panorama
from foir360_jax.files.placement import read_placement
from foir360_jax.metrics import (
  CroppedMasks,
  MaskMatches,
  Score,
  mask_iou,
  match_masks,
  recall_at_iou,
  sa_sor_from_iou,
  score_image,
)
from foir360_jax.scenes import RunLengths, Scene, SceneError, SceneFolder, open_scenes
from foir360_jax.scenes.folder import place_objects
from foir360_jax.sphere import pixel_areas

_CHUNK = 8  # pictures that a process is handed at once


@dataclasses.dataclass(frozen=True)
class Source:
  """A folder as the command line names it; the fields are those of `open_scenes`."""

  path: str
  format: str | None = None
  rank_field: str | None = None

  def open(self) -> SceneFolder:
    """Opens the folder. Pictures are not decoded: only annotations are compared."""
    return open_scenes(
      self.path, format=self.format, rank_field=self.rank_field, check_pictures=False
    )


@dataclasses.dataclass(frozen=True)
class PairScorer:
  """Scores the pictures of one folder of truth and one of predictions.

  Attributes:
    truth: the true objects.
    predictions: the predicted ones.
    weighted: compute the variants that weight pixels by solid angle, too.
    iou_thresholds: overlaps at which SA-SOR and recall are computed besides those of
      `score_image`, as `sa_sor_irsr_at_0.75` and so on.
  """

  truth: SceneFolder
  predictions: SceneFolder
  weighted: bool = False
  iou_thresholds: tuple[float, ...] = ()

  def __call__(self, scene_id: str) -> "ScoredImage":
    """Scores one picture; where there is no prediction of it, as one without objects.

    Raises:
      ValueError: it cannot be read or compared; one line says why.
    """
    scene = self.truth.read(scene_id)
    if scene_id in self.predictions.records:
      predicted = self.predictions.read(scene_id)
    else:
      predicted = dataclasses.replace(scene, objects=(), notes=())
    predicted = _placed_as(scene, predicted)
    size, predicted_size = ((s.height, s.width) for s in (scene, predicted))
    if size != predicted_size:
      raise SceneError(
        f"{scene_id}: the truth has {size[1]} x {size[0]} pixels, the prediction "
        f"{predicted_size[1]} x {predicted_size[0]}; resample the predicted masks (nearest pixel)"
      )
    if self.weighted and not is_panorama(*size):
      raise SceneError(
        f"{scene_id}: {size[1]} x {size[0]} is not 2:1, the pixels have no known solid angle; "
        "leave --weighted out"
      )
    scene, predicted = scene.without_crowds(), predicted.without_crowds()
    relevance = _relevance(self.truth, scene)
    # Ranks are the order within a picture: importance may tie by rounding.
    values = _relevance(self.predictions, predicted)
    confidence = _detection_confidence(predicted)
    true_masks, masks = _cropped(scene), _cropped(predicted)
    iou = mask_iou(true_masks, masks)
    weights = pixel_areas(size[0])[:, :1] if self.weighted else None
    scores = score_image(true_masks, relevance, masks, values, pixel_weights=weights, iou=iou)
    for threshold in self.iou_thresholds:
      for rule in ("irsr", "seqrank"):
        scores[f"sa_sor_{rule}_at_{threshold:g}"] = sa_sor_from_iou(
          iou, relevance, values, iou_threshold=threshold, rule=rule
        )
      scores[f"recall_at_{threshold:g}"] = recall_at_iou(iou, threshold)
    return ScoredImage(
      id=scene_id,
      scores=scores,
      matches=match_masks(iou, predicted.importance()),
      matches_by_confidence=None if confidence is None else match_masks(iou, confidence),
      num_predictions=len(masks),
      notes=(
        *(f"truth: {note}" for note in scene.notes),
        *(f"prediction: {note}" for note in predicted.notes),
      ),
    )


@dataclasses.dataclass(frozen=True)
class ScoredImage:
  """Scores of one picture, without its masks.

  Attributes:
    id: its id.
    scores: a score by name of metric.
    matches: for AP and AR, by importance; knows the number of true objects, too.
    matches_by_confidence: the same by detection confidence; None where the prediction has none.
    num_predictions: predicted objects.
    notes: what a person should look at, one line each.
  """

  id: str
  scores: dict[str, Score]
  matches: MaskMatches
  matches_by_confidence: MaskMatches | None
  num_predictions: int
  notes: tuple[str, ...] = ()


def score_scenes(
  truth: Source,
  predictions: Source,
  scene_ids: Sequence[str],
  *,
  workers: int = 1,
  weighted: bool = False,
  iou_thresholds: Sequence[float] = (),
) -> Iterator[tuple[str, ScoredImage | str]]:
  """Yields each id with its scores, or with a line that says why it has none, in the given order.

  Args:
    truth: the folder of the true objects.
    predictions: the folder of the predicted ones.
    scene_ids: ids of `truth`; those that `predictions` lacks count as predictions without objects.
    workers: processes; 1 works in this one. The scores do not depend on it.
    weighted: see `PairScorer`.
    iou_thresholds: see `PairScorer`.

  Raises:
    SceneError: a folder cannot be opened.
  """
  arguments = truth, predictions, weighted, tuple(iou_thresholds)
  workers = min(workers, -(-len(scene_ids) // _CHUNK))
  with contextlib.ExitStack() as stack:
    if workers > 1:
      pool = concurrent.futures.ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # JAX, once imported, forbids to fork
        initializer=_start_worker,
        initargs=arguments,
      )
      stack.callback(pool.shutdown, cancel_futures=True)
      results = pool.map(_score_in_worker, scene_ids, chunksize=_CHUNK)
    else:
      results = map(functools.partial(_score_or_reason, _make_scorer(*arguments)), scene_ids)
    yield from zip(scene_ids, results, strict=True)


_worker_scorer: PairScorer | None = None


def _start_worker(*arguments: Any) -> None:
  global _worker_scorer  # a folder's readers are closures, which no queue carries
  _worker_scorer = _make_scorer(*arguments)


def _score_in_worker(scene_id: str) -> ScoredImage | str:
  assert _worker_scorer is not None  # the pool has called `_start_worker`
  return _score_or_reason(_worker_scorer, scene_id)


def _make_scorer(
  truth: Source, predictions: Source, weighted: bool, iou_thresholds: tuple[float, ...]
) -> PairScorer:
  return PairScorer(truth.open(), predictions.open(), weighted, iou_thresholds)


def _score_or_reason(scorer: PairScorer, scene_id: str) -> ScoredImage | str:
  try:
    return scorer(scene_id)
  except SceneError as error:
    return str(error)
  except (ValueError, OSError, MemoryError) as error:  # the other pictures may still do
    return f"{scene_id}: {type(error).__name__}: {error}"


def _placed_as(scene: Scene, predicted: Scene) -> Scene:
  """Places predictions that count the pixels of a part of the sphere as the truth's picture is.

  Other systems do not know that it is one, and their results have no picture beside them.
  """
  size = predicted.height, predicted.width
  if scene.image_file is None or size == (scene.height, scene.width):
    return predicted
  placement = read_placement(scene.image_file, whole=False)
  if not placement.fits(size):
    return predicted
  height, width = placement.size
  objects = place_objects(predicted.objects, placement)
  return dataclasses.replace(predicted, height=height, width=width, objects=objects)


def _detection_confidence(scene: Scene) -> list[float] | None:
  """How surely each prediction is an object; None where one of them does not say.

  `score` is what COCO's results call it; in other formats it may mean anything.
  """
  for name in ("detection_confidence", *(["score"] if scene.format == "coco" else [])):
    values: list[Any] = [item.extra.get(name) for item in scene.objects]
    if all(isinstance(value, int | float) and np.isfinite(value) for value in values):
      return [float(value) for value in values]
  return None


def _relevance(folder: SceneFolder, scene: Scene) -> np.ndarray:
  try:
    return scene.relevance()
  except SceneError as error:
    raise SceneError(f"{folder.path}: {error}") from error


def _cropped(scene: Scene) -> CroppedMasks:
  """Returns what `crop_masks` makes of the masks of a scene, without unpacking them whole."""
  cut = [_crop(item.run_lengths) for item in scene.objects]
  boxes = np.array([box for box, _ in cut], int).reshape(-1, 4)
  crops = [crop for _, crop in cut]
  areas = np.array([np.count_nonzero(crop) for crop in crops], int)
  return CroppedMasks((scene.height, scene.width), boxes, tuple(crops), areas)


def _crop(run_lengths: RunLengths) -> tuple[tuple[int, int, int, int], np.ndarray]:
  """Returns the box (top, bottom, left, right) of a mask and what lies in it [h, w] bool.

  >>> mask = np.zeros([4, 8], bool)
  >>> mask[1:3, 5] = True
  >>> _crop(RunLengths.from_mask(mask))[0]
  (1, 3, 5, 6)
  """
  height, runs = run_lengths.height, run_lengths.runs()
  runs = runs[: len(runs) // 2 * 2]  # without the background after the last pixel
  left, right = int(runs[0]) // height, -(-int(runs.sum()) // height)
  # Runs go down the columns: only those of the box are unpacked, filled up at the end.
  runs[0] -= left * height
  runs = np.append(runs, (right - left) * height - runs.sum())
  columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(right - left, height)
  rows = np.flatnonzero(columns.any(axis=0))
  top, bottom = int(rows[0]), int(rows[-1]) + 1
  return (top, bottom, left, right), np.ascontiguousarray(columns[:, top:bottom].T)
