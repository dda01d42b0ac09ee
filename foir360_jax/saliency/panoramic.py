"""Learned saliency of whole panoramas, without an edge at the seam or the poles.

The backbone sees a panorama continued around the seam and across the poles, at a size at which a
quarter turn is a whole number of its coarsest cells. So such a turn turns the map and changes
nothing else, up to rounding. Axes: V views of whole panoramas, h rows, m columns of margin.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.models import parameter_keys
from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.saliency.observation import Observation
from foir360_jax.saliency.readout import CELL, FEATURES, FixationReadout, density_at
from foir360_jax.sphere import pad_longitude, resize_panorama

_COARSEST = max(stage.stride for stage in FEATURES.values())
_QUARTERS = 4
_REACH = 4  # coarsest cells by which maps are continued: six sigmas of the blur


class PanoramicSaliency(nnx.Module):
  """Density of human fixations on whole panoramas; see `LearnedSaliency`, which makes it.

  Args:
    backbone: its weights are used, with the sphere's padding.
    readout: trained on features of this backbone.
  """

  def __init__(self, backbone: EfficientNetLite0, readout: FixationReadout):
    continued = nnx.eval_shape(lambda: EfficientNetLite0(padding="sphere", rngs=parameter_keys(0)))
    self.backbone = nnx.merge(nnx.graphdef(continued), nnx.state(backbone))
    self.readout = readout

  @jax.jit
  def __call__(self, views: jax.Array) -> jax.Array:
    """[V, h, 2 h + 2 m, 3] -> [V, h, 2 h + 2 m]; as of `LearnedSaliency`."""
    return self.observe(views).density

  def observe(self, views: jax.Array) -> Observation:
    """The density and the appearance of panoramas with margins that repeat what is beyond the seam.

    Args:
      views: [V, h, 2 h + 2 m, 3] RGB in [0, 255]; m is 0, or whole cells of the appearance.

    Returns:
      The density has a mean of 1 over the panorama, and margins like the views.

    Raises:
      ValueError: the views have another shape.
    """
    shape = views.shape
    if len(shape) != 4 or shape[3] != 3 or shape[2] % 2 or shape[2] < 2 * shape[1]:
      raise ValueError(f"views must be [V, h, 2 h + 2 m, 3], not {list(shape)}")
    height, columns = shape[1:3]
    margin = columns // 2 - height
    width = panoramic_width(2 * height, self.readout.enlargement)
    margin_cells, rest = divmod(margin * width, 2 * height * CELL)
    if rest:
      raise ValueError(
        f"margins of {margin} columns are no whole cells: a panorama of {height} rows has"
        f" {width // CELL} cells around"
      )
    images = views[:, :, margin : columns - margin].astype(jnp.float32)
    features = self.backbone.stages(resize_panorama(images, width // 2), tuple(FEATURES))

    # The readout's interpolation and blur end at the edge of a map. So maps are continued, and what
    # lies beyond the panorama is cut off.
    beyond = _COARSEST * _REACH
    size = width // 2, width + 2 * beyond
    cells, appearance = self.readout.observe(
      {
        number: pad_longitude(x, beyond // FEATURES[number].stride)
        for number, x in features.items()
      },
      size,
    )
    appearance = appearance[:, :, beyond // CELL : -(beyond // CELL)]
    scale = width / (2 * height)
    places = scale * (np.arange(height) + 0.5), scale * (np.arange(2 * height) + 0.5) + beyond
    density = density_at(cells, size, places)
    return Observation(
      pad_longitude(density[..., None], margin)[..., 0], pad_longitude(appearance, margin_cells)
    )


def panoramic_width(width: int, enlargement: float) -> int:
  """The columns at which the backbone sees a panorama: quarters of it are whole coarsest cells.

  >>> [panoramic_width(width, 12 / 7) for width in (256, 320, 384, 448, 512)]
  [384, 512, 640, 768, 896]
  """
  unit = _QUARTERS * _COARSEST
  return unit * max(1, round(width * enlargement / unit))
