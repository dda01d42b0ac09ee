#!/usr/bin/env bash
# Installs the test extra, then runs ruff, mypy and all tests. --python=PYTHON tests on another Python, in an
# environment of its own (.venv-VERSION).
set -euo pipefail
cd "$(dirname "$0")/.."

python=python3 venv=.venv
for flag in "$@"; do
  case "$flag" in
    --python=*)
      python="${flag#*=}"
      venv=".venv-$("$python" -c 'import platform; print(platform.python_version())')"
      ;;
    *) echo "unknown flag $flag; known is --python=PYTHON" >&2; exit 2 ;;
  esac
done

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "$python is older than Python 3.11; name a newer one: --python=python3.12" >&2; exit 2; }
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --constraint constraints.txt --editable ".[test]"
"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m ruff format --check .
"$venv/bin/python" -m mypy
"$venv/bin/python" -m pytest --numprocesses=2 --dist=loadfile --quiet
