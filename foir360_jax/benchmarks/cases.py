"""What is computed in the races of convolutions: shapes, random inputs, and the exact results.

Axes: maps [B, H, W, C] with W = 2 H, kernels [k, k, Cin, Cout], or [k, k, 1, C] if depthwise.
"""

import dataclasses
import re
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.benchmarks.convolutions import gathered_conv

PASSES = ("forward", "forward+backward")
_NAME = re.compile(r"(conv|depthwise)(\d+)(?:s(\d+))?-(\d+)x(\d+)x(\d+)x(\d+)")


@dataclasses.dataclass(frozen=True)
class Case:
  """One convolution with as many channels out as in; `parse` reads what `name` writes."""

  batch_size: int
  height: int
  channels: int
  size: int = 3
  stride: int = 1
  depthwise: bool = False

  @classmethod
  def parse(cls, name: str) -> Self:
    """Reads a name.

    Raises:
      ValueError: it is none.

    >>> Case.parse("depthwise5s2-2x64x128x96")
    Case(batch_size=2, height=64, channels=96, size=5, stride=2, depthwise=True)
    >>> Case.parse("depthwise5s2-2x64x128x96").name
    'depthwise5s2-2x64x128x96'
    """
    match = _NAME.fullmatch(name)
    if not match or int(match[6]) != 2 * int(match[5]):
      raise ValueError(
        f"{name!r} is no shape; write them like conv3-2x64x128x96 or depthwise5s2-..."
      )
    kind, size, stride, batch_size, height, _, channels = match.groups()
    return cls(
      int(batch_size), int(height), int(channels), int(size), int(stride or 1), kind == "depthwise"
    )

  @property
  def name(self) -> str:
    """Kind, taps along a side, stride if any, and the input's shape."""
    kind = "depthwise" if self.depthwise else "conv"
    stride = f"s{self.stride}" if self.stride > 1 else ""
    shape = f"{self.batch_size}x{self.height}x{2 * self.height}x{self.channels}"
    return f"{kind}{self.size}{stride}-{shape}"

  @property
  def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Of the input, the kernel and the result."""
    rows = self.height // self.stride
    return (
      (self.batch_size, self.height, 2 * self.height, self.channels),
      (self.size, self.size, 1 if self.depthwise else self.channels, self.channels),
      (self.batch_size, rows, 2 * rows, self.channels),
    )

  def operations(self, backward: bool) -> int:
    """Floating point operations of the products alone; the two gradients cost the same again."""
    _, kernel, result = self.shapes
    return 2 * int(np.prod(kernel[:3])) * int(np.prod(result)) * (3 if backward else 1)

  def least_bytes(self, itemsize: int, backward: bool) -> int:
    """What must be read and written at least, if every array passes once each way it is needed."""
    x, kernel, result = (int(np.prod(shape)) for shape in self.shapes)
    # Backward: the cotangent in, the gradients of input and kernel out.
    return itemsize * (x + kernel + result) * (2 if backward else 1)

  def inputs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, kernel and cotangent of the result, float32; always the same for a case."""
    rng = np.random.default_rng(0)
    x, kernel, cotangent = (rng.standard_normal(s, np.float32) for s in self.shapes)
    return x, kernel / np.sqrt(np.prod(kernel.shape[:3]), dtype=np.float32), cotangent


def exact_results(case: Case, x, kernel, cotangent) -> tuple[np.ndarray, ...]:
  """The spherical convolution and its gradients of input and kernel, in float64.

  By autodiff of plain gathers, one example at a time.
  """
  with jax.enable_x64(True):
    x, kernel, cotangent = (jnp.asarray(np.asarray(v, np.float64)) for v in (x, kernel, cotangent))

    @jax.jit
    def one(x, cotangent):
      result, pull = jax.vjp(
        lambda x, kernel: gathered_conv(x, kernel, stride=case.stride), x[None], kernel
      )
      x_gradient, kernel_gradient = pull(cotangent[None])
      return result[0], x_gradient[0], kernel_gradient

    examples = [jax.device_get(one(*pair)) for pair in zip(x, cotangent, strict=True)]
  result, x_gradient, kernel_gradient = (np.stack(v) for v in zip(*examples, strict=True))
  return result, x_gradient, kernel_gradient.sum(axis=0)


def relative_error(actual, exact: np.ndarray) -> float:
  """max|difference| / max|exact|.

  >>> relative_error([1.0, 2.5], np.array([1.0, 2.0]))
  0.25
  """
  return float(np.abs(np.asarray(actual, np.float64) - exact).max() / np.abs(exact).max())
