"""The JAX contestants in the races of convolutions. Maps [B, H, W, C], kernels [k, k, Cin, Cout].

All take `(x, kernel, *, stride)`, and a kernel [k, k, 1, C] for a depthwise convolution.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from foir360_jax.sphere.reference import tap_corners


def planar_conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
  """XLA's own convolution; longitude wraps, beyond the poles are zeros."""
  size, _, kernel_in, _ = kernel.shape
  margin = size // 2
  x = jnp.pad(x, ((0, 0), (0, 0), (margin, margin), (0, 0)), mode="wrap")
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((margin, margin), (0, 0)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[-1] // kernel_in,
  )


def gathered_conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
  """The spherical convolution as one would write it first: gather the taps, then one product.

  Its gradient is left to autodiff, which makes a scatter-add of every gather.
  """
  batch_size, height, width, channels = x.shape
  size, _, kernel_in, _ = kernel.shape
  rows, columns, weights = (
    table.reshape(size * size, 4, height // stride, width // stride)
    for table in tap_corners(height, size, stride)
  )
  pixels = x.reshape(batch_size, height * width, channels)

  def sample(tap: int) -> jax.Array:
    return functools.reduce(
      jnp.add,
      (
        pixels[:, rows[tap, corner] * width + columns[tap, corner]]
        * jnp.asarray(weights[tap, corner], x.dtype)[..., None]
        for corner in range(4)
        if weights[tap, corner].any()
      ),
    )

  samples = jnp.stack([sample(tap) for tap in range(size * size)], axis=3)
  if kernel_in == 1 < channels:
    return jnp.einsum("bhwtc,tc->bhwc", samples, kernel.reshape(size * size, channels))
  *grid, _, _ = samples.shape
  flat = samples.reshape(-1, size * size * channels) @ kernel.reshape(size * size * channels, -1)
  return flat.reshape(*grid, -1)


def with_gradients(convolve: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, ...]]:
  """`(x, kernel, cotangent)` -> the result and its gradients of input and kernel."""

  def run(x, kernel, cotangent):
    result, pull = jax.vjp(convolve, x, kernel)
    return result, *pull(cotangent)

  return run
