"""Pixel decoder: from the encoder's levels to memories at several scales and a fine map.

The coarsest level goes through a transformer in which every cell may look at every other one, by
their directions on the sphere, so that there is no seam to wrap; then a feature pyramid brings each
level to the same number of channels and adds coarse ones to fine ones.

Source: attention within the coarsest level alone is that of Zhao et al., RT-DETR, CVPR 2024; it has
the most to say to others and the fewest cells.
"""

from collections.abc import Mapping

import einops
import jax
from flax import nnx

from foir360_jax.models.cells import flat_directions, flat_weights
from foir360_jax.models.layers import Attention, ConvNorm, FeedForward, WrapConv, upsample
from foir360_jax.models.sphere_attention import PositionBias

SCALES = 3
"""Number of levels, from the coarsest on, that queries look at, if so many are above the finest."""

_SMOOTH_BELOW = 8  # levels of a finer stride than this are smoothed after they were enlarged
_GAINS = (0.5, 2.0, 8.0, 30.0)


class SceneLayer(nnx.Module):
  """Attention among all cells of a map, then a perceptron on each."""

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    self.attention = Attention(channels, num_heads=len(_GAINS), rngs=rngs)
    self.position = PositionBias(_GAINS)
    self.feed_forward = FeedForward(channels, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, h, w, C]` -> the same."""
    height = x.shape[1]
    directions = flat_directions(height)
    bias = self.position(directions[None], directions, flat_weights(height))
    tokens = einops.rearrange(x, "b h w c -> b (h w) c")
    tokens = self.feed_forward(self.attention(tokens, bias=bias))
    return einops.rearrange(tokens, "b (h w) c -> b h w c", h=height)


class PixelDecoder(nnx.Module):
  """Transformer on the coarsest level, feature pyramid from there to the stride of the masks.

  Args:
    widths: channels of the encoder's levels by their strides: powers of two without a gap, of them
      2 or 4, which the masks have, up to 16 or 32.
    channels: channels of the result.
    num_layers: of the transformer.
    rngs: source of the initial kernels.
  """

  def __init__(self, widths: Mapping[int, int], channels: int, num_layers: int, *, rngs: nnx.Rngs):
    self.strides = tuple(sorted(widths))
    self.lateral = nnx.List(
      nnx.Linear(widths[stride], channels, rngs=rngs) for stride in self.strides
    )
    self.layers = nnx.List(SceneLayer(channels, rngs=rngs) for _ in range(num_layers))
    finer = sum(stride < _SMOOTH_BELOW for stride in self.strides)
    self.smooth = nnx.List(ConvNorm(WrapConv, channels, channels, rngs=rngs) for _ in range(finer))

  def __call__(self, levels: Mapping[int, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Returns the fine map `[B, H/s, W/s, C]` and the scene at coarser scales, coarsest first."""
    x = self.lateral[-1](levels[self.strides[-1]])
    for layer in self.layers:
      x = layer(x)
    scene = [x]
    for index, stride in reversed(list(enumerate(self.strides[:-1]))):
      x = self.lateral[index](levels[stride]) + upsample(x, 2)
      x = nnx.relu(self.smooth[index](x) if index < len(self.smooth) else x)
      scene.append(x)
    return x, tuple(scene[:-1][:SCALES])
