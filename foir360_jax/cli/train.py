"""`foir360 train`: a configuration in, a trained and evaluated run out."""

import os
import types

from ml_collections import ConfigDict

from foir360_jax.cli.check import need_task, validate
from foir360_jax.cli.evaluate import evaluate_run
from foir360_jax.cli.progress import progress_bar
from foir360_jax.compilation import keep_compiled_programs
from foir360_jax.paths import expand
from foir360_jax.saliency.fixations.run import train_fixation
from foir360_jax.segment.training.run import train_segmenter
from foir360_jax.train.run import train_ranking

_TRAIN = {"ranking": train_ranking, "fixation": train_fixation, "segmenter": train_segmenter}


def run(flags: types.SimpleNamespace) -> int:
  """Runs the command; returns its exit code."""
  train_and_evaluate(flags.config, flags.workdir)
  return 0


def train_and_evaluate(config: ConfigDict, workdir: str | os.PathLike) -> None:
  """Trains (or resumes) the run in `workdir`, then evaluates it."""
  validate(config)
  need_task(config, "train", "ranking", "fixation", "segmenter")
  keep_compiled_programs()
  train = _TRAIN[config.task]
  with progress_bar("training") as show:
    train(config, expand(workdir), show=show)
  evaluate_run(config, workdir)
