"""Ranks every object of a 360-degree panorama by importance.

`rank("panorama.jpg")` finds and ranks the objects of a photograph, without training;
`PhotoRanker(...)` does so with settings of one's own, and `Ranker.load(folder)` with a trained
model. Everything else is in the subpackages.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from foir360_jax.inference import PhotoRanker, Ranker, rank

__all__ = ["PhotoRanker", "Ranker", "rank"]


def __getattr__(name: str) -> Any:
  # Imported on first use: the losses, the sphere and the models need neither TFDS nor grain.
  if name in __all__:
    from foir360_jax import inference

    return getattr(inference, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
