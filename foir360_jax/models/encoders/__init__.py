"""Encoders: image [B, H, W, 3] -> feature maps at strides 2, 4, 8, 16."""

from foir360_jax.models.encoders.sphere import SphereEncoder

__all__ = ["SphereEncoder"]
