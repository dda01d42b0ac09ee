"""Builds the objective of a configuration and the weights of its terms."""

from collections.abc import Mapping
from typing import Any

from foir360_jax.losses import build_mean_ranking_loss
from foir360_jax.objective.panorank import PanoRankObjective

_DETECTION_TERMS = (
  *("heat", "foreground", "object", "mask_dice", "mask_entropy", "category"),
  "rank_predicted",
)


def learns_detection(loss: Mapping[str, Any]) -> bool:
  """Whether a model trained by `config.loss` detects objects, or ranks provided masks only."""
  return any(loss[term] for term in _DETECTION_TERMS)


def build_objective(config: Mapping[str, Any]) -> tuple[PanoRankObjective, dict[str, float]]:
  """Builds the objective of `config.loss` and the weights of its terms.

  With no weight on any detection term the model learns to rank provided masks only.
  """
  weights = dict(config["loss"])
  objective = PanoRankObjective(
    build_mean_ranking_loss(weights.pop("ranking")),
    points=weights.pop("points"),
    scheduled_sampling=weights.pop("scheduled_sampling"),
    conditioning_rate=weights.pop("conditioning_rate"),
    detects=learns_detection(weights),
  )
  return objective, weights
