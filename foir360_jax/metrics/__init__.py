"""Metrics as the field computes them, exact, in NumPy on the host, one image at a time."""

from foir360_jax.metrics.accumulate import Score, ScoreAccumulator, bootstrap_interval
from foir360_jax.metrics.ranking import (
  minimum_ranks,
  rank_correlation,
  ranks_from_relevance,
  relevance_from_ranks,
  sa_sor,
  sa_sor_from_iou,
)
from foir360_jax.metrics.segmentation import mask_iou, recall_at_iou

__all__ = [
  "Score",
  "ScoreAccumulator",
  "bootstrap_interval",
  "mask_iou",
  "minimum_ranks",
  "rank_correlation",
  "ranks_from_relevance",
  "recall_at_iou",
  "relevance_from_ranks",
  "sa_sor",
  "sa_sor_from_iou",
]
