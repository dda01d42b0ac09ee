#!/usr/bin/env bash
# Installs the test extra, then runs ruff, mypy and the tests. --all adds those marked slow, which repeat
# at a larger scale what others assert. --fresh compiles all programs anew; else those of earlier runs are read
# from the user's cache. --python=PYTHON tests on another Python, in an environment of its own
# (.venv-VERSION).
set -euo pipefail
cd "$(dirname "$0")/.."

python=python3 venv=.venv chosen="not slow" fresh= failed=
for flag in "$@"; do
  case "$flag" in
    --python=*)
      python="${flag#*=}"
      venv=".venv-$("$python" -c 'import platform; print(platform.python_version())')"
      ;;
    --all) chosen= ;;
    --fresh) fresh=1 ;;
    *) echo "unknown flag $flag; known are --all, --fresh and --python=PYTHON" >&2; exit 2 ;;
  esac
done

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "$python is older than Python 3.11; name a newer one: --python=python3.12" >&2; exit 2; }
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
# --no-compile: most of what is installed is never imported; the rest is compiled when it is.
"$venv/bin/python" -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[test]"
"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m ruff format --check .
"$venv/bin/python" -m mypy & types=$!  # beside the tests; it needs one core for half a minute
if [[ $fresh ]]; then
  JAX_COMPILATION_CACHE_DIR=$(mktemp -d)
  export JAX_COMPILATION_CACHE_DIR
  trap 'rm -rf "$JAX_COMPILATION_CACHE_DIR"' EXIT
fi
# worksteal: each worker starts with half of the tests in their order, so that those of a file share its
# fixtures; whoever is done takes from the other, rather than wait for a long file at the end.
"$venv/bin/python" -m pytest --numprocesses=2 --dist=worksteal -m "$chosen" --quiet || failed=1
wait "$types" || failed=1
[[ ! $failed ]]
