"""Writes a data set to disk: `python datasets/prepare.py --dataset=synthetic360 --data_dir=data`.

`--dataset=NAME/CONFIG` writes one configuration, `--dataset=NAME` the builder's first. A data set
that people download themselves is read from `--manual_dir`. What is complete on disk already is
kept; TFDS writes to a temporary folder and renames it at the end, so a stopped run leaves nothing
that looks finished. Training reads ArrayRecord; `--file_format=tfrecord` is for `tfds.load`, which
cannot.

- synthetic360: `--difficulty` then prints how hard the data set is, and `--picture=FILE` renders
  one more panorama, to try a model on.
- fixations and rank360 stop at bad records and list them; `--skip_bad` leaves them out.
- rank360: `--ranks_dir=OUT` takes the ranks from OUT/ranks, as weak labels are written, in place of
  the folder's own. `--check` writes no data set, but a report on what is in the folder; it ends
  with 1 where records are bad.
- synthetic360 and rank360: `--export=FOLDER` also writes the data set as a new folder of pictures,
  id maps and ranks (SCENES); `--export_split="train[:500]"` only a part of it.
"""

import importlib
import importlib.util
import pathlib
import sys

import tensorflow_datasets as tfds
from absl import app, flags, logging

import export_scenes

# The flags that each data set knows beside --dataset and --data_dir.
OPTIONS = {
  "synthetic360": ("difficulty", "picture", "export", "export_split"),
  "fixations": ("manual_dir", "skip_bad"),
  "rank360": (
    *("manual_dir", "format", "split_dir", "join_seam", "skip_bad"),
    *("ranks_dir", "check", "output", "export", "export_split"),
  ),
}
FOR_BUILDER = ("format", "split_dir", "join_seam", "skip_bad", "ranks_dir")

_DATASET = flags.DEFINE_string(
  "dataset", "synthetic360/64x128", "Data set, with its configuration."
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder under which the data set is written.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder with what was downloaded by hand.")
_CHECK = flags.DEFINE_bool("check", False, "Read and check everything; report, write no data set.")
_OUTPUT = flags.DEFINE_string(
  "output", None, "Folder for the report of --check; DATA_DIR/rank360_check if not given."
)
_DIFFICULTY = flags.DEFINE_bool("difficulty", False, "Print the ceiling and the simple baselines.")
_PICTURE = flags.DEFINE_string(
  "picture", None, "Render a panorama that is in no split into this PNG."
)
_EXPORT = flags.DEFINE_string("export", None, "Also write it as a SCENES folder, a new one.")
_EXPORT_SPLIT = flags.DEFINE_string(
  "export_split", None, "What to export, in the notation of TFDS: train[:500]; all if not given."
)
_FILE_FORMAT = flags.DEFINE_enum(
  "file_format",
  "array_record",
  ["array_record", "tfrecord"],
  "tfrecord for tfds.load; needs the extra tf.",
)
flags.DEFINE_string("format", None, "Format of the folder, where it is not to be recognised.")
flags.DEFINE_string("split_dir", None, "Folder with train.txt, test.txt ...: one id a line.")
flags.DEFINE_string("ranks_dir", None, "Folder with ranks/ID.json, in place of the folder's own.")
flags.DEFINE_bool("join_seam", False, "Make one object of two that are torn at the seam.")
flags.DEFINE_bool("skip_bad", False, "Leave bad records out, with a warning.")


def main(argv):
  """Prepares, or checks, the data set that the flags name."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
  if len(argv) > 1:
    sys.exit(f"unexpected argument {argv[1]!r}; write --dataset=NAME/CONFIG")
  name, _, config = _DATASET.value.partition("/")
  if name not in OPTIONS:
    sys.exit(f"--dataset={name}: no such data set; known are: {', '.join(OPTIONS)}")
  _check_flags(name)
  module = importlib.import_module(f"{name}.{name}_dataset_builder")
  configs = [known.name for known in module.Builder.BUILDER_CONFIGS]
  if config and config not in configs:
    sys.exit(f"--dataset={_DATASET.value}: no such configuration; known are: {', '.join(configs)}")
  try:
    if _CHECK.value:
      _check(name, module.Builder)
    else:
      _prepare(name, module.Builder, config or configs[0])
  except ValueError as error:
    if logging.level_debug():
      raise
    sys.exit(f"error: {error} (--verbosity=1 shows where)")


def _check_flags(name: str) -> None:
  """Ends with a line if a flag is given that the data set, or --check, does not know."""
  for option in sorted(set().union(*OPTIONS.values())):
    if flags.FLAGS[option].present and option not in OPTIONS[name]:
      owners = " and ".join(owner for owner in OPTIONS if option in OPTIONS[owner])
      sys.exit(f"--{option} is for {owners}, not for {name}; leave it out")
  if _OUTPUT.value and not _CHECK.value:
    sys.exit("--output is where --check writes; add --check, or leave it out")
  if _CHECK.value and flags.FLAGS["skip_bad"].value:
    sys.exit("--check lists bad records and writes no data set; leave out --skip_bad")
  if _EXPORT_SPLIT.value and not _EXPORT.value:
    sys.exit("--export_split is what --export writes; add --export=FOLDER, or leave it out")
  if _EXPORT.value and (_CHECK.value or _FILE_FORMAT.value == "tfrecord"):
    sys.exit("--export reads ArrayRecord; leave out --check and --file_format")


def _need_manual_dir(builder: type[tfds.core.DatasetBuilder]) -> None:
  """Ends with a line if `--manual_dir` is no folder."""
  if not _MANUAL_DIR.value or not pathlib.Path(_MANUAL_DIR.value).is_dir():
    missing = f"; there is no folder {_MANUAL_DIR.value}" if _MANUAL_DIR.value else ""
    sys.exit(
      f"--dataset={_DATASET.value} needs --manual_dir=FOLDER{missing}. "
      f"{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
    )


def _builder_options(name: str) -> dict[str, object]:
  """The flags that the builder takes, by name."""
  return {option: flags.FLAGS[option].value for option in FOR_BUILDER if option in OPTIONS[name]}


def _check(name: str, builder: type[tfds.core.DatasetBuilder]) -> None:
  """Writes and prints the report; ends with 1 where records are bad."""
  _need_manual_dir(builder)
  review_folder = importlib.import_module(f"{name}.review").review_folder
  report = importlib.import_module(f"{name}.report")
  options = _builder_options(name)
  del options["skip_bad"]
  review = review_folder(_MANUAL_DIR.value, **options)
  output = pathlib.Path(_OUTPUT.value or pathlib.Path(_DATA_DIR.value) / f"{name}_check")
  print(report.write_report(review, output))
  print(f"written with pictures to {output / report.PAGE_FILE}")
  if review.bad:
    sys.exit(1)


def _prepare(name: str, builder_class: type[tfds.core.DatasetBuilder], config: str) -> None:
  """Writes the data set, and what else the flags ask for."""
  if _EXPORT.value:  # before minutes of work
    export_scenes.check_folder(pathlib.Path(_EXPORT.value))
  if _FILE_FORMAT.value == "tfrecord" and not importlib.util.find_spec("tensorflow"):
    sys.exit("--file_format=tfrecord needs TensorFlow: pip install 'foir360_jax[tf]'")
  builder = builder_class(
    config=config,
    data_dir=pathlib.Path(_DATA_DIR.value).resolve(),
    file_format=_FILE_FORMAT.value,
    **_builder_options(name),
  )
  kept = builder.data_path.exists()
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not kept:
    _need_manual_dir(builder_class)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=_MANUAL_DIR.value)
  )
  if kept:
    given = [f"--{name}" for name in ("manual_dir", *FOR_BUILDER) if flags.FLAGS[name].present]
    if given:
      print(
        f"{' and '.join(given)} had no effect: the data set is there already; remove its folder, or"
        " give another --data_dir, to make it anew",
        file=sys.stderr,
      )
  sizes = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
  print(
    f"{builder.info.full_name} in {builder.data_path}: {sizes}"
    f"{' (there already, kept; remove the folder to write it anew)' if kept else ''}"
  )
  left_out = (builder.info.metadata or {}).get("left_out", ())
  if left_out:
    print(f"left out as bad: {len(left_out)} records: {', '.join(left_out)}")
  if _DIFFICULTY.value:
    difficulty = importlib.import_module(f"{name}.difficulty")
    print(difficulty.report(builder))
  if _PICTURE.value:
    path = pathlib.Path(_PICTURE.value)
    written = importlib.import_module(f"{name}.picture").write_picture(path)
    print(f"{path}: {'rendered' if written else 'there already, kept'}")
  if _EXPORT.value:
    folder = pathlib.Path(_EXPORT.value)
    print("\n".join(export_scenes.export_scenes(builder, folder, _EXPORT_SPLIT.value)))


if __name__ == "__main__":
  app.run(main)
