"""The keys, shapes and types of a batch and of loss terms.

Axes: B examples, N objects (padded, see `where`), H rows (row 0 north-most), W = 2 H columns
(column 0 starts at longitude -pi), C channels.
"""

from collections.abc import Mapping

import jax
import numpy as np

Array = jax.Array | np.ndarray
"""Of what compiled programs and the host both hold or take."""

HostBatch = dict[str, np.ndarray]
"""What the loader yields: a `Batch` in NumPy, before it is put on the devices."""

Batch = Mapping[str, jax.Array]
"""What the training step takes. Keys:

- `image` [B, H, W, 3] uint8
- `masks` [B, N, H, W // 8] uint8: one bit a pixel, `np.packbits(mask, axis=-1)`; masks may overlap
- `where` [B, N] bool: True for objects, False for padding
- `relevance` [B, N] float32: higher = more important; 0 in the padding
- `category` [B, N] int32: -1 where unknown and in the padding
- `true_importance` [B, N] float32: the noiseless importance; only in data sets that know it
- `example_where` [B] bool: False for examples that only fill up the last batch of an evaluation
- `index` [B] int32: the example's place in its split
- `seed` [B] uint32: fresh for each (example, epoch); all randomness inside the step comes from it,
  so a result does not depend on how the batch lies on the devices
- `progress` float32 scalar: the part of the training that is over; added by the training step
"""

Terms = dict[str, tuple[jax.Array, jax.Array]]
"""What an objective returns: for each term a sum and a count over a batch's examples."""
