"""Saliency: where people look in an ordinary picture of a part of the sphere.

A model is a callable, `saliency(views [V, h, w, 3]) -> [V, h, w]`: RGB in [0, 255] (uint8 or float)
in, float32 >= 0 out, a density up to scale: higher = looked at more. It is made of JAX operations
alone, so it runs under `jax.jit` and `jax.vmap`. A model that describes what it looks at, too, has
a method `observe`; one that is cheaper for views of a part of a scene a method `for_parts`, and one
that knows that a panorama has no edge a method `for_panoramas` (see `observation`). A model with
weights is a pytree of them: hand it to a jitted function as an argument, else they become constants
of the program.
"""

from foir360_jax.saliency.build import build_saliency, default_saliency_name
from foir360_jax.saliency.learned import LearnedSaliency
from foir360_jax.saliency.observation import Observation, for_panoramas, for_parts, observe
from foir360_jax.saliency.panoramic import PanoramicSaliency
from foir360_jax.saliency.readout import FixationReadout
from foir360_jax.saliency.readout_file import load_readout, save_readout
from foir360_jax.saliency.spectral import SpectralResidual

__all__ = [
  "FixationReadout",
  "LearnedSaliency",
  "Observation",
  "PanoramicSaliency",
  "SpectralResidual",
  "build_saliency",
  "default_saliency_name",
  "for_panoramas",
  "for_parts",
  "load_readout",
  "observe",
  "save_readout",
]
