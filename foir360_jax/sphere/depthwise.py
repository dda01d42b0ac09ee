"""Depthwise spherical convolution.

Sits below `convolution`. Axes as in `formulations`, with a kernel [T, C]. XLA's CPU backend decides
by the form of these sums whether samples are computed once, and its sums over pixels are slow; what
is written here is what measured best (docs/performance.md).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.sphere.circulant import scan_rows
from foir360_jax.sphere.taps import tap_matrix


@jax.custom_vjp
@jax.jit  # so that it is traced once for all layers and programs of the same shapes
def convolve_depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The convolution [B, R / S, W, C] of x [B, R, W, S, C] with a kernel [T, C]."""
  matrix = tap_matrix(x.shape[1], math.isqrt(len(kernel)), x.shape[3])

  def weigh(parts):
    return (), sum(part[:, :, :, 0] * kernel[tap] for tap, part in enumerate(parts)).astype(x.dtype)

  every_tap_alone = list(np.arange(len(kernel))[:, None])
  return scan_rows(weigh, matrix, x, lane_groups=every_tap_alone)[1]


@jax.jit
def _backward(residuals, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Sends the cotangent back to where each tap had read; both gradients follow from that."""
  x, kernel = residuals
  (_, rows, _, stride, channels), taps = x.shape, len(kernel)
  matrix = tap_matrix(rows, math.isqrt(taps), stride, map_per_tap=True).transpose
  groups = sum(matrix.lane_halves, [])
  lanes = np.concatenate(groups)  # column under the output pixel * taps + tap
  column, tap = np.divmod(lanes, taps)

  def gradients(parts, x):
    spread = jax.lax.optimization_barrier(jnp.concatenate(parts, axis=3))
    spread = spread.reshape(-1, len(lanes), channels)
    columns = x.reshape(-1, stride, channels)
    x_of_lane = columns if stride == 1 else columns[:, column]
    x_columns: list[jax.Array | float] = [0.0] * stride
    for i in range(len(lanes)):
      x_columns[column[i]] += spread[:, i] * kernel[tap[i]]
    x_rows = jnp.stack(x_columns, axis=1).reshape(x.shape).astype(x.dtype)
    if len(lanes) <= 9:
      terms = [_sum_as_product(spread[:, i] * columns[:, column[i]]) for i in range(len(lanes))]
      return jnp.stack(terms), x_rows
    terms = jax.lax.optimization_barrier(spread * x_of_lane)
    return terms.reshape(len(terms), -1).sum(axis=0).reshape(-1, channels), x_rows

  kernel_gradient, x_gradient = scan_rows(
    gradients, matrix, cotangent[..., None, :], x, lane_groups=groups
  )
  kernel_gradient = kernel_gradient[np.argsort(lanes)].reshape(stride, taps, channels).sum(axis=0)
  return x_gradient, kernel_gradient.astype(kernel.dtype)


def _sum_as_product(x: jax.Array) -> jax.Array:
  """The sum [C] over the rows of x [M, C]."""
  x = jax.lax.optimization_barrier(x)
  return jnp.matmul(jnp.ones_like(x[:, 0]), x, precision="highest")


convolve_depthwise.defvjp(lambda x, kernel: (convolve_depthwise(x, kernel), (x, kernel)), _backward)
