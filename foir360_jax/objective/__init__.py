"""The training objective of PanoRank: terms, matching of queries, sample points of mask losses.

Only training needs it; the network is in `foir360_jax.models`.
"""

from foir360_jax.objective.build import build_objective, learns_detection
from foir360_jax.objective.panorank import PanoRankObjective

__all__ = ["PanoRankObjective", "build_objective", "learns_detection"]
