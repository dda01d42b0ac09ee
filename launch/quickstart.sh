#!/usr/bin/env bash
# From a bare machine (Python >= 3.11, git) to a ranked panorama: installs into .venv, renders a small data set,
# trains configs/tiny.py, evaluates it and ranks a new panorama. Flags: --python=PYTHON, --extra=cuda for a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

python=python3 extra=""
for flag in "$@"; do
  case "$flag" in
    --python=*) python="${flag#*=}" ;;
    --extra=*) extra="[${flag#*=}]" ;;
    *) echo "unknown flag $flag; known are --python=PYTHON and --extra=cuda" >&2; exit 2 ;;
  esac
done

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "$python is older than Python 3.11; name a newer one: --python=python3.12" >&2; exit 2; }
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".$extra"

.venv/bin/foir360 prepare --dataset=synthetic360/64x128 --data_dir=data --picture=data/panorama.png
.venv/bin/foir360 train --config=configs/tiny.py --workdir=runs/tiny
.venv/bin/foir360 predict --workdir=runs/tiny --input=data/panorama.png \
  --output=runs/tiny/predictions --overwrite
echo "the ranked panorama: $PWD/runs/tiny/predictions/overlays/panorama.png"
