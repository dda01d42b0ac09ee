"""The split of a record by the hash of its id: the rule of all data sets that have no lists.

An id's hash alone decides, so that more records move none from one split to another.
"""

import hashlib
from collections.abc import Mapping


def split_by_hash(key: str, shares: Mapping[str, float]) -> str:
  """Returns the split of a record, the same on every machine.

  Args:
    key: its id, after the name of the data set where that has several.
    shares: the share of each split, which add up to 1. The splits follow each other in this order
      along the first 8 bytes of the key's SHA-256, as a share of 2^64.

  >>> split_by_hash("osie/1001", {"train": 0.6, "tune": 0.2, "test": 0.2})
  'test'
  """
  digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
  place = int.from_bytes(digest[:8], "big") / 2**64
  end = 0.0
  for split, share in shares.items():
    end += share
    if place < end:
      return split
  return split  # where the shares' sum is a rounding below 1
