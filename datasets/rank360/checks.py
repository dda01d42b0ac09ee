"""What can be wrong with a record that a reader accepted: one finding a problem.

`review` calls this for every scene; what readers refuse (a picture cut off, another size, a mask
outside or empty, ranks out of range ...) comes as their own message.
"""

import dataclasses
from collections.abc import Iterator

from pycocotools import mask as coco_mask

from foir360_jax.files.panorama_file import PLAIN_KINDS, is_panorama, kind_of
from foir360_jax.metrics import ranks_from_relevance
from foir360_jax.scenes import Scene
from rank360.seam import torn_pairs

ERROR, NOTE = "error", "note"
SAME_IOU, SIMILAR_IOU = 1.0, 0.95


@dataclasses.dataclass(frozen=True)
class Finding:
  """One problem of one record.

  Attributes:
    scene_id: the record.
    severity: "error": the record is bad; "note": a person should look at it.
    kind: what sort of problem it is, for counting.
    text: the file, why, and what to do.
  """

  scene_id: str
  severity: str
  kind: str
  text: str

  def line(self) -> str:
    """Returns the finding in one line."""
    return f"{self.severity}: {self.scene_id}: {self.kind}: {self.text}"


def check_scene(scene: Scene) -> list[Finding]:
  """Returns all findings on one scene."""
  file = scene.image_file or scene.id
  checks = (_picture, _panorama, _duplicates, _seam, _ranks, _reader_notes)
  return [
    Finding(scene.id, severity, kind, f"{file}: {reason}")
    for check in checks
    for severity, kind, reason in check(scene)
  ]


def _picture(scene: Scene) -> Iterator[tuple[str, str, str]]:
  if scene.image_file is None:
    yield ERROR, "picture missing", scene.image_missing
    return
  kind = kind_of(scene.image_file)
  if kind not in PLAIN_KINDS:
    yield NOTE, "picture format", f"is {kind}: written as PNG in RGB, 8 bits a channel"


def _panorama(scene: Scene) -> Iterator[tuple[str, str, str]]:
  if not is_panorama(scene.height, scene.width):
    reason = f"is {scene.width} x {scene.height}; give a full panorama, twice as wide as high"
    yield ERROR, "not 2:1", reason


def _duplicates(scene: Scene) -> Iterator[tuple[str, str, str]]:
  masks = [item.run_lengths.to_coco() for item in scene.objects]
  if not masks:
    return
  overlaps = coco_mask.iou(masks, masks, [0] * len(masks))
  for i, first in enumerate(scene.objects):
    for j, second in enumerate(scene.objects[:i]):
      if overlaps[i, j] > SIMILAR_IOU:
        same = first.run_lengths == second.run_lengths
        reason = f"objects {second.id} and {first.id} " + (
          "have the same mask; remove one of the two"
          if same
          else f"have masks of IoU {overlaps[i, j]:.3f}; are they one object?"
        )
        yield ERROR if same else NOTE, "mask duplicated", reason


def _seam(scene: Scene) -> Iterator[tuple[str, str, str]]:
  for east, west in torn_pairs(scene):
    reason = f"objects {east.id} and {west.id} meet at the seam; --join_seam makes one of them"
    yield NOTE, "torn at the seam", reason


def _ranks(scene: Scene) -> Iterator[tuple[str, str, str]]:
  unranked = [item.id for item in scene.objects if item.rank is None]
  if unranked:
    reason = f"objects {unranked} have no rank; {scene.unranked}"
    yield ERROR, "rank missing", reason
    return
  if not scene.objects:
    yield NOTE, "no object", "has no object, so nothing to rank"
  ranks = [item.rank for item in scene.objects]
  tied = sorted(item.id for item in scene.objects if ranks.count(item.rank) > 1)
  if tied:
    yield NOTE, "ranks tied", f"objects {tied} share ranks"
  importance = [item.importance for item in scene.objects]
  finer = ranks_from_relevance(importance).tolist() if importance else []
  if finer != ranks:
    reason = "importance tells objects apart that share a rank, or ties what ranks part"
    yield NOTE, "importance and rank", reason


def _reader_notes(scene: Scene) -> Iterator[tuple[str, str, str]]:
  for note in scene.notes:
    yield NOTE, "look at it", note
