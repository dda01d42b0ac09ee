"""From a configuration to a model and its objective."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from foir360_jax.losses import build_ranking_loss
from foir360_jax.models.objective import Objective
from foir360_jax.models.panorank import PanoRank


def build_model(config: Mapping[str, Any]) -> PanoRank:
  """Builds the model of `config.model` with parameters drawn from `config.seed`."""
  return PanoRank(**config["model"], rngs=nnx.Rngs(config["seed"]))


def build_objective(config: Mapping[str, Any]) -> tuple[Objective, dict[str, float]]:
  """Builds the objective of `config.loss` and the weights of its terms."""
  weights = dict(config["loss"])
  ranking_loss = build_ranking_loss(weights.pop("ranking"))
  return Objective(ranking_loss), weights
