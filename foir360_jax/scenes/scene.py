"""Scene: one annotated picture, whatever format it came in.

Axes: N objects, H rows (row 0 north-most), W columns. W = 2 H is not asked for: much of the field's
data are perspective pictures.
"""

import collections
import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from foir360_jax.files.picture_file import PictureError
from foir360_jax.metrics import ranks_from_relevance, relevance_from_ranks
from foir360_jax.scenes.rank_file import RankFileError
from foir360_jax.scenes.run_lengths import RunLengths, check_size


class SceneError(ValueError):
  """A scene or a folder of scenes cannot be used; one line names the file, why, and what to do."""


@dataclasses.dataclass(frozen=True)
class SceneObject:
  """One object of a scene. `from_mask` builds it from an array.

  Attributes:
    id: a number that no other object of the scene has.
    run_lengths: its mask, compressed; equal masks compare equal.
    importance: in [0, 1], or None where the object is not ranked.
    rank: 1 = most important, dense (ties share a rank: 1, 1, 2); None exactly if `importance` is.
    category: its name, "" where unknown.
    extra: what else the format says of it, kept for writing it back.
    is_crowd: whether it is no object but a region of several, as COCO's `iscrowd`; never ranked.
  """

  id: int
  run_lengths: RunLengths
  importance: float | None = None
  rank: int | None = None
  category: str = ""
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  is_crowd: bool = False

  @classmethod
  def from_mask(cls, id: int, mask: np.ndarray, **fields: Any) -> Self:
    """Builds an object from its mask [H, W], bool, and the other attributes by name.

    >>> SceneObject.from_mask(3, np.ones([4, 8], bool), category="sky").run_lengths.area()
    32
    """
    return cls(id, RunLengths.from_mask(mask), **fields)

  @property
  def mask(self) -> np.ndarray:
    """The mask [H, W] bool, decoded anew at each call, so that many scenes stay small."""
    return self.run_lengths.mask()


@dataclasses.dataclass(frozen=True)
class Scene:
  """One annotated picture. A scene that exists has passed the checks of `Raises`.

  Attributes:
    id: its name: the file name of the picture without suffix.
    image_file: the picture, or None where the folder has annotations only.
    height: rows.
    width: columns.
    objects: N objects; N may be 0.
    format: the name of the format it was read from, "" if it was made in memory.
    notes: what a person should look at although it is no error, one line each.
    extra: what else the format says of the picture and of the collection.
    image_missing: half a line for where a picture is needed and there is none: where it should be.
    unranked: half a line for where ranks are needed and there are none: how to get them.

  Raises:
    ValueError: sizes differ, two objects have one id, only some objects are ranked (crowd regions
      need not be), ranks are not dense, or importance contradicts them.
  """

  id: str
  image_file: pathlib.Path | None
  height: int
  width: int
  objects: tuple[SceneObject, ...]
  format: str = ""
  notes: tuple[str, ...] = ()
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  image_missing: str = "there is no picture; put it where the layout has it"
  unranked: str = "rank every object, or leave it out"

  def __post_init__(self) -> None:
    check_size(self.height, self.width)
    for item in self.objects:
      size = item.run_lengths.height, item.run_lengths.width
      if size != (self.height, self.width):
        raise ValueError(
          f"object {item.id} has a mask of {size[1]} x {size[0]} pixels, the picture "
          f"{self.width} x {self.height}; resample the mask to the picture"
        )
    counted = collections.Counter(item.id for item in self.objects)
    repeated = sorted(number for number, count in counted.items() if count > 1)
    if repeated:
      raise ValueError(f"ids {repeated} belong to two objects; number them anew")
    _check_ranks(self.objects)

  @property
  def is_ranked(self) -> bool:
    """Whether every object has a rank and an importance; so it is without any object."""
    return all(item.rank is not None for item in self.objects)

  def masks(self) -> np.ndarray:
    """Returns the masks [N, H, W] bool, decoded anew at each call."""
    masks = np.empty([len(self.objects), self.height, self.width], bool)
    for index, item in enumerate(self.objects):
      masks[index] = item.mask
    return masks

  def ranks(self) -> list[int]:
    """Returns the rank of each object.

    Raises:
      SceneError: an object has no rank.
    """
    unranked = [item.id for item in self.objects if item.rank is None]
    if unranked:
      raise SceneError(f"{self.id}: objects {unranked} have no rank; {self.unranked}")
    return [item.rank for item in self.objects if item.rank is not None]

  def importance(self) -> list[float]:
    """Returns the importance of each object; raises SceneError as `ranks`."""
    self.ranks()
    return [item.importance for item in self.objects if item.importance is not None]

  def relevance(self) -> np.ndarray:
    """Returns n - rank + 1 of each object [N] float32; raises SceneError as `ranks`."""
    return relevance_from_ranks(self.ranks())

  def require_image_file(self) -> pathlib.Path:
    """Returns the picture; SceneError where there is none, which says where it was looked for."""
    if self.image_file is None:
      raise SceneError(f"{self.id}: {self.image_missing}")
    return self.image_file

  def without_crowds(self) -> "Scene":
    """Returns the scene with single objects alone, which is all that can be ranked and found.

    A note says how many regions were left out.
    """
    kept = tuple(item for item in self.objects if not item.is_crowd)
    left_out = len(self.objects) - len(kept)
    if not left_out:
      return self
    note = (
      f"regions marked iscrowd and without a rank are left out: {left_out}; where they are single"
      " objects, give them ranks, or set iscrowd to 0"
    )
    return dataclasses.replace(self, objects=kept, notes=(*self.notes, note))


def order_objects(
  objects: Sequence[SceneObject], values: Sequence[float]
) -> tuple[SceneObject, ...]:
  """Gives objects the ranks of an order, and the importance (n - rank + 1) / n.

  Args:
    objects: n objects.
    values: n numbers: higher = more important, equal ones share a rank.

  >>> objects = [SceneObject.from_mask(number, np.ones([4, 8], bool)) for number in (1, 2)]
  >>> [(item.rank, item.importance) for item in order_objects(objects, [-0.1, 0.9])]
  [(2, 0.5), (1, 1.0)]
  """
  ranks = ranks_from_relevance(values)
  return tuple(
    dataclasses.replace(item, rank=int(rank), importance=importance_of(rank, len(objects)))
    for item, rank in zip(objects, ranks, strict=True)
  )


def importance_of(rank: int, num_objects: int) -> float:
  """Returns (n - rank + 1) / n, the importance where only an order of n objects is known."""
  return float((num_objects - rank + 1) / num_objects)


@contextlib.contextmanager
def naming(where: Any) -> Iterator[None]:
  """Turns a ValueError inside into a SceneError that begins with `where`, once."""
  try:
    yield
  except SceneError:
    raise
  except (PictureError, RankFileError) as error:  # these name their file themselves
    raise SceneError(str(error)) from error
  except ValueError as error:
    raise SceneError(f"{where}: {error}") from error


def _check_ranks(objects: Sequence[SceneObject]) -> None:
  """Raises ValueError where ranks and importance are not one order."""
  ranked = [item for item in objects if item.rank is not None]
  unranked = [item.id for item in objects if item.rank is None and not item.is_crowd]
  if ranked and unranked:
    raise ValueError(f"objects {unranked} have no rank while others have; rank all or none")
  for item in objects:
    if (item.rank is None) != (item.importance is None):
      raise ValueError(f"object {item.id} needs both a rank and an importance, or neither")
    if item.importance is not None and not 0 <= item.importance <= 1:
      raise ValueError(
        f"object {item.id} has importance {item.importance}, outside [0, 1]; scale the values"
      )
  orders = [
    (item.rank, item.importance, item.id)
    for item in objects
    if item.rank is not None and item.importance is not None
  ]
  ranks = {rank for rank, _, _ in orders}
  if ranks != set(range(1, len(ranks) + 1)):
    raise ValueError(
      f"ranks {sorted(ranks)} are not dense; count 1 (most important), 2, 3 ... (ties share one)"
    )
  by_rank = sorted(orders, key=lambda order: (order[0], -order[1]))
  for (high_rank, high, high_id), (rank, importance, number) in itertools.pairwise(by_rank):
    if importance > high:
      raise ValueError(
        f"object {number} has rank {rank} and importance {importance}, object {high_id} rank "
        f"{high_rank} and {high}; 1 is the most important rank, 1.0 the highest importance"
      )
