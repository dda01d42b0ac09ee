"""Counting the pixels of many objects at once, whose masks are the bits of a few words a pixel.

Sits below `views`. Object n is bit n % 32 of word n // 32. Axes: N objects, L words.
"""

import jax
import jax.numpy as jnp


def count_bits(words: jax.Array, num_objects: int) -> jax.Array:
  """How many of the p x q pixels of each cell belong to each object.

  Adds several objects at a time: every eighth bit of a word is put into a byte of its own, and
  bytes are added as words (every sixteenth and 16 bits for cells of more than 255 pixels).

  Args:
    words: [g, p, k, q, L] uint32.
    num_objects: N <= 32 L.

  Returns:
    [N, g, k] uint32.

  Raises:
    ValueError: N > 32 L, or a cell has more than 65535 pixels.
  """
  rows, high, columns, wide, num_words = words.shape
  if num_objects > 32 * num_words:
    raise ValueError(f"{num_words} words hold {32 * num_words} objects, not {num_objects}")
  if high * wide > 65535:
    raise ValueError(f"a cell of {high} x {wide} pixels is too large: take a smaller one")
  width, ones = (8, 0x01010101) if high * wide <= 255 else (16, 0x00010001)
  sums = []
  for first in range(width):
    lanes = (words >> first) & jnp.uint32(ones)
    sums.append(lanes.sum((1, 3), dtype=jnp.uint32))
  sums = jnp.stack(sums, axis=-1)  # [g, k, L, width]
  starts = jnp.arange(0, 32, width, dtype=jnp.uint32)[:, None]
  counts = (sums[..., None, :] >> starts) & jnp.uint32(2**width - 1)  # [g, k, L, 32 / width, width]
  return jnp.moveaxis(counts.reshape(rows, columns, -1)[..., :num_objects], -1, 0)
