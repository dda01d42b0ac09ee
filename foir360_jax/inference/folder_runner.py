"""The one runner over folders: every command that makes a result a panorama goes through it.

The rule, whatever the command: what has its result counts as done, so the same command goes on
where it was stopped; results of other settings are refused; one process writes a folder; a bad
panorama is one line, and the others go on. Threads read ahead and write behind, so that the device
waits for neither; panoramas of one shape go through it together. At no time are more than a few
batches in memory.
"""

import collections
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from foir360_jax.files import PanoramaError, sole_writer
from foir360_jax.inference.output_folder import RANKED, ResultFiles, claim_output
from foir360_jax.paths import expand
from foir360_jax.scenes import SceneError

_WAITING_BATCHES = 4  # panoramas that wait for others of their shape, in batches
_SAY_EVERY_S = 5.0

Show = Callable[[float, float], None]


class FolderWork:
  """What a command does to each panorama of a folder; to be subclassed.

  An item is a panorama that was read; it has `id`, the name of its results, and `title`, by which
  a line names it. `read` and `write` run in threads, the rest in the caller's.

  Attributes:
    source: the folder, or the picture, that the panoramas come from.
    ids: of all panoramas.
    settings: all that the results depend on, JSON values; the first says the command.
    batch_size: panoramas of one shape that `rank` takes at most; it changes the speed only.
    returns_early: whether `rank` returns before the device is done, so that the next batch is
      started before the results of this one are fetched.
    too_large: what a line says where the device has too little memory for a batch.
    files: where the results go.
    notes: what a person should look at in the panoramas, one line each; said at the end.
  """

  source: pathlib.Path
  ids: Sequence[str]
  settings: Mapping[str, Any]
  batch_size: int = 1
  returns_early: bool = False
  too_large: str = "the device has too little memory for it"
  files: ResultFiles = RANKED
  notes: Collection[str] = ()

  def title(self, scene_id: str) -> str:
    """Names a panorama that was not read yet."""
    return f"{self.source}: {scene_id}"

  def read(self, scene_id: str) -> Any:
    """Returns the item of an id; raises ValueError or OSError where it cannot be used."""
    raise NotImplementedError

  def shape(self, item: Any) -> Hashable:
    """What items must have in common to be ranked together."""
    return None

  def compiling(self, shape: Any) -> str:
    """Returns a line for the first batch of a shape, or ""."""
    return ""

  def rank(self, items: list[Any]) -> Any:
    """Starts the device on items of one shape; ValueError: it cannot work on them."""
    raise NotImplementedError

  def fetch(self, started: Any) -> Sequence[Any]:
    """Waits for what `rank` returned; gives the result of each item."""
    return started

  def write(self, item: Any, result: Any, files: tuple[pathlib.Path, ...]) -> str:
    """Writes the files of an item, the first of `files` last; returns a line on it, or ""."""
    raise NotImplementedError


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


def run_folder(
  work: FolderWork,
  output: str | os.PathLike,
  *,
  overwrite: bool = False,
  say: Callable[[str], None] = print,
  show: Show | None = None,
) -> Summary:
  """Does the work to every panorama that has no result yet.

  A panorama is done when its last file is there. That is the only test: whoever changes a panorama
  or its masks removes its result.

  Args:
    work: what to do.
    output: folder for the results and `settings.json`, see `output_folder`; made if need be.
    overwrite: do again what is done, and remove results of other settings.
    say: takes lines: on the progress, one for each bad panorama as it is met, and the counts.
    show: takes the number of panoramas that are finished and of those to do, for a bar; without it
      `say` gets a line on the progress now and then.

  Raises:
    ValueError: `output` is a file, is the folder of the panoramas, is being written by another
      process, or holds results of other or unknown settings and `overwrite` is False.
    OSError: a result cannot be written.
    KeyboardInterrupt: on Ctrl-C; what is finished stays, and nothing is half-written.
  """
  output = expand(output)
  if output.exists() and not output.is_dir():
    raise ValueError(f"{output} is a file; give a folder as --output")
  if output.resolve() == work.source.resolve():
    raise ValueError(
      f"{output} is the folder of the panoramas, which is not written into; give another --output"
    )
  with sole_writer(output):
    done = claim_output(output, work.settings, work.ids, overwrite=overwrite, files=work.files)
    remaining = [scene_id for scene_id in work.ids if scene_id not in done]
    if len(work.ids) > 1:
      say(f"{work.source}: {len(work.ids)} panoramas, {len(done)} done before")
    run = _Run(work, output, len(remaining), say, show)
    threads = len(os.sched_getaffinity(0))
    ahead = min(2 * threads, _WAITING_BATCHES * work.batch_size)
    pool = ThreadPoolExecutor(threads)
    try:
      read = _read_ahead(pool, run.read, remaining, ahead)
      for items in _batches(run.keep_good(read), work.shape, work.batch_size):
        run.rank(pool, items)
      run.finish(pool)
    except KeyboardInterrupt:
      pool.shutdown(cancel_futures=True)
      run.collect_finished()
      again = "the same command without --overwrite" if overwrite else "the same command"
      say(f"stopped; {run.ranked + len(done)} are done, and {again} goes on")
      raise
    finally:
      pool.shutdown(cancel_futures=True)  # waits for files that are being written
    summary = run.summary(len(work.ids), len(done))
    for note in sorted(work.notes):
      say(f"note: {note}")
    say(f"{summary.line()} -> {output}")
    return summary


class _Bad(str):
  """The line on a panorama that cannot be used."""


class _Run:
  """The state of one run: what is on the device, what is being written, and the counts."""

  def __init__(self, work, output, remaining, say, show):
    self._work, self._output, self._remaining = work, output, remaining
    self._say, self._show = say, show
    self._on_device: tuple[list[Any], Any] | None = None
    self._writing: collections.deque[tuple[Any, Future]] = collections.deque()
    self._shapes = set()
    self._start = self._said = time.monotonic()
    self.compile_s = 0.0
    self.ranked = 0
    self.bad: list[str] = []

  def read(self, scene_id: str) -> Any:
    """Reads a panorama, or returns the line that says what is wrong with it."""
    try:
      return self._work.read(scene_id)
    except (ValueError, OSError, MemoryError) as error:
      return _Bad(_reason(error, self._work.title(scene_id)))

  def keep_good(self, read: Iterable[Any]) -> Iterator[Any]:
    """Tells of bad panoramas, and passes the good ones on."""
    for item in read:
      if isinstance(item, _Bad):
        self._refuse(item)
      else:
        yield item

  def rank(self, pool: ThreadPoolExecutor, items: list[Any]) -> None:
    """Starts the device on a batch, and hands the results of the one before to the writers."""
    started = self._guarded(items, lambda: self._launch(items))
    before, self._on_device = self._on_device, None if started is None else (items, started)
    if before:
      self._write(pool, *before)
    if not self._work.returns_early:
      self.finish_device(pool)

  def finish(self, pool: ThreadPoolExecutor) -> None:
    """Waits for everything that was begun."""
    self.finish_device(pool)
    self._wait(0)

  def finish_device(self, pool: ThreadPoolExecutor) -> None:
    """Hands what is on the device to the writers."""
    started, self._on_device = self._on_device, None
    if started:
      self._write(pool, *started)

  def collect_finished(self) -> None:
    """Counts what was written, after the writers have stopped."""
    self.ranked += sum(not f.cancelled() and not f.exception() for _, f in self._writing)
    self._writing.clear()

  def summary(self, total: int, done_before: int) -> Summary:
    """Returns what became of the folder."""
    seconds = time.monotonic() - self._start - self.compile_s
    bad = tuple(sorted(self.bad))
    return Summary(total, self.ranked, done_before, bad, seconds, self.compile_s)

  def _launch(self, items: list[Any]) -> Any:
    shape = self._work.shape(items[0])
    if shape in self._shapes:
      return self._work.rank(items)
    if line := self._work.compiling(shape):
      self._say(line)
    start = time.monotonic()
    started = self._work.rank(items)  # returns when it is compiled; the device goes on
    self.compile_s += time.monotonic() - start
    self._shapes.add(shape)
    return started

  def _guarded(self, items: list[Any], function: Callable[[], Any]) -> Any:
    """Calls a function on items; None, and a line for each, where it cannot work on them."""
    try:
      return function()
    except (ValueError, MemoryError) as error:
      for item in items:
        self._refuse(_reason(error, item.title))
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      for item in items:
        self._refuse(f"{item.title}: {self._work.too_large}")
    return None

  def _write(self, pool: ThreadPoolExecutor, items: list[Any], started: Any) -> None:
    results = self._guarded(items, lambda: self._work.fetch(started))
    if results is None:
      return
    for item, result in zip(items, results, strict=True):
      files = self._work.files.of(self._output, item.id)
      self._writing.append((item, pool.submit(self._work.write, item, result, files)))
    self._wait(2 * self._work.batch_size if self._work.returns_early else 1)

  def _wait(self, at_most: int) -> None:
    """Waits until no more than so many panoramas are being written."""
    while self._writing and (len(self._writing) > at_most or self._writing[0][1].done()):
      item, future = self._writing[0]
      try:
        line = future.result()
      except ValueError as error:
        self._refuse(_reason(error, item.title))
      else:
        self.ranked += 1
        if line:
          self._say(line)
        self._tell(quiet=bool(line))
      self._writing.popleft()

  def _refuse(self, line: str) -> None:
    self.bad.append(str(line))
    self._say(f"bad: {line}")
    self._tell()

  def _tell(self, quiet: bool = False) -> None:
    """Tells of the progress; not where a line was just said that shows it."""
    finished = self.ranked + len(self.bad)
    if self._show:
      self._show(finished, self._remaining)
    now = time.monotonic()
    if self._show or quiet or now - self._said < _SAY_EVERY_S:
      return
    self._said = now
    rate = self.ranked / max(now - self._start - self.compile_s, 1e-9)
    line = f"{finished} / {self._remaining}, {rate:.3g} images/s"
    if self.ranked:
      line += f", {_duration((self._remaining - finished) / rate)} left"
    self._say(line)


def _reason(error: Exception, title: str) -> str:
  """One line on a panorama that cannot be used; errors of readers name the file themselves."""
  text = " ".join(str(error).split())
  if isinstance(error, SceneError | PanoramaError):
    return text
  if isinstance(error, ValueError):
    return f"{title}: {text}"
  return f"{title}: {type(error).__name__}: {text}"


def _read_ahead(
  pool: ThreadPoolExecutor, read: Callable[[str], Any], ids: Iterable[str], ahead: int
) -> Iterator[Any]:
  """Yields `read(id)` of each id in turn, while threads read the next ones."""
  futures: collections.deque[Future] = collections.deque()
  for scene_id in ids:
    futures.append(pool.submit(read, scene_id))
    if len(futures) > ahead:
      yield futures.popleft().result()
  while futures:
    yield futures.popleft().result()


def _batches(
  items: Iterable[Any], shape_of: Callable[[Any], Hashable], batch_size: int
) -> Iterator[list[Any]]:
  """Groups items by shape; a batch is not full at the end, or where too many items wait."""
  groups: collections.defaultdict[Hashable, list[Any]] = collections.defaultdict(list)
  for item in items:
    group = groups[shape_of(item)]
    group.append(item)
    if len(group) == batch_size:
      yield groups.pop(shape_of(item))
    elif sum(map(len, groups.values())) >= _WAITING_BATCHES * batch_size:
      yield groups.pop(max(groups, key=lambda shape: len(groups[shape])))
  yield from groups.values()


def _duration(seconds: float) -> str:
  """Returns a time in words.

  >>> _duration(7), _duration(150), _duration(9000)
  ('7 s', '2.5 min', '2.5 h')
  """
  if seconds < 60:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
