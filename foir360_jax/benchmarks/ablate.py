"""What each part of PanoRank is worth: `python -m foir360_jax.benchmarks.ablate --folder=FOLDER`.

Trains settings that differ in one thing from the first of them, with several seeds each, every run
for the same time, and prints SA-SOR on ground-truth masks: mean and deviation over the seeds, and
the difference from the first setting. A difference counts as one only where it is larger than both
deviations together. (Losses differ in their scale as well; their rows compare both.)

Each run is a command of its own. Finished runs are kept in `ablation.json` and not made again, not
even where that file alone was brought to another machine; a stopped ablation goes on by the same
command, and each run where it was.

Needs the data set (`foir360 prepare --dataset=synthetic360/128x256 --data_dir=data`). Nothing else
should run on the machine: runs are bounded by time.
"""

import argparse
import json
import pathlib
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foir360_jax.benchmarks.options import comma_separated, one_of
from foir360_jax.benchmarks.record import describe, environment, text_table, write_json
from foir360_jax.files import sole_writer

Row = dict[str, Any]
Record = dict[str, dict[str, dict[str, Any]]]
_RECORD, _FIELDS = "ablation.json", "fields.json"
_MACHINE = ("cpu", "threads", "commit")
_PLACE = "data.data_dir"  # may differ from machine to machine
_CONFIG = "configs/rank_masks.py"
_BASE = {
  "data.name": "synthetic360/128x256",
  "data.height": "128",
  "model.mask_stride": "4",
  "model.encoder": "sphere_efficientnet_lite0",
  "model.sphere_from_stride": "8",
  "encoder_weights": "package",
  "train.steps": "1000000",  # the time ends the run
}
SETTINGS: dict[str, dict[str, str]] = {
  "base": {},
  "planar": {"model.sphere_from_stride": "64"},
  "random": {"encoder_weights": ""},
  "parallel": {"loss.recurrent": "0.0"},
  "recurrent": {"loss.rank_ground_truth": "0.0"},
  "lambdarank": {"loss.ranking": "lambdarank"},
  "plackett_luce": {"loss.ranking": "plackett_luce"},
  "approx_ndcg": {"loss.ranking": "approx_ndcg"},
  "softmax": {"loss.ranking": "softmax"},
}
"""What each setting changes of the base: pretrained EfficientNet-Lite0 with kernels on the sphere
from stride 8 on, scores in parallel and the recurrent module trained together, ListMLE."""

DEFAULT = ("base", "planar", "random", "parallel", "recurrent", "lambdarank")
KEYS = {"SA-SOR": "model", "rank head alone": "rank_head_alone"}
_COLUMNS = {
  "setting": "",
  "seeds": "d",
  "SA-SOR": ".3f",
  "deviation": ".3f",
  "difference": "+.3f",
  "told apart": "",
  "rank head alone": ".3f",
  "steps": "d",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs what is missing and prints the table; returns the exit code, 1 if a run failed."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  add = parser.add_argument
  add("--folder", type=pathlib.Path, required=True, help="of the runs and of ablation.json")
  add(
    "--settings",
    type=comma_separated(one_of(SETTINGS)),
    default=list(DEFAULT),
    help=f"of {', '.join(SETTINGS)}; the first is what the others are compared with",
  )
  add("--seeds", type=comma_separated(int), default=[0, 1, 2])
  add("--minutes", type=float, default=8.0, help="of each run")
  add("--data", default=_BASE["data.name"], help="TFDS name")
  add("--height", type=int, default=int(_BASE["data.height"]), help="rows of the panoramas")
  add("--data_dir", default="data")
  flags = parser.parse_args(argv)
  base = _BASE | {
    "data.name": flags.data,
    "data.height": str(flags.height),
    "data.data_dir": flags.data_dir,
    "train.minutes": str(flags.minutes),
  }
  about = environment()
  print(describe(about), flush=True)
  signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
  try:
    with sole_writer(flags.folder):
      failed = ablate(flags.folder, flags.settings, flags.seeds, base, about)
  except ValueError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("stopped; the same command goes on", file=sys.stderr)
    return 128 + signal.SIGINT
  record = read_record(flags.folder)
  rows = summarize(record, flags.settings, flags.seeds)
  print(f"\n{text_table(rows, _COLUMNS)}")
  for name in _MACHINE:
    values = {
      str(run["environment"].get(name)) for runs in record.values() for run in runs.values()
    }
    if len(values) > 1:
      print(f"mind that the runs differ in {name}: {', '.join(sorted(values))}")
  return 1 if failed else 0


def ablate(
  folder: pathlib.Path,
  settings: Sequence[str],
  seeds: Sequence[int],
  base: Mapping[str, str],
  about: Mapping[str, Any],
  *,
  run: Callable[[Sequence[str], pathlib.Path], int] | None = None,
) -> int:
  """Makes the runs that are not finished yet, all settings of a seed before the next seed.

  Args:
    folder: gets SETTING/SEED for each run, and `ablation.json`.
    settings: of `SETTINGS`.
    seeds: one run of each setting for each.
    base: fields of the configuration that are the same in all.
    about: what the runs are made on; kept with each.
    run: in place of a process: the command and where its output goes -> exit code.

  Returns:
    The number of runs that failed; each is told in one line.

  Raises:
    ValueError: a run of the folder has other fields; nothing is run then.
  """
  run = _run if run is None else run
  record = read_record(folder)
  missing = []
  for seed in seeds:
    for setting in settings:
      fields = {**base, **SETTINGS[setting], "seed": str(seed)}
      begun = folder / setting / str(seed) / _FIELDS
      done = record.get(setting, {}).get(str(seed))
      if done or begun.is_file():
        old = done["fields"] if done else json.loads(begun.read_text())
        _check_same(folder, f"{setting}, seed {seed}", old, fields)
      if not done:
        missing.append((setting, seed, fields))
  failed = 0
  for setting, seed, fields in missing:
    workdir = folder / setting / str(seed)
    write_json(workdir / _FIELDS, fields)
    command = [sys.executable, "-m", "foir360_jax.main", f"--config={_CONFIG}"]
    command += [f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in fields.items())]
    print(f"{setting}, seed {seed} ...", flush=True)
    log = workdir / "output.txt"
    code = run(command, log)
    if code:
      failed += 1
      print(f"{setting}, seed {seed} ended with exit code {code}: see {log}", flush=True)
      continue
    finished = {"fields": fields, **_figures(workdir), "environment": dict(about)}
    record.setdefault(setting, {})[str(seed)] = finished
    write_json(folder / _RECORD, record)
  return failed


def read_record(folder: pathlib.Path) -> Record:
  """The finished runs of a folder: {setting: {seed: fields, figures and environment}}."""
  file = folder / _RECORD
  return json.loads(file.read_text()) if file.is_file() else {}


def summarize(record: Record, settings: Sequence[str], seeds: Sequence[int]) -> list[Row]:
  """A row for each setting that has finished runs; values are missing where there are too few."""
  rows: list[Row] = []
  for setting in settings:
    made = record.get(setting, {})
    runs = [made[str(seed)] for seed in seeds if made.get(str(seed))]
    if not runs:
      continue
    row: Row = {"setting": setting, "seeds": len(runs)}
    for column in (*KEYS, "steps"):
      row[column] = statistics.mean(run[column] for run in runs)
    row["steps"] = round(row["steps"])
    row["deviation"] = statistics.stdev(run["SA-SOR"] for run in runs) if len(runs) > 1 else None
    if rows and rows[0]["setting"] == settings[0]:
      row["difference"] = row["SA-SOR"] - rows[0]["SA-SOR"]
      if row["deviation"] is not None and rows[0]["deviation"] is not None:
        spread = row["deviation"] + rows[0]["deviation"]
        row["told apart"] = "yes" if abs(row["difference"]) > spread else "no"
    rows.append(row)
  return rows


def _run(command: Sequence[str], log: pathlib.Path) -> int:
  """Runs a command to its end; one that is to stop gets the time to save."""
  log.parent.mkdir(parents=True, exist_ok=True)
  with log.open("a") as output:
    child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
      return child.wait()
    except KeyboardInterrupt:
      child.terminate()  # subprocess.run would kill it
      child.wait()
      raise


def _figures(workdir: pathlib.Path) -> dict[str, float | int]:
  """What a finished run reached, and the last step that it logged."""
  report = json.loads((workdir / "metrics.json").read_text())["ground_truth_masks"]
  last = (workdir / "metrics.jsonl").read_text().splitlines()[-1]
  figures = {column: report[key]["mean"] for column, key in KEYS.items()}
  return figures | {"steps": json.loads(last)["step"]}


def _check_same(folder, name: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
  other = [key for key in {**old, **new} if old.get(key) != new.get(key) and key != _PLACE]
  if other:
    raise ValueError(
      f"{folder}: {name} was made with {other[0]} {old.get(other[0])}, not"
      f" {new.get(other[0])}; give another --folder"
    )


if __name__ == "__main__":
  sys.exit(main())
