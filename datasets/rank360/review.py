"""Everything about a folder before it is built: each record with its split, measures and findings.

Both the builder and the report (`--check`) begin here, so they agree on what is bad.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from foir360_jax.files.listing import list_files
from foir360_jax.files.panorama_file import resize_columns
from foir360_jax.scenes import Scene, SceneError, open_scenes
from foir360_jax.scenes.scenes_layout import with_ranks_of
from foir360_jax.sphere import bounding_fov_deg, solid_angle
from rank360.checks import ERROR, Finding, check_scene
from rank360.columns import decode
from rank360.seam import join_torn
from rank360.splits import SHARES, assign_splits, read_split_dir

_EMPTY_SPLIT = "no picture falls into {} by its hash; give lists by --split_dir"
BY_HASH = "hash of the id: about 80 % train, 20 % test"


@dataclasses.dataclass(frozen=True)
class Record:
  """One picture of the folder, or one that only a list names.

  Attributes:
    id: its id.
    scene: what was read; None where reading failed.
    split: its split, "" where there is none.
    findings: all that is wrong with it.
    area_sr: [N] solid angle of each object; None where the scene is bad.
    bfov_deg: [N, 4] longitude, latitude, width, height of its box on the sphere, likewise.
  """

  id: str
  scene: Scene | None
  split: str
  findings: tuple[Finding, ...]
  area_sr: np.ndarray | None = None
  bfov_deg: np.ndarray | None = None

  @property
  def is_bad(self) -> bool:
    """Whether one of the findings is an error."""
    return any(finding.severity == ERROR for finding in self.findings)


@dataclasses.dataclass(frozen=True)
class Review:
  """A folder, read to the end.

  Attributes:
    path: the folder.
    format: its format.
    split_rule: where the splits come from, in words.
    records: all records, sorted by id.
    notes: what a person should know of the folder as a whole, one line each.
  """

  path: pathlib.Path
  format: str
  split_rule: str
  records: tuple[Record, ...]
  notes: tuple[str, ...] = ()

  @property
  def good(self) -> list[Record]:
    """The records that can be built."""
    return [record for record in self.records if not record.is_bad]

  @property
  def bad(self) -> list[Record]:
    """The records that cannot."""
    return [record for record in self.records if record.is_bad]

  def findings(self, severity: str) -> Iterator[Finding]:
    """Yields the findings of one severity."""
    for record in self.records:
      yield from (finding for finding in record.findings if finding.severity == severity)


def review_folder(
  path: str | os.PathLike,
  *,
  format: str | None = None,
  rank_field: str | None = None,
  split_dir: str | os.PathLike | None = None,
  join_seam: bool = False,
  ranks_dir: str | os.PathLike | None = None,
) -> Review:
  """Reads and checks every record of a folder.

  Args:
    path: the folder, in a format of `foir360_jax.scenes.FORMATS`.
    format: its name; None: recognised.
    rank_field: of COCO, the field that orders the objects; see `open_scenes`.
    split_dir: a folder with train.txt, test.txt ..., in place of the folder's own lists.
    join_seam: make one object of two that are torn at the seam.
    ranks_dir: a folder with ranks/ID.json, in place of the folder's own ranks.

  Raises:
    SceneError: the folder is of no known format, holds nothing, or its lists cannot be read; or
      there are no ranks in `ranks_dir`.
  """
  path = pathlib.Path(path)
  folder = open_scenes(path, format=format, rank_field=rank_field)
  if not len(folder):
    raise SceneError(f"{path}: holds no picture; give the folder with images and annotations")
  if split_dir is not None:
    lists, rule = read_split_dir(pathlib.Path(split_dir)), f"lists in {split_dir}"
  else:
    lists = folder.splits
    rule = f"lists of the folder: {', '.join(lists)}" if lists else BY_HASH
  splits, wrong = assign_splits(folder.ids, lists)
  ranks = None if ranks_dir is None else pathlib.Path(ranks_dir) / "ranks"
  if ranks is not None and not list_files(ranks, ".json"):
    raise SceneError(f"{ranks}: holds no rank file; give what foir360 weak-labels wrote")

  def read(scene_id: str) -> Record:
    scene, findings = None, []
    # What the folder itself says of a record, also of two lists that name it, is said once.
    if scene_id in wrong and not isinstance(folder.records.get(scene_id), SceneError):
      text = f"{split_dir or path}: {scene_id} {wrong[scene_id]}"
      findings.append(Finding(scene_id, ERROR, "split", text))
    if scene_id in folder.records:
      try:
        scene = folder.read(scene_id).without_crowds()
        scene = scene if ranks is None else _with_other_ranks(scene, ranks)
        scene = join_torn(scene) if join_seam else scene
        findings += check_scene(scene)
      except SceneError as error:
        findings.append(Finding(scene_id, ERROR, "cannot be read", str(error)))
    return Record(scene_id, scene, splits.get(scene_id, ""), tuple(findings))

  # Array work leaves the interpreter free, so threads measure one record while the next is read.
  with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    ids = sorted({*folder.ids, *wrong})
    measured = [pool.submit(_measured, read(scene_id)) for scene_id in ids]
  records = tuple(future.result() for future in measured)
  notes = list(folder.notes)
  if not lists:
    notes += [_EMPTY_SPLIT.format(split) for split in SHARES if split not in splits.values()]
  return Review(path, folder.format, rule, records, tuple(notes))


def _with_other_ranks(scene: Scene, folder: pathlib.Path) -> Scene:
  file = folder / f"{scene.id}.json"
  if not file.is_file():
    raise SceneError(f"{file}: missing; rank {scene.id} by foir360 weak-labels, or leave it out")
  return with_ranks_of(scene, file)


def _measured(record: Record) -> Record:
  """Returns a good record with `area_sr` and `bfov_deg`, a bad one as it is."""
  if record.is_bad:
    return record
  areas, boxes = [], []
  for item in record.scene.objects:
    mask = resize_columns(decode(item.run_lengths), 2 * record.scene.height)
    areas.append(solid_angle(mask))
    boxes.append(bounding_fov_deg(mask))
  return dataclasses.replace(
    record,
    area_sr=np.array(areas, np.float32),
    bfov_deg=np.array(boxes, np.float32).reshape(-1, 4),
  )
