"""From the encoder's levels to one fine map of features, from which masks are made.

A feature pyramid: each level is brought to the same number of channels, and coarse ones are added
to fine ones.
"""

from collections.abc import Mapping

import jax
from flax import nnx

from foir360_jax.models.layers import ConvNorm, WrapConv, upsample

MEMORY_STRIDE = 8
"""Of the map that queries look at."""


class PixelDecoder(nnx.Module):
  """Feature pyramid from the coarsest level up to the stride of the masks.

  Args:
    widths: channels of the encoder's levels by their strides: powers of two without a gap, of them
      2 or 4, which the masks have, up to 16 or 32.
    channels: channels of the result.
    rngs: source of the initial kernels.
  """

  def __init__(self, widths: Mapping[int, int], channels: int, *, rngs: nnx.Rngs):
    self.strides = tuple(sorted(widths))
    self.lateral = nnx.List(
      nnx.Linear(widths[stride], channels, rngs=rngs) for stride in self.strides
    )
    finer = sum(stride < MEMORY_STRIDE for stride in self.strides)
    self.smooth = nnx.List(ConvNorm(WrapConv, channels, channels, rngs=rngs) for _ in range(finer))

  def __call__(self, levels: Mapping[int, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Returns the fine map `[B, H/s, W/s, C]` and the queries' memory `[B, H/8, W/8, C]`."""
    x = memory = self.lateral[-1](levels[self.strides[-1]])
    for index, stride in reversed(list(enumerate(self.strides[:-1]))):
      x = self.lateral[index](levels[stride]) + upsample(x, 2)
      x = nnx.relu(x if stride >= MEMORY_STRIDE else self.smooth[index](x))
      if stride == MEMORY_STRIDE:
        memory = x
    return x, memory
