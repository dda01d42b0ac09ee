"""Ranks every object of a 360-degree panorama by importance.

`Ranker.load(folder)(panorama)` ranks; everything else is in the subpackages.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from foir360_jax.inference import Ranker

__all__ = ["Ranker"]


def __getattr__(name: str) -> Any:
  # Imported on first use: the losses, the sphere and the models need neither TFDS nor grain.
  if name == "Ranker":
    from foir360_jax.inference import Ranker

    return Ranker
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
