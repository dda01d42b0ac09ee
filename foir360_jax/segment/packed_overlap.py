"""Solid angles of packed masks and of what they share, without unpacking them.

Masks on the sphere travel as the bits of their pixels in reading order, [P / 8] uint8, P = 2 H H,
the first one highest. Here their rows become words of 64 pixels; a pair is counted in the rows and
columns of words of the smaller of the two, and not at all where these do not meet. Axes: N, M
masks, H rows (row 0 north-most), K words a row.
"""

import functools
from typing import Any

import numpy as np

from foir360_jax.sphere import pixel_areas

WORD = 64
"""Pixels a word."""
_FIRST_PIXEL = np.uint64(2**63)
_MOST_WORDS = 2**20  # of one step: what stays in a processor's cache or near it


class PackedMasks:
  """Masks as words, with the rows and columns of words that they occupy.

  Args:
    bits: [N, P / 8] uint8.
    height: rows of the panorama.

  Attributes:
    height: rows of the panorama.
    words: [N, H, K] uint64, read-only; bits beyond the last column are 0.
    first_row: [N] int, their northernmost rows; H for an empty mask.
    end_row: [N] int, one beyond their southernmost rows; 0 for an empty mask.
    occupied: [N, K] bool, columns of words.
    areas: [N] float64, solid angles in steradians.

  Raises:
    ValueError: the bits are not those of panoramas of that height.
  """

  def __init__(self, bits: np.ndarray, height: int):
    bits = np.asarray(bits)
    row_bytes = -(-height // 4)
    if bits.dtype != np.uint8 or bits.ndim != 2 or bits.shape[1] != -(-height * height // 4):
      raise ValueError(
        f"packed masks of {height} rows are uint8 [N, {-(-height * height // 4)}], not"
        f" {bits.dtype} {list(bits.shape)}"
      )
    if height % 4:  # rows that do not begin with a byte
      pixels = np.unpackbits(bits, axis=1, count=2 * height * height)
      bits = np.packbits(pixels.reshape(len(bits), height, 2 * height), axis=2)
    rows = bits.reshape(len(bits), height, row_bytes)
    if row_bytes % 8:
      rows = np.pad(rows, ((0, 0), (0, 0), (0, -row_bytes % 8)))
    self.height = height
    self.words = np.ascontiguousarray(rows).view(np.uint64)
    in_row = np.bitwise_or.reduce(self.words, axis=2) != 0
    any_row = in_row.any(axis=1)
    self.first_row = np.where(any_row, in_row.argmax(axis=1), height)
    self.end_row = np.where(any_row, height - in_row[:, ::-1].argmax(axis=1), 0)
    self.occupied = np.bitwise_or.reduce(self.words, axis=1) != 0
    self.areas = np.array([self._shared(i, self.words[i : i + 1])[0] for i in range(len(self))])

  def __len__(self) -> int:
    return len(self.words)

  def pixels(self, index: int, rows: slice, words: np.ndarray) -> np.ndarray:
    """Unpacks a part of masks: [..., R, 64 k] uint8 of `rows` and k columns of words."""
    part = np.ascontiguousarray(self.words[index, rows][..., words])
    return np.unpackbits(part.view(np.uint8), axis=-1)

  def outlines_rad(self) -> np.ndarray:
    """Lengths of the outlines in radians, [N] float64, to about a tenth.

    Changes from pixel to pixel along rows and columns are counted, but for those between words; a
    direction's mean over all turns is pi / 4 of such steps.
    """
    pixel_rad = np.pi / self.height
    width_rad = pixel_rad * np.sin((np.arange(self.height + 1)) * pixel_rad)  # of edges of rows
    lengths = np.zeros(len(self))
    for index in range(len(self)):
      first, end = self.first_row[index], self.end_row[index]
      words = self.words[index, first:end][:, self.occupied[index]]
      if not words.size:
        continue
      ordered = words.byteswap()  # neighbouring pixels are neighbouring bits
      along = np.bitwise_count((ordered ^ (ordered >> np.uint64(1))) & ~_FIRST_PIXEL).sum()
      down = np.bitwise_count(words[1:] ^ words[:-1]).sum(axis=1) @ width_rad[first + 1 : end]
      down += np.bitwise_count(words[0]).sum() * width_rad[first]
      down += np.bitwise_count(words[-1]).sum() * width_rad[end]
      lengths[index] = np.pi / 4 * (along * pixel_rad + down)
    return lengths

  def overlaps(self) -> np.ndarray:
    """Solid angles that pairs share, [N, N] float64 in steradians."""
    shared = np.zeros((len(self), len(self)))
    np.fill_diagonal(shared, self.areas)
    meet = self._may_meet(self)
    extent = np.maximum(self.end_row - self.first_row, 0) * self.occupied.sum(axis=1)
    order = np.argsort(extent, kind="stable")
    for place, index in enumerate(order):
      others = order[place + 1 :]
      others = others[meet[index, others]]
      if len(others):
        shared[index, others] = shared[others, index] = self._shared(index, self.words, others)
    return shared

  def overlaps_with(self, others: "PackedMasks") -> np.ndarray:
    """Solid angles shared with other masks of the same height, [N, M] float64 in steradians."""
    shared = np.zeros((len(self), len(others)))
    for index, meet in enumerate(self._may_meet(others)):
      chosen = np.flatnonzero(meet)
      if len(chosen):
        shared[index, chosen] = self._shared(index, others.words, chosen)
    return shared

  def _may_meet(self, others: "PackedMasks") -> np.ndarray:
    """Whether pairs have rows and columns of words in common, [N, M] bool."""
    columns = self.occupied.astype(np.float32) @ others.occupied.T.astype(np.float32) > 0
    rows = (self.first_row[:, None] < others.end_row) & (others.first_row < self.end_row[:, None])
    return columns & rows

  def _shared(self, index: int, words: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Solid angles shared by a mask and some of `words` [M, H, K], all of them by default."""
    first, end = self.first_row[index], self.end_row[index]
    columns: Any = np.flatnonzero(self.occupied[index])
    count = len(words) if others is None else len(others)
    if not len(columns):
      return np.zeros(count)
    if columns[-1] - columns[0] + 1 == len(columns):  # a slice is quicker than a list
      columns = slice(columns[0], columns[-1] + 1)
    mine = self.words[index, first:end][:, columns]
    areas = np.repeat(row_areas(self.height)[first:end], mine.shape[1])
    step = max(1, _MOST_WORDS // mine.size)
    shared = np.empty(count)
    for start in range(0, count, step):
      part = slice(start, start + step)
      theirs = words[:, first:end]
      if isinstance(columns, slice):
        theirs = theirs[:, :, columns]
        theirs = theirs[part] if others is None else theirs[others[part]]
      else:
        chosen = np.arange(len(words))[part] if others is None else others[part]
        theirs = theirs[chosen[:, None, None], np.arange(end - first)[:, None], columns]
      counts = np.bitwise_count(theirs & mine)
      shared[part] = counts.reshape(len(counts), -1) @ areas
    return shared


@functools.lru_cache(maxsize=16)
def row_areas(height: int) -> np.ndarray:
  """The solid angle of a pixel of each row, [H] float64 in steradians, read-only."""
  areas = np.asarray(pixel_areas(height)[:, 0], np.float64)
  areas.setflags(write=False)
  return areas
