"""Re-executes the command with glibc huge pages and heap trimming off (docs/performance.md).

XLA's CPU backend allocates the memory that a program needs for the time of one call. The C library
asks the system for such large blocks and gives them back each time, and the system then clears them
anew, 4 KiB a page fault. glibc can be told to keep them and to ask for pages of 2 MiB, but only by
the environment in which a process starts.
"""

import os
import sys

_VARIABLE = "GLIBC_TUNABLES"
_SETTINGS = {
  "hugetlb": 1,  # transparent huge pages, where the system offers them (glibc 2.35 or newer)
  "mmap_max": 0,  # large blocks, too, come from the heap, where it has room for them...
  "trim_threshold": 2**33,  # ... whose free end is kept up to 8 GiB
}


def restart_with_huge_pages() -> None:
  """Replaces this process by the same command with these settings; returns if it has any.

  To be called before anything heavy is imported. Does nothing where the environment tunes glibc
  already (so `GLIBC_TUNABLES=glibc.malloc.hugetlb=0` turns this off), and where the C library is
  another one.
  """
  if _VARIABLE in os.environ or "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
    return
  os.environ[_VARIABLE] = ":".join(f"glibc.malloc.{k}={v}" for k, v in _SETTINGS.items())
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
