"""Loads public weights into the encoder of a model before training."""

import pathlib

from flax import nnx

from foir360_jax.models.encoders import EfficientNetLite0, Encoder, PanoSwin, ResNet50
from foir360_jax.models.pretrained.efficientnet_lite0 import load_efficientnet_lite0
from foir360_jax.models.pretrained.report import Report, named_parameters
from foir360_jax.models.pretrained.resnet50 import load_resnet50
from foir360_jax.models.pretrained.swin import import_swin
from foir360_jax.models.pretrained.tensor_file import read_tensors
from foir360_jax.paths import expand

PACKAGE = "package"
"""In place of a file: the weights of the installed package of EfficientNet-Lite0."""


def load_encoder_weights(encoder: Encoder, source: str) -> Report:
  """Sets the parameters of an encoder to public weights.

  Args:
    encoder: `EfficientNetLite0`, `ResNet50`, or `PanoSwin`, which takes a Swin transformer's.
    source: `PACKAGE`, which has EfficientNet-Lite0, or a file; see `read_tensors` of what kind.
      `~` is the user's folder.

  Returns:
    What became of each parameter.

  Raises:
    ValueError: there are none for this encoder, or the file is not of it.
  """
  name, source = type(encoder).__name__, str(expand(source))
  if not isinstance(encoder, EfficientNetLite0 | ResNet50 | PanoSwin):
    raise ValueError(f"there are no public weights for {name}: leave them out")
  if source == PACKAGE and not isinstance(encoder, EfficientNetLite0):
    raise ValueError(f"no package has weights for {name}: give a file, see load_encoder_weights")
  if isinstance(encoder, PanoSwin):
    return import_swin(encoder, read_tensors(source))
  filled: EfficientNetLite0 | ResNet50
  if isinstance(encoder, ResNet50):
    filled = load_resnet50(source)
  else:
    filled = load_efficientnet_lite0(path=None if source == PACKAGE else pathlib.Path(source))
  nnx.update(encoder, nnx.state(filled))
  return Report(tuple(path for path, _ in named_parameters(encoder)))
