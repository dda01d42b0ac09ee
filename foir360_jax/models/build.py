"""From a configuration to a model and its objective."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from foir360_jax.losses import build_mean_ranking_loss
from foir360_jax.models.objective import Objective
from foir360_jax.models.panorank import PanoRank

_TERMS_OF_FINDING = (
  *("heat", "foreground", "object", "mask_dice", "mask_entropy", "category"),
  "rank_found",
)


def build_model(config: Mapping[str, Any]) -> PanoRank:
  """Builds the model of `config.model` with parameters drawn from `config.seed`."""
  return PanoRank(**config["model"], rngs=nnx.Rngs(config["seed"]))


def learns_to_find(loss: Mapping[str, Any]) -> bool:
  """Whether a model trained by `config.loss` finds objects; if not, it ranks given masks alone."""
  return any(loss[term] for term in _TERMS_OF_FINDING)


def build_objective(config: Mapping[str, Any]) -> tuple[Objective, dict[str, float]]:
  """Builds the objective of `config.loss` and the weights of its terms.

  With no weight on any term of finding objects the model learns to rank given masks alone.
  """
  weights = dict(config["loss"])
  objective = Objective(
    build_mean_ranking_loss(weights.pop("ranking")),
    points=weights.pop("points"),
    own_picks=weights.pop("own_picks"),
    told_share=weights.pop("told_share"),
    finds=learns_to_find(weights),
  )
  return objective, weights
