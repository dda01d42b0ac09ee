"""The task "fixation": trains the readout of human fixations, and evaluates it."""

import itertools
import json
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from foir360_jax.files import save_image, write_atomically
from foir360_jax.metrics import Score
from foir360_jax.models.pretrained import load_efficientnet_lite0
from foir360_jax.saliency import FixationReadout, LearnedSaliency
from foir360_jax.saliency.fixations.check import is_trained_on
from foir360_jax.saliency.fixations.evaluation import (
  DEFINITION,
  fit_centre_prior,
  saliency_maps,
  score_maps,
  summarize,
  table,
)
from foir360_jax.saliency.fixations.pictures import FixatedPicture, fold_of, read_fixations
from foir360_jax.saliency.fixations.sheet import FixationRow, fixation_sheet
from foir360_jax.saliency.fixations.training import (
  BiasedReadout,
  CentreBias,
  Examples,
  build_fixation_objective,
  example_batches,
  make_examples,
  set_statistics,
  sharpen,
)
from foir360_jax.saliency.readout import enlarged_size
from foir360_jax.saliency.readout_file import file_of_run, load_readout, read_tensors, save_readout
from foir360_jax.train import build_optimizer, create_state, model_from_state
from foir360_jax.train.loop import train
from foir360_jax.train.settings import first_change, load_settings

_BIAS = "centre_bias.coefficients"
_MAY_CHANGE = ("data.data_dir", "model.sharpness")  # where the data lie; what is applied at the end


def train_fixation(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  show: Callable[[float, float], None] | None = None,
) -> None:
  """Trains (or resumes) the readout in `workdir` and writes its weights there.

  With `config.data.folds`, then likewise one without the pictures of each fold, in
  `workdir/without_N`, in as many epochs. Their appearance is that of the first: what is known of
  the features without anyone's fixations is shared. `show` is as of `train`, once a readout.

  Raises:
    ValueError: the run in `workdir` was trained with other settings.
  """
  _check_goes_on(pathlib.Path(workdir), config)
  data = config.data
  backbone = load_efficientnet_lite0(padding="zero")
  enlargement = config.model.enlargement
  size = enlarged_size((data.height, data.width), enlargement)
  pictures = _read(config, data.train_split, size)
  print(f"features of {sum(map(len, pictures)) * len(data.windows)} views ...", flush=True)
  examples = make_examples(pictures, backbone, windows=data.windows, seed=config.seed)
  readout = FixationReadout(config.model.channels, enlargement, rngs=nnx.Rngs(config.seed))
  set_statistics(readout, examples, size)
  model = BiasedReadout(readout, len(data.names))
  _train_one(config, model, examples, None, file_of_run(workdir), show)
  names = [picture.image_id for part in pictures for picture in part]
  for fold in range(data.folds):
    kept = np.array([fold_of(name, data.folds) != fold for name in names])
    rows = np.flatnonzero(np.repeat(kept, len(data.windows)))
    _train_one(config, model, examples, rows, file_of_run(workdir, fold), show)


def _train_one(
  config: ConfigDict,
  model: BiasedReadout,
  examples: Examples,
  rows: np.ndarray | None,
  path: pathlib.Path,
  show: Callable[[float, float], None] | None,
) -> None:
  """Trains a copy of `model` on some rows of the examples, None: all, and writes it to `path`."""
  data = config.data
  optimizer = build_optimizer(**config.optimizer)
  graphdef, state = create_state(model, optimizer)
  state = jax.tree.map(jnp.copy, state)  # the training uses it up, and the model is for all folds
  share = 1.0 if rows is None else len(rows) / len(examples["mass"])
  schedule = {**config.train, "steps": round(share * config.train.steps)}
  state = train(
    graphdef=graphdef,
    state=state,
    optimizer=optimizer,
    objective=build_fixation_objective(
      enlarged_size((data.height, data.width), config.model.enlargement), config.model.dropout
    ),
    weights={"kl": 1.0},
    batches=example_batches(examples, data.batch_size, config.seed, rows),
    workdir=path.parent,
    batch_size=data.batch_size,
    config=config.to_dict(),
    show=show,
    **schedule,
  )
  if jax.process_index() == 0:  # the first process writes for all
    trained = model_from_state(graphdef, jax.device_get(state))
    sharpen(trained.readout, config.model.sharpness)
    coefficients = np.asarray(trained.bias.coefficients[...])
    metadata = _metadata(config) | ({} if rows is None else {"fold": path.parent.name})
    save_readout(path, trained.readout, metadata, {_BIAS: coefficients})


def evaluate_fixation(
  config: ConfigDict,
  workdir: str | os.PathLike,
  *,
  show: Callable[[float, float], None] | None = None,
) -> None:
  """Measures the readout in `workdir`: a table, `metrics.json` and `evaluation.png`.

  Pictures that it has been trained on are measured by those of the run that never saw them.
  `show` takes the number of pictures that are measured, and of all.
  """
  _check_trained_on(file_of_run(workdir), config)
  folder, split = pathlib.Path(workdir), config.evaluate.split
  folds = range(config.data.folds) if is_trained_on(config) else (None,)
  backbone = load_efficientnet_lite0(padding="zero")
  readers = []
  for fold in folds:
    path = file_of_run(workdir, fold)
    model = LearnedSaliency(backbone, load_readout(path))
    readers.append((fold, model, _load_bias(path, len(config.data.names))))
  size = config.data.height, config.data.width
  training, measured = _read(config, config.data.train_split, size), _read(config, split, size)
  scores: dict[str, list[dict[str, dict[str, Score]]]] = {}
  rows = []
  done, total = itertools.count(1), sum(map(len, measured))
  for number, name in enumerate(config.data.names):
    scores[name] = []
    for fold, model, bias in readers:
      pictures = [
        picture
        for picture in measured[number]
        if fold is None or fold_of(picture.image_id, len(readers)) == fold
      ]
      maps = saliency_maps(
        model,
        bias,
        pictures,
        data_set=number,
        prior_px=fit_centre_prior(training[number]),
        batch_size=config.evaluate.batch_size,
      )
      for picture, picture_maps in zip(pictures, maps, strict=True):
        scores[name].append(score_maps(picture_maps, picture))
        if show:
          show(next(done), total)
        if len(scores[name]) <= config.evaluate.sheet_pictures:
          nss = scores[name][-1]["learned"]["nss"].value
          rows.append(FixationRow(picture, picture_maps, f"{picture.image_id}  NSS {nss:.2f}"))
  summary = summarize(scores)
  report = {
    "split": split,
    "folds": len(readers),
    "definition": DEFINITION,
    "size": list(size),
    "degree_px": [degree * config.data.width for degree in config.data.degrees],
    "centre_bias": _biases(config.data.names, [bias for _, _, bias in readers]),
    "results": summary,
  }
  if jax.process_index() > 0:
    return
  print(table(summary))
  write_atomically(folder / "metrics.json", (json.dumps(report, indent=2) + "\n").encode())
  if rows:
    save_image(folder / "evaluation.png", fixation_sheet(rows))
  print(f"wrote metrics.json and evaluation.png ({split}) into {folder}")


def _biases(names: Sequence[str], biases: Sequence[CentreBias]) -> dict[str, list[list[float]]]:
  """The coefficients a, b, c of each data set's centre bias, of one readout after the other."""
  stacked = np.stack([bias.coefficients[...] for bias in biases], axis=1)
  return dict(zip(names, stacked.tolist(), strict=True))


def _check_goes_on(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Raises ValueError where a run would go on with other settings.

  It would keep the weights of the old ones, and its files would say the new ones: that pictures
  were never seen which were.
  """
  given = config.to_dict()
  fields = ["task", "seed", *(f"{part}.{x}" for part in ("data", "model") for x in given[part])]
  fields = [field for field in fields if field not in _MAY_CHANGE]
  if change := first_change(load_settings(workdir) or {}, given, fields):
    raise ValueError(
      f"{workdir} cannot go on with other settings: config.{change.field} is {change.new!r}, and"
      f" was {change.old!r} when it was trained; give another --workdir, or the run's own settings"
    )


def _check_trained_on(path: pathlib.Path, config: ConfigDict) -> None:
  """Raises ValueError where the config names other pictures than the readout has seen."""
  seen = json.loads(read_tensors(path)[1].get("settings", '{"data": {}}'))["data"]
  for field in ("train_split", "folds"):
    if seen.get(field, config.data[field]) != config.data[field]:
      raise ValueError(
        f"{path}: trained with config.data.{field} {seen[field]}, not {config.data[field]}; give"
        f" --config.data.{field}={seen[field]}, so that no picture is measured that it has seen"
      )


def _read(config: ConfigDict, split: str, size: tuple[int, int]) -> list[list[FixatedPicture]]:
  data = config.data
  return [
    read_fixations(name, data.data_dir, split, size=size, degree=degree)
    for name, degree in zip(data.names, data.degrees, strict=True)
  ]


def _metadata(config: ConfigDict) -> dict[str, str]:
  """What the file of weights says of itself; the settings without where the data lay."""
  settings = config.to_dict()
  del settings["data"]["data_dir"], settings["evaluate"]
  names = config.data.names
  return {
    "what": "readout of human fixations on EfficientNet-Lite0 (ImageNet), by foir360_jax",
    "command": "foir360 train --config=configs/fixation.py --workdir=runs/fixation"
    f" --config.data.train_split={config.data.train_split}"
    f" --config.data.folds={config.data.folds}",
    "data": f"{', '.join(names)}: part {config.data.train_split}",
    "splits": ", ".join(f"datasets/fixations/splits/{name.split('/')[-1]}.json" for name in names),
    "licence": "Apache-2.0; trained on public data under the MIT licence",
    "settings": json.dumps(settings),
  }


def _load_bias(path: pathlib.Path, num_data_sets: int) -> CentreBias:
  coefficients = read_tensors(path)[0].get(_BIAS)
  bias = CentreBias(num_data_sets)
  if coefficients is None or coefficients.shape != bias.coefficients.shape:
    raise ValueError(
      f"{path}: has no centre bias for {num_data_sets} data sets; set config.data.names to those"
      " that it was trained on"
    )
  bias.coefficients[...] = jnp.asarray(coefficients)
  return bias
