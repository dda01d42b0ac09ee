"""Layers shared by encoder and decoders. Feature maps are [B, H, W, C] with W = 2 H.

Every map layer is equivariant to a turn about the vertical axis: longitude wraps, and a row beyond
a pole is that pole's outermost row half a turn on.
"""

import math

import einops
import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.sphere import pad_sphere, sphere_conv

_he_normal = nnx.initializers.he_normal()


def upsample(x: jax.Array, factor: int) -> jax.Array:
  """Repeats every pixel of `[B, H, W, C]` `factor` times along both axes."""
  return einops.repeat(x, "b h w c -> b (h i) (w j) c", i=factor, j=factor)


def mean_pool(x: jax.Array, factor: int) -> jax.Array:
  """Averages blocks of `factor` x `factor` pixels of `[B, H, W, C]`."""
  return einops.reduce(x, "b (h i) (w j) c -> b h w c", "mean", i=factor, j=factor)


def roll_map(x: jax.Array, columns: float) -> jax.Array:
  """Turns `[B, H, W, C]` to the east by any number of columns; linear between whole ones."""
  whole = math.floor(columns)
  rest = columns - whole
  turned = jnp.roll(x, whole, axis=2)
  return turned if not rest else (1 - rest) * turned + rest * jnp.roll(x, whole + 1, axis=2)


class SphereConv(nnx.Module):
  """Convolution whose taps lie on the tangent plane (see `sphere.sphere_conv`), plus a bias.

  Args:
    in_channels: channels of the input.
    out_channels: channels of the output.
    kernel_size: odd number of taps along each axis.
    stride: 1 or 2; the output grid has its own pixel centres.
    rngs: source of the initial kernel.
  """

  def __init__(self, in_channels, out_channels, kernel_size=3, *, stride=1, rngs: nnx.Rngs):
    shape = (kernel_size, kernel_size, in_channels, out_channels)
    self.kernel = nnx.Param(_he_normal(rngs.params(), shape))
    self.bias = nnx.Param(jnp.zeros(out_channels))
    self.stride = stride

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, Cin]` -> `[B, H / stride, W / stride, Cout]`."""
    return sphere_conv(x, self.kernel[...], stride=self.stride) + self.bias[...]


class WrapConv(nnx.Module):
  """Planar convolution with the sphere's padding; at stride 2 it has planar pixel centres."""

  def __init__(self, in_channels, out_channels, kernel_size=3, *, stride=1, rngs: nnx.Rngs):
    self.conv = nnx.Conv(
      in_channels,
      out_channels,
      (kernel_size, kernel_size),
      strides=(stride, stride),
      padding="VALID",
      kernel_init=_he_normal,
      rngs=rngs,
    )
    self.padding = kernel_size // 2

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, Cin]` -> `[B, H / stride, W / stride, Cout]`."""
    return self.conv(pad_sphere(x, self.padding))


class ConvNorm(nnx.Module):
  """Convolution, then LayerNorm over the channels."""

  def __init__(self, conv, in_channels, out_channels, *, stride=1, rngs: nnx.Rngs):
    self.conv = conv(in_channels, out_channels, stride=stride, rngs=rngs)
    self.norm = nnx.LayerNorm(out_channels, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, Cin]` -> `[B, H / stride, W / stride, Cout]`."""
    return self.norm(self.conv(x))


class ResidualBlock(nnx.Module):
  """Two ConvNorms with a ReLU between; the input is added where the shapes agree.

  Args:
    conv: `SphereConv` or `WrapConv`, for the stride-1 convolutions. Stride-2 ones are always
      planar, so that planar pretrained kernels load as they are.
    in_channels: channels of the input.
    out_channels: channels of the output.
    stride: of the first convolution.
    rngs: source of the initial kernels.
  """

  def __init__(self, conv, in_channels, out_channels, *, stride=1, rngs: nnx.Rngs):
    first = conv if stride == 1 else WrapConv
    self.first = ConvNorm(first, in_channels, out_channels, stride=stride, rngs=rngs)
    self.second = ConvNorm(conv, out_channels, out_channels, rngs=rngs)
    self.adds_input = stride == 1 and in_channels == out_channels

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, Cin]` -> `[B, H / stride, W / stride, Cout]`."""
    y = self.second(nnx.relu(self.first(x)))
    return nnx.relu(y + x if self.adds_input else y)


class Mlp(nnx.Module):
  """Linear layers with ReLUs between; the last one may start small."""

  def __init__(self, channels: tuple[int, ...], *, last_scale: float = 1.0, rngs: nnx.Rngs):
    scales = [2.0] * (len(channels) - 2) + [last_scale]
    self.layers = nnx.List(
      nnx.Linear(
        channels[i],
        channels[i + 1],
        kernel_init=nnx.initializers.variance_scaling(scale, "fan_in", "normal"),
        rngs=rngs,
      )
      for i, scale in enumerate(scales)
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[..., channels[0]]` -> `[..., channels[-1]]`."""
    for layer in self.layers[:-1]:
      x = nnx.relu(layer(x))
    return self.layers[-1](x)


class FeedForward(nnx.Module):
  """Residual, pre-norm two-layer perceptron on tokens `[B, N, C]`."""

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    self.norm = nnx.LayerNorm(channels, rngs=rngs)
    self.mlp = Mlp((channels, 2 * channels, channels), last_scale=0.1, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, N, C]` -> `[B, N, C]`."""
    return x + self.mlp(self.norm(x))


class Attention(nnx.Module):
  """Residual, pre-norm multi-head attention with an additive bias on the logits.

  Args:
    channels: of the queries and the output; divisible by `num_heads`.
    memory_channels: of the memory; None where the queries attend to themselves.
    num_heads: number of heads.
    rngs: source of the initial kernels.
  """

  def __init__(self, channels, memory_channels=None, *, num_heads=4, rngs: nnx.Rngs):
    self.norm = nnx.LayerNorm(channels, rngs=rngs)
    source = channels if memory_channels is None else memory_channels
    self.query = nnx.Linear(channels, channels, rngs=rngs)
    self.key = nnx.Linear(source, channels, rngs=rngs)
    self.value = nnx.Linear(source, channels, rngs=rngs)
    small = nnx.initializers.variance_scaling(0.1, "fan_in", "normal")
    self.output = nnx.Linear(channels, channels, kernel_init=small, rngs=rngs)
    self.num_heads = num_heads

  def __call__(self, x, *, memory=None, bias=None) -> jax.Array:
    """`x [B, N, C]`, `memory [B, M, D]`, `bias` broadcastable to [B, heads, N, M] -> [B, N, C]."""
    normed = self.norm(x)
    source = normed if memory is None else memory
    query, key, value = (
      einops.rearrange(tokens, "b n (h d) -> b h n d", h=self.num_heads)
      for tokens in (self.query(normed), self.key(source), self.value(source))
    )
    # Biases by directions need float32, and so does the softmax; the products around it do not.
    logits = jnp.einsum("bhnd,bhmd->bhnm", query / math.sqrt(query.shape[-1]), key)
    logits = logits.astype(jnp.float32)
    if bias is not None:
      logits = logits + bias
    mixed = jnp.einsum("bhnm,bhmd->bhnd", jax.nn.softmax(logits).astype(value.dtype), value)
    return x + self.output(einops.rearrange(mixed, "b h n d -> b n (h d)"))
