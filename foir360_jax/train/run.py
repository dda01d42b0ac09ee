"""Trains PanoRank, from a configuration to a run."""

import os
import pathlib
from collections.abc import Callable, Sequence

from flax import nnx
from ml_collections import ConfigDict

from foir360_jax.data import build_training_batches, open_source
from foir360_jax.models import PanoRank, build_model
from foir360_jax.models.pretrained import load_encoder_weights
from foir360_jax.objective import build_objective, learns_detection
from foir360_jax.paths import expand
from foir360_jax.train.checkpoint import has_checkpoint, start_from
from foir360_jax.train.loop import train
from foir360_jax.train.optimizer import build_optimizer
from foir360_jax.train.settings import first_change, load_settings, settings_file
from foir360_jax.train.state import create_state

_OF_TRAINING = ("remat", "drop_path")  # fields of the model that it may be given anew


def train_ranking(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  show: Callable[[float, float], None] | None = None,
) -> None:
  """Trains (or resumes) the run in `workdir`; `show` as of `train`."""
  data = config.data
  for split in (data.validation_split, data.test_split):  # rather now than after the training
    open_source(data.name, data.data_dir, split)
  source = open_source(data.name, data.data_dir, data.train_split)
  if source.num_categories > config.model.num_categories:
    raise ValueError(
      f"{data.name} has {source.num_categories} categories: set config.model.num_categories to at"
      f" least that, not {config.model.num_categories}"
    )
  goes_on = has_checkpoint(pathlib.Path(workdir) / "checkpoints")
  if goes_on:  # what does not fit is told before anything is compiled
    check_same_model(config, pathlib.Path(workdir))
    _check_same_data(config, source.category_names, pathlib.Path(workdir))
  optimizer = build_optimizer(**config.optimizer)
  model = nnx.jit(lambda: build_model(config))()  # one program rather than one a parameter
  if not goes_on:
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
    workdir=pathlib.Path(workdir),
    batch_size=data.batch_size,
    config=config.to_dict() | {"category_names": list(source.category_names)},
    show=show,
    **config.train,
  )


def _initialise(model: PanoRank, config: ConfigDict) -> None:
  """Loads the pretrained parameters that the configuration names; prints which stay random."""
  if config.encoder_weights:
    report = load_encoder_weights(model.encoder, config.encoder_weights)
    print(f"encoder, {config.encoder_weights}: {report}", flush=True)
  if config.init_from:
    copied, new = start_from(expand(config.init_from) / "checkpoints", model)
    kept = f"; new are {', '.join(new)}" if new else ""
    print(f"{len(copied)} parameters of {config.init_from}{kept}", flush=True)


def check_same_model(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Rejects model fields that differ from the checkpoint's.

  Raises:
    ValueError: the run in `workdir` was trained with another model than `config` has.
  """
  trained = load_settings(workdir)
  if trained is None:
    return
  if trained.get("task", "ranking") != "ranking":
    raise ValueError(f"{workdir} is a run of the task {trained['task']}; give another --workdir")
  given = config.to_dict()
  of_model = [f"model.{name}" for name in given["model"] if name not in _OF_TRAINING]
  if change := first_change(trained, given, ["data.height", *of_model]):
    raise ValueError(
      f"config.{change.field} is {change.new!r}, but {settings_file(workdir)} says that the run was"
      f" trained with {change.old!r}; give the run's own --config and fields"
    )
  if learns_detection(given["loss"]) != learns_detection(given["loss"] | trained["loss"]):
    raise ValueError(
      f"config.loss and {settings_file(workdir)} differ in whether the model detects"
      " objects; give the run's own --config and fields"
    )


def _check_same_data(
  config: ConfigDict, category_names: Sequence[str], workdir: pathlib.Path
) -> None:
  """Rejects other data than the run was trained on: it resumes at an example, by category numbers.

  Raises:
    ValueError: the run in `workdir` was trained on other data.
  """
  given = config.to_dict() | {"category_names": category_names}
  fields = ("data.name", "data.train_split", "category_names")
  if change := first_change(load_settings(workdir) or {}, given, fields):
    raise ValueError(
      f"{workdir} cannot go on with other data: {change.field} is {change.new!r}, and was"
      f" {change.old!r} when it was trained; give another --workdir, and --config.init_from to"
      " start from its parameters"
    )
