"""SphereNet's own formulation in PyTorch, the opponent, with its known bugs repaired.

As published: sample a map of k H x k W taps with grid_sample, then convolve it with stride k.
Repaired, so that it computes the same function as `sphere_conv`: arctan2; coordinates
that mean what grid_sample takes them for; seam and poles, by padding the map with what lies beyond.

Axes inside: maps [B, C, H, W], as PyTorch has them; arguments and results are NumPy [B, H, W, C].
"""

from collections.abc import Callable
from typing import Any

import einops
import numpy as np
import torch
import torch.nn.functional as F

from foir360_jax.benchmarks.record import num_threads
from foir360_jax.sphere.taps import tap_coordinates

Convolution = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def spherenet_conv(height: int, size: int, stride: int) -> Convolution:
  """Returns the spherical convolution of x [B, C, H, W] with kernel [Cout, Cin / groups, k, k]."""
  grid = torch.from_numpy(_sampling_grid(height, size, stride))

  def convolve(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    north, south = (torch.roll(row, height, dims=3) for row in (x[:, :, :1], x[:, :, -1:]))
    x = torch.cat([north, x, south], dim=2)
    x = torch.cat([x, x[..., :1]], dim=3)
    samples = F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=True)
    return F.conv2d(samples, kernel, stride=size, groups=x.shape[1] // kernel.shape[1])

  return convolve


def planar_conv(size: int, stride: int) -> Convolution:
  """Returns PyTorch's own convolution; longitude wraps, beyond the poles are zeros."""
  margin = size // 2

  def convolve(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    x = F.pad(x, (margin, margin, 0, 0), mode="circular")
    groups = x.shape[1] // kernel.shape[1]
    return F.conv2d(x, kernel, stride=stride, padding=(margin, 0), groups=groups)

  return convolve


def prepare(
  convolve: Convolution, x: np.ndarray, kernel: np.ndarray, cotangent: np.ndarray, *, backward: bool
) -> Callable[[], tuple[torch.Tensor, ...]]:
  """Returns the computation of the result and, if `backward`, the gradients of x and kernel."""
  torch.set_num_threads(num_threads())
  maps, pull = (torch.from_numpy(v.transpose(0, 3, 1, 2).copy()) for v in (x, cotangent))
  weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
  maps.requires_grad_(backward)
  weight.requires_grad_(backward)

  def run() -> tuple[torch.Tensor, ...]:
    result = convolve(maps, weight)
    if not backward:
      return (result,)
    return result.detach(), *torch.autograd.grad(result, (maps, weight), pull)

  return run


def to_numpy(results: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
  """Brings what `prepare`'s function returned to [B, H, W, C] and [k, k, Cin, Cout]."""
  result, *gradients = (tensor.numpy() for tensor in results)
  axes = ((0, 2, 3, 1), (2, 3, 1, 0))
  return result.transpose(0, 2, 3, 1), *(
    g.transpose(a) for g, a in zip(gradients, axes, strict=False)
  )


def _sampling_grid(height: int, size: int, stride: int) -> np.ndarray:
  """[1, k H / s, k W / s, 2] float32: x and y of every tap in the padded map, from -1 to 1."""
  row, offset = (table[:, None] for table in tap_coordinates(height, size, stride))  # [H / s, 1, T]
  column = (offset + stride * np.arange(2 * height // stride)[:, None]) % (2 * height)
  # The padded map has a row more at each pole and a column more in the east.
  row, column = np.broadcast_arrays((row + 1) / (height + 1), column / (2 * height))
  places = 2 * np.stack([column, row], axis=-1) - 1  # [H / s, W / s, T, 2]
  return einops.rearrange(
    places.astype(np.float32), "h w (i j) xy -> 1 (h i) (w j) xy", i=size, j=size
  )
