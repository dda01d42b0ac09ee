"""A folder is written by one process at a time."""

import subprocess
import sys

import pytest

from foir360_jax.files import sole_writer

HOLDER = """
import sys
from foir360_jax.files import sole_writer
with sole_writer(sys.argv[1]):
  print("held", flush=True)
  sys.stdin.read()
"""


def test_another_process_is_refused_until_the_first_is_gone(tmp_path):
  folder = tmp_path / "new"
  command = [sys.executable, "-c", HOLDER, str(folder)]
  pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  with subprocess.Popen(command, **pipes) as holder:
    assert holder.stdout.readline() == "held\n"
    for held_by in (holder.pid, "unknown"):
      with (
        pytest.raises(ValueError, match=f"new is being written by process {held_by}: wait for it"),
        sole_writer(folder),
      ):
        pass
      (folder / ".lock").write_bytes(b"\xff\xfe\n")
    holder.kill()
  with sole_writer(folder):  # although the killed one left its file
    assert (folder / ".lock").is_file()
  with sole_writer(folder):
    pass


def test_an_error_inside_is_passed_on_and_ends_the_hold(tmp_path):
  with pytest.raises(KeyError), sole_writer(tmp_path):
    raise KeyError
  with sole_writer(tmp_path):
    pass
