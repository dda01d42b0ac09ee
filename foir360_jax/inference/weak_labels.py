"""Weak labels for a folder of panoramas with masks: `ranks/ID.json` and `overlays/ID.png` for each.

Threads read ahead and write behind, so that the device waits for neither; scenes of one size and
one padded number of objects go through one compiled program, `batch_size` at a time. At no time are
more than a few batches in memory. Axes as in `rank`.
"""

import collections
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from foir360_jax.inference.described_scene import ReadyScene, one_line, read_scene, write_result
from foir360_jax.inference.output_folder import claim_output, result_files, settings_of
from foir360_jax.scenes import SceneError, open_scenes
from foir360_jax.weak_labels.program import DescribedScene, WeakRanks
from foir360_jax.weak_labels.rank import WeakRanker

_WAITING_BATCHES = 4  # scenes that wait for others of their shape, in batches
_SAY_EVERY_S = 5.0


@dataclasses.dataclass(frozen=True)
class Summary:
  """What became of a folder.

  Attributes:
    total: panoramas in it.
    ranked: panoramas that this run ranked.
    done_before: panoramas that had a result already.
    bad: a line for each panorama that cannot be ranked: the file, why, and what to do.
    seconds: wall time without compilation.
    compile_s: wall time of compilation.
  """

  total: int
  ranked: int
  done_before: int
  bad: tuple[str, ...]
  seconds: float
  compile_s: float

  def line(self) -> str:
    """Returns the counts and the speed in one line."""
    rate = self.ranked / max(self.seconds, 1e-9)
    speed = f"; {rate:.3g} images/s without {self.compile_s:.1f} s of compilation"
    return (
      f"{self.ranked} of {self.total} panoramas ranked, {self.done_before} done before,"
      f" {len(self.bad)} bad{speed if self.ranked else ''}"
    )


def label_folder(
  ranker: WeakRanker,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  batch_size: int,
  overwrite: bool = False,
  overlays: bool = True,
  say: Callable[[str], None] = print,
) -> Summary:
  """Ranks the objects of every panorama of a folder.

  A panorama is done when its rank file is there, which is written last: a run that was stopped goes
  on by the same call. That is the only test: whoever changes a panorama or its masks removes its
  rank file (`rank360 --ranks_dir` refuses ranks of other masks than the folder has). Ranks that the
  folder itself has are checked with the rest of it, and not used. A panorama without objects gets a
  rank file without objects.

  Args:
    ranker: the method.
    input_path: a folder of any format of `scenes.open_scenes` that has masks.
    output: folder for `ranks/`, `overlays/` and the settings, see `output_folder`.
    batch_size: panoramas that go through the program together; it changes the speed only.
    overwrite: do again what is done.
    overlays: draw overlays; results from before get none.
    say: takes lines on the progress, and one for each bad panorama.

  Raises:
    ValueError: the folder cannot be opened, `output` holds something else or is the same folder.
    OSError: a result cannot be written.
    KeyboardInterrupt: on Ctrl-C; what is finished stays, and nothing is half-written.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size must be at least 1, not {batch_size}")
  folder = open_scenes(input_path, check_pictures=False)  # every picture is decoded anyway
  if not len(folder):
    raise SceneError(f"{folder.path}: holds no picture; give the folder with images and instances")
  output = pathlib.Path(output)
  if output.resolve() == folder.path.resolve():
    raise ValueError(
      f"{output} is the folder of the panoramas, whose ranks are those given by people; give"
      " another --output"
    )
  done = claim_output(output, settings_of(ranker), folder.ids, overwrite=overwrite)
  remaining = [scene_id for scene_id in folder.ids if scene_id not in done]
  say(f"{folder.path}: {len(folder)} panoramas, {len(done)} done before")
  run = _Run(ranker, output, batch_size, overlays, say, len(remaining))
  threads = len(os.sched_getaffinity(0))
  pool = ThreadPoolExecutor(threads)
  try:
    read = _read_ahead(pool, lambda scene_id: read_scene(folder, scene_id), remaining, 2 * threads)
    for scenes in _batches(run.keep_good(read), batch_size):
      run.rank(pool, scenes)
    run.finish(pool)
  except KeyboardInterrupt:
    pool.shutdown(cancel_futures=True)
    run.collect_finished()
    say(f"stopped; {run.ranked + len(done)} are done, and the same command goes on")
    raise
  finally:
    pool.shutdown(cancel_futures=True)  # waits for files that are being written
  summary = run.summary(len(folder), len(done))
  say(f"{summary.line()} -> {output}")
  for line in summary.bad:
    say(f"bad: {line}")
  return summary


class _Run:
  """The state of one run: what is on the device, what is being written, and the counts."""

  def __init__(self, ranker, output, batch_size, overlays, say, remaining):
    self._ranker, self._output, self._batch_size = ranker, output, batch_size
    self._overlays, self._say, self._remaining = overlays, say, remaining
    self._on_device: tuple[list[ReadyScene], WeakRanks] | None = None
    self._writing: collections.deque[Future] = collections.deque()
    self._shapes = set()
    self._start = self._said = time.monotonic()
    self.compile_s = 0.0
    self.ranked = 0
    self.bad: list[str] = []

  def keep_good(self, read: Iterable[ReadyScene | str]) -> Iterator[ReadyScene]:
    """Keeps the lines on bad panoramas, and passes the good ones on."""
    for item in read:
      if isinstance(item, str):
        self.bad.append(item)
        self._tell()
      else:
        yield item

  def rank(self, pool: ThreadPoolExecutor, scenes: list[ReadyScene]) -> None:
    """Starts the device on a batch, and hands the results of the one before to the writers."""
    if scenes[0].described is None:
      self._write(pool, scenes, None)
      return
    try:
      result = self._launch(scenes)
    except ValueError as error:  # a size that the method cannot work at
      self.bad += [one_line(f"{item.scene.image_file}: {error}") for item in scenes]
      return
    for item in scenes:
      item.described = None
    before, self._on_device = self._on_device, (scenes, result)
    if before:
      self._write(pool, before[0], jax.device_get(before[1]))

  def finish(self, pool: ThreadPoolExecutor) -> None:
    """Waits for everything that was begun."""
    if self._on_device:
      scenes, result = self._on_device
      self._write(pool, scenes, jax.device_get(result))
    self._wait(0)

  def collect_finished(self) -> None:
    """Counts what was written, after the writers have stopped."""
    self.ranked += sum(not f.cancelled() and not f.exception() for f in self._writing)
    self._writing.clear()

  def summary(self, total: int, done_before: int) -> Summary:
    """Returns what became of the folder."""
    seconds = time.monotonic() - self._start - self.compile_s
    bad = tuple(sorted(self.bad))
    return Summary(total, self.ranked, done_before, bad, seconds, self.compile_s)

  def _launch(self, scenes: list[ReadyScene]) -> WeakRanks:
    described = [item.described for item in scenes]
    # No objects: the padding of a batch has nothing to compute.
    empty = DescribedScene(described[0].panorama, *(np.zeros_like(x) for x in described[0][1:]))
    described += [empty] * (self._batch_size - len(scenes))
    batch = jax.tree.map(lambda *x: np.stack(x), *described)
    shape = _shape(scenes[0])
    if shape in self._shapes:
      return self._ranker.rank(batch)
    height, count = shape
    self._say(f"compiles for {2 * height} x {height} pixels and up to {count} objects ...")
    start = time.monotonic()
    result = self._ranker.rank(batch)  # returns when it is compiled; the device goes on
    self.compile_s += time.monotonic() - start
    self._shapes.add(shape)
    return result

  def _write(self, pool: ThreadPoolExecutor, scenes: list[ReadyScene], result: Any) -> None:
    for index, item in enumerate(scenes):
      files = result_files(self._output, item.scene.id)
      self._writing.append(pool.submit(write_result, item, result, index, files, self._overlays))
    self._wait(2 * self._batch_size)

  def _wait(self, at_most: int) -> None:
    """Waits until no more than so many panoramas are being written."""
    while self._writing and (len(self._writing) > at_most or self._writing[0].done()):
      self._writing[0].result()
      self._writing.popleft()
      self.ranked += 1
      self._tell()

  def _tell(self) -> None:
    now = time.monotonic()
    if now - self._said < _SAY_EVERY_S:
      return
    self._said = now
    rate = self.ranked / max(now - self._start - self.compile_s, 1e-9)
    finished = self.ranked + len(self.bad)
    line = f"{finished} / {self._remaining}, {rate:.3g} images/s"
    if self.ranked:
      line += f", {_duration((self._remaining - finished) / rate)} left"
    self._say(line)


def _read_ahead(
  pool: ThreadPoolExecutor, read: Callable[[str], Any], ids: Iterable[str], ahead: int
) -> Iterator[Any]:
  """Yields `read(id)` of each id in turn, while threads read the next ones."""
  futures = collections.deque()
  for scene_id in ids:
    futures.append(pool.submit(read, scene_id))
    if len(futures) > ahead:
      yield futures.popleft().result()
  while futures:
    yield futures.popleft().result()


def _batches(scenes: Iterable[ReadyScene], batch_size: int) -> Iterator[list[ReadyScene]]:
  """Groups scenes by shape; a batch is not full at the end, or where too many scenes wait."""
  groups = collections.defaultdict(list)
  for item in scenes:
    group = groups[_shape(item)]
    group.append(item)
    if len(group) == batch_size:
      yield groups.pop(_shape(item))
    elif sum(map(len, groups.values())) >= _WAITING_BATCHES * batch_size:
      yield groups.pop(max(groups, key=lambda shape: len(groups[shape])))
  yield from groups.values()


def _shape(item: ReadyScene) -> tuple[int, int]:
  """Height and padded number of objects."""
  return item.scene.height, 0 if item.described is None else len(item.described.where)


def _duration(seconds: float) -> str:
  """Returns a time in words.

  >>> _duration(7), _duration(150), _duration(9000)
  ('7 s', '2.5 min', '2.5 h')
  """
  if seconds < 60:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
