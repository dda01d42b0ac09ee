"""Writes a data set to disk: `python datasets/prepare.py --dataset=synthetic360 --data_dir=data`.

`--dataset=NAME/CONFIG` writes one configuration, `--dataset=NAME` the builder's first. A data set
that people download themselves is read from `--manual_dir`. What is complete on disk already is
kept; TFDS writes to a temporary folder and renames it at the end, so a stopped run leaves nothing
that looks finished. For synthetic360, `--difficulty` then prints how hard the data set is, and
`--picture=FILE` renders one more panorama, to try a model on.
"""

import importlib
import pathlib
import sys

import tensorflow_datasets as tfds
from absl import app, flags, logging

BUILDERS = ("synthetic360", "fixations")

_DATASET = flags.DEFINE_string(
  "dataset", "synthetic360/64x128", "Data set, with its configuration."
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder under which the data set is written.")
_MANUAL_DIR = flags.DEFINE_string(
  "manual_dir", None, "Folder with what was downloaded by hand; needed by fixations."
)
_DIFFICULTY = flags.DEFINE_bool("difficulty", False, "Print the ceiling and the simple baselines.")
_PICTURE = flags.DEFINE_string(
  "picture", None, "Render a panorama that is in no split into this PNG."
)


def main(argv):
  """Prepares the data set that the flags name."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
  if len(argv) > 1:
    sys.exit(f"unexpected argument {argv[1]!r}; write --dataset=NAME/CONFIG")
  name, _, config = _DATASET.value.partition("/")
  if name not in BUILDERS:
    sys.exit(f"--dataset={name}: no such data set; known are: {', '.join(BUILDERS)}")
  module = importlib.import_module(f"{name}.{name}_dataset_builder")
  configs = [known.name for known in module.Builder.BUILDER_CONFIGS]
  if config and config not in configs:
    sys.exit(f"--dataset={_DATASET.value}: no such configuration; known are: {', '.join(configs)}")
  data_dir = pathlib.Path(_DATA_DIR.value).resolve()
  builder = module.Builder(
    config=config or configs[0], data_dir=data_dir, file_format="array_record"
  )
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not builder.data_path.exists():
    if not _MANUAL_DIR.value or not pathlib.Path(_MANUAL_DIR.value).is_dir():
      sys.exit(
        f"--dataset={_DATASET.value} needs --manual_dir=FOLDER. "
        f"{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
      )
  try:
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(manual_dir=_MANUAL_DIR.value)
    )
  except ValueError as error:
    if logging.level_debug():
      raise
    sys.exit(f"error: {error} (--verbosity=1 shows where)")
  sizes = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
  print(f"{builder.info.full_name} in {builder.data_path}: {sizes}")
  if _DIFFICULTY.value:
    difficulty = importlib.import_module(f"{name}.difficulty")
    print(difficulty.report(builder))
  if _PICTURE.value:
    path = pathlib.Path(_PICTURE.value)
    written = importlib.import_module(f"{name}.picture").write_picture(path)
    print(f"{path}: {'rendered' if written else 'there already, kept'}")


if __name__ == "__main__":
  app.run(main)
