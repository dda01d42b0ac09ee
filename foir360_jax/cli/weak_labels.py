"""`foir360 weak-labels`: a folder of panoramas with masks, ranked without annotators."""

import functools
import os
import types

from ml_collections import ConfigDict

from foir360_jax.cli.check import need_task, validate
from foir360_jax.cli.progress import progress_bar
from foir360_jax.compilation import keep_compiled_programs
from foir360_jax.config import weak_labels_config
from foir360_jax.inference.folder_runner import Summary
from foir360_jax.inference.weak_labels import label_folder
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.rank import WeakRanker


def run(flags: types.SimpleNamespace) -> int:
  """Runs the command; returns its exit code."""
  summary = weak_labels(
    flags.config, flags.input, flags.output, saliency=flags.saliency, overwrite=flags.overwrite
  )
  return 1 if summary.bad else 0


def weak_labels(
  config: ConfigDict | None,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  saliency: str | None = None,
  overwrite: bool = False,
) -> Summary:
  """Ranks a folder of panoramas with masks without annotators.

  Args:
    config: of the task "weak_labels"; None: the defaults.
    input_path: see `label_folder`; this and the next.
    output: see there.
    saliency: in place of the config's.
    overwrite: see there.

  Returns:
    What became of the panoramas.
  """
  config = weak_labels_config() if config is None else config
  need_task(config, "weak-labels", "weak_labels")
  if saliency is not None:
    config.saliency = saliency
  validate(config)
  keep_compiled_programs()
  strategy = Strategy(**{name: config[name] for name in Strategy._fields})
  with progress_bar("ranking") as show:
    return label_folder(
      WeakRanker(config.saliency, strategy=strategy),
      input_path,
      output,
      batch_size=config.batch_size,
      overwrite=overwrite,
      overlays=config.overlays,
      say=functools.partial(print, flush=True),
      show=show,
    )
