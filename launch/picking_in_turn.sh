#!/usr/bin/env bash
# What it is worth to pick objects in turn, where a repeat of a class is worth less: the recurrent module against scores
# in parallel, masks and categories given, the same seeds and steps for both; SA-SOR on the test split of
# synthetic360/64x128_repeats. A stopped run goes on by the same command. Flags: --seeds=6, and for a trial --steps=3.
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=3 steps=1000
for flag in "$@"; do
  case "$flag" in
    --seeds=*) seeds="${flag#*=}" ;;
    --steps=*) steps="${flag#*=}" ;;
    *) echo "unknown flag $flag; known are --seeds=N and --steps=N" >&2; exit 2 ;;
  esac
done
out="runs/picking_in_turn/$steps"

.venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv
.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable .
.venv/bin/foir360 prepare --dataset=synthetic360/64x128_repeats --data_dir=data

recurrent=() parallel=()
for ((seed = 0; seed < seeds; seed++)); do
  recurrent+=("$out/recurrent/$seed") parallel+=("$out/parallel/$seed")
  run=(--config=configs/rank_masks.py --config.model.condition_on_categories=true --config.seed="$seed" --config.train.steps="$steps")
  .venv/bin/foir360 train "${run[@]}" --workdir="$out/recurrent/$seed" --config.loss.rank_ground_truth=0
  .venv/bin/foir360 train "${run[@]}" --workdir="$out/parallel/$seed" --config.loss.recurrent=0
done
.venv/bin/foir360 compare-runs --a "${recurrent[@]}" --b "${parallel[@]}" --out="$out/comparison.json"
