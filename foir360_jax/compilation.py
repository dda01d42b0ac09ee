"""Where compiled programs are kept, and what is said before one is compiled.

For the commands, and for rankers in programs of others.
"""

import os
import pathlib

import jax


def compiling(what: str) -> str:
  """The line on a program that is about to be compiled, and how long that may take."""
  return f"compiling {what}: up to a few minutes on a CPU, seconds where it is kept from before"


def keep_compiled_programs() -> None:
  """Keeps programs in the user's cache folder, so that the next process need not compile them.

  That is `foir360_jax` in `XDG_CACHE_HOME` or `~/.cache`. What the user has decided stays: the
  environment variable `JAX_COMPILATION_CACHE_DIR` (an empty one keeps nothing) or a configuration
  of JAX that names a folder or turns its cache off.
  """
  folder = getattr(jax.config, "jax_compilation_cache_dir", None)
  enabled = getattr(jax.config, "jax_enable_compilation_cache", True)
  if folder or not enabled or "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache) / "foir360_jax"))
