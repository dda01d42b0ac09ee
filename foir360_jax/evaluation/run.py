"""Evaluates a run of PanoRank: loads its newest checkpoint, writes table and report."""

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from foir360_jax.batch import Batch
from foir360_jax.compilation import compiling
from foir360_jax.data import build_evaluation_batches, open_source
from foir360_jax.evaluation.evaluate import evaluate
from foir360_jax.evaluation.report import table, write_report
from foir360_jax.inference import Decision, Ranker
from foir360_jax.models import build_model
from foir360_jax.objective import learns_detection
from foir360_jax.train.checkpoint import newest_checkpoint, restore_model
from foir360_jax.train.run import check_same_model
from foir360_jax.train.settings import load_settings


def evaluate_ranking(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  show: Callable[[float, float], None] | None = None,
) -> None:
  """Evaluates the newest checkpoint: a table, and the files of `write_report`.

  Args:
    config: the run's.
    workdir: the run.
    show: takes the number of pictures that are measured, and of all, validation included.
  """
  folder = pathlib.Path(workdir)
  check_same_model(config, folder)
  checkpoint = newest_checkpoint(folder / "checkpoints")  # a training may go on meanwhile
  model = restore_model(
    checkpoint.parent, nnx.eval_shape(lambda: build_model(config)), step=int(checkpoint.name)
  )
  source = open_source(config.data.name, config.data.data_dir, config.data.test_split)
  # In the order of their numbers in the model.
  trained_names = tuple((load_settings(folder) or {}).get("category_names", source.category_names))
  splits = config.data.validation_split, config.data.test_split
  validation, test = (build_evaluation_batches(config, split) for split in splits)
  if show:
    tuning = open_source(config.data.name, config.data.data_dir, config.data.validation_split)
    validation, test = _shown([validation, test], len(tuning) + len(source), show)
  if jax.process_index() == 0:
    print(compiling("the evaluation"), flush=True)
  report, results = evaluate(
    model,
    validation,
    test,
    categories=_numbers(source.category_names, trained_names),
    thresholds=config.evaluate.confidence_thresholds,
    stop_margins=config.evaluate.stop_margins,
    choose_by=config.evaluate.choose_by,
    yaw_augmentation=config.evaluate.yaw_augmentation,
    detects=learns_detection(config.loss),
    iou_threshold=config.evaluate.iou_threshold,
  )
  report = {
    "data": config.data.name,
    "split": config.data.test_split,
    "validation_split": config.data.validation_split,
    "height": config.data.height,
  } | report
  if jax.process_index() > 0:  # the first process writes for all
    return
  print(table(report))
  detects = "predicted_masks" in report
  decision = Decision(yaw_augmentation=config.evaluate.yaw_augmentation)
  if detects:
    decision = Decision(*(report[name] for name in Decision._fields))
  if not decision.save(checkpoint):
    print(
      f"{checkpoint} was deleted meanwhile: the thresholds above are kept in metrics.json alone"
    )
  ranker = Ranker(
    model,
    height=config.data.height,
    category_names=trained_names,
    decision=decision,
    detects=detects,
  )
  write_report(
    report,
    results,
    folder,
    ranker=ranker,
    source=source,
    sheet_images=config.evaluate.sheet_images,
  )
  print(f"wrote metrics.json, per_image.jsonl and evaluation.png into {folder}")


def _shown(
  parts: Sequence[Iterable[Batch]], total: int, show: Callable[[float, float], None]
) -> Iterator[Iterator[Batch]]:
  """The same batches; `show` is told of each when the next one is asked for."""
  done = 0

  def batches(part: Iterable[Batch]) -> Iterator[Batch]:
    nonlocal done
    for batch in part:
      yield batch
      done += int(np.count_nonzero(batch["example_where"]))
      show(done, total)

  return map(batches, parts)


def _numbers(names: tuple[str, ...], trained: tuple[str, ...]) -> list[int] | None:
  """Maps a data set's categories to the model's; None where they have no names."""
  return [trained.index(name) if name in trained else -1 for name in names] or None
