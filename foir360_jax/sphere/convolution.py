"""Convolution on the sphere: planar kernels whose taps follow the sphere instead of the pixel grid.

Sits below every encoder. Axes: maps [B, H, W, C] with W = 2 H, kernels [k, k, Cin, Cout].

Where the taps of a pixel lie depends on its row alone; along a row they only shift. So sampling all
taps is a sparse matrix, circulant in longitude (`circulant`), whose transpose is one too: forward
and backward are gathers with static tables, and the scatter-add of plain autodiff never appears.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.sphere import circulant


def sphere_conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
  """Convolves panoramas with kernels that are the same on the tangent plane of every pixel.

  The tap dy rows south and dx columns east of the output pixel (lon, lat) lies on the tangent plane
  there at X = tan(dx 2π/W), Y = -tan(dy π/H) / cos(dx 2π/W) (Y north), goes back to the sphere by
  the inverse gnomonic projection, and is sampled bilinearly; longitude wraps and a row beyond a
  pole is that pole's outermost row, half a turn on. No padding is needed. On the equator this is
  the planar convolution, so planar pretrained kernels fit. The output grid is H/s x W/s with its
  own pixel centres; taps are one input pixel apart.

  Source: Coors et al., SphereNet, ECCV 2018 (with arctan2, so that taps beyond a pole land there).

  Args:
    x: [B, H, W, Cin] floats, W = 2 H.
    kernel: [k, k, Cin, Cout], or [k, k, 1, Cin] for a depthwise convolution; k odd, k <= H. Row 0
      is the northern one, column 0 the western one.
    stride: a divisor of H.

  Returns:
    [B, H / stride, W / stride, Cout]; [..., Cin] if depthwise. Shifting x by m * stride columns
    shifts the result by m.

  Raises:
    ValueError: a shape is outside this contract.

  >>> x = jnp.ones((1, 8, 16, 3))
  >>> sphere_conv(x, jnp.ones((3, 3, 3, 5)), stride=2).shape
  (1, 4, 8, 5)
  """
  depthwise = _check_shapes(jnp.shape(x), jnp.shape(kernel), stride)
  batch_size, height, width, channels = x.shape
  size, _, _, out_channels = kernel.shape
  # The columns under one output pixel become the lane axis: then every shift is in output pixels.
  x = x.reshape(batch_size, height, width // stride, stride, channels)
  if depthwise:
    kernel = kernel.reshape(size * size, channels)
  else:
    kernel = kernel.reshape(size * size, channels, out_channels)
  if stride == 1:
    return _convolve(x[..., 0, :], kernel)
  return _contract(circulant.multiply(_tap_matrix(height, size, stride), x), kernel)


def _check_shapes(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int) -> bool:
  """Raises ValueError for shapes outside the contract; returns whether the kernel is depthwise."""
  if len(x_shape) != 4 or x_shape[2] != 2 * x_shape[1]:
    raise ValueError(f"sphere_conv needs x [B, H, 2 H, C], not {x_shape}: resize it to 2:1 first")
  if len(kernel_shape) != 4 or kernel_shape[0] != kernel_shape[1] or kernel_shape[0] % 2 == 0:
    raise ValueError(f"sphere_conv needs a kernel [k, k, Cin, Cout] with k odd, not {kernel_shape}")
  _, height, _, channels = x_shape
  size, _, kernel_in, kernel_out = kernel_shape
  if height < size:
    raise ValueError(
      f"sphere_conv: a {size}x{size} kernel reaches 90 degrees on a map of {height} rows;"
      f" use a smaller kernel or at least {size} rows"
    )
  if stride < 1 or height % stride:
    raise ValueError(
      f"sphere_conv: stride {stride} does not divide {height} rows; choose a divisor"
    )
  depthwise = kernel_in == 1 and kernel_out == channels > 1
  if kernel_in != channels and not depthwise:
    raise ValueError(
      f"sphere_conv: x has {channels} channels, so the kernel must be [k, k, {channels}, Cout]"
      f" (or [k, k, 1, {channels}] for depthwise), not {kernel_shape}"
    )
  return depthwise


def _contract(samples: jax.Array, kernel: jax.Array) -> jax.Array:
  """Sums samples [B, R, W, T, C] times kernel [T, C, D], or [T, C] if depthwise, over the taps."""
  if kernel.ndim == 2:
    return jnp.einsum("brwtc,tc->brwc", samples, kernel)
  # One plain matrix product: einsum would leave two contracted axes to the compiler, at half speed.
  *grid, taps, channels = samples.shape
  out = samples.reshape(-1, taps * channels) @ kernel.reshape(taps * channels, -1)
  return out.reshape(*grid, -1)


def _correlate(x: jax.Array, spread: jax.Array, depthwise: bool) -> jax.Array:
  """The kernel's gradient, [T, C, D] or [T, C], from x [B, R, W, C] and spread [B, R, W, T, D]."""
  if depthwise:
    return jnp.einsum("brwc,brwtc->tc", x, spread)
  channels, (*_, taps, out_channels) = x.shape[-1], spread.shape
  correlation = x.reshape(-1, channels).T @ spread.reshape(-1, taps * out_channels)
  return correlation.reshape(channels, taps, out_channels).swapaxes(0, 1)


@jax.custom_vjp
def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The convolution at stride 1 of x [B, H, W, C] with kernel [T, C, D], or [T, C] if depthwise."""
  matrix = _tap_matrix(x.shape[1], math.isqrt(kernel.shape[0]))
  return circulant.join_blocks(
    circulant.map_rows(lambda s: _contract(s, kernel), matrix, x[..., None, :])
  )


def _convolve_backward(residuals, cotangent: jax.Array):
  """Gradients from one gather: of the cotangent, to where each tap had read."""
  x, kernel = residuals
  matrix = _tap_matrix(x.shape[1], math.isqrt(kernel.shape[0]), split=True).transpose
  transposed, depthwise = kernel.swapaxes(1, -1), kernel.ndim == 2

  def gradients(spread: jax.Array, x: jax.Array):  # [B, r, W, T, D], [B, r, W, C]
    return _contract(spread, transposed), _correlate(x, spread, depthwise)

  x_blocks, kernel_blocks = circulant.map_rows(gradients, matrix, cotangent[..., None, :], x)
  x_gradient = circulant.join_blocks(x_blocks).astype(x.dtype)
  return x_gradient, kernel_blocks.sum(axis=0).astype(kernel.dtype)


_convolve.defvjp(lambda x, kernel: (_convolve(x, kernel), (x, kernel)), _convolve_backward)


@functools.cache
def _tap_matrix(
  height: int, size: int, stride: int = 1, *, split: bool = False
) -> circulant.CirculantMatrix:
  """The bilinear sampling of all taps.

  Args:
    height: rows of the input.
    size: taps along each side of the kernel.
    stride: input pixels per output pixel.
    split: False: from (input row, column within an output pixel) to (output row, tap). True, for
      stride 1: from (input row, tap) to (output row, 0), as if each tap sampled a map of its own.
  """
  tap_row, tap_column = _tap_coordinates(height, size, stride)
  corners = []
  for south in (0, 1):
    for east in (0, 1):
      row, column = np.floor(tap_row) + south, np.floor(tap_column) + east
      weight = (1 - abs(tap_row - row)) * (1 - abs(tap_column - column))
      beyond_pole = (row < 0) | (row >= height)
      column = np.where(beyond_pole, column + height, column)  # half a turn is H columns
      row = np.where(row < 0, -1 - row, np.where(row >= height, 2 * height - 1 - row, row))
      corners.append((row, column, weight))
  row, column, weight = (np.stack(v) for v in zip(*corners, strict=True))  # [4, H / s, k * k]
  nonzero = np.nonzero(weight)
  _, out_row, tap = nonzero
  row, column = row[nonzero].astype(int), column[nonzero].astype(int)
  taps = size * size
  lanes, lane, out_lanes, out_lane = (
    (taps, tap, 1, 0) if split else (stride, column % stride, taps, tap)
  )
  return circulant.CirculantMatrix(
    destination=out_row * out_lanes + out_lane,
    source=row * lanes + lane,
    shift=column // stride,
    weight=weight[nonzero],
    columns=2 * height // stride,
    out_shape=(height // stride, out_lanes),
    in_shape=(height, lanes),
  )


def _tap_coordinates(height: int, size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
  """Row and eastward offset in input pixels of each tap of output column 0, float64 [H / s, k * k].

  Offsets count from the centre of input column 0.
  """
  pixel_rad = np.pi / height  # rows and columns have the same pitch
  center_rows = (np.arange(height // stride) + 0.5) * stride
  lat_rad = np.pi / 2 - center_rows[:, None] * pixel_rad
  reach = (np.arange(size) - size // 2) * pixel_rad
  south_rad, east_rad = (offset.ravel() for offset in np.meshgrid(reach, reach, indexing="ij"))
  tangent_x = np.tan(east_rad)
  tangent_y = -np.tan(south_rad) / np.cos(east_rad)
  # The point of the tangent plane, seen from the centre of the sphere in the frame of its meridian.
  toward_axis = np.cos(lat_rad) - tangent_y * np.sin(lat_rad)
  up = np.sin(lat_rad) + tangent_y * np.cos(lat_rad)
  tap_lon_rad = np.arctan2(tangent_x, toward_axis)
  tap_lat_rad = np.arctan2(up, np.hypot(tangent_x, toward_axis))
  row = (np.pi / 2 - tap_lat_rad) / pixel_rad - 0.5
  column = tap_lon_rad / pixel_rad + (stride - 1) / 2
  # A tap that falls on a pixel centre needs one pixel, not four with weights of 1e-16.
  row, column = (np.where(abs(v - np.rint(v)) < 1e-9, np.rint(v), v) for v in (row, column))
  return row, column
