"""Where compiled programs are kept between the commands that compute."""

import os
import pathlib

import jax


def keep_compiled_programs() -> None:
  """Keeps them in JAX_COMPILATION_CACHE_DIR, or in the user's cache."""
  if not getattr(jax.config, "jax_compilation_cache_dir", None):
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache) / "foir360_jax"))
