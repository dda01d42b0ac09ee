"""Peak memory of one execution, by one method for every contestant, whatever it is written in.

What XLA says of its own programs is in `timing.Program`; here the operating system is asked, of a
process that does nothing else.
"""

import concurrent.futures
import ctypes
import gc
import multiprocessing
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax

_PROCESS = pathlib.Path("/proc/self")


def peak_resident_bytes(make: Callable[..., Callable[[], Any]], *arguments: Any) -> int | None:
  """Peak resident memory of `make(*arguments)()` over what the process held before that call.

  Inputs and compiled programs are made by `make`, and so are not counted; results are.

  Args:
    make: a function at the top level of a module, as it is run in a new process.
    *arguments: picklable.

  Returns:
    Bytes; None where the operating system cannot say (anything but Linux).
  """
  if not (_PROCESS / "clear_refs").exists():
    return None
  spawn = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
    return pool.submit(_measure_here, make, *arguments).result()


def device_peak_bytes() -> int | None:
  """Peak memory of the first device since the process began; None where it keeps no count (CPU)."""
  statistics = jax.devices()[0].memory_stats()
  return statistics and statistics.get("peak_bytes_in_use")


def _measure_here(make: Callable[..., Callable[[], Any]], *arguments: Any) -> int | None:
  run = make(*arguments)
  gc.collect()
  c_library = ctypes.CDLL(None)
  if hasattr(c_library, "malloc_trim"):  # memory freed by compiling would hide what the run takes
    c_library.malloc_trim(0)
  try:
    (_PROCESS / "clear_refs").write_text("5")  # the peak starts again from the present size
  except OSError:
    return None
  before = _resident_bytes("VmRSS")
  run()
  return _resident_bytes("VmHWM") - before


def _resident_bytes(field: str) -> int:
  kilobytes = re.search(rf"^{field}:\s*(\d+) kB", (_PROCESS / "status").read_text(), re.MULTILINE)
  assert kilobytes is not None, field
  return 1024 * int(kilobytes[1])
