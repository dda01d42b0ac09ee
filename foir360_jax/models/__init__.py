"""The ranking models: encoder, decoders, PanoRank and its training objective."""

from foir360_jax.models.build import build_model, build_objective, learns_to_find
from foir360_jax.models.layers import SphereConv
from foir360_jax.models.panorank import Order, PanoRank, RankedCandidates, Segmentation

__all__ = [
  "Order",
  "PanoRank",
  "RankedCandidates",
  "Segmentation",
  "SphereConv",
  "build_model",
  "build_objective",
  "learns_to_find",
]
