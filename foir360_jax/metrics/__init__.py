"""Metrics as the field computes them, exact, in NumPy on the host, one image at a time."""

from foir360_jax.metrics.accumulate import SKIPPED, Score, ScoreAccumulator
from foir360_jax.metrics.average_precision import (
  AveragePrecision,
  MaskMatches,
  average_precision,
  bootstrap_average_precision,
  match_masks,
)
from foir360_jax.metrics.bootstrap import (
  PairedDifference,
  bootstrap_interval,
  paired_bootstrap_interval,
)
from foir360_jax.metrics.correlation import (
  average_ranks,
  kendall_tau_b,
  minimum_ranks,
  ndcg,
  pairwise_agreement,
  spearman,
)
from foir360_jax.metrics.crops import CroppedMasks, crop_masks
from foir360_jax.metrics.fixation import (
  auc_judd,
  cc,
  fixation_density,
  kl_divergence,
  nss,
  similarity,
)
from foir360_jax.metrics.image import score_image
from foir360_jax.metrics.rank_map import binary_mae, paint_rank_map, rank_map_mae
from foir360_jax.metrics.ranking import (
  rank_correlation,
  ranks_from_relevance,
  relevance_from_ranks,
  sa_sor,
  sa_sor_from_iou,
)
from foir360_jax.metrics.segmentation import f1_at_iou, found_at_iou, mask_iou, recall_at_iou
from foir360_jax.metrics.sor import sor, sor_from_iou, sor_from_masks

__all__ = [
  "SKIPPED",
  "AveragePrecision",
  "CroppedMasks",
  "MaskMatches",
  "PairedDifference",
  "Score",
  "ScoreAccumulator",
  "auc_judd",
  "average_precision",
  "average_ranks",
  "binary_mae",
  "bootstrap_average_precision",
  "bootstrap_interval",
  "cc",
  "crop_masks",
  "f1_at_iou",
  "fixation_density",
  "found_at_iou",
  "kendall_tau_b",
  "kl_divergence",
  "mask_iou",
  "match_masks",
  "minimum_ranks",
  "ndcg",
  "nss",
  "paint_rank_map",
  "paired_bootstrap_interval",
  "pairwise_agreement",
  "rank_correlation",
  "rank_map_mae",
  "ranks_from_relevance",
  "recall_at_iou",
  "relevance_from_ranks",
  "sa_sor",
  "sa_sor_from_iou",
  "score_image",
  "similarity",
  "sor",
  "sor_from_iou",
  "sor_from_masks",
  "spearman",
]
