"""Encoders: image [B, H, W, 3] -> feature maps by their strides, of 2 to 32."""

from foir360_jax.models.encoders.build import ENCODERS, build_encoder
from foir360_jax.models.encoders.contract import Encoder, Padding
from foir360_jax.models.encoders.depth import layer_depths
from foir360_jax.models.encoders.efficientnet_lite0 import EfficientNetLite0
from foir360_jax.models.encoders.panoswin import PanoSwin
from foir360_jax.models.encoders.resnet50 import ResNet50
from foir360_jax.models.encoders.sphere import SphereEncoder

__all__ = [
  "ENCODERS",
  "EfficientNetLite0",
  "Encoder",
  "Padding",
  "PanoSwin",
  "ResNet50",
  "SphereEncoder",
  "build_encoder",
  "layer_depths",
]
