"""Which split a record belongs to: by given lists, or by a hash of its id.

Between `review`, which asks, and the lists that a folder or `--split_dir` has.
"""

import collections
import pathlib
import re
from collections.abc import Mapping, Sequence

from foir360_jax.files.listing import list_files
from foir360_jax.scenes import SceneError
from foir360_jax.scenes.folder import files_by_split
from foir360_jax.scenes.scenes_layout import read_id_list
from hash_split import split_by_hash

SHARES = {"train": 0.8, "test": 0.2}  # 360Rank has 400 and 100 panoramas
_NAMES = {"val": "validation", "valid": "validation"}  # what the training code asks for


def read_split_dir(folder: pathlib.Path) -> dict[str, list[str]]:
  """Reads `train.txt`, `test.txt` ... of a folder: one id a line.

  Raises:
    SceneError: there is no such list, two are of one split, or one cannot be read.
  """
  files = list_files(folder, ".txt")
  if not files:
    raise SceneError(f"{folder}: has no list; write train.txt, test.txt ... with one id a line")
  named = {file.stem: file for file in files} if len(files) == 1 else files_by_split(files)
  return {split: read_id_list(file) for split, file in named.items()}


def assign_splits(
  ids: Sequence[str], lists: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], dict[str, str]]:
  """Finds the split of each id.

  Args:
    ids: the ids of all records, bad ones included: so leaving those out moves no other.
    lists: the ids of each split; {}: split by hash.

  Returns:
    The split by id, and by id what is wrong with the lists: an id that two of them name, or one
    of them twice, that none names, or that no record has.
  """
  if not lists:
    return {scene_id: split_by_hash(scene_id, SHARES) for scene_id in ids}, {}
  found, wrong, known = collections.defaultdict(list), {}, set(ids)
  for split, listed in lists.items():
    for scene_id in listed:
      found[scene_id].append(split)
  for scene_id in ids:
    if scene_id not in found:
      wrong[scene_id] = f"is in none of the lists {', '.join(lists)}; add it to one"
  for scene_id, splits in found.items():
    if len(splits) > 1:
      wrong[scene_id] = f"is listed in {' and '.join(splits)}; keep it once"
    elif scene_id not in known:
      wrong[scene_id] = f"is listed in {splits[0]}, but is not in the folder; add or unlist it"
  # TFDS takes letters, digits, _ and - alone; a file, after which a split is named, may have more.
  names = {split: _NAMES.get(split, re.sub(r"[^\w-]+", "_", split)) for split in lists}
  return {scene_id: names[splits[0]] for scene_id, splits in found.items()}, wrong
