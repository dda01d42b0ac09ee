"""From a configuration to the objective of PanoRank and the weights of its terms."""

from collections.abc import Mapping
from typing import Any

from foir360_jax.losses import build_mean_ranking_loss
from foir360_jax.objective.panorank import PanoRankObjective

_TERMS_OF_FINDING = (
  *("heat", "foreground", "object", "mask_dice", "mask_entropy", "category"),
  "rank_found",
)


def learns_to_find(loss: Mapping[str, Any]) -> bool:
  """Whether a model trained by `config.loss` finds objects; if not, it ranks given masks alone."""
  return any(loss[term] for term in _TERMS_OF_FINDING)


def build_objective(config: Mapping[str, Any]) -> tuple[PanoRankObjective, dict[str, float]]:
  """Builds the objective of `config.loss` and the weights of its terms.

  With no weight on any term of finding objects the model learns to rank given masks alone.
  """
  weights = dict(config["loss"])
  objective = PanoRankObjective(
    build_mean_ranking_loss(weights.pop("ranking")),
    points=weights.pop("points"),
    own_picks=weights.pop("own_picks"),
    told_share=weights.pop("told_share"),
    finds=learns_to_find(weights),
  )
  return objective, weights
