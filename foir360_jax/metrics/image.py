"""All metrics of one image at once, from one comparison of the masks. Axes: masks [n, H, W].

For data sets: add the scores to a `ScoreAccumulator` for each name, and keep `match_masks` of the
same overlaps for AP and AR.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from foir360_jax.metrics.accumulate import Score
from foir360_jax.metrics.correlation import (
  kendall_tau_b,
  minimum_ranks,
  ndcg,
  pairwise_agreement,
  spearman,
)
from foir360_jax.metrics.crops import Masks, crop_masks
from foir360_jax.metrics.rank_map import binary_mae, paint_rank_map, rank_map_mae
from foir360_jax.metrics.ranking import match_empty_masks, sa_sor_from_iou
from foir360_jax.metrics.segmentation import mask_iou, recall_at_iou
from foir360_jax.metrics.sor import MapRule, count_levels, sor_from_iou, sor_from_levels


def score_image(
  gt_masks: Masks,
  gt_relevance: ArrayLike,
  pred_masks: Masks,
  pred_scores: ArrayLike,
  *,
  gt_map: ArrayLike | None = None,
  pred_map: ArrayLike | None = None,
  pixel_weights: ArrayLike | None = None,
  iou: ArrayLike | None = None,
) -> dict[str, Score]:
  """Computes all metrics of one image.

  - `sa_sor_irsr`, `sa_sor_seqrank` (overlap 0.5), `sa_sor_psr` (rule "irsr", overlap 0.1).
  - `sor_assr`, `sor_psr` (coverage 0.5 and 0.98), `sor_ijcv`, `sor_seqrank`: (rho + 1) / 2, so that
    the means over images are the SOR of papers. Maps that are not given are painted from masks and
    scores, palette "uniform": the more important object covers the less important.
  - `mae_map`, `mae_binary`: of these maps.
  - `recall`: true objects found, overlap 0.5.
  - `kendall`, `spearman`, `ndcg`, `pairwise`: of the order of all true objects. An object has the
    score of the prediction that it is matched with, one to one, so that the sum of the overlaps of
    0.5 or more is highest. Objects that were not found tie behind all others; predictions that
    match nothing do not count.

  With `pixel_weights` also `sa_sor_irsr_weighted`, `recall_weighted`, `mae_map_weighted` and
  `mae_binary_weighted`, where overlaps and means weight the pixels.

  Args:
    gt_masks: [n, H, W] or cropped, see `crop_masks`.
    gt_relevance: [n], higher = more important; every object counts, whatever its relevance. NDCG's
      gain is the object's `minimum_ranks`, so a scale or an offset changes nothing.
    pred_masks: [m, H, W] or cropped.
    pred_scores: [m], higher = more important.
    gt_map: [H, W], the true rank map, levels 0 to 255, where there is one.
    pred_map: [H, W], the predicted one.
    pixel_weights: Broadcastable to [H, W], for instance solid angles (`sphere.pixel_areas`).
    iou: [n, m], `mask_iou(gt_masks, pred_masks)` where it is known; without weights.

  Returns:
    A score by name, always the same names in the same order.

  Raises:
    ValueError: if shapes do not agree or a value is NaN.

  >>> masks = np.eye(3).reshape(3, 1, 3)
  >>> score_image(masks, [3, 2, 1], masks, [0.9, 0.5, 0.6])["sor_assr"]
  Score(value=0.75, status='used')
  """
  gt_masks, pred_masks = crop_masks(gt_masks), crop_masks(pred_masks)
  iou = mask_iou(gt_masks, pred_masks) if iou is None else np.asarray(iou, float)
  lists = gt_relevance, pred_scores

  def sa_sor_irsr(overlaps: np.ndarray, iou_threshold: float = 0.5) -> Score:
    overlaps = match_empty_masks(overlaps, gt_masks, pred_masks)
    return sa_sor_from_iou(overlaps, *lists, iou_threshold=iou_threshold)

  scores = {
    "sa_sor_irsr": sa_sor_irsr(iou),
    "sa_sor_psr": sa_sor_irsr(iou, 0.1),
    "sa_sor_seqrank": sa_sor_from_iou(iou, *lists, rule="seqrank"),
  }
  given = [np.asarray(p) for p in (gt_map, pred_map, pixel_weights) if p is not None]
  pictures = [picture.shape for picture in given if picture.ndim == 2]
  size = gt_masks.size or pred_masks.size or (pictures + [(1, 1)])[0]  # (1, 1): nothing to paint
  if gt_map is None:
    gt_map = paint_rank_map(gt_masks, gt_relevance, size=size)
  if pred_map is None:
    pred_map = paint_rank_map(pred_masks, pred_scores, size=size)
  relevance = minimum_ranks(gt_relevance)  # from 1, as 0 would leave an object out
  levels = count_levels(gt_masks, pred_map)
  rules: dict[str, tuple[MapRule, float]] = {
    "assr": ("assr", 0.5),
    "psr": ("assr", 0.98),
    "ijcv": ("ijcv", 0.5),
  }
  for name, (rule, coverage) in rules.items():
    rho = sor_from_levels(levels, gt_masks.areas, relevance, coverage=coverage, rule=rule)
    scores[f"sor_{name}"] = Score((rho.value + 1) / 2, rho.status)
  found = _ranks_of_objects(iou, np.asarray(pred_scores))
  scores |= {
    "sor_seqrank": sor_from_iou(iou, *lists),
    "mae_map": Score(rank_map_mae(gt_map, pred_map), "used"),
    "mae_binary": Score(binary_mae(gt_map, pred_map), "used"),
    "recall": recall_at_iou(iou),
    "kendall": kendall_tau_b(relevance, found),
    "spearman": spearman(relevance, found),
    "ndcg": ndcg(relevance, found),
    "pairwise": pairwise_agreement(relevance, found),
  }
  if pixel_weights is not None:
    weighted = mask_iou(gt_masks, pred_masks, pixel_weights)
    maps, weights = (gt_map, pred_map), {"pixel_weights": pixel_weights}
    scores |= {
      "sa_sor_irsr_weighted": sa_sor_irsr(weighted),
      "recall_weighted": recall_at_iou(weighted),
      "mae_map_weighted": Score(rank_map_mae(*maps, **weights), "used"),
      "mae_binary_weighted": Score(binary_mae(*maps, **weights), "used"),
    }
  return scores


def _ranks_of_objects(iou: np.ndarray, pred_scores: np.ndarray) -> np.ndarray:
  """Rank [n] of each object by the score of its own prediction, 1 = lowest; 0 = not found."""
  overlaps = np.where(iou >= 0.5, iou, 0)
  objects, predictions = linear_sum_assignment(overlaps, maximize=True)
  is_match = overlaps[objects, predictions] > 0
  ranks = np.zeros(len(iou), int)
  ranks[objects[is_match]] = minimum_ranks(pred_scores[predictions[is_match]])
  return ranks
