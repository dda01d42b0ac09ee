"""The entry points of the task "fixation": train the readout of human fixations, measure it."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from foir360_jax.data.fixations import FixatedPicture, read_fixations
from foir360_jax.evaluation.fixation import (
  DEFINITION,
  fit_centre_prior,
  saliency_maps,
  score_maps,
  summarize,
  table,
)
from foir360_jax.evaluation.fixation_sheet import FixationRow, fixation_sheet
from foir360_jax.formats import save_image, write_atomically
from foir360_jax.models.pretrained import load_efficientnet_lite0
from foir360_jax.saliency import FixationReadout, LearnedSaliency
from foir360_jax.saliency.readout import enlarged_size
from foir360_jax.saliency.readout_file import load_readout, read_tensors, save_readout
from foir360_jax.train import build_optimizer, create_state, model_from_state
from foir360_jax.train.fixation import (
  BiasedReadout,
  CentreBias,
  build_fixation_objective,
  example_batches,
  make_examples,
  set_statistics,
  sharpen,
)
from foir360_jax.train.loop import train

WEIGHTS = "fixation_readout.safetensors"
_BIAS = "centre_bias.coefficients"


def train_fixation(config: ConfigDict, workdir: str) -> None:
  """Trains (or resumes) the readout in `workdir` and writes its weights there."""
  data = config.data
  backbone = load_efficientnet_lite0(padding="zero")
  enlargement = config.model.enlargement
  size = enlarged_size((data.height, data.width), enlargement)
  pictures = _read(config, data.train_split, size)
  print(f"features of {sum(map(len, pictures)) * len(data.windows)} views ...", flush=True)
  examples = make_examples(pictures, backbone, windows=data.windows, seed=config.seed)
  optimizer = build_optimizer(**config.optimizer)
  readout = FixationReadout(config.model.channels, enlargement, rngs=nnx.Rngs(config.seed))
  set_statistics(readout, examples, size)
  model = BiasedReadout(readout, len(data.names))
  graphdef, state = create_state(model, optimizer)
  state = train(
    graphdef=graphdef,
    state=state,
    optimizer=optimizer,
    objective=build_fixation_objective(size, config.model.dropout),
    weights={"kl": 1.0},
    batches=example_batches(examples, data.batch_size, config.seed),
    workdir=workdir,
    batch_size=data.batch_size,
    config=config.to_dict(),
    **config.train,
  )
  if jax.process_index() == 0:  # the first process writes for all
    model = model_from_state(graphdef, jax.device_get(state))
    sharpen(model.readout, config.model.sharpness)
    coefficients = np.asarray(model.bias.coefficients[...])
    path = pathlib.Path(workdir) / WEIGHTS
    save_readout(path, model.readout, _metadata(config), {_BIAS: coefficients})


def evaluate_fixation(config: ConfigDict, workdir: str) -> None:
  """Measures the readout in `workdir`: a table, `metrics.json` and `evaluation.png`."""
  folder = pathlib.Path(workdir)
  readout = load_readout(folder / WEIGHTS)
  bias = _load_bias(folder / WEIGHTS, len(config.data.names))
  model = LearnedSaliency(load_efficientnet_lite0(padding="zero"), readout)
  split = config.evaluate.split
  size = config.data.height, config.data.width
  training, measured = _read(config, config.data.train_split, size), _read(config, split, size)
  scores, rows = {}, []
  for number, name in enumerate(config.data.names):
    maps = saliency_maps(
      model,
      bias,
      measured[number],
      data_set=number,
      prior_px=fit_centre_prior(training[number]),
      batch_size=config.evaluate.batch_size,
    )
    scores[name] = []
    for picture, picture_maps in zip(measured[number], maps, strict=True):
      scores[name].append(score_maps(picture_maps, picture))
      if len(scores[name]) <= config.evaluate.sheet_pictures:
        nss = scores[name][-1]["learned"]["nss"].value
        rows.append(FixationRow(picture, picture_maps, f"{picture.image_id}  NSS {nss:.2f}"))
  summary = summarize(scores)
  report = {
    "split": split,
    "definition": DEFINITION,
    "size": list(size),
    "degree_px": [degree * config.data.width for degree in config.data.degrees],
    "centre_bias": np.asarray(bias.coefficients[...]).tolist(),
    "results": summary,
  }
  if jax.process_index() > 0:
    return
  print(table(summary))
  write_atomically(folder / "metrics.json", (json.dumps(report, indent=2) + "\n").encode())
  if rows:
    save_image(folder / "evaluation.png", fixation_sheet(rows))
  print(f"wrote metrics.json and evaluation.png ({split}) into {folder}")


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
    "command": "python -m foir360_jax.main --config=configs/fixation.py --workdir=runs/fixation",
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
