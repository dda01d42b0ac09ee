"""Losses over padded lists of objects: ranking losses and mask losses, with one reduction."""

from foir360_jax.losses.approx_ndcg import approx_ndcg_loss
from foir360_jax.losses.build import build_mean_ranking_loss, build_ranking_loss
from foir360_jax.losses.masking import safe_reduce
from foir360_jax.losses.pairwise import (
  lambdarank_loss,
  pairwise_hinge_loss,
  pairwise_logistic_loss,
)
from foir360_jax.losses.plackett_luce import listmle_loss, plackett_luce_loss
from foir360_jax.losses.segmentation import dice_loss, focal_heatmap_loss, mask_cross_entropy
from foir360_jax.losses.softmax import softmax_loss

__all__ = [
  "approx_ndcg_loss",
  "build_mean_ranking_loss",
  "build_ranking_loss",
  "dice_loss",
  "focal_heatmap_loss",
  "lambdarank_loss",
  "listmle_loss",
  "mask_cross_entropy",
  "pairwise_hinge_loss",
  "pairwise_logistic_loss",
  "plackett_luce_loss",
  "safe_reduce",
  "softmax_loss",
]
