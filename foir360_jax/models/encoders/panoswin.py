"""PanoSwin: window attention across the seam and the poles, with distances on the sphere.

A Swin transformer whose shifted windows run across the longitude seam and over the poles, whose
attention has a bias by great-circle distance, and which ends a stage of odd depth with a block that
looks at each window as if the panorama had been pitched by 90 degrees.

Source: Ling et al., PanoSwin: a Pano-style Swin Transformer for Panorama Understanding, CVPR 2023;
what differs from its public code is said in `windows` and below.
"""

import functools
from collections.abc import Sequence

import einops
import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.encoders import windows
from foir360_jax.models.encoders.contract import check_image
from foir360_jax.models.encoders.stochastic_depth import branch_factors, linear_rates
from foir360_jax.models.layers import ConvNorm, WrapConv
from foir360_jax.models.precision import dtype_of
from foir360_jax.models.repeated import apply_blocks
from foir360_jax.sphere import pixel_directions, sample

STRIDES = (4, 8, 16, 32)
_STEM_CHANNELS = 32
_initial = nnx.initializers.truncated_normal(0.02)
_Linear = functools.partial(nnx.Linear, kernel_init=_initial)


class PanoSwin(nnx.Module):
  """Four stages at strides 4, 8, 16 and 32; the defaults are PanoSwin tiny with windows of 8.

  Turning the panorama by a whole window of the coarsest map turns all maps. For that, the absolute
  code is of the latitude alone (the public code's knows longitudes, and so the seam), and biases
  do not depend on the sign of the difference of rows. The shortcut of a pitched block carries what
  came in; in the public code it carries what was normalised, by mistake.

  Args:
    channels: of the first stage, twice as many in each further one.
    depths: blocks of the stages; of an odd number the last one is pitched.
    num_heads: of the stages.
    window: tokens along the side of a window, a power of two; smaller on maps that it does not
      divide.
    drop_path: the share of examples that go without a branch of the last block in training (0.2 in
      the paper), falling linearly to 0 for the first block.
    remat: the backward pass computes each block again; see `apply_blocks`.
    rngs: source of the initial parameters.

  Raises:
    ValueError: `drop_path` is not in [0, 1).
  """

  def __init__(
    self,
    *,
    channels: int = 96,
    depths: Sequence[int] = (2, 2, 7, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 8,
    drop_path: float = 0.0,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    self.first_channels = channels
    self.remat = remat
    self.drop_rates = tuple(map(float, linear_rates(drop_path, sum(depths))))
    self.stem = nnx.List(
      [
        ConvNorm(WrapConv, 3, _STEM_CHANNELS, rngs=rngs),
        ConvNorm(WrapConv, _STEM_CHANNELS, _STEM_CHANNELS, rngs=rngs),
      ]
    )
    self.embed = nnx.Conv(
      _STEM_CHANNELS, channels, (4, 4), strides=(4, 4), padding="VALID", rngs=rngs
    )
    self.embed_norm = nnx.LayerNorm(channels, rngs=rngs)
    self.place = _Linear(2, channels, rngs=rngs)
    self.merging: nnx.List[_Merging] = nnx.List()
    self.stages: nnx.List[nnx.List[_Block]] = nnx.List()
    self.norms: nnx.List[nnx.LayerNorm] = nnx.List()
    for level, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
      width = channels * 2**level
      if level:
        self.merging.append(_Merging(width // 2, rngs=rngs))
      kinds = ["plain" if index % 2 == 0 else "shifted" for index in range(depth)]
      if depth % 2:
        kinds[-1] = "pitched"
      self.stages.append(nnx.List(_Block(width, heads, window, kind, rngs=rngs) for kind in kinds))
      self.norms.append(nnx.LayerNorm(width, rngs=rngs))

  @property
  def channels(self) -> dict[int, int]:
    """Of the feature maps, by their strides."""
    return {stride: self.first_channels * stride // 4 for stride in STRIDES}

  def __call__(
    self,
    image: jax.Array,
    *,
    strides: tuple[int, ...] = STRIDES,
    seed: jax.Array | None = None,
  ) -> dict[int, jax.Array]:
    """Feature maps: what the stages give, normalised.

    Args:
      image: [B, H, 2 H, 3], RGB in [0, 255]; H divisible by the greatest stride, at least twice it.
      strides: the maps to compute, of 4, 8, 16 and 32; stages beyond the last are not computed.
      seed: [B] uint32, of stochastic depth; None: all branches of all blocks count.

    Returns:
      {stride: [B, H / stride, W / stride, channels]}.

    Raises:
      ValueError: an unknown stride, or a shape outside this contract.
    """
    last = max(strides, default=4)
    check_image("PanoSwin", image.shape, strides, STRIDES, "sphere", 2 * last)
    dtype = dtype_of(self.embed)
    x = (image.astype(jnp.float32) / 127.5 - 1).astype(dtype)
    for layer in self.stem:
      x = nnx.relu(layer(x))
    x = self.embed_norm(self.embed(x))
    sine = jnp.asarray(pixel_directions(x.shape[1])[..., 2:], dtype)
    x = x + self.place(jnp.concatenate([sine, jnp.abs(sine)], axis=-1))
    factors = None  # of the two branches of every block
    if seed is not None and max(self.drop_rates) > 0:
      factors = list(branch_factors(seed, self.drop_rates, 2))
    maps, first = {}, 0
    for level, stride in enumerate(STRIDES):
      if stride > last:
        break
      if level:
        x = self.merging[level - 1](x)
      # No loop over pairs of blocks: on a CPU it takes a tenth longer and compiles no faster.
      blocks = self.stages[level]
      of_blocks = None if factors is None else factors[first : first + len(blocks)]
      x = apply_blocks(blocks, x, of_blocks, remat=self.remat)
      first += len(blocks)
      maps[stride] = self.norms[level](x)
    return {stride: maps[stride] for stride in strides}


class _Merging(nnx.Module):
  """Brings 2 x 2 tokens together and projects them to twice the channels."""

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    self.norm = nnx.LayerNorm(4 * channels, rngs=rngs)
    self.reduce = _Linear(4 * channels, 2 * channels, use_bias=False, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` -> `[B, H / 2, W / 2, 2 C]`."""
    x = einops.rearrange(x, "b (h i) (w j) c -> b h w (j i c)", i=2, j=2)  # as Swin does
    return self.reduce(self.norm(x))


class _Block(nnx.Module):
  """Attention within windows, then a perceptron on each token; both residual, pre-norm."""

  def __init__(self, channels: int, num_heads: int, window: int, kind: str, *, rngs: nnx.Rngs):
    self.norm = nnx.LayerNorm(channels, rngs=rngs)
    self.attention = _WindowAttention(channels, num_heads, window, rngs=rngs)
    self.mlp_norm = nnx.LayerNorm(channels, rngs=rngs)
    self.widen = _Linear(channels, 4 * channels, rngs=rngs)
    self.narrow = _Linear(4 * channels, channels, rngs=rngs)
    self.window = window
    self.kind = kind

  def __call__(self, x: jax.Array, factors: jax.Array | None = None) -> jax.Array:
    """`[B, H, W, C]` -> the same; `factors [2, B]` multiply the two branches of each example."""
    x = x + _times(self._attend(self.norm(x)), factors, 0)
    hidden = nnx.gelu(self.widen(self.mlp_norm(x)), approximate=False)
    return x + _times(self.narrow(hidden), factors, 1)

  def _attend(self, x: jax.Array) -> jax.Array:
    height = x.shape[1]
    size = windows.fitting_window(height, self.window)
    own = windows.token_directions(height, size, shifted=self.kind == "shifted")
    if self.kind == "pitched":
      seen = windows.pitched_directions(height, size)
      keys = sample(x, *windows.window_positions(seen, height, size))
      tokens = windows.partition(x, size)
      return windows.merge(
        self.attention(tokens, keys, windows.great_circle(own, seen), size), size
      )
    if self.kind == "shifted":
      x = windows.shift(x, size // 2)
    tokens = windows.partition(x, size)
    x = windows.merge(self.attention(tokens, tokens, windows.great_circle(own, own), size), size)
    return windows.unshift(x, size // 2) if self.kind == "shifted" else x


def _times(x: jax.Array, factors: jax.Array | None, branch: int) -> jax.Array:
  return x if factors is None else x * factors[branch, :, None, None, None].astype(x.dtype)


class _WindowAttention(nnx.Module):
  """Multi-head attention within windows; bias = distance x alpha[offset] + beta[offset]."""

  def __init__(self, channels: int, num_heads: int, window: int, *, rngs: nnx.Rngs):
    self.query, self.key, self.value, self.output = (
      _Linear(channels, channels, rngs=rngs) for _ in range(4)
    )
    table = windows.table_size(window), num_heads
    self.alpha = nnx.Param(jnp.zeros(table))
    self.beta = nnx.Param(_initial(rngs.params(), table))
    self.num_heads = num_heads
    self.window = window

  def __call__(self, tokens, key_tokens, distance, size: int) -> jax.Array:
    """Queries and values of `tokens`, keys of `key_tokens`, both `[B, R, K, n, C]` -> the same.

    Args:
      tokens: what is mixed.
      key_tokens: by which it is chosen.
      distance: [R, n, n] in radians.
      size: of these windows, up to `window`.
    """
    query, key, value = (
      einops.rearrange(x, "b r k n (h d) -> b r k h n d", h=self.num_heads)
      for x in (self.query(tokens), self.key(key_tokens), self.value(tokens))
    )
    index = windows.relative_index(size, self.window)
    alpha, beta = (
      einops.rearrange(table[...][index], "n m h -> h n m") for table in (self.alpha, self.beta)
    )
    # Distances are float32, and so are biases and softmax; the products around it need not be.
    bias = distance[:, None, None] * alpha + beta  # [R, 1, h, n, n]
    logits = jnp.einsum("brkhnd,brkhmd->brkhnm", query / jnp.sqrt(query.shape[-1]), key) + bias
    share = jax.nn.softmax(logits).astype(value.dtype)
    mixed = jnp.einsum("brkhnm,brkhmd->brkhnd", share, value)
    return self.output(einops.rearrange(mixed, "b r k h n d -> b r k n (h d)"))
