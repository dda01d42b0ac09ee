"""Which JSON files of a folder are annotations, and of which format: told by what they hold.

Between `formats`, which asks, and the modules of the JSON formats. Files of other programs, broken
ones and copies are passed over, each with a line that names it, unless something would be lost.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from foir360_jax.files.json_file import read_json
from foir360_jax.files.listing import child, list_files, list_folders
from foir360_jax.scenes import coco, irsr, seqrank
from foir360_jax.scenes.folder import root_of, split_of, split_of_file
from foir360_jax.scenes.foreign_tools import tool_of
from foir360_jax.scenes.scene import SceneError

JSON_FORMATS = {"irsr": irsr, "seqrank": seqrank, "coco": coco}
"""The modules of the formats that are told by their content."""


class AnnotationFiles(NamedTuple):
  """The JSON files of a folder.

  Attributes:
    by_format: the files of each format that is there.
    notes: a line for each file that is passed over.
    tools: the names of annotation programs whose own JSON lies there.
  """

  by_format: Mapping[str, list[pathlib.Path]]
  notes: tuple[str, ...]
  tools: tuple[str, ...]


class _Described(NamedTuple):
  """What is in a JSON file: its format or tool ("" if none), its pictures, or what is wrong."""

  format: str
  tool: str
  pictures: frozenset[str]
  problem: str


def find_annotation_files(path: pathlib.Path) -> AnnotationFiles:
  """Looks at the JSON files at the places where formats have them, or at the one file.

  Raises:
    SceneError: a file that speaks of a split is no JSON, or two files are of the same pictures and
      differ: to pass over one of them would lose something.
  """
  files = [path] if path.is_file() else _candidates(path)
  found: dict[str, list[pathlib.Path]] = {}
  notes, tools = [], set()
  for file in files:
    described = _describe(file, file.stat().st_mtime_ns)
    if described.format:
      found.setdefault(described.format, []).append(file)
    elif described.problem and (split_of(file.stem) or path.is_file()):
      raise SceneError(described.problem)
    else:
      tools |= {described.tool} - {""}
      what = f"{described.tool}'s own JSON" if described.tool else "no annotations"
      problem = described.problem and f"{described.problem} if it holds annotations"
      notes.append(f"{problem or f'{file}: holds {what}'}; passed over")
  for format, several in found.items():
    found[format], copies = _without_copies(path, several)
    notes += copies
  return AnnotationFiles(found, tuple(notes), tuple(sorted(tools)))


def _candidates(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the JSON files of a folder, of its folder of annotations, and of those of splits."""
  folders = list_folders(path)
  splits = [folder for folder in folders if split_of(folder.name)]
  places = [place for root in (path, *splits) for place in (root, child(root, "annotations"))]
  files = {file for place in places for file in list_files(place, ".json")}
  files |= {
    file
    for folder in folders
    for file in list_files(folder, ".json")
    if file.stem.lower().endswith("_annotations")
  }
  return sorted(file for file in files if not file.name.lower().startswith("obj_seg_data_"))


@functools.lru_cache(maxsize=256)
def _describe(file: pathlib.Path, modified_ns: int) -> _Described:
  """Describes a file; remembered while it stays as it is."""
  try:
    content: Any = read_json(file, SceneError)
  except SceneError as error:
    return _Described("", "", frozenset(), str(error))
  for name, module in JSON_FORMATS.items():
    if module.holds(content):
      return _Described(name, "", frozenset(module.picture_names(content)), "")
  return _Described("", tool_of(content), frozenset(), "")


def _without_copies(
  path: pathlib.Path, files: Sequence[pathlib.Path]
) -> tuple[list[pathlib.Path], list[str]]:
  """Leaves out files that are copies of others; returns a note for each.

  Raises:
    SceneError: two files are of the same pictures and differ.
  """
  kept: list[pathlib.Path] = []
  notes = []
  order = sorted(files, key=lambda f: (not split_of_file(path, f), len(f.name), f))
  for file in order:
    other = next((other for other in kept if _same_pictures(path, file, other)), None)
    if other is None:
      kept.append(file)
    elif read_json(file, SceneError) == read_json(other, SceneError):
      notes.append(f"{file}: is a copy of {other.relative_to(path)}; passed over")
    else:
      shared = _pictures(file) & _pictures(other)
      raise SceneError(
        f"{file}: is of pictures of which {other.relative_to(path)} is, too ({len(shared)}, as"
        f" {min(shared)}), and says something else; keep one of the two in the folder"
      )
  return sorted(kept), notes


def _same_pictures(path: pathlib.Path, file: pathlib.Path, other: pathlib.Path) -> bool:
  """Whether two files annotate the same pictures, as far as names tell.

  In different folders, or of different splits, pictures of one name are different pictures.
  """
  if root_of(file) != root_of(other):
    return False
  splits = {split_of_file(path, file), split_of_file(path, other)} - {""}
  return len(splits) < 2 and not _pictures(file).isdisjoint(_pictures(other))


def _pictures(file: pathlib.Path) -> frozenset[str]:
  return _describe(file, file.stat().st_mtime_ns).pictures
