"""Random numbers of an example: every use of its seed draws from a stream of its own.

Plain `split` or small numbers in `fold_in` will not do: both may give the same key.
"""

import jax

TAUGHT_PLACES = 0x7AC8
OWN_PICKS = 0x91C5
TOLD_CATEGORIES = 0xCA7E
POINTS = 0x9017
STOCHASTIC_DEPTH = 0xD309


def stream(seed: jax.Array, number: int) -> jax.Array:
  """The key of one of the streams above; `seed` is a uint32 scalar of an example."""
  return jax.random.fold_in(jax.random.key(seed), number)
