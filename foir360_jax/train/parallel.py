"""Parallel modes of the training step: replicated state, examples split among devices.

Four modes, which agree to rounding: `jit` (one device), `jit_sharded` (the compiler splits the
work), `shard_map` and `pmap` (each device runs the step on its examples and sums over the axis
`data`). Batches come from the host as `[B, ...]`; only here pmap's `[devices, B / devices, ...]` is
known.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

MODES = ("jit", "jit_sharded", "shard_map", "pmap")
_AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a one-axis mesh over `devices`, by default all of them, on all processes."""
  devices = jax.devices() if devices is None else devices
  # Without `Auto`, jax.make_mesh gives Explicit axes: shardings would enter every array's type.
  return jax.make_mesh((len(devices),), (_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def compile_step(step: Callable, mode: str, mesh: Mesh) -> jax.stages.Wrapped:
  """Returns `step(state, batch, progress)` transformed for a mode; it donates `state`.

  Args:
    step: `step(state, batch, progress, *, axis_name=None) -> (state, metrics)`.
    mode: one of `MODES`.
    mesh: from `make_mesh`; `jit` uses its first device only.

  Returns:
    A function with `.lower(...).compile()`, whose arguments come from `put_state`, `put_batch` and
    `put_scalar` for the same mode and mesh.

  Raises:
    ValueError: if the mode is unknown.
  """
  _check_mode(mode)
  if mode == "jit":
    return jax.jit(step, donate_argnums=0)
  if mode == "jit_sharded":
    replicated, split = _sharding(mode, mesh), _sharding(mode, mesh, split=True)
    return jax.jit(
      step,
      in_shardings=(replicated, split, replicated),
      out_shardings=replicated,
      donate_argnums=0,
    )
  mapped_step = functools.partial(step, axis_name=_AXIS)
  if mode == "shard_map":
    specs = (PartitionSpec(), PartitionSpec(_AXIS), PartitionSpec())
    # Unchecked: loops inside libraries (optax's Hungarian algorithm) start from plain constants,
    # which the check takes for replicated values that become varying.
    mapped = jax.shard_map(
      mapped_step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0)
  return jax.pmap(
    mapped_step,
    axis_name=_AXIS,
    in_axes=(None, 0, None),
    out_axes=None,  # parameters keep no device axis: the same state fits every mode
    donate_argnums=0,
    devices=list(mesh.devices.flat),
  )


def put_state(state: Any, mode: str, mesh: Mesh, *, donate: bool = False) -> Any:
  """Puts a pytree on every device, for a step, which donates what it gets.

  Args:
    state: arrays.
    mode: one of `MODES`.
    mesh: from `make_mesh`.
    donate: whether the caller gives the arrays up, so that there are never two of each on a device;
      otherwise they are copied, and live on.
  """
  if not donate:
    state = jax.tree.map(jnp.copy, state)
  return jax.device_put(state, _sharding(mode, mesh), donate=donate)


def put_scalar(value: float, mode: str, mesh: Mesh) -> jax.Array:
  """Puts a float32 scalar on every device."""
  return _put(np.asarray(value, np.float32), _sharding(mode, mesh))


def put_batch(batch: Mapping[str, np.ndarray], mode: str, mesh: Mesh) -> dict[str, jax.Array]:
  """Splits the leading axis of every array over the devices.

  Args:
    batch: this process's examples, `[B, ...]` each.
    mode: one of `MODES`.
    mesh: from `make_mesh`.

  Returns:
    Global arrays, on their way to the devices (the call does not wait).

  Raises:
    ValueError: if B is not divisible by the number of this process's devices.
  """
  num_devices = 1 if mode == "jit" else mesh.local_mesh.size
  batch_size = len(next(iter(batch.values())))
  if batch_size % num_devices:
    raise ValueError(
      f"a batch of {batch_size} cannot be split over {num_devices} devices: take a multiple of"
      f" {num_devices} as config.data.batch_size, or config.train.mode=jit for one device"
    )
  if mode == "pmap":
    batch = {
      key: rearrange(value, "(device example) ... -> device example ...", device=num_devices)
      for key, value in batch.items()
    }
  sharding = _sharding(mode, mesh, split=True)
  return {key: _put(value, sharding) for key, value in batch.items()}


def from_first_process(values: Sequence[float]) -> list[float]:
  """Broadcasts the first process's values to all, for decisions that must agree."""
  if jax.process_count() == 1:
    return list(values)
  with jax.transfer_guard("allow"):
    return multihost_utils.broadcast_one_to_all(np.asarray(values, np.float32)).tolist()


def _put(local: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
  with jax.transfer_guard("allow"):  # meant, but with several processes JAX takes it for implicit
    return jax.make_array_from_process_local_data(sharding, local)


def _check_mode(mode: str) -> None:
  if mode not in MODES:
    raise ValueError(f"the mode must be one of {', '.join(MODES)}, not {mode!r}")
  if mode == "jit" and jax.process_count() > 1:
    raise ValueError("the mode jit uses one device: with several processes take jit_sharded")


def _sharding(mode: str, mesh: Mesh, split: bool = False) -> jax.sharding.Sharding:
  if mode == "jit":
    return SingleDeviceSharding(mesh.devices.flat[0])
  return NamedSharding(mesh, PartitionSpec(_AXIS) if split else PartitionSpec())
