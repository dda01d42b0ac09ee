"""`foir360 evaluate`: a trained run measured; a table, and its files."""

import os
import types

from ml_collections import ConfigDict

from foir360_jax.cli.check import need_task, validate
from foir360_jax.cli.progress import progress_bar
from foir360_jax.compilation import keep_compiled_programs
from foir360_jax.evaluation.run import evaluate_ranking
from foir360_jax.paths import expand
from foir360_jax.saliency.fixations.run import evaluate_fixation
from foir360_jax.segment.training.run import evaluate_segmenter

_EVALUATE = {
  "ranking": evaluate_ranking,
  "fixation": evaluate_fixation,
  "segmenter": evaluate_segmenter,
}


def run(flags: types.SimpleNamespace) -> int:
  """Runs the command; returns its exit code."""
  evaluate_run(flags.config, flags.workdir)
  return 0


def evaluate_run(config: ConfigDict, workdir: str | os.PathLike) -> None:
  """Evaluates the run in `workdir`: a table, and its files."""
  validate(config)
  need_task(config, "evaluate", "ranking", "fixation", "segmenter")
  keep_compiled_programs()
  evaluate = _EVALUATE[config.task]
  with progress_bar("evaluating") as show:
    evaluate(config, expand(workdir), show=show)
