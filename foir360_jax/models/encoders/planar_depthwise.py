"""Planar depthwise convolution of any stride, as a sum of shifted maps."""

import jax
import jax.numpy as jnp


def convolve_depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """Planar depthwise convolution of a padded map, as a sum of shifted maps.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, 1, C].
    stride: distance of the output's pixels.

  Returns:
    [B, (H - k) // stride + 1, (W - k) // stride + 1, C], of the type of x; sums are float32.
  """
  size, dtype = len(kernel), x.dtype
  x = x.astype(jnp.promote_types(dtype, jnp.float32))
  rows, columns = ((length - size) // stride + 1 for length in x.shape[1:3])
  out = 0.0
  for row in range(size):
    for column in range(size):
      taps = x[:, row : row + (rows - 1) * stride + 1 : stride]
      taps = taps[:, :, column : column + (columns - 1) * stride + 1 : stride]
      out = out + taps * kernel[row, column, 0]
  return out.astype(dtype)
