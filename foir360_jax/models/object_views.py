"""Views of objects: the mask and the picture in the object's own tangent plane.

A view is as large as its object, so that objects look alike wherever they are and however large: up
to 1.1 sr (9 % of the sphere), as a tangent plane shows no more. Of larger ones it shows a part.
"""

import einops
import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.cells import map_height
from foir360_jax.models.layers import Mlp
from foir360_jax.sphere import pixels_from_directions, sample

VIEW_SIZE = 16
_VIEW_RADII = 1.6  # half the view's side, in radii of a disc of the object's solid angle


class ObjectViews(nnx.Module):
  """Views -> one vector per object, by two convolutions of stride 2 and a perceptron.

  Args:
    channels: of the vectors.
    rngs: source of the initial kernels.
  """

  def __init__(self, channels: int, *, rngs: nnx.Rngs):
    initial = nnx.initializers.he_normal()
    self.convs = nnx.List(
      nnx.Conv(before, after, (3, 3), strides=2, kernel_init=initial, rngs=rngs)
      for before, after in ((4, 16), (16, 32))
    )
    self.join = Mlp((32 * (VIEW_SIZE // 4) ** 2, 2 * channels, channels), rngs=rngs)

  def __call__(self, views: jax.Array) -> jax.Array:
    """`[B, N, VIEW_SIZE, VIEW_SIZE, 4]` of `tangent_views` -> `[B, N, C]`."""
    batch_size = len(views)
    views = einops.rearrange(views, "b n h w c -> (b n) h w c")
    for conv in self.convs:
      views = nnx.relu(conv(views))
    return self.join(einops.rearrange(views, "(b n) h w c -> b n (h w c)", b=batch_size))


def tangent_views(image, masks, direction, radius, *, context: bool) -> jax.Array:
  """The picture and the mask around each object.

  A view is a grid on the tangent plane at `direction`, north up, whose side is `2 _VIEW_RADII`
  radii.

  Args:
    image: `[B, H, W, 3]` in [0, 1].
    masks: `[B, N, P]` in [0, 1], on a map of any size.
    direction: `[B, N, 3]`, the middle of each object.
    radius: `[B, N]` in radians, of a disc as large as the object.
    context: whether to show the picture outside the mask; else it is grey there.

  Returns:
    `[B, N, VIEW_SIZE, VIEW_SIZE, 4]` in [-1, 1]: colours, then the mask. No gradient flows back.
  """
  axis = jnp.linspace(-_VIEW_RADII, _VIEW_RADII, VIEW_SIZE)
  right, up = jnp.meshgrid(axis, -axis)
  east = jnp.stack([-direction[..., 1], direction[..., 0], jnp.zeros_like(radius)], axis=-1)
  level = (east**2).sum(-1, keepdims=True)
  # At a pole no direction is east: any will do.
  east = jnp.where(level > 1e-6, east * jax.lax.rsqrt(jnp.maximum(level, 1e-6)), jnp.eye(3)[1])
  north = jnp.cross(direction, east)
  extent = jnp.tan(jnp.clip(radius, 0.01, 0.6))[..., None, None]
  points = (
    direction[..., None, :]
    + extent * right.reshape(-1, 1) * east[..., None, :]
    + extent * up.reshape(-1, 1) * north[..., None, :]
  )
  points = points * jax.lax.rsqrt((points**2).sum(-1, keepdims=True) + 1e-9)

  row, column = pixels_from_directions(points, image.shape[1])
  per_picture = jax.vmap(lambda picture, r, c: sample(picture, r, c, method="bilinear"))
  colours = per_picture(image, row, column) * 2 - 1
  height = map_height(masks.shape[-1])
  row, column = pixels_from_directions(points, height)
  maps = einops.rearrange(masks, "b n (h w) -> b n h w 1", h=height)
  covered = jax.vmap(per_picture)(maps, row, column)
  if not context:
    colours = colours * covered
  views = jnp.concatenate([colours, 2 * covered - 1], axis=-1)
  return jax.lax.stop_gradient(
    einops.rearrange(views, "b n (h w) c -> b n h w c", h=VIEW_SIZE, w=VIEW_SIZE)
  )
