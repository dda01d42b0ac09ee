"""Checkpoints: state, data iterator and progress of a run, saved together.

The only file that knows Orbax. On disk a checkpoint is `FOLDER/STEP/` with three items: `model`
(all that evaluation needs), `optimizer` and `progress` (JSON). Arrays are kept under their path in
the state, e.g. `ema_params.encoder.kernel.value`.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from orbax.checkpoint import v1 as ocp

from foir360_jax.train.state import Model, TrainState, split_parameters

_AVERAGED = "ema_params"
_MODEL_FIELDS = ("params", _AVERAGED, "model_state")
_OPTIMIZER_FIELDS = ("step", "opt_state")


class Checkpoints:
  """The checkpoints of one run; a context manager that waits for the last save when it is left.

  Args:
    folder: where they lie; it is made if need be.
    keep: number of checkpoints to keep; older ones are deleted.
  """

  def __init__(self, folder: str | pathlib.Path, keep: int):
    # Orbax fails on relative paths, but only at the save.
    self.folder = pathlib.Path(folder).absolute()
    self._orbax = ocp.training.Checkpointer(
      self.folder,
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,  # what a killed run left half written
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    self._orbax.close()

  def wait(self) -> None:
    """Waits until what `save` started is on disk."""
    self._orbax.wait()

  @property
  def latest_step(self) -> int | None:
    """The step of the newest checkpoint, None if there is none."""
    return None if self._orbax.latest is None else self._orbax.latest.step

  def save(self, step: int, state: TrainState, progress: dict[str, Any]) -> None:
    """Starts to save; returns as soon as `state` may be changed or donated.

    Args:
      step: names the checkpoint.
      state: a `TrainState`, on any devices.
      progress: JSON values, at least one; with several processes the first one's are kept.
    """
    items = {
      "model": _named(state, _MODEL_FIELDS),
      "optimizer": _named(state, _OPTIMIZER_FIELDS),
      "progress": progress,
    }
    with jax.transfer_guard("allow"):  # this copy to the host is meant
      self._orbax.save_checkpointables_async(step, items, force=True, overwrite=True)

  def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Returns the newest checkpoint's state and progress.

    Args:
      state: gives the structure, shapes and placement; its values are not used.

    Raises:
      ValueError: if there is no checkpoint, or if it does not fit `state`.
    """
    fields = {"model": _MODEL_FIELDS, "optimizer": _OPTIMIZER_FIELDS}
    likes = {item: _named(state, names) for item, names in fields.items()}
    loaded = _load(self._orbax, self.folder, likes | {"progress": None})
    for item, names in fields.items():
      state = _renewed(state, names, loaded[item])
    return state, loaded["progress"]


def has_checkpoint(folder: str | pathlib.Path) -> bool:
  """Whether there is a complete checkpoint; one left half-written does not count."""
  folder = pathlib.Path(folder).absolute()
  if not folder.is_dir():
    return False
  with ocp.training.Checkpointer(folder) as orbax:
    return orbax.latest is not None


def newest_checkpoint(folder: str | pathlib.Path) -> pathlib.Path:
  """The folder of the newest checkpoint; small files of others may lie there, and go with it.

  Raises:
    ValueError: there is no checkpoint.
  """
  folder = pathlib.Path(folder).absolute()
  _need_folder(folder, "train first, or correct the --workdir")
  with ocp.training.Checkpointer(folder) as orbax:
    if orbax.latest is None:
      raise ValueError(f"no checkpoint in {folder}: train first, or correct the --workdir")
    return folder / str(orbax.latest.step)


def restore_model(
  folder: str | pathlib.Path, model: Model, *, ema: bool = True, step: int | None = None
) -> Model:
  """Returns the model of a checkpoint, without the optimizer's state.

  Args:
    folder: the folder of the checkpoints, as given to `Checkpoints`.
    model: a model built from the run's config; it may be abstract
      (`nnx.eval_shape(lambda: build_model(...))`), for its values are not used.
    ema: whether to take the averaged parameters or the last ones.
    step: that of the checkpoint; None: the newest.

  Raises:
    ValueError: if there is no checkpoint, or if it does not fit the model.
  """
  folder = pathlib.Path(folder).absolute()
  _need_folder(folder, "train first, or correct the --workdir")
  graphdef, params, model_state = split_parameters(model)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),  # neither this nor the optimizer's state is read
    params=params,
    model_state=model_state,
    opt_state=None,
    ema_params=params,
  )
  with ocp.training.Checkpointer(folder) as orbax:
    loaded = _load(orbax, folder, {"model": _named(state, _MODEL_FIELDS)}, step)
  state = _renewed(state, _MODEL_FIELDS, loaded["model"])
  return nnx.merge(graphdef, state.ema_params if ema else state.params, state.model_state)


def start_from(folder: str | pathlib.Path, model: nnx.Module) -> tuple[list[str], list[str]]:
  """Copies the averaged parameters of another run into a model where the shapes agree.

  Args:
    folder: the other run's checkpoints.
    model: changed in place.

  Returns:
    The names of the parameters that were copied, and of those that stay as they are.

  Raises:
    ValueError: there is no checkpoint, or no parameter of it fits.
  """
  folder = pathlib.Path(folder).absolute()
  _need_folder(folder, "correct config.init_from")
  params = nnx.state(model, nnx.Param)
  here = _flat(params)
  with ocp.training.Checkpointer(folder) as orbax:
    if orbax.latest is None:
      raise ValueError(f"no checkpoint in {folder}: correct config.init_from")
    saved = orbax.checkpointables_metadata(orbax.latest.step).metadata["model"]
    there = {name: saved.get(f"{_AVERAGED}.{name}") for name in here}
    fits = [n for n, x in there.items() if x is not None and tuple(x.shape) == here[n].shape]
    if not fits:
      raise ValueError(f"no parameter of {folder} fits this model: correct config.init_from")
    like = {
      name: jax.ShapeDtypeStruct(
        leaf.shape,
        leaf.dtype,
        sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]),
      )
      for name, leaf in saved.items()
    }
    loaded = orbax.load_checkpointables(orbax.latest.step, {"model": like})["model"]
  new = here | {name: loaded[f"{_AVERAGED}.{name}"] for name in fits}
  nnx.update(model, jax.tree.unflatten(jax.tree.structure(params), [new[name] for name in here]))
  copied, kept = (
    [name.removesuffix(".value") for name in here if (name in fits) == fit] for fit in (True, False)
  )
  return copied, kept


def _need_folder(folder: pathlib.Path, cure: str) -> None:
  if not folder.is_dir():
    raise ValueError(f"no checkpoint in {folder}: {cure}")


def _flat(tree: Any) -> dict[str, Any]:
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for path, leaf in jax.tree.leaves_with_path(tree)
  }


def _named(state: TrainState, fields: tuple[str, ...]) -> dict[str, Any]:
  """Flattens fields of the state to {path: array}: names that do not depend on container types."""
  return _flat({field: getattr(state, field) for field in fields})


def _renewed(state: TrainState, fields: tuple[str, ...], named: dict[str, Any]) -> TrainState:
  """The inverse of `_named`: replaces fields of the state."""
  tree = {field: getattr(state, field) for field in fields}
  leaves = [named[name] for name in _named(state, fields)]
  return dataclasses.replace(state, **jax.tree.unflatten(jax.tree.structure(tree), leaves))


def _load(
  orbax: Any, folder: pathlib.Path, likes: dict[str, Any], step: int | None = None
) -> dict[str, Any]:
  if orbax.latest is None:
    raise ValueError(f"no checkpoint in {folder}: train first, or correct the --workdir")
  step = orbax.latest.step if step is None else step
  saved = orbax.checkpointables_metadata(step).metadata
  for item, like in likes.items():
    if like is not None:
      _check_fit(f"the checkpoint of step {step} in {folder}", saved[item], like)
  default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=getattr(x, "sharding", None) or default
    ),
    likes,
  )
  return orbax.load_checkpointables(step, abstract)


def _stored_shape(leaf: Any) -> tuple[int, ...]:
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.eval_shape(jax.random.key_data, leaf)
  return leaf.shape


def _check_fit(where: str, saved: dict[str, Any], like: dict[str, Any]) -> None:
  for name in sorted(saved.keys() | like.keys()):
    there = tuple(saved[name].shape) if name in saved else "missing"
    here = _stored_shape(like[name]) if name in like else "missing"
    if there != here:
      raise ValueError(
        f"{where} does not fit this config: {name} is {there} there and {here} here; take the"
        " config of that run (config.json), or start anew in another --workdir, with"
        " --config.init_from to keep the parameters that do fit"
      )
