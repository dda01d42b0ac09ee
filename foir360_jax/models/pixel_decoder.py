"""From the encoder's levels to one fine map of features, from which masks are made.

A feature pyramid: each level is brought to the same number of channels, and coarse ones are added
to fine ones.
"""

import jax
from flax import nnx

from foir360_jax.models.layers import ConvNorm, WrapConv, upsample


class PixelDecoder(nnx.Module):
  """Feature pyramid from stride 16 up to the stride of the masks.

  Args:
    widths: channels of the encoder's levels at strides 2, 4, 8, 16.
    channels: channels of the result.
    stride: of the finest map, 2 or 4.
    rngs: source of the initial kernels.
  """

  def __init__(self, widths, channels: int, stride: int, *, rngs: nnx.Rngs):
    self.first_level = {2: 0, 4: 1}[stride]
    used = widths[self.first_level :]
    self.lateral = nnx.List(nnx.Linear(width, channels, rngs=rngs) for width in used)
    self.smooth = nnx.List(ConvNorm(WrapConv, channels, channels, rngs=rngs) for _ in used[:-2])

  def __call__(self, levels: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Returns the fine map `[B, H/s, W/s, C]` and the queries' memory `[B, H/8, W/8, C]`."""
    used = levels[self.first_level :]
    coarse = self.lateral[-1](used[-1])
    memory = x = nnx.relu(self.lateral[-2](used[-2]) + upsample(coarse, 2))
    for level in reversed(range(len(self.smooth))):
      x = nnx.relu(self.smooth[level](self.lateral[level](used[level]) + upsample(x, 2)))
    return x, memory
