"""A small residual encoder for panoramas, trained from scratch.

On the fine levels, where kernels see edges and texture, they are planar with the sphere's padding;
on the coarse ones, where a kernel spans whole objects, their taps lie on the sphere, so that an
object looks the same to them near a pole as on the horizon.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.encoders.contract import check_image
from foir360_jax.models.layers import ConvNorm, ResidualBlock, SphereConv, WrapConv
from foir360_jax.models.precision import dtype_of
from foir360_jax.models.repeated import apply_blocks
from foir360_jax.sphere import pixel_directions

STRIDES = (2, 4, 8, 16)
LEAST_HEIGHT = 48


class SphereEncoder(nnx.Module):
  """Four stages at strides 2, 4, 8 and 16.

  The only thing it is told about the place of a pixel is the sine of its latitude, so a turn of the
  panorama turns its features.

  Args:
    widths: channels of the four stages.
    blocks: residual blocks of the stages, beside the one that reaches the stage from the one
      before.
    sphere_from_stride: the first stride at which kernels lie on the sphere; above 16 none do.
    remat: the backward pass computes each block again; see `apply_blocks`.
    rngs: source of the initial kernels.
  """

  def __init__(
    self, widths, blocks, sphere_from_stride: int, *, remat: bool = False, rngs: nnx.Rngs
  ):
    self.widths = tuple(widths)
    self.remat = remat
    self.stem = ConvNorm(WrapConv, 4, widths[0], stride=2, rngs=rngs)
    self.stages: nnx.List[nnx.List[ResidualBlock]] = nnx.List()
    for level, (width, num_blocks) in enumerate(zip(widths, blocks, strict=True)):
      conv = SphereConv if 2 ** (level + 1) >= sphere_from_stride else WrapConv
      stage = [ResidualBlock(conv, width, width, rngs=rngs) for _ in range(num_blocks)]
      if level:
        stage.insert(0, ResidualBlock(conv, widths[level - 1], width, stride=2, rngs=rngs))
      self.stages.append(nnx.List(stage))

  @property
  def channels(self) -> dict[int, int]:
    """Of the feature maps, by their strides."""
    return dict(zip(STRIDES, self.widths, strict=True))

  def __call__(
    self,
    image: jax.Array,
    *,
    strides: tuple[int, ...] = STRIDES,
    seed: jax.Array | None = None,
  ) -> dict[int, jax.Array]:
    """Feature maps.

    Args:
      image: [B, H, 2 H, 3], RGB in [0, 255]. H must be divisible by 16 and at least 48: kernels on
        the sphere need three rows.
      strides: the maps to return, of 2, 4, 8 and 16.
      seed: ignored.

    Returns:
      {stride: [B, H / stride, W / stride, width]}.

    Raises:
      ValueError: an unknown stride, or a shape outside this contract.
    """
    del seed
    check_image("SphereEncoder", image.shape, strides, STRIDES, "sphere", LEAST_HEIGHT)
    batch_size, height, width = image.shape[:3]
    sine = jnp.broadcast_to(pixel_directions(height)[..., 2:], (batch_size, height, width, 1))
    x = jnp.concatenate([image.astype(jnp.float32) / 63.75 - 2, sine], axis=-1)
    x = nnx.relu(self.stem(x.astype(dtype_of(self.stem))))
    maps = {}
    for stride, stage in zip(STRIDES, self.stages, strict=True):
      maps[stride] = x = apply_blocks(stage, x, remat=self.remat, scan=True)
    return {stride: maps[stride] for stride in strides}
