"""Builds the model of a configuration."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from foir360_jax.models.panorank import PanoRank


def build_model(config: Mapping[str, Any]) -> PanoRank:
  """Builds the model of `config.model` with parameters drawn from `config.seed`."""
  return PanoRank(**config["model"], rngs=nnx.Rngs(config["seed"]))
