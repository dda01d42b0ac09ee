"""The segmenter that comes with the package."""

from foir360_jax.segment.small.segmenter import SmallSegmenter

__all__ = ["SmallSegmenter"]
