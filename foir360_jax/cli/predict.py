"""`foir360 predict`: a trained run ranks the objects of new panoramas."""

import os
import types

from ml_collections import ConfigDict

from foir360_jax.cli.check import need_task, validate
from foir360_jax.cli.flags import UsageError
from foir360_jax.cli.progress import progress_bar
from foir360_jax.compilation import keep_compiled_programs
from foir360_jax.inference.folder_runner import Summary
from foir360_jax.inference.predict import load_ranker, predict_folder, rank_provided_masks
from foir360_jax.paths import expand
from foir360_jax.train.run import check_same_model

_OF_PREDICTED_MASKS = ("confidence_threshold", "stop_margin")


def run(flags: types.SimpleNamespace) -> int:
  """Runs the command; returns its exit code."""
  for name in _OF_PREDICTED_MASKS:
    if flags.rank_masks and name in flags.given:
      raise UsageError(
        f"--{name} says nothing to --rank_masks, which ranks all masks; leave it out"
      )
  if flags.overwrite and flags.skip_done:
    raise UsageError("--overwrite and --skip_done contradict each other; leave one out")
  summary = predict(
    flags.config,
    flags.workdir,
    flags.input,
    flags.output,
    rank_masks=flags.rank_masks,
    overwrite=flags.overwrite,
    confidence_threshold=flags.confidence_threshold,
    stop_margin=flags.stop_margin,
    yaw_augmentation=flags.yaw_augmentation,
  )
  return 1 if summary.bad else 0


def predict(
  config: ConfigDict | None,
  workdir: str | os.PathLike,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  rank_masks: bool = False,
  overwrite: bool = False,
  confidence_threshold: float | None = None,
  stop_margin: float | None = None,
  yaw_augmentation: int | None = None,
) -> Summary:
  """Ranks new panoramas with the run in `workdir`.

  Args:
    config: None, or the one that the run was trained with: its folder knows all that is needed.
    workdir: the run.
    input_path: a picture or a folder of pictures; with `rank_masks` a folder with masks.
    output: folder for the results.
    rank_masks: rank the masks that are there, rather than predict them.
    overwrite: replace results that are there already.
    confidence_threshold: in place of the one that evaluation tuned, as for the next two.
    stop_margin: see `Decision`.
    yaw_augmentation: number of rotated copies of a picture to average.

  Returns:
    What became of the pictures.
  """
  keep_compiled_programs()
  workdir = expand(workdir)
  if config is not None:
    validate(config)
    need_task(config, "predict", "ranking")
    check_same_model(config, workdir)
  ranker = load_ranker(
    workdir,
    rank_masks=rank_masks,
    confidence_threshold=confidence_threshold,
    stop_margin=stop_margin,
    yaw_augmentation=yaw_augmentation,
  )
  rank = rank_provided_masks if rank_masks else predict_folder
  with progress_bar("ranking") as show:
    return rank(ranker, input_path, output, overwrite=overwrite, show=show)
