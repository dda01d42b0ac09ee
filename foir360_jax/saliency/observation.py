"""Optional abilities of a saliency model: appearance features, and variants for some views."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Observation(NamedTuple):
  """What a model made of V views.

  Attributes:
    density: [V, h, w] float32 >= 0, as the model gives it when it is called.
    appearance: [V, a, b, K] float32, what there is to see at a place, for evenly spaced cells that
      cover the view. K = 0 for a model that has no description of what it looks at.
  """

  density: jax.Array
  appearance: jax.Array


def observe(saliency: Any, views: jax.Array) -> Observation:
  """Asks a model for density and appearance at once, [V, h, w, 3] -> `Observation`.

  A model that can describe what it sees has a method `observe`; for any other K = 0.

  >>> seen = observe(lambda views: views.mean(-1), jnp.ones((2, 8, 12, 3)))
  >>> seen.density.shape, seen.appearance.shape
  ((2, 8, 12), (2, 1, 1, 0))
  """
  if hasattr(saliency, "observe"):
    return saliency.observe(views)
  return Observation(saliency(views), jnp.zeros((len(views), 1, 1, 0)))


def for_parts(saliency: Any) -> Any:
  """The model for views of a part of a scene, in which things are larger than in the whole.

  A model that is cheaper for such views has a method `for_parts`, which gives it in that form; any
  other stays as it is.
  """
  return saliency.for_parts() if hasattr(saliency, "for_parts") else saliency


def for_panoramas(saliency: Any) -> Any:
  """The model for whole panoramas [V, h, 2 h + 2 m, 3], of which m columns continue the other side.

  A model that knows that a panorama has no edge has a method `for_panoramas`, which gives it in
  that form; any other stays as it is.
  """
  return saliency.for_panoramas() if hasattr(saliency, "for_panoramas") else saliency
