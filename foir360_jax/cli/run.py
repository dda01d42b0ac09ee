"""The entry points behind the command line: a configuration in, a trained and evaluated run out.

What they do is in `train.run`, `evaluation.run` and `saliency.fixations.run`.
"""

import functools
import json
import os
import pathlib
import signal
from collections.abc import Mapping

import jax
from ml_collections import ConfigDict

from foir360_jax.benchmarks.throughput import throughput
from foir360_jax.cli.check import validate
from foir360_jax.config import weak_labels_config
from foir360_jax.evaluation.run import evaluate_ranking
from foir360_jax.files import write_atomically
from foir360_jax.inference.predict import load_ranker, predict_folder, rank_folder_masks
from foir360_jax.inference.weak_labels import label_folder
from foir360_jax.saliency.fixations.run import evaluate_fixation, train_fixation
from foir360_jax.train.run import check_same_model, train_ranking
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.rank import WeakRanker


def train_and_evaluate(config: ConfigDict, workdir: str) -> None:
  """Trains (or resumes) the run in `workdir`, then evaluates it."""
  validate(config)
  _use_compilation_cache()
  if config.task == "fixation":
    train_fixation(config, workdir)
  else:
    _need_task(config, "ranking")
    train_ranking(config, workdir)
  evaluate_run(config, workdir)


def evaluate_run(config: ConfigDict, workdir: str) -> None:
  """Evaluates the run in `workdir`: a table, and its files."""
  validate(config)
  _use_compilation_cache()
  if config.task == "fixation":
    evaluate_fixation(config, workdir)
  else:
    _need_task(config, "ranking")
    evaluate_ranking(config, workdir)


def predict(
  config: ConfigDict | None,
  workdir: str,
  input_path: str,
  output: str,
  *,
  rank_masks: bool,
  overwrite: bool,
  skip_done: bool,
  limits: Mapping[str, float | int | None],
) -> int:
  """Ranks new panoramas with the run in `workdir`; returns the number of those that failed.

  Args:
    config: None, or the one that the run was trained with: its folder knows all that is needed.
    workdir: the run.
    input_path: a picture or a folder of pictures; with `rank_masks` a folder with masks.
    output: folder for the results.
    rank_masks: rank the masks that are there, rather than find objects.
    overwrite: replace results that are there already.
    skip_done: leave out panoramas that have results.
    limits: see `Ranker.load`.
  """
  _use_compilation_cache()
  if config is not None:
    validate(config)
    _need_task(config, "ranking")
    check_same_model(config, pathlib.Path(workdir))
  ranker = load_ranker(pathlib.Path(workdir), rank_masks, limits)
  rank = rank_folder_masks if rank_masks else predict_folder
  return rank(ranker, input_path, output, overwrite=overwrite, skip_done=skip_done)


def weak_labels(
  config: ConfigDict | None,
  input_path: str,
  output: str,
  *,
  saliency: str | None,
  overwrite: bool,
) -> int:
  """Ranks a folder of panoramas with masks without annotators; returns the number of bad ones.

  Args:
    config: of the task "weak_labels"; None: the defaults.
    input_path: see `label_folder`; this and the next.
    output: see there.
    saliency: in place of the config's.
    overwrite: see there.
  """
  config = weak_labels_config() if config is None else config
  if config.task != "weak_labels":
    raise ValueError(
      f"--mode=weak_labels needs --config=configs/weak_labels.py or none, not one of {config.task}"
    )
  if saliency is not None:
    config.saliency = saliency
  validate(config)
  _use_compilation_cache()
  strategy = Strategy(**{name: config[name] for name in Strategy._fields})
  ranker = WeakRanker(config.saliency, strategy=strategy)
  try:
    summary = label_folder(
      ranker,
      input_path,
      output,
      batch_size=config.batch_size,
      overwrite=overwrite,
      overlays=config.overlays,
      say=functools.partial(print, flush=True),
    )
  except KeyboardInterrupt:
    raise SystemExit(128 + signal.SIGINT) from None
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise ValueError(
      "the device has too little memory: lower config.batch_size or config.views_at_once"
    ) from error
  return len(summary.bad)


def benchmark(config: ConfigDict, workdir: str) -> None:
  """Measures speed and memory: a table, as text and as JSON, in `workdir`. Needs no data set."""
  validate(config)
  if config.task != "ranking":
    raise ValueError(f"--mode=benchmark measures the task ranking, not {config.task}")
  report, text = throughput(config.to_dict(), **config.benchmark)
  if jax.process_index() > 0:
    return
  folder = pathlib.Path(workdir)
  write_atomically(folder / "benchmark.json", (json.dumps(report, indent=2) + "\n").encode())
  write_atomically(folder / "benchmark.txt", text.encode())
  print(f"{text}wrote benchmark.json and benchmark.txt into {folder}")


def _need_task(config: ConfigDict, task: str) -> None:
  if config.task != task:
    raise ValueError(f"this --mode is not for a config of the task {config.task}; give its --mode")


def _use_compilation_cache() -> None:
  """Compiled programs are kept between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache."""
  if not jax.config.jax_compilation_cache_dir:
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache) / "foir360_jax"))
