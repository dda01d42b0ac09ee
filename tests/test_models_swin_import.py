"""Weights of a planar Swin transformer in PanoSwin, beside Swin's own formulas."""

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from scipy.special import erf

from foir360_jax.models import parameter_keys
from foir360_jax.models.encoders import PanoSwin
from foir360_jax.models.pretrained import load_encoder_weights
from foir360_jax.models.pretrained.swin import _resized_table, import_swin

CHANNELS, DEPTHS, HEADS = 8, (2, 2, 3, 1), (1, 2, 2, 2)


def build(window):
  return PanoSwin(
    channels=CHANNELS, depths=DEPTHS, num_heads=HEADS, window=window, rngs=parameter_keys(0)
  )


def random_tensors(seed, window, *, merging_is_before=True):
  """A state dict with timm's names, Swin's depths (an odd one less one), tables even in rows."""
  rng = np.random.default_rng(seed)
  tensors = {}

  def add(name, *shape):
    tensors[name] = rng.normal(size=shape).astype(np.float32) / np.sqrt(shape[-1])

  def norm(name, channels):
    add(f"{name}.weight", channels)
    add(f"{name}.bias", channels)

  add("patch_embed.proj.weight", CHANNELS, 3, 4, 4)
  add("patch_embed.proj.bias", CHANNELS)
  norm("patch_embed.norm", CHANNELS)
  for level, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
    width = CHANNELS * 2**level
    if level:
      prefix = f"layers.{level if merging_is_before else level - 1}.downsample"
      norm(f"{prefix}.norm", 2 * width)
      add(f"{prefix}.reduction.weight", width, 2 * width)
    for index in range(depth - depth % 2):
      prefix = f"layers.{level}.blocks.{index}"
      norm(f"{prefix}.norm1", width)
      norm(f"{prefix}.norm2", width)
      for name, shape in (
        ("attn.qkv", (3 * width, width)),
        ("attn.proj", (width, width)),
        ("mlp.fc1", (4 * width, width)),
        ("mlp.fc2", (width, 4 * width)),
      ):
        add(f"{prefix}.{name}.weight", *shape)
        add(f"{prefix}.{name}.bias", shape[0])
      table = rng.normal(size=(2 * window - 1, 2 * window - 1, heads)).astype(np.float32)
      table = (table + table[::-1]) / 2
      tensors[f"{prefix}.attn.relative_position_bias_table"] = table.reshape(-1, heads)
      tensors[f"{prefix}.attn.relative_position_index"] = np.zeros((window**2, window**2))
      if index % 2:
        tensors[f"{prefix}.attn_mask"] = np.zeros((4, window**2, window**2))
  norm("norm", CHANNELS * 8)
  return tensors | {"head.fc.weight": np.zeros((5, 64)), "head.fc.bias": np.zeros(5)}


def swin_block(tensors, prefix, x, window, num_heads):
  """A block of Swin without a shift, as its paper and timm have it; x [H, W, C]."""

  def normalise(x, name):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    x = (x - mean) / np.sqrt(variance + 1e-6)
    return x * tensors[f"{prefix}{name}.weight"] + tensors[f"{prefix}{name}.bias"]

  def linear(x, name):
    return x @ tensors[f"{prefix}{name}.weight"].T + tensors[f"{prefix}{name}.bias"]

  rows, columns = np.divmod(np.arange(window**2), window)
  index = (rows[:, None] - rows + window - 1) * (2 * window - 1)
  index += columns[:, None] - columns + window - 1
  bias = tensors[f"{prefix}attn.relative_position_bias_table"][index]  # [n, n, heads]
  y, out = normalise(x, "norm1"), np.empty_like(x)
  for top in range(0, x.shape[0], window):
    for left in range(0, x.shape[1], window):
      place = slice(top, top + window), slice(left, left + window)
      qkv = linear(y[place].reshape(window**2, -1), "attn.qkv")
      query, key, value = qkv.reshape(window**2, 3, num_heads, -1).transpose(1, 2, 0, 3)
      logits = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
      logits += bias.transpose(2, 0, 1)
      share = np.exp(logits - logits.max(-1, keepdims=True))
      mixed = share / share.sum(-1, keepdims=True) @ value
      mixed = mixed.transpose(1, 0, 2).reshape(window**2, -1)
      out[place] = linear(mixed, "attn.proj").reshape(window, window, -1)
  x = x + out
  hidden = linear(normalise(x, "norm2"), "mlp.fc1")
  return x + linear(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, "mlp.fc2")


def swin_merging(tensors, prefix, x):
  parts = [x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]]
  x = np.concatenate(parts, axis=-1)
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  x = x * tensors[f"{prefix}norm.weight"] + tensors[f"{prefix}norm.bias"]
  return x @ tensors[f"{prefix}reduction.weight"].T


@pytest.mark.parametrize("merging_is_before", [True, False])
def test_blocks_and_merging_compute_what_swin_computes(merging_is_before):
  tensors = random_tensors(1, 4, merging_is_before=merging_is_before)
  encoder = build(4)
  import_swin(encoder, tensors)
  rng = np.random.default_rng(2)
  x = rng.normal(size=(8, 16, 16)).astype(np.float32)
  actual = jax.jit(encoder.stages[1][0])(x[None])[0]
  expected = swin_block(tensors, "layers.1.blocks.0.", x, 4, 2)
  np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())
  prefix = f"layers.{1 + merging_is_before}.downsample."
  expected = swin_merging(tensors, prefix, x)
  actual = jax.jit(encoder.merging[1])(x[None])[0]
  np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


def test_every_parameter_is_reported_once():
  encoder = build(4)
  before = jax.tree.map(np.asarray, nnx.state(encoder))
  report = import_swin(encoder, random_tensors(3, 3))
  names = [*report.copied, *report.interpolated, *report.new]
  assert len(set(names)) == len(names) == len(jax.tree.leaves(before))
  assert len(report.interpolated) == sum(depth - depth % 2 for depth in DEPTHS)
  assert all(name.endswith("attention.beta") for name in report.interpolated)
  pitched = [name for name in report.new if name.startswith(("stages.2.2.", "stages.3.0."))]
  others = {name.split(".")[0] for name in set(report.new) - set(pitched)}
  assert others == {"stem", "embed", "place", "norms", "stages"}
  assert all(n.endswith("alpha") for n in set(report.new) - set(pitched) if n[:6] == "stages")
  after = nnx.state(encoder)
  changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
  assert sum(jax.tree.leaves(changed)) == len(report.copied) + len(report.interpolated)


def test_a_file_goes_into_the_encoder(tmp_path):
  tensors = random_tensors(6, 3)
  safetensors.numpy.save_file(
    {name: np.asarray(x, np.float32) for name, x in tensors.items()}, tmp_path / "swin.safetensors"
  )
  first, second = build(4), build(4)
  report = load_encoder_weights(first, str(tmp_path / "swin.safetensors"))
  assert report == import_swin(second, tensors)
  jax.tree.map(np.testing.assert_array_equal, nnx.state(first), nnx.state(second))
  start = f"{len(report.copied)} parameters copied, 6 interpolated, {len(report.new)} new: "
  assert str(report).startswith(start) and "stem.0.conv.conv.kernel" in str(report)


def test_a_table_of_the_same_window_keeps_its_values():
  grid = np.random.default_rng(4).normal(size=(5, 5, 2)).astype(np.float32)
  table = _resized_table(grid.reshape(-1, 2), "x", 3 * 5).reshape(3, 5, 2)
  for above in range(3):
    for beside in range(-2, 3):  # key minus query
      both = grid[2 + above, 2 - beside] + grid[2 - above, 2 - beside]
      np.testing.assert_allclose(table[above, 2 + beside], both / 2, atol=1e-6)


def test_a_table_of_another_window_is_stretched_from_end_to_end():
  rows, columns = np.mgrid[-6:7, -6:7] / 6
  grid = np.stack([columns, rows**2], axis=-1).astype(np.float32)
  table = _resized_table(grid.reshape(-1, 2), "x", 8 * 15).reshape(8, 15, 2)
  np.testing.assert_allclose(table[0, :, 0], -np.arange(-7, 8) / 7, atol=1e-5)
  np.testing.assert_allclose(table[:, 3, 1], (np.arange(8) / 7) ** 2, atol=0.01)


def test_tensors_that_do_not_fit_are_refused():
  encoder, tensors = build(4), random_tensors(5, 4)
  before = jax.tree.map(np.asarray, nnx.state(encoder))
  name = "layers.1.blocks.1.mlp.fc1.weight"
  for changed, message in (
    ({k: v for k, v in tensors.items() if k != name}, f"no {name} among the tensors"),
    (tensors | {name: np.zeros((3, 16))}, rf"{name} gives \(16, 3\) where PanoSwin has \(16, 64\)"),
    (tensors | {"layers.1.blocks.2.norm1.bias": np.zeros(16)}, "no place for layers.1.blocks.2"),
    (tensors | {"layers.0.blocks.0.attn.relative_position_bias_table": np.zeros((48, 1))}, "table"),
  ):
    with pytest.raises(ValueError, match=message):
      import_swin(encoder, changed)
  jax.tree.map(np.testing.assert_array_equal, nnx.state(encoder), before)
