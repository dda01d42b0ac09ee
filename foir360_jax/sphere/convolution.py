"""Convolution on the sphere: planar kernels whose taps follow the sphere instead of the pixel grid.

Sits below every encoder. Axes: maps [B, H, W, C] with W = 2 H, kernels [k, k, Cin, Cout].

Where the taps of a pixel lie depends on its row alone; along a row they only shift. So sampling all
taps is a sparse matrix, circulant in longitude: a short list of entries for each row
(`_CirculantMatrix`). Its transpose is the same list with the sides swapped and the shifts negated,
so the gradient is a gather with static tables too, and the scatter-add that autodiff would make of
it never appears.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np


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
  taps = size * size
  grid = (batch_size, height, width // stride)
  if not depthwise and stride == 1 and out_channels <= channels:
    # Project first, blend then: the result of the blend is the smaller one, and x is all that the
    # backward pass needs to keep.
    projection = kernel.reshape(taps, channels, out_channels).transpose(1, 0, 2)
    projected = x.reshape(-1, channels) @ projection.reshape(channels, -1)
    blend = _tap_matrix(height, size, stride, blend=True)
    return _multiply(blend, projected.reshape(*grid, taps, out_channels))[..., 0, :]

  # The columns under one output pixel become the lane axis: then every shift is in output pixels.
  sample = _tap_matrix(height, size, stride, blend=False)
  samples = _multiply(sample, x.reshape(*grid, stride, channels))
  if depthwise:
    return jnp.einsum("bhwtc,tc->bhwc", samples, kernel.reshape(taps, channels))
  out = samples.reshape(-1, taps * channels) @ kernel.reshape(-1, out_channels)
  return out.reshape(*samples.shape[:3], out_channels)


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


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: it is a static argument
class _CirculantMatrix:
  """A sparse matrix that commutes with shifts in longitude: [B, R, W, L, C] -> [B, R', W, L', C].

  Sites are row * lanes + lane. Entry e adds weight[e] * x[source[e], (c + shift[e]) mod W] to
  destination[e] at every column c.
  """

  destination: np.ndarray  # [E] sites of the result
  source: np.ndarray  # [E] sites of the operand
  shift: np.ndarray  # [E] columns eastward
  weight: np.ndarray  # [E]
  columns: int  # W
  out_shape: tuple[int, int]  # R', L'
  in_shape: tuple[int, int]  # R, L

  @functools.cached_property
  def transpose(self) -> "_CirculantMatrix":
    """The matrix of the gradient."""
    return dataclasses.replace(
      self,
      destination=self.source,
      source=self.destination,
      shift=-self.shift,
      out_shape=self.in_shape,
      in_shape=self.out_shape,
    )

  @functools.cached_property
  def gathers(self) -> list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """For each result lane its terms: first source element, shift and weight of each row, [R'].

    A row with fewer entries than the longest has terms of weight 0.
    """
    sites, lanes = self.out_shape[0] * self.out_shape[1], self.in_shape[1]
    counts = np.bincount(self.destination, minlength=sites)
    order = np.argsort(self.destination, kind="stable")
    site = self.destination[order]
    term = np.arange(len(order)) - (np.cumsum(counts) - counts)[site]

    def fill(values: np.ndarray, dtype) -> np.ndarray:
      filled = np.zeros((counts.max(), sites), dtype)
      filled[term, site] = values[order]
      return filled.reshape(-1, *self.out_shape)

    start = fill(self.source // lanes * self.columns * lanes + self.source % lanes, np.int32)
    shift = fill(self.shift % self.columns, np.int32)
    weight = fill(self.weight, np.float32)
    return [
      [
        (start[i, :, lane], shift[i, :, lane], weight[i, :, lane])
        for i in np.flatnonzero(weight[:, :, lane].any(axis=1))
      ]
      for lane in range(self.out_shape[1])
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _multiply(matrix: _CirculantMatrix, x: jax.Array) -> jax.Array:
  """The product [B, R', W, L', C] of a matrix with x [B, R, W, L, C]."""
  batch_size, _, columns, lanes, channels = x.shape
  elements = jax.lax.optimization_barrier(x).reshape(batch_size, -1, channels)
  # Indices are computed inside the fused gather: as constants they would outweigh the program.
  column = jax.lax.iota(jnp.int32, columns)

  def term(start: np.ndarray, shift: np.ndarray, weight: np.ndarray) -> jax.Array:
    shifted = jax.lax.rem(column + shift[:, None], jnp.int32(columns))
    picked = jnp.take(elements, start[:, None] + shifted * lanes, axis=1, mode="clip")
    return picked * jnp.asarray(weight, x.dtype)[:, None, None]

  # One fused loop per lane: lanes differ in their number of terms.
  return jnp.stack([sum(term(*t) for t in terms) for terms in matrix.gathers], axis=3)


_multiply.defvjp(
  lambda matrix, x: (_multiply(matrix, x), None),
  lambda matrix, _, cotangent: (_multiply(matrix.transpose, cotangent),),
)


@functools.cache
def _tap_matrix(height: int, size: int, stride: int, *, blend: bool) -> _CirculantMatrix:
  """The bilinear sampling of all taps.

  Args:
    height: rows of the input.
    size: taps along each side of the kernel.
    stride: input pixels per output pixel.
    blend: False samples: from (input row, column within an output pixel) to (output row, tap).
      True, for stride 1, moves what each tap has projected to where it belongs and adds up: from
      (input row, tap) to (output row, 0).
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
    (taps, tap, 1, 0) if blend else (stride, column % stride, taps, tap)
  )
  return _CirculantMatrix(
    destination=out_row * out_lanes + out_lane,
    source=row * lanes + lane,
    shift=column // stride,
    weight=weight[nonzero],
    columns=2 * height // stride,
    out_shape=(height // stride, out_lanes),
    in_shape=(height, lanes),
  )
