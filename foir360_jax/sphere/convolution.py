"""Spherical convolution: kernels whose taps lie on the tangent plane of each pixel.

Sits below every encoder. Axes: maps [B, H, W, C] with W = 2 H, kernels [k, k, Cin, Cout].

Where the taps of a pixel lie depends on its row alone; along a row they only shift. So sampling all
taps is a sparse matrix, circulant in longitude (`taps`, `circulant`), whose transpose is one too:
forward and backward are gathers with static tables and dense products (`formulations`,
`depthwise`), and the scatter-add of plain autodiff never appears.
"""

import jax
import jax.numpy as jnp

from foir360_jax.sphere.depthwise import convolve_depthwise
from foir360_jax.sphere.formulations import FORMULATIONS, choose_formulation, convolve


def sphere_conv(
  x: jax.Array, kernel: jax.Array, *, stride: int = 1, formulation: str | None = None
) -> jax.Array:
  """Convolves panoramas with kernels that are the same on the tangent plane of every pixel.

  The tap dy rows south and dx columns east of the output pixel (lon, lat) lies on the tangent plane
  there at X = tan(dx 2π/W), Y = -tan(dy π/H) / cos(dx 2π/W) (Y north), goes back to the sphere by
  the inverse gnomonic projection, and is sampled bilinearly; longitude wraps and a row beyond a
  pole is that pole's outermost row, half a turn on. No padding is needed. On the equator this is
  the planar convolution, so planar pretrained kernels fit. The output grid is H/s x W/s with its
  own pixel centres; taps are one input pixel apart.

  Works under jit, vmap, scan, remat, shard_map and pmap; has first derivatives in reverse mode,
  which keep x and the kernel and nothing else. Sampling weights are float32, and so are sums of
  bfloat16 products.

  Source: Coors et al., SphereNet, ECCV 2018 (with arctan2, so that taps beyond a pole land there).

  Args:
    x: [B, H, W, Cin] floats, W = 2 H.
    kernel: [k, k, Cin, Cout], or [k, k, 1, Cin] for a depthwise convolution; k odd, k <= H. Row 0
      is the northern one, column 0 the western one.
    stride: a divisor of H.
    formulation: one of `FORMULATIONS`, to force how a dense convolution with k > 1 is computed; the
      results agree to rounding. None: the fastest for these shapes.

  Returns:
    [B, H / stride, W / stride, Cout]; [..., Cin] if depthwise. Shifting x by m * stride columns
    shifts the result by m.

  Raises:
    ValueError: a shape is outside this contract, or the formulation is unknown or not for strides.

  >>> x = jnp.ones((1, 8, 16, 3))
  >>> sphere_conv(x, jnp.ones((3, 3, 3, 5)), stride=2).shape
  (1, 4, 8, 5)
  """
  x, kernel = jnp.asarray(x), jnp.asarray(kernel)
  depthwise = _check_shapes(x.shape, kernel.shape, stride)
  formulation = _check_formulation(formulation, x.shape[3], kernel.shape[3], stride)
  dtype = jnp.promote_types(x.dtype, kernel.dtype)
  x, kernel = x.astype(dtype), kernel.astype(dtype)
  batch_size, height, width, channels = x.shape
  size, _, _, out_channels = kernel.shape
  if size == stride == 1:  # every tap lies on its own pixel
    return x * kernel[0, 0, 0] if depthwise else jnp.matmul(x, kernel[0, 0])
  # The columns under one output pixel become lanes: then every shift is in output pixels.
  x = x.reshape(batch_size, height, width // stride, stride, channels)
  with jax.named_scope("sphere_conv"):
    if depthwise:
      return convolve_depthwise(x, kernel.reshape(size * size, channels))
    return convolve(formulation, x, kernel.reshape(size * size, channels, out_channels))


def _check_formulation(
  formulation: str | None, channels: int, out_channels: int, stride: int
) -> str:
  """Returns the formulation to use; raises ValueError for one that cannot be."""
  if formulation is None:
    return choose_formulation(channels, out_channels, stride)
  if formulation not in FORMULATIONS:
    raise ValueError(
      f"sphere_conv: formulation must be one of {', '.join(FORMULATIONS)}, not {formulation!r}"
    )
  if stride > 1 and formulation != "sample_first":
    raise ValueError(f"sphere_conv: with stride {stride} only sample_first works")
  return formulation


def _check_shapes(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int) -> bool:
  """Raises ValueError for shapes outside the contract; returns whether the kernel is depthwise."""
  if len(x_shape) != 4:
    if len(x_shape) == 3 and x_shape[1] == 2 * x_shape[0]:
      cure = "the batch axis is missing, give x[None]"
    elif len(x_shape) == 3 and x_shape[2] == 2 * x_shape[1]:
      cure = "the channels are missing, give x[..., None]"
    else:
      cure = "give it four axes"
    raise ValueError(f"sphere_conv needs x [B, H, 2 H, C], not {x_shape}: {cure}")
  if x_shape[2] != 2 * x_shape[1]:
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
