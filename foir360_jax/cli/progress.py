"""A bar with the time left, on stderr, where that is a terminal; nothing elsewhere.

The parts below know it as a function that they call with how much is done of how much: rich, which
draws, stays here. It draws in a thread of its own, and what is printed meanwhile goes above the
bar.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

Show = Callable[[float, float], None]
"""Takes what is done, and all that there is to do, in the same unit."""

_DRAWN_PER_S = 2.0  # seldom: the processor has other work


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Show | None]:
  """Shows a bar until the context is left.

  Args:
    title: what is being done.

  Yields:
    a function that moves the bar, cheap enough for each step; None where nobody sees a bar.
  """
  if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
    yield None
    return
  from rich import console, progress

  columns = (
    progress.TextColumn("{task.description}"),
    progress.BarColumn(bar_width=None),
    progress.TaskProgressColumn(),
    progress.TimeRemainingColumn(),
    progress.TextColumn("left"),
  )
  bar = progress.Progress(
    *columns,
    console=console.Console(stderr=True, soft_wrap=True, highlight=False),
    refresh_per_second=_DRAWN_PER_S,
    transient=True,
    redirect_stdout=sys.stdout.isatty(),  # what goes into a file or a pipe goes on there
    speed_estimate_period=120.0,
  )
  task = bar.add_task(title, total=None)
  with bar:
    yield lambda done, total: bar.update(task, completed=done, total=total)
