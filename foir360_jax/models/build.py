"""From a configuration to a model and its objective."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from foir360_jax.losses import build_ranking_loss
from foir360_jax.models.objective import Objective
from foir360_jax.models.panorank import PanoRank

_ORDER_OF_TRUE_MASKS = ("rank_true", "recurrent", "rank_category")


def build_model(config: Mapping[str, Any]) -> PanoRank:
  """Builds the model of `config.model` with parameters drawn from `config.seed`."""
  return PanoRank(**config["model"], rngs=nnx.Rngs(config["seed"]))


def build_objective(config: Mapping[str, Any]) -> tuple[Objective, dict[str, float]]:
  """Builds the objective of `config.loss` and the weights of its terms.

  With no weight on any term of finding objects the model learns to rank given masks alone.
  """
  weights = dict(config["loss"])
  objective = Objective(
    build_ranking_loss(weights.pop("ranking")),
    points=weights.pop("points"),
    own_picks=weights.pop("own_picks"),
    finds=any(weight for term, weight in weights.items() if term not in _ORDER_OF_TRUE_MASKS),
  )
  return objective, weights
