"""Photographs: segmenters of ordinary pictures, views of the sphere, one mask an object."""

from foir360_jax.segment.load import load_segmenter
from foir360_jax.segment.segmenter import Segmenter, SegmenterError, Segments

__all__ = ["Segmenter", "SegmenterError", "Segments", "load_segmenter"]
