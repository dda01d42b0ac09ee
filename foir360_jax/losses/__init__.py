"""Losses over padded lists of objects: ranking losses and mask losses, all with one epilogue."""

from foir360_jax.losses.build import build_ranking_loss
from foir360_jax.losses.listwise import listmle_loss, softmax_loss
from foir360_jax.losses.masking import safe_reduce
from foir360_jax.losses.pairwise import pairwise_logistic_loss
from foir360_jax.losses.segmentation import dice_loss, focal_heatmap_loss, mask_cross_entropy

__all__ = [
  "build_ranking_loss",
  "dice_loss",
  "focal_heatmap_loss",
  "listmle_loss",
  "mask_cross_entropy",
  "pairwise_logistic_loss",
  "safe_reduce",
  "softmax_loss",
]
