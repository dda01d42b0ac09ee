"""Depth of each parameter in an encoder, for layer-wise learning rates.

All encoders name their parts alike: `stages.i.j` is block j of stage i, and `blocks.j` block j
where there are no stages; `merging.i` leads to stage i + 1, `norms.i` follows stage i. What lies
before the first block has the names of `_FRONT`.
"""

import bisect
from typing import Any

import jax

_FRONT = ("stem", "embed", "embed_norm", "place")


def layer_depths(params: Any) -> Any:
  """The depths of an encoder's parameters, which never fall along the way of an image.

  Args:
    params: a pytree of an encoder's parameters, or of anything that has its structure.

  Returns:
    The same structure with integers: 0 for what lies before the first block, then 1 for this and
    one more for each further block. What leads to a stage counts to its first block, what follows
    one to its last.

  Raises:
    ValueError: a name is none that an encoder has.

  >>> layer_depths({"stem": 0.1, "blocks": {0: {"kernel": 0.2}, 1: {"kernel": 0.3}}})
  {'blocks': {0: {'kernel': 1}, 1: {'kernel': 2}}, 'stem': 0}
  """
  leaves, structure = jax.tree.flatten_with_path(params)
  names = [[jax.tree_util.keystr((key,), simple=True) for key in path] for path, _ in leaves]
  blocks = sorted({_block(name) for name in names if name[0] in ("stages", "blocks")})

  def depth(name: list[str]) -> int:
    if name[0] in _FRONT:
      return 0
    if name[0] in ("stages", "blocks"):
      return 1 + blocks.index(_block(name))
    if name[0] in ("merging", "norms"):
      before = bisect.bisect_left(blocks, (int(name[1]) + 1, 0))
      return min(before + (name[0] == "merging"), len(blocks))
    raise ValueError(f"{'.'.join(name)} is no parameter of an encoder whose depth is known")

  return jax.tree.unflatten(structure, map(depth, names))


def _block(name: list[str]) -> tuple[int, int]:
  """Stage and place in it of the block of a parameter `stages.i.j...` or `blocks.j...`."""
  return (int(name[1]), int(name[2])) if name[0] == "stages" else (0, int(name[1]))
