"""Masks as COCO's compressed run lengths.

Runs go down the columns of a mask [H, W], beginning with the background. `segmentation` reads the
other forms of COCO into this one. Nothing that comes from a file reaches pycocotools unchecked: its
decoder (2.0) reads past the end of its memory when runs do not fill the picture.
"""

import dataclasses
from typing import Any, Self

import numpy as np

MAX_PIXELS = 16384 * 8192


@dataclasses.dataclass(frozen=True)
class RunLengths:
  """One mask in some hundred bytes. Equal masks have equal runs, whatever they were read from.

  Attributes:
    height: rows of the picture.
    width: its columns.
    counts: COCO's compressed run lengths, valid and without empty runs: safe for pycocotools.
  """

  height: int
  width: int
  counts: bytes

  @classmethod
  def from_mask(cls, mask: np.ndarray) -> "RunLengths":
    """Encodes a mask [H, W], bool.

    Raises:
      ValueError: it is no [H, W] bool array or has no pixel.

    >>> RunLengths.from_mask(np.eye(2, dtype=bool)).runs().tolist()
    [0, 1, 2, 1]
    """
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.ndim != 2:
      raise ValueError(f"a mask is bool [H, W], not {mask.dtype} {list(mask.shape)}")
    if not mask.any():
      raise ValueError("the mask has no pixel; leave the object out")
    return split_id_map(mask)[1]

  @classmethod
  def from_runs(cls, runs: np.ndarray, height: int, width: int) -> Self:
    """Checks run lengths and joins the pieces that empty runs part.

    Args:
      runs: [n] int64, background and object by turns, background first.
      height: rows.
      width: columns.

    Raises:
      ValueError: they do not fill the picture, or the object has no pixel.
    """
    check_size(height, width)
    runs = np.asarray(runs, np.int64)
    # Each run is checked before the sum, which garbage could make overflow.
    valid = not runs.size or (runs.min() >= 0 and runs.max() <= height * width)
    if not valid or runs.sum() != height * width:
      raise ValueError(
        f"segmentation.counts is not a run-length encoding of {height} x {width} pixels; "
        "encode the mask again with pycocotools.mask.encode"
      )
    ends = np.cumsum(runs)
    starts, ends = ends[:-1:2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
      raise ValueError("segmentation has no pixel; leave the object out")
    apart = starts[1:] > ends[:-1]
    return cls._from_spans(
      starts[np.append(True, apart)], ends[np.append(apart, True)], height, width
    )

  @classmethod
  def from_coco(cls, segmentation: dict[str, Any], height: int, width: int) -> Self:
    """Reads `{"size": [H, W], "counts": text or list of integers}`.

    Raises:
      ValueError: it is of another size, no run-length encoding, or empty.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
      raise ValueError(
        f"segmentation has size {size}, the picture [{height}, {width}]; "
        "resample the mask to the picture"
      )
    if isinstance(counts, str):
      return cls.from_runs(_parse(counts), height, width)
    if not isinstance(counts, list) or not all(type(run) is int for run in counts):
      raise ValueError(
        f"segmentation.counts must be text or a list of integers, not {counts!r:.40}"
      )
    # Python's integers have no bound; -1 stands for what cannot be one of these runs.
    runs = [run if run <= height * width else -1 for run in counts]
    return cls.from_runs(np.array(runs, np.int64).clip(-1), height, width)

  @classmethod
  def _from_spans(cls, starts: np.ndarray, ends: np.ndarray, height: int, width: int) -> Self:
    """Builds from the pixels [starts, ends) in column order, sorted and not touching."""
    borders = np.stack([starts, ends], axis=1).ravel()
    if borders[-1] < height * width:
      borders = np.append(borders, height * width)
    return cls(height, width, _compress(np.diff(borders, prepend=0)))

  def runs(self) -> np.ndarray:
    """Returns the run lengths [n] int64, background first."""
    return _parse(self.counts.decode("ascii"))

  def mask(self) -> np.ndarray:
    """Returns the mask [H, W] bool, decoded anew at each call."""
    runs = self.runs()
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(self.width, self.height).T)

  def area(self) -> int:
    """Returns the number of the mask's pixels."""
    return int(self.runs()[1::2].sum())

  def to_coco(self) -> dict[str, Any]:
    """Returns `{"size": [H, W], "counts": text}`, which JSON and pycocotools take."""
    return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}


def check_size(height: int, width: int) -> None:
  """Raises ValueError for a size that no picture has."""
  if height < 1 or width < 1 or height * width > MAX_PIXELS:
    raise ValueError(
      f"{width} x {height} pixels is no size of a picture here; give 1 x 1 to 16384 x 8192"
    )


def split_id_map(id_map: np.ndarray) -> dict[int, RunLengths]:
  """Returns the mask of each id of a map [H, W] in one pass; 0 is the background.

  >>> {number: mask.area() for number, mask in split_id_map(np.array([[0, 7], [3, 7]])).items()}
  {3: 1, 7: 2}
  """
  height, width = id_map.shape
  flat = id_map.ravel(order="F")
  starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
  ends = np.append(starts[1:], flat.size)
  ids = flat[starts]
  order = np.argsort(ids, kind="stable")
  firsts = np.append(0, np.flatnonzero(np.diff(ids[order].astype(np.int64))) + 1)
  return {
    int(ids[spans[0]]): RunLengths._from_spans(starts[spans], ends[spans], height, width)
    for spans in np.split(order, firsts[1:])
    if ids[spans[0]]
  }


def _compress(runs: np.ndarray) -> bytes:
  """Returns COCO's text for run lengths [n].

  From the fourth run on it holds the difference to the run before the last. A number is written in
  groups of 5 bits, low ones first: bit 5 is set while more follow, the last group's bit 4 is the
  sign, and 48 is added to make it a letter.
  """
  rest = runs.astype(np.int64)
  rest[3:] -= runs[1:-2]
  letters, written = [], []
  more = np.ones(len(rest), bool)
  while more.any():
    bits = rest & 31
    rest = rest >> 5
    written.append(more)
    more = more & (rest != np.where(bits & 16, -1, 0))
    letters.append(bits + 48 + 32 * more)
  return np.stack(letters, axis=1)[np.stack(written, axis=1)].astype(np.uint8).tobytes()


def _parse(counts: str) -> np.ndarray:
  """Returns the run lengths [n] of COCO's text; [-1] where the text is none."""
  letters = np.frombuffer(counts.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
  if not letters.size or letters.min() < 0 or letters.max() > 63 or letters[-1] & 32:
    return np.array([-1])
  lasts = np.flatnonzero(letters < 32)
  firsts = np.append(0, lasts[:-1] + 1)
  group = np.arange(letters.size) - np.repeat(firsts, lasts - firsts + 1)
  if group.max() > 6:  # more than 35 bits
    return np.array([-1])
  values = np.add.reduceat((letters & 31) << (5 * group), firsts)
  values -= np.where(letters[lasts] & 16, 1 << (5 * (lasts - firsts + 1)), 0)
  values[1::2] = np.cumsum(values[1::2])
  values[2::2] = np.cumsum(values[2::2])
  return values
