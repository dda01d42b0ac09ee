"""Encoders: image [B, H, W, 3] -> feature maps at strides 2, 4, 8, 16, of some at 32, too."""

from foir360_jax.models.encoders.contract import Encoder, Padding
from foir360_jax.models.encoders.efficientnet_lite0 import EfficientNetLite0
from foir360_jax.models.encoders.resnet50 import ResNet50
from foir360_jax.models.encoders.sphere import SphereEncoder

__all__ = ["EfficientNetLite0", "Encoder", "Padding", "ResNet50", "SphereEncoder"]
