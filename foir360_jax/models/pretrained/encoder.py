"""Public weights into the encoder of a model that is about to be trained."""

import pathlib

from flax import nnx

from foir360_jax.models.encoders import EfficientNetLite0, ResNet50
from foir360_jax.models.pretrained.efficientnet_lite0 import load_efficientnet_lite0
from foir360_jax.models.pretrained.resnet50 import load_resnet50

PACKAGE = "package"
"""In place of a file: the weights of the extra `pretrained`."""


def load_encoder_weights(encoder: nnx.Module, source: str) -> None:
  """Sets all parameters of an encoder to public weights.

  Args:
    encoder: of `encoders.PRETRAINABLE`.
    source: `PACKAGE`, which has EfficientNet-Lite0, or a file; see `read_tensors` of what kind.

  Raises:
    ValueError: there are none for this encoder, or the file is not of it.
  """
  if isinstance(encoder, EfficientNetLite0):
    path = None if source == PACKAGE else pathlib.Path(source)
    filled = load_efficientnet_lite0(path=path)
  elif isinstance(encoder, ResNet50):
    if source == PACKAGE:
      raise ValueError(
        "no package has the weights of ResNet-50: give torchvision's file, resnet50-0676ba61.pth"
      )
    filled = load_resnet50(source)
  else:
    raise ValueError(f"there are no public weights for {type(encoder).__name__}: leave them out")
  nnx.update(encoder, nnx.state(filled))
