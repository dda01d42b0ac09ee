"""Formulations of the dense spherical convolution: which tensor is sampled, forward and backward.

Sits below `convolution`. Axes: x [B, R, W, S, C], the S columns under an output pixel as lanes;
kernel [T, C, D], a tap after the other; result [B, R / S, W, D].

With S_t the sampling of tap t and K_t its kernel, y = sum_t S_t x K_t. Forward, either x is sampled
or its projections x K_t are; backward, either x is sampled again and the projections of the
cotangent are sent back, or the cotangent is sent back and serves both gradients. Samples are made
and used a block of rows at a time, whole tensors T times as wide appear only in projections.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.sphere.circulant import CirculantMatrix, scan_rows
from foir360_jax.sphere.taps import tap_matrix


def choose_formulation(channels: int, out_channels: int, stride: int) -> str:
  """The fastest formulation for these shapes, as measured on a CPU (docs/performance.md)."""
  if stride > 1:
    return "sample_first"  # the others would project every input pixel, stride^2 times as many
  if 16 * channels <= out_channels:
    return "sample_first"
  if 16 * out_channels <= channels:
    return "project_first"
  return "two_sided"


def _sample_forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Samples x, then projects the samples."""
  matrix = tap_matrix(x.shape[1], _size(kernel), x.shape[3])
  projections = [kernel[half].reshape(-1, kernel.shape[-1]) for half in _lanes(matrix)]

  def project(parts):
    rows = _project(_join(parts, matrix, x.dtype), projections, x.dtype)
    return (), rows.reshape(*parts[0].shape[:3], -1)

  return scan_rows(project, matrix, x, lane_groups=_groups(matrix))[1]


def _project_forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Projects x for every tap, then samples the projections."""
  taps, channels, out_channels = kernel.shape
  matrix = tap_matrix(x.shape[1], _size(kernel), map_per_tap=True)
  projection = kernel.swapaxes(0, 1).reshape(channels, -1)
  projected = _dot(x.reshape(-1, channels), projection).astype(x.dtype)
  projected = projected.reshape(*x.shape[:3], taps, out_channels)

  def only_lane(parts):
    return (), parts[0][..., 0, :].astype(x.dtype)

  return scan_rows(only_lane, matrix, projected, lane_groups=_groups(matrix))[1]


def _sample_backward(
  x: jax.Array, kernel: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Samples x again for the kernel's gradient; sends back the cotangent's projections for x's."""
  taps, channels, out_channels = kernel.shape
  matrix = tap_matrix(x.shape[1], _size(kernel), x.shape[3])

  def correlate(parts, cotangent):
    samples = _join(parts, matrix, x.dtype)
    return [_correlate(cotangent, half) for half in samples], cotangent[:, :, :0, :0]

  halves, _ = scan_rows(correlate, matrix, x, cotangent, lane_groups=_groups(matrix))
  kernel_gradient = jnp.concatenate(halves, axis=1).reshape(out_channels, taps, channels)
  kernel_gradient = kernel_gradient.transpose(1, 2, 0)[_inverse(_lanes(matrix))]

  projection = kernel.reshape(-1, out_channels).T
  projected = _dot(cotangent.reshape(-1, out_channels), projection).astype(x.dtype)
  projected = projected.reshape(*cotangent.shape[:3], taps, channels)

  def join(parts):
    return (), jnp.concatenate(parts, axis=3).astype(x.dtype)

  every_lane_alone = list(np.arange(x.shape[3])[:, None])
  _, x_gradient = scan_rows(join, matrix.transpose, projected, lane_groups=every_lane_alone)
  return x_gradient, kernel_gradient


def _spread_backward(
  x: jax.Array, kernel: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Sends the cotangent back to where each tap had read; both gradients follow from that."""
  taps, channels, out_channels = kernel.shape
  matrix = tap_matrix(x.shape[1], _size(kernel), map_per_tap=True).transpose
  projections = [kernel[half].swapaxes(1, 2).reshape(-1, channels) for half in _lanes(matrix)]

  def gradients(parts, x):
    spread = _join(parts, matrix, cotangent.dtype)
    x_rows = _project(spread, projections, x.dtype).reshape(x.shape)
    return [_correlate(x, half) for half in spread], x_rows

  halves, x_gradient = scan_rows(
    gradients, matrix, cotangent[..., None, :], x, lane_groups=_groups(matrix)
  )
  kernel_gradient = jnp.concatenate(halves, axis=1).reshape(channels, taps, out_channels)
  return x_gradient, kernel_gradient.swapaxes(0, 1)[_inverse(_lanes(matrix))]


_Forward = Callable[[jax.Array, jax.Array], jax.Array]
_Backward = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
# Under jit, convolutions of the same shapes are traced once, in all layers and programs.
_FORMULATIONS: dict[str, tuple[_Forward, _Backward]] = {
  "sample_first": (jax.jit(_sample_forward), jax.jit(_sample_backward)),
  "project_first": (jax.jit(_project_forward), jax.jit(_spread_backward)),
  "two_sided": (jax.jit(_sample_forward), jax.jit(_spread_backward)),
}
FORMULATIONS = tuple(_FORMULATIONS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolve(formulation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The convolution, with the gradients of its formulation, one of `FORMULATIONS`."""
  forward, _ = _FORMULATIONS[formulation]
  return forward(x, kernel)


def _backward(formulation: str, residuals, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = residuals
  _, backward = _FORMULATIONS[formulation]
  x_gradient, kernel_gradient = backward(x, kernel, cotangent)
  return x_gradient, kernel_gradient.astype(kernel.dtype)


convolve.defvjp(lambda name, x, kernel: (convolve(name, x, kernel), (x, kernel)), _backward)


def _dot(left: jax.Array, right: jax.Array) -> jax.Array:
  """The product of two matrices, added up in at least float32."""
  accumulator = jnp.promote_types(left.dtype, jnp.float32)
  return jnp.matmul(left, right, preferred_element_type=accumulator)


def _project(halves: list[jax.Array], projections: list[jax.Array], dtype) -> jax.Array:
  """Sums the products. Two shorter sums round less than a long one: 0.6e-6 for 1.0e-6."""
  return functools.reduce(jnp.add, map(_dot, halves, projections)).astype(dtype)


def _correlate(narrow: jax.Array, wide: jax.Array) -> jax.Array:
  """[N, M]: narrow [..., N] times wide [pixels, M], summed over the pixels."""
  # The barrier makes the transpose a copy: a product that reads its left side across is slower.
  across = jax.lax.optimization_barrier(narrow.reshape(-1, narrow.shape[-1]).T)
  return _dot(across, wide)


def _join(parts: list[jax.Array], matrix: CirculantMatrix, dtype) -> list[jax.Array]:
  """Parts [B, r, W, lanes, C] as a matrix [B r W, lanes C] for each half of the lanes."""
  first = len(matrix.lane_halves[0])
  halves = [half for half in (parts[:first], parts[first:]) if half]
  joined = [jnp.concatenate(half, axis=3).astype(dtype) for half in halves]
  return [half.reshape(-1, half.shape[3] * half.shape[4]) for half in joined]


def _groups(matrix: CirculantMatrix) -> list[np.ndarray]:
  return sum(matrix.lane_halves, [])


def _lanes(matrix: CirculantMatrix) -> list[np.ndarray]:
  """The lanes of each half, in the order of its groups."""
  return [np.concatenate(half) for half in matrix.lane_halves]


def _inverse(lanes: list[np.ndarray]) -> np.ndarray:
  """What brings lanes in the order of the halves back into their own."""
  return np.argsort(np.concatenate(lanes))


def _size(kernel: jax.Array) -> int:
  return math.isqrt(kernel.shape[0])
