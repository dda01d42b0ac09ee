"""Weights of a planar Swin transformer (timm's names) for a PanoSwin.

What the two share is copied. PanoSwin's stem, its code of places, the factors of distances, pitched
blocks and the norms of all but the last stage have no counterpart and stay as they are.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.models.encoders import PanoSwin
from foir360_jax.models.pretrained.report import Report, named_parameters

_TABLE = "attn.relative_position_bias_table"
_UNUSED = (
  "head.",
  "patch_embed.proj.",
  "features.",
)  # the classifier, and a stem of three channels
_BUFFERS = ("relative_position_index", "attn_mask")  # which follow from the window


class _Source(NamedTuple):
  parameter: nnx.Param
  tensor: str
  kind: str  # "vector", "matrix", "query", "key", "value" (a third of a matrix or vector), "table"


def import_swin(encoder: PanoSwin, tensors: Mapping[str, np.ndarray]) -> Report:
  """Sets those parameters of a PanoSwin that a Swin transformer has, too.

  Tables of relative positions are brought from their window to the encoder's by linear
  interpolation, and averaged over the sign of the difference of rows, which PanoSwin does not know.

  Args:
    encoder: changed in place, once all is found to fit.
    tensors: of timm's swin_tiny_patch4_window7_224 or one of other sizes, matrices [out, in].

  Raises:
    ValueError: a tensor is missing, has another shape, or is none that is known here.
  """
  left = dict(tensors)
  values = []
  copied: list[str] = []
  interpolated: list[str] = []
  names = {id(leaf): name for name, leaf in named_parameters(encoder)}
  for parameter, tensor, kind in _sources(encoder, tensors):
    if tensor not in tensors:
      raise ValueError(f"no {tensor} among the tensors of the Swin transformer")
    left.pop(tensor, None)
    value = np.asarray(tensors[tensor], np.float32)
    if kind in ("query", "key", "value"):
      value = np.split(value, 3)[("query", "key", "value").index(kind)]
    if kind == "table":
      value = _resized_table(value, tensor, parameter.shape[0])
    elif value.ndim == 2:
      value = value.T
    if value.shape != parameter.shape:
      raise ValueError(f"{tensor} gives {value.shape} where PanoSwin has {parameter.shape}")
    values.append((parameter, value))
    (interpolated if kind == "table" else copied).append(names.pop(id(parameter)))
  unknown = [name for name in left if not name.startswith(_UNUSED) and not name.endswith(_BUFFERS)]
  if unknown:
    raise ValueError(f"PanoSwin has no place for {', '.join(unknown)}")
  for parameter, value in values:
    parameter.set_value(jnp.asarray(value))
  return Report(tuple(copied), tuple(interpolated), tuple(names.values()))


def _sources(encoder: PanoSwin, tensors: Mapping[str, np.ndarray]) -> Iterator[_Source]:
  yield from _affine(encoder.embed_norm, "patch_embed.norm")
  # timm has the merging before the stage that it leads to; older versions had it after the other.
  merging_is_before = "layers.3.downsample.norm.weight" in tensors
  for level, merging in enumerate(encoder.merging):
    prefix = f"layers.{level + merging_is_before}.downsample"
    yield from _affine(merging.norm, f"{prefix}.norm")
    yield _Source(merging.reduce.kernel, f"{prefix}.reduction.weight", "matrix")
  for level, blocks in enumerate(encoder.stages):
    for index, block in enumerate(block for block in blocks if block.kind != "pitched"):
      prefix = f"layers.{level}.blocks.{index}."
      yield from _affine(block.norm, f"{prefix}norm1")
      yield from _affine(block.mlp_norm, f"{prefix}norm2")
      for name in ("query", "key", "value"):
        layer = getattr(block.attention, name)
        yield _Source(layer.kernel, f"{prefix}attn.qkv.weight", name)
        yield _Source(layer.bias, f"{prefix}attn.qkv.bias", name)
      for layer, name in (
        (block.attention.output, "attn.proj"),
        (block.widen, "mlp.fc1"),
        (block.narrow, "mlp.fc2"),
      ):
        yield from _linear(layer, f"{prefix}{name}")
      yield _Source(block.attention.beta, f"{prefix}{_TABLE}", "table")
  yield from _affine(encoder.norms[-1], "norm")


def _linear(layer: nnx.Linear, prefix: str) -> Iterator[_Source]:
  assert layer.bias is not None
  yield _Source(layer.kernel, f"{prefix}.weight", "matrix")
  yield _Source(layer.bias, f"{prefix}.bias", "vector")


def _affine(norm: nnx.LayerNorm, prefix: str) -> Iterator[_Source]:
  assert norm.scale is not None and norm.bias is not None
  yield _Source(norm.scale, f"{prefix}.weight", "vector")
  yield _Source(norm.bias, f"{prefix}.bias", "vector")


def _resized_table(table: np.ndarray, name: str, entries: int) -> np.ndarray:
  """A table [(2 v - 1)^2, heads] of a window v, query minus key, as PanoSwin's for its window w.

  Returns [w (2 w - 1), heads]: distances of rows, then columns key minus query.
  """
  side = round(np.sqrt(len(table)))
  if table.ndim != 2 or side**2 != len(table) or side % 2 == 0:
    raise ValueError(f"{name} gives {table.shape} where a table is [(2 window - 1)^2, heads]")
  window = round((1 + np.sqrt(1 + 8 * entries)) / 4)  # w (2 w - 1) = entries
  size = 2 * window - 1
  grid = table.reshape(side, side, -1)[:, ::-1]
  if size != side:
    shape = size, size, grid.shape[-1]
    # Offsets from one end of a window to the other stay so.
    scale = jnp.array([(size - 1) / (side - 1)] * 2)
    shift = 0.5 - 0.5 * scale  # pixel centres of `scale_and_translate` lie at halves
    grid = jax.image.scale_and_translate(
      jnp.asarray(grid), shape, (0, 1), scale, shift, "linear", antialias=False
    )
  grid = np.asarray(grid)
  even = (grid + grid[::-1]) / 2
  return einops.rearrange(even[window - 1 :], "y x h -> (y x) h").astype(np.float32)
