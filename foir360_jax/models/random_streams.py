"""Random streams of an example: every use of its seed draws from a stream of its own.

Plain `split` or small numbers in `fold_in` will not do: both may give the same key.
"""

import jax

GROUND_TRUTH_QUERIES = 0x7AC8
SCHEDULED_SAMPLING = 0x91C5
CONDITIONING = 0xCA7E
POINTS = 0x9017
STOCHASTIC_DEPTH = 0xD309


def stream(seed: jax.Array, number: int) -> jax.Array:
  """The key of one of the streams above; `seed` is a uint32 scalar of an example."""
  return jax.random.fold_in(jax.random.key(seed), number)
