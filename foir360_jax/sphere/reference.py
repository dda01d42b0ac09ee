"""Reference implementation of the spherical convolution, plain and in float64.

Imported by tests and benchmarks only: it shares no code with the fast one, so that both would have
to be wrong in the same way. Axes as in `convolution`.
"""

import types

import numpy as np

TOLERANCES = types.MappingProxyType({"float32": 1e-6, "tensorfloat32": 2e-3, "bfloat16": 1e-2})
"""How far, at most, each arithmetic may be from the reference: max|difference| / max|reference|.

Gradients may be twice as far. In bfloat16 the inputs count as already rounded. On a GPU, float32
products are tensorfloat32 (10 bits) unless `jax.default_matmul_precision("highest")` is set.
"""


def sphere_conv_reference(x: np.ndarray, kernel: np.ndarray, *, stride: int = 1) -> np.ndarray:
  """What `sphere_conv` computes, in float64 and NumPy.

  Args:
    x: [B, H, W, Cin], W = 2 H.
    kernel: [k, k, Cin, Cout], or [k, k, 1, Cin] for a depthwise convolution.
    stride: a divisor of H.

  Returns:
    [B, H / stride, W / stride, Cout], float64.
  """
  x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
  depthwise = kernel.shape[2] == 1 and kernel.shape[3] == x.shape[3] > 1
  rows, columns, weights = tap_corners(x.shape[1], kernel.shape[0], stride)
  out: np.ndarray = np.zeros(())
  for tap in np.ndindex(kernel.shape[:2]):  # a tap at a time: together they need much memory
    sample = sum(
      x[:, rows[*tap, corner], columns[*tap, corner]] * weights[*tap, corner][..., None]
      for corner in range(4)
    )
    out = out + (sample * kernel[*tap, 0] if depthwise else sample @ kernel[tap])
  return out


def sphere_conv_gradients_reference(
  x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray, *, stride: int = 1
) -> tuple[np.ndarray, np.ndarray]:
  """The gradients of `sum(cotangent * sphere_conv(x, kernel))` for x and kernel, float64.

  Args:
    x: [B, H, W, Cin].
    kernel: [k, k, Cin, Cout] or [k, k, 1, Cin].
    cotangent: [B, H / stride, W / stride, Cout].
    stride: a divisor of H.
  """
  x, kernel, cotangent = (np.asarray(v, np.float64) for v in (x, kernel, cotangent))
  depthwise = kernel.shape[2] == 1 and kernel.shape[3] == x.shape[3] > 1
  rows, columns, weights = tap_corners(x.shape[1], kernel.shape[0], stride)
  x_gradient, kernel_gradient = np.zeros_like(x), np.zeros_like(kernel)
  for tap in np.ndindex(kernel.shape[:2]):
    spread = cotangent * kernel[*tap, 0] if depthwise else cotangent @ kernel[tap].T
    sample = 0.0
    for corner in range(4):
      place = rows[*tap, corner], columns[*tap, corner]
      weight = weights[*tap, corner][..., None]
      sample = sample + x[:, *place] * weight
      np.add.at(x_gradient, (slice(None), *place), spread * weight)  # type: ignore[arg-type]
    if depthwise:
      kernel_gradient[*tap, 0] = (sample * cotangent).sum(axis=(0, 1, 2))
    else:
      kernel_gradient[tap] = np.tensordot(sample, cotangent, axes=([0, 1, 2], [0, 1, 2]))
  return x_gradient, kernel_gradient


def tap_corners(
  height: int, size: int, stride: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Rows, columns and weights of the four pixels around each tap, [k, k, 4, H / s, W / s] each.

  In three dimensions: the tap is the point centre + X east + Y north of the tangent plane, with the
  X and Y that `sphere_conv` states.
  """
  width = 2 * height
  lat = np.pi / 2 - (np.arange(height // stride)[:, None] + 0.5) * stride * np.pi / height
  lon = -np.pi + (np.arange(width // stride) + 0.5) * stride * 2 * np.pi / width
  lon, lat = np.broadcast_arrays(lon, lat)
  center = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
  east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)])
  north = np.cross(center, east, axis=0)
  offsets = np.arange(size) - size // 2
  dy, dx = offsets[:, None, None, None], offsets[:, None, None]
  tangent_x = np.tan(dx * 2 * np.pi / width) + 0 * dy
  tangent_y = -np.tan(dy * np.pi / height) / np.cos(dx * 2 * np.pi / width)
  x, y, z = (
    center[i] + tangent_x * east[i] + tangent_y * north[i] for i in range(3)
  )  # [k, k, H / s, W / s]
  on_pole = np.hypot(x, y) < 1e-12  # all longitudes are right there; take the pixel's own
  column = (np.where(on_pole, lon, np.arctan2(y, x)) + np.pi) * width / (2 * np.pi) - 0.5
  row = (np.pi / 2 - np.arctan2(z, np.hypot(x, y))) * height / np.pi - 0.5
  corners = []
  for r, c in ((np.floor(row) + i, np.floor(column) + j) for i in (0, 1) for j in (0, 1)):
    half_turn = np.where((r < 0) | (r >= height), height, 0)
    weight = (1 - abs(row - r)) * (1 - abs(column - c))
    corners.append((np.clip(r, 0, height - 1), (c + half_turn) % width, weight))
  rows, columns, weights = (np.stack(v, axis=2) for v in zip(*corners, strict=True))
  return rows.astype(int), columns.astype(int), weights
