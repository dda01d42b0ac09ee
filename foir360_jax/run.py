"""The entry points behind the command line: a configuration in, a trained and evaluated run out.

Those of the task "ranking" are here; for the task "fixation" they call `run_fixation`.
"""

import functools
import json
import os
import pathlib
import signal

import jax
from flax import nnx
from ml_collections import ConfigDict

from foir360_jax.benchmarks.throughput import throughput
from foir360_jax.config import validate, weak_labels_config
from foir360_jax.data import build_evaluation_batches, build_training_batches, open_source
from foir360_jax.evaluation.decision import Decision
from foir360_jax.evaluation.evaluate import evaluate
from foir360_jax.evaluation.predict import predict_folder, rank_given_masks
from foir360_jax.evaluation.ranker import Ranker
from foir360_jax.evaluation.report import table, write_report
from foir360_jax.formats import write_atomically
from foir360_jax.models import build_model, build_objective, learns_to_find
from foir360_jax.models.pretrained import load_encoder_weights
from foir360_jax.run_fixation import evaluate_fixation, train_fixation
from foir360_jax.train import build_optimizer, create_state
from foir360_jax.train.checkpoint import has_checkpoint, restore_model, start_from
from foir360_jax.train.loop import train
from foir360_jax.weak_labels.folder import label_folder
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
    _train_ranking(config, workdir)
  evaluate_run(config, workdir)


def _train_ranking(config: ConfigDict, workdir: str) -> None:
  data = config.data
  category_names = open_source(data.name, data.data_dir, data.train_split).category_names
  if len(category_names) > config.model.num_categories:
    raise ValueError(
      f"{data.name} has {len(category_names)} categories: set config.model.num_categories to at"
      f" least that, not {config.model.num_categories}"
    )
  optimizer = build_optimizer(**config.optimizer)
  model = nnx.jit(lambda: build_model(config))()  # one program rather than one a parameter
  if not has_checkpoint(pathlib.Path(workdir) / "checkpoints"):  # else the run goes on from there
    _initialise(model, config)
  graphdef, state = create_state(model, optimizer)
  objective, weights = build_objective(config)
  train(
    graphdef=graphdef,
    state=state,
    optimizer=optimizer,
    objective=objective,
    weights=weights,
    batches=build_training_batches(config),
    workdir=workdir,
    batch_size=data.batch_size,
    config=config.to_dict() | {"category_names": list(category_names)},
    **config.train,
  )


def _initialise(model: nnx.Module, config: ConfigDict) -> None:
  """Replaces random parameters by those that the configuration names; says which stay random."""
  if config.encoder_weights:
    report = load_encoder_weights(model.encoder, config.encoder_weights)
    print(f"encoder, {config.encoder_weights}: {report}", flush=True)
  if config.init_from:
    copied, new = start_from(pathlib.Path(config.init_from) / "checkpoints", model)
    kept = f"; new are {', '.join(new)}" if new else ""
    print(f"{len(copied)} parameters of {config.init_from}{kept}", flush=True)


def evaluate_run(config: ConfigDict, workdir: str) -> None:
  """Evaluates the run in `workdir`: a table, and its files."""
  validate(config)
  _use_compilation_cache()
  if config.task == "fixation":
    evaluate_fixation(config, workdir)
  else:
    _need_task(config, "ranking")
    _evaluate_ranking(config, workdir)


def _evaluate_ranking(config: ConfigDict, workdir: str) -> None:
  """Evaluates the newest checkpoint: a table, and the files of `write_report`."""
  folder = pathlib.Path(workdir)
  _check_same_size(config, folder / "config.json")
  model = restore_model(folder / "checkpoints", nnx.eval_shape(lambda: build_model(config)))
  report, results = evaluate(
    model,
    build_evaluation_batches(config, config.data.validation_split),
    build_evaluation_batches(config, config.data.test_split),
    thresholds=config.evaluate.score_thresholds,
    stop_margins=config.evaluate.stop_margins,
    choose_by=config.evaluate.choose_by,
    turns=config.evaluate.turns,
    finds=learns_to_find(config.loss),
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
  finds = "own_masks" in report
  decision = Decision(turns=config.evaluate.turns)
  if finds:
    decision = Decision(*(report[name] for name in Decision._fields))
  decision.save(folder / "checkpoints")
  source = open_source(config.data.name, config.data.data_dir, config.data.test_split)
  ranker = Ranker(
    model,
    height=config.data.height,
    category_names=source.category_names,
    decision=decision,
    finds=finds,
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


def _check_same_size(config: ConfigDict, config_file: pathlib.Path) -> None:
  """A model takes pictures of any size, but is only good at the one that it was trained on."""
  if config_file.is_file():
    trained = json.loads(config_file.read_text())["data"]["height"]
    if trained != config.data.height:
      raise ValueError(
        f"config.data.height is {config.data.height}, but {config_file} says that the run was"
        f" trained at {trained}; give the run's own config"
      )


def predict(
  workdir: str, input_path: str, output: str, *, given_masks: bool, overwrite: bool
) -> int:
  """Ranks new panoramas with the run in `workdir`; returns the number of those that failed.

  Args:
    workdir: the run.
    input_path: a picture or a folder of pictures; with `given_masks` a folder with masks.
    output: folder for the results.
    given_masks: rank the masks that are there, rather than find objects.
    overwrite: replace results that are there already.
  """
  _use_compilation_cache()
  ranker = Ranker.load(workdir)
  if not (given_masks or ranker.finds):
    raise ValueError(f"{workdir} learnt to rank given masks alone: add --given_masks")
  rank = rank_given_masks if given_masks else predict_folder
  return rank(ranker, input_path, output, overwrite=overwrite)


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
