"""The network: encoders, decoders and PanoRank. Its training objective is in `objective`."""

from foir360_jax.models.build import build_model, parameter_keys
from foir360_jax.models.layers import SphereConv
from foir360_jax.models.panorank import Order, PanoRank, RankedCandidates, Segmentation

__all__ = [
  "Order",
  "PanoRank",
  "RankedCandidates",
  "Segmentation",
  "SphereConv",
  "build_model",
  "parameter_keys",
]
