#!/usr/bin/env bash
# PanoRank trained on weak labels, its true ranks hidden, against the same trained on true ranks of the same pictures
# and masks: three seeds of each, SA-SOR on ground-truth masks of the test split of synthetic360. A stopped run goes on by the
# same command. Flags: --saliency=spectral (needs no weights), and for a trial --panoramas=12 --steps=3.
set -euo pipefail
cd "$(dirname "$0")/.."

saliency=learned panoramas=1000 steps=2000
for flag in "$@"; do
  case "$flag" in
    --saliency=*) saliency="${flag#*=}" ;;
    --panoramas=*) panoramas="${flag#*=}" ;;
    --steps=*) steps="${flag#*=}" ;;
    *) echo "unknown flag $flag; known are --saliency=NAME, --panoramas=N and --steps=N" >&2; exit 2 ;;
  esac
done
out="runs/weak_training/$saliency-$panoramas-$steps"
scenes="runs/weak_training/scenes-$panoramas"

.venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv
.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable .

[[ -d "$scenes" ]] || .venv/bin/foir360 prepare --dataset=synthetic360/64x128 --data_dir=data \
  --export="$scenes" --export_split="train[:$panoramas]"
.venv/bin/foir360 weak-labels --config=configs/weak_labels.py --saliency="$saliency" \
  --config.overlays=false --input="$scenes" --output="$out/labels"
.venv/bin/foir360 prepare --dataset=rank360/weak --manual_dir="$scenes" --ranks_dir="$out/labels" --data_dir="$out/data"
.venv/bin/foir360 prepare --dataset=rank360/human --manual_dir="$scenes" --data_dir="$out/data"

for seed in 0 1 2; do
  for ranks in weak human; do
    run=(--config=configs/weak_training.py --workdir="$out/$ranks/$seed" --config.seed="$seed" --config.train.steps="$steps")
    .venv/bin/foir360 train "${run[@]}" --config.data.name="rank360/$ranks" --config.data.data_dir="$out/data"
    .venv/bin/foir360 evaluate "${run[@]}" --config.data.name=synthetic360/64x128 \
      --config.data.data_dir=data --config.data.validation_split=validation --config.data.test_split=test
  done
done
.venv/bin/foir360 compare-runs --a "$out"/weak/[012] --b "$out"/human/[012] --out="$out/comparison.json"
