#!/usr/bin/env bash
# Installs the opponents (extra bench), then measures the spherical convolution, the ranking losses and the model.
# Figures go to runs/benchmark/. On a GPU also run: python -m foir360_jax.benchmarks.gpu --out=FILE
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv
.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
.venv/bin/python -m foir360_jax.benchmarks.sphere_conv --out=runs/benchmark/sphere_conv.json
.venv/bin/python -m foir360_jax.benchmarks.losses --out=runs/benchmark/losses.json
.venv/bin/foir360 benchmark --config=configs/benchmark.py --workdir=runs/benchmark
