"""Set-up shared by all tests: four CPU devices, parsed absl flags (grain reads them), real data if any."""

import os
import pathlib

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 4)
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """The folder with oracle cases and real pictures that some checkouts have beside them."""
  folder = pathlib.Path(os.environ.get("FOIR360_SHARED", pathlib.Path(__file__).parents[2] / "shared"))
  if not folder.is_dir():
    pytest.skip(f"no shared data at {folder} (set FOIR360_SHARED)")
  return folder
