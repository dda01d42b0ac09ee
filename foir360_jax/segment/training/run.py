"""The task "segmenter": trains the small segmenter, and evaluates it.

First the head alone on what the encoder gives of canvases that pass through it once, then all that
is trained on ever new canvases: most of the way is gone at half the cost.
"""

import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from foir360_jax.files import write_atomically
from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.models.pretrained import load_efficientnet_lite0
from foir360_jax.segment.small.network import SmallNetwork
from foir360_jax.segment.small.segmenter import SmallSegmenter
from foir360_jax.segment.small.weights import Calibration, file_of_run, save_network
from foir360_jax.segment.training.augmentation import Settings
from foir360_jax.segment.training.evaluation import (
  DEFINITION,
  fit_calibration,
  measure,
  summarize,
  table,
)
from foir360_jax.segment.training.objective import (
  build_segmenter_objective,
  canvas_batches,
  encode_examples,
  encoded_batches,
)
from foir360_jax.segment.training.pictures import (
  LabelledPicture,
  licence_counts,
  read_pictures,
)
from foir360_jax.train import build_optimizer, create_state, model_from_state
from foir360_jax.train.loop import train
from foir360_jax.train.settings import first_change, load_settings
from foir360_jax.train.step import Objective

_MAY_CHANGE = ("data.data_dir", "data.annotations")  # where the data lie
_HEAD = "head"  # folder of the first part of a run


def train_segmenter(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  show: Callable[[float, float], None] | None = None,
) -> None:
  """Trains (or resumes) the segmenter in `workdir`, calibrates it, and writes its weights there.

  Args:
    config: of the task "segmenter".
    workdir: the run's folder.
    show: as of `train`.

  Raises:
    ValueError: the run in `workdir` was trained with other settings, or there are no pictures.
  """
  _check_goes_on(pathlib.Path(workdir), config)
  pictures, kept_apart = (_read(config, part) for part in ("train", "validation"))
  print(f"{len(pictures)} pictures to train on, {len(kept_apart)} to choose by", flush=True)
  backbone = load_efficientnet_lite0(padding="zero")
  network = _network(config, backbone, True)
  if not (pathlib.Path(workdir) / "checkpoints").exists():  # else that is where it goes on
    head = _train_head(config, pathlib.Path(workdir), backbone, pictures, show)
    nnx.update(network, nnx.state(head))
  network = _train(
    config,
    network,
    build_segmenter_objective(backbone, config.loss.places),
    _canvases(config, pictures, config.seed + 1),
    pathlib.Path(workdir),
    show,
    {**config.optimizer},
    **config.train,
  )
  if jax.process_index() > 0:  # the first process writes for all
    return
  path = file_of_run(workdir)
  metadata = _metadata(config, pictures)
  save_network(path, network, backbone, Calibration(), metadata)
  results = measure(SmallSegmenter(path, **_settings(config)), kept_apart, 1)
  save_network(path, network, backbone, fit_calibration(results), metadata)


def _train_head(
  config: ConfigDict,
  workdir: pathlib.Path,
  backbone: EfficientNetLite0,
  pictures: list[LabelledPicture],
  show: Callable[[float, float], None] | None,
) -> SmallNetwork:
  """The first part of a training: the head alone, on canvases that are encoded once."""
  network = _network(config, backbone, False)
  batches = config.head.canvases * len(pictures) // config.data.batch_size
  print(f"features of {batches * config.data.batch_size} canvases ...", flush=True)
  examples = encode_examples(network, backbone, _canvases(config, pictures, config.seed), batches)
  schedule = {"steps": config.head.steps, "minutes": config.head.minutes}
  return _train(
    config,
    network,
    build_segmenter_objective(None, config.loss.places),
    encoded_batches(examples, config.data.batch_size, config.seed),
    workdir / _HEAD,
    show,
    {**config.optimizer, "learning_rate": config.head.learning_rate},
    **{**config.train, **schedule},
  )


def _network(config: ConfigDict, backbone: EfficientNetLite0, train_encoder: bool) -> SmallNetwork:
  network = SmallNetwork(**config.model, train_encoder=train_encoder, rngs=nnx.Rngs(config.seed))
  network.take_encoder(backbone)
  return network


def _canvases(
  config: ConfigDict, pictures: list[LabelledPicture], seed: int
) -> Iterator[dict[str, np.ndarray]]:
  return canvas_batches(
    pictures,
    Settings(**config.augmentation),
    batch_size=config.data.batch_size,
    max_objects=config.data.max_objects,
    seed=seed,
  )


def _train(
  config: ConfigDict,
  network: SmallNetwork,
  objective: Objective[SmallNetwork],
  batches: Iterator[dict[str, np.ndarray]],
  workdir: pathlib.Path,
  show: Callable[[float, float], None] | None,
  optimizer_settings: dict[str, Any],
  **schedule: Any,
) -> SmallNetwork:
  optimizer = build_optimizer(**optimizer_settings)
  graphdef, state = create_state(network, optimizer)
  state = train(
    graphdef=graphdef,
    state=jax.tree.map(jnp.copy, state),  # it is used up, and some of it lies in the backbone, too
    optimizer=optimizer,
    objective=objective,
    weights={name: config.loss[name] for name in ("objectness", "mask", "quality")},
    batches=batches,
    workdir=workdir,
    batch_size=config.data.batch_size,
    config=config.to_dict(),
    show=show,
    **schedule,
  )
  return model_from_state(graphdef, jax.device_get(state))


def evaluate_segmenter(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  show: Callable[[float, float], None] | None = None,
) -> None:
  """Measures the segmenter in `workdir` on a part of the pictures: a table and `metrics.json`.

  Args:
    config: of the task "segmenter".
    workdir: the run's folder.
    show: takes the number of pictures that are measured, and of all.
  """
  part = config.evaluate.split
  segmenter = SmallSegmenter(file_of_run(workdir), **_settings(config))
  pictures = read_pictures(
    config.data.data_dir, part, annotations=config.data.annotations, licences="all"
  )
  results = measure(segmenter, pictures, config.evaluate.max_proposals, show)
  summary = summarize(results, segmenter.confidence, config.seed)
  if jax.process_index() > 0:
    return
  report = {
    "split": part,
    "definition": DEFINITION,
    "max_proposals": config.evaluate.max_proposals,
    "settings": segmenter.settings,
    "calibrated": segmenter.calibration._asdict(),
    "results": summary,
  }
  print(table(summary))
  path = pathlib.Path(workdir) / "metrics.json"
  write_atomically(path, (json.dumps(report, indent=2) + "\n").encode())
  print(f"wrote {path} ({part})")


def _settings(config: ConfigDict) -> dict[str, Any]:
  return {
    "working_pixels": config.augmentation.working_pixels,
    "proposals": config.evaluate.proposals,
    "overlap": config.evaluate.overlap,
  }


def _read(config: ConfigDict, part: str) -> list[LabelledPicture]:
  data = config.data
  # Settings are chosen by the same pictures, whatever is trained on.
  licences = data.licences if part == "train" else "all"
  return read_pictures(data.data_dir, part, annotations=data.annotations, licences=licences)


def _check_goes_on(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Raises ValueError where a run would go on with other settings."""
  given = config.to_dict()
  parts = ("data", "augmentation", "model", "loss", "head")
  fields = ["task", "seed", *(f"{part}.{name}" for part in parts for name in given[part])]
  fields = [field for field in fields if field not in _MAY_CHANGE]
  settings = load_settings(workdir) or load_settings(workdir / _HEAD) or {}
  if change := first_change(settings, given, fields):
    raise ValueError(
      f"{workdir} cannot go on with other settings: config.{change.field} is {change.new!r}, and"
      f" was {change.old!r} when it was trained; give another --workdir, or the run's own settings"
    )


def _metadata(config: ConfigDict, pictures: list[LabelledPicture]) -> dict[str, str]:
  """What the file of weights says of itself; the settings without where the data lay."""
  settings = config.to_dict()
  for field in _MAY_CHANGE:
    part, name = field.split(".")
    del settings[part][name]
  licences = licence_counts(pictures)
  return {
    "what": "class-agnostic segmenter on EfficientNet-Lite0 (ImageNet), by foir360_jax",
    "command": "foir360 train --config=configs/segmenter.py --workdir=runs/segmenter"
    f" --config.data.licences={config.data.licences}",
    "pictures": json.dumps({name or "unknown": count for name, count in licences.items()}),
    "settings": json.dumps(settings),
  }
