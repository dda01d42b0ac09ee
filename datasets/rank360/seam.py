"""Objects that an annotation tore at the seam: found, and on request joined.

A panorama's left and right edges are one meridian; tools that do not know leave two objects there.
Below `checks` and `review`. Axes: masks [H, W].
"""

import dataclasses
import itertools

from foir360_jax.files.panorama_file import is_panorama
from foir360_jax.scenes import RunLengths, Scene, SceneObject
from foir360_jax.scenes.scene import importance_of, order_objects
from rank360.columns import column, decode

MIN_SHARED = 0.5  # of the rows that the two parts have at the seam


def torn_pairs(scene: Scene) -> list[tuple[SceneObject, SceneObject]]:
  """Finds pairs of objects of one category that meet at the seam as the halves of one do.

  One ends at the right edge and the other begins at the left, neither does both, and at least half
  of the rows that they have at the seam they share. No object is in two pairs.
  """
  if not is_panorama(scene.height, scene.width):
    return []
  west = {item.id: column(item.run_lengths, 0) for item in scene.objects}
  east = {item.id: column(item.run_lengths, scene.width - 1) for item in scene.objects}
  ends = [item for item in scene.objects if east[item.id].any() and not west[item.id].any()]
  begins = [item for item in scene.objects if west[item.id].any() and not east[item.id].any()]
  shared = []
  for a, b in itertools.product(ends, begins):
    rows_a, rows_b = east[a.id], west[b.id]
    share = (rows_a & rows_b).sum() / (rows_a | rows_b).sum()
    if share >= MIN_SHARED and a.category == b.category:
      shared.append((share, a, b))
  pairs, used = [], set()
  for _, a, b in sorted(shared, key=lambda entry: (-entry[0], entry[1].id, entry[2].id)):
    if not used & {a.id, b.id}:
      pairs.append((a, b))
      used |= {a.id, b.id}
  return pairs


def join_torn(scene: Scene) -> Scene:
  """Joins the pairs of `torn_pairs`; each keeps the id, rank and fields of its more important part.

  Ranks are counted anew without gaps. Importance stays, unless it only told the order.
  """
  objects = {item.id: item for item in scene.objects}
  for pair in torn_pairs(scene):
    kept, left_out = sorted(pair, key=lambda item: (item.rank or 0, item.id))
    del objects[left_out.id]
    mask = RunLengths.from_mask(decode(kept.run_lengths) | decode(left_out.run_lengths))
    objects[kept.id] = dataclasses.replace(kept, run_lengths=mask)
  if len(objects) == len(scene.objects):
    return scene
  joined = tuple(objects.values())
  if all(item.rank for item in joined):
    count = len(scene.objects)
    order_only = all(item.importance == importance_of(item.rank, count) for item in scene.objects)
    ordered = order_objects(joined, [-item.rank for item in joined])
    if not order_only:
      ordered = tuple(
        dataclasses.replace(new, importance=old.importance)
        for new, old in zip(ordered, joined, strict=True)
      )
    joined = ordered
  note = f"{len(scene.objects) - len(joined)} objects torn at the seam were joined"
  return dataclasses.replace(scene, objects=joined, notes=(*scene.notes, note))
