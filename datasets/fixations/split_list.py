"""Which picture is for training, which for tuning, which for the final figures.

The committed lists, `splits/NAME.json`, decide for every picture of the public repositories,
whatever part of them somebody has; a picture that is in none of them goes by the rule that made
the lists: the first 8 bytes of SHA-256("NAME/ID") as a share of 2^64, below 0.6 train, below 0.8
tune, else test. Readout, combiner and report share these splits through the prepared data set.
"""

import json
import pathlib

from hash_split import split_by_hash

SHARES = {"train": 0.6, "tune": 0.2, "test": 0.2}
SPLITS = tuple(SHARES)


def split_of_picture(name: str, image_id: str) -> str:
  """Returns the split of a picture by the rule.

  >>> split_of_picture("osie", "1001")
  'test'
  """
  return split_by_hash(f"{name}/{image_id}", SHARES)


def read_split_list(name: str) -> dict[str, str]:
  """Returns {image id: split} as committed for "crowd" or "osie"."""
  file = pathlib.Path(__file__).parent / "splits" / f"{name}.json"
  lists = json.loads(file.read_text())
  return {image_id: split for split in SPLITS for image_id in lists[split]}
