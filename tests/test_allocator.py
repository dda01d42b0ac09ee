"""The restart with settings of the allocator: once, with the same command, only where unset."""

import os
import pathlib
import subprocess
import sys

import pytest

from foir360_jax import allocator

ROOT = pathlib.Path(__file__).parents[1]
GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})
SCRIPT = """
import os, sys
print("started", os.environ.get("GLIBC_TUNABLES"), flush=True)
from foir360_jax.allocator import restart_with_huge_pages
restart_with_huge_pages()
print("went on", sys.argv[1:], sys.flags.dev_mode, flush=True)
"""
needs_glibc = pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")


def run(**variables):
  environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
  command = [sys.executable, "-X", "dev", "-c", SCRIPT, "one argument", "--two=2"]
  result = subprocess.run(
    command, env=environment | variables, capture_output=True, text=True, check=True
  )
  return result.stdout.splitlines()


@needs_glibc
def test_a_process_is_restarted_once_with_the_same_command():
  first, second, end = run()
  assert first == "started None"
  assert second.startswith("started glibc.malloc.hugetlb=1:")
  assert end == "went on ['one argument', '--two=2'] True"


@needs_glibc
@pytest.mark.parametrize("door", ["module", "console script"])
def test_commands_that_compute_start_with_the_settings(tmp_path, door):
  (tmp_path / "sitecustomize.py").write_text(
    "import os, sys\nsettings = os.environ.get('GLIBC_TUNABLES')\n"
    "sys.stderr.write(f'started {settings}\\n')\n"
    "if settings: sys.stderr.write(f'with {sys.orig_argv[1:]}\\n'), os._exit(0)\n"
  )
  script = tmp_path / "foir360"
  script.write_text("from foir360_jax.cli.command import start\nstart()\n")
  command = ["-m", "foir360_jax.main"] if door == "module" else [str(script)]
  words = ["predict", "--workdir=x", "--input=y", "--output=z"]
  environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
  result = subprocess.run(
    [sys.executable, *command, *words],
    env=environment | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    capture_output=True,
    text=True,
    check=False,
  )
  first, second, again = result.stderr.splitlines()
  assert first == "started None" and "hugetlb=1" in second
  assert again == f"with {[*command, *words]}"


def test_settings_of_the_user_are_kept():
  setting = "glibc.malloc.hugetlb=0"
  assert run(GLIBC_TUNABLES=setting) == [
    f"started {setting}",
    "went on ['one argument', '--two=2'] True",
  ]


@pytest.mark.skipif(GLIBC, reason="the C library is glibc")
def test_other_libraries_are_left_alone():
  assert run()[-1].startswith("went on")


@needs_glibc
def test_glibc_knows_the_settings():
  # Names that it does not know it ignores, so a slip would go unseen.
  with open("/proc/self/maps") as maps:
    loader = next(line.split()[-1] for line in maps if "/ld-linux" in line)
  command = [loader, "--list-tunables"]
  known = subprocess.run(command, capture_output=True, text=True, check=False)
  if known.returncode:
    pytest.skip("this glibc cannot list its settings")
  for name in allocator._SETTINGS:
    assert f"glibc.malloc.{name}:" in known.stdout
