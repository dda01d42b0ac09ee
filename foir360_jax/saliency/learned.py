"""Learned saliency: a readout of human fixations on the features of a frozen backbone.

Axes: V views [h, w].
"""

from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.saliency.observation import Observation
from foir360_jax.saliency.panoramic import PanoramicSaliency
from foir360_jax.saliency.readout import FEATURES, FixationReadout, density_at, enlarged_size


class LearnedSaliency(nnx.Module):
  """Density of human fixations in perspective views: backbone, readout, softmax.

  A pytree with its weights as leaves: pass it to a jitted function as an argument (as `self` is
  passed here). Closed over, or as a static argument, its 3.4 million weights would become constants
  of the program.

  Args:
    backbone: with padding "zero".
    readout: trained on features of this backbone.
    enlarges: whether the backbone sees views enlarged, as the readout was trained; see `for_parts`.
  """

  def __init__(
    self, backbone: EfficientNetLite0, readout: FixationReadout, *, enlarges: bool = True
  ):
    self.backbone = backbone
    self.readout = readout
    self.enlarges = enlarges

  @jax.jit
  def __call__(self, views: jax.Array) -> jax.Array:
    """[V, h, w, 3] RGB in [0, 255], uint8 or float -> [V, h, w] float32 >= 0, mean 1 each.

    Each view is a density of its own: divided by h w, what a view gives sums to 1.

    Raises:
      ValueError: the views have another shape.
    """
    return self.observe(views).density

  def observe(self, views: jax.Array) -> Observation:
    """The density and the appearance, at once."""
    if views.ndim != 4 or views.shape[-1] != 3:
      raise ValueError(f"views must be [V, h, w, 3], not {list(views.shape)}")
    images, shape = views.astype(jnp.float32), (views.shape[1], views.shape[2])
    size = enlarged_size(shape, self.readout.enlargement) if self.enlarges else shape
    if size != shape:
      images = jax.image.resize(images, (len(views), *size, 3), "linear")
    features = self.backbone.stages(images, tuple(FEATURES))
    cells, appearance = self.readout.observe(features, size)
    rows, columns = (
      (np.arange(n) + 0.5) * (length / n) for length, n in zip(size, shape, strict=True)
    )
    return Observation(density_at(cells, size, (rows, columns)), appearance)

  def for_parts(self) -> Self:
    """The same model without the enlargement, which for views of a part of a scene gains nothing.

    Measured in docs/weak_labels.md; the enlargement makes three times as many pixels.
    """
    return type(self)(self.backbone, self.readout, enlarges=False)

  def for_panoramas(self) -> PanoramicSaliency:
    """The same model for whole panoramas, which it takes for what they are: without an edge."""
    return PanoramicSaliency(self.backbone, self.readout)
