"""Weak labels for a folder of panoramas with masks: `ranks/ID.json` and `overlays/ID.png` for each.

`folder_runner` goes over the folder; here is what it does to each panorama: scenes of one size and
one padded number of objects go through one compiled program, `batch_size` at a time. Axes as in
`weak_labels.rank`.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from foir360_jax.compilation import compiling
from foir360_jax.inference.described_scene import ReadyScene, read_scene, write_result
from foir360_jax.inference.folder_runner import FolderWork, Show, Summary, run_folder
from foir360_jax.inference.output_folder import package_version
from foir360_jax.paths import expand
from foir360_jax.saliency import LearnedSaliency
from foir360_jax.scenes import SceneError, open_scenes
from foir360_jax.weak_labels.program import METHOD_VERSION, DescribedScene, WeakRanks
from foir360_jax.weak_labels.rank import WeakRanker

_SPEED_ONLY = ("views_at_once",)  # of the strategy: these change no rank


def label_folder(
  ranker: WeakRanker,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  batch_size: int,
  overwrite: bool = False,
  overlays: bool = True,
  say: Callable[[str], None] = print,
  show: Show | None = None,
) -> Summary:
  """Ranks the objects of every panorama of a folder, as `run_folder` says.

  Ranks that the folder itself has are checked with the rest of it, and not used; `rank360
  --ranks_dir` refuses ranks of other masks than the folder has. A panorama without objects gets a
  rank file without objects.

  Args:
    ranker: the method.
    input_path: a folder of any format of `scenes.open_scenes` that has masks.
    output: see `run_folder`.
    batch_size: panoramas that go through the program together; it changes the speed only.
    overwrite: see `run_folder`.
    overlays: draw overlays; results from before get none.
    say: see `run_folder`.
    show: see there.

  Raises:
    ValueError: the folder cannot be opened, or as `run_folder`.
    OSError: a result cannot be written.
    KeyboardInterrupt: on Ctrl-C.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size must be at least 1, not {batch_size}")
  work = _WeakLabels(ranker, input_path, batch_size, overlays)
  return run_folder(work, output, overwrite=overwrite, say=say, show=show)


class _WeakLabels(FolderWork):
  returns_early = True
  too_large = (
    "the device has too little memory for its batch; lower config.batch_size or"
    " config.views_at_once"
  )

  def __init__(self, ranker, input_path, batch_size, overlays):
    path = expand(input_path)
    self._folder = open_scenes(path, check_pictures=False)  # every picture is decoded anyway
    if not len(self._folder):
      raise SceneError(f"{path}: holds no picture; give the folder with images and instances")
    self._ranker, self._overlays = ranker, overlays
    self.source, self.ids = self._folder.path, self._folder.ids
    self.notes: set[str] = set(self._folder.notes)
    self.settings = settings_of(ranker)
    self.batch_size = batch_size

  def read(self, scene_id: str) -> ReadyScene:
    item = read_scene(self._folder, scene_id)
    self.notes.update(f"{scene_id}: {note}" for note in item.scene.notes)
    return item

  def shape(self, item: ReadyScene) -> tuple[int, int]:
    """Height and padded number of objects."""
    return item.scene.height, 0 if item.described is None else len(item.described.where)

  def compiling(self, shape: tuple[int, int]) -> str:
    height, count = shape
    pixels = f"{2 * height} x {height} pixels"
    return compiling(f"for {pixels} and up to {count} objects") if count else ""

  def rank(self, items: list[ReadyScene]) -> tuple[WeakRanks | None, int]:
    described = [item.described for item in items]
    if described[0] is None:
      return None, len(items)
    # No objects: the padding of a batch has nothing to compute.
    empty = DescribedScene(described[0].panorama, *(np.zeros_like(x) for x in described[0][1:]))
    padding = [empty] * (self.batch_size - len(items))
    result = self._ranker.rank(jax.tree.map(lambda *x: np.stack(x), *described, *padding))
    for item in items:
      item.described = None
    return result, len(items)

  def fetch(self, started: tuple[WeakRanks | None, int]) -> Sequence[Any]:
    result, count = started
    result = jax.device_get(result)
    return [(result, index) for index in range(count)]

  def write(self, item: ReadyScene, result: Any, files: tuple[pathlib.Path, ...]) -> str:
    ranks, index = result
    write_result(item, ranks, index, files, self._overlays)
    return ""


def settings_of(ranker: WeakRanker) -> dict[str, Any]:
  """Returns all that the ranks of a ranker depend on, as JSON values.

  The saliency is its name, with its parameters where it has some, and the SHA-256 of its weights.

  Raises:
    ValueError: a saliency without a name of its own, which cannot be told from another.
  """
  saliency = ranker.saliency
  name = getattr(saliency, "__name__", type(saliency).__name__)
  if name in ("<lambda>", "partial"):
    raise ValueError(
      f"the saliency is a {name}, which cannot be told from another; give a function with a name,"
      " or a dataclass, whose parameters are kept with the results"
    )
  if dataclasses.is_dataclass(saliency):
    name = repr(saliency)
  elif isinstance(saliency, LearnedSaliency):
    name += f"(enlargement={saliency.readout.enlargement:.6g}, enlarges={saliency.enlarges})"
  weights = [x for x in jax.tree.leaves(saliency) if isinstance(x, jax.Array | np.ndarray)]
  digest = hashlib.sha256()
  for array in map(np.asarray, weights):
    digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
  strategy = {k: v for k, v in ranker.strategy._asdict().items() if k not in _SPEED_ONLY}
  settings = {
    "command": "weak-labels",
    "saliency": name,
    "saliency_sha256": digest.hexdigest(),
    "strategy": strategy,
    "object_score": ranker.object_score.to_json(),
    "method": METHOD_VERSION,
    "version": package_version(),
  }
  return json.loads(json.dumps(settings))
