"""`foir360 prepare`: a data set written to disk, or a folder of annotations checked.

The builders are in `datasets/` beside the package, in the project's checkout; this is the one
module of the package that imports them. TFDS writes to a temporary folder and renames it at the
end, so a stopped run leaves nothing that looks finished.
"""

import importlib
import importlib.util
import pathlib
import sys
import types

import tensorflow_datasets as tfds

from foir360_jax.cli.flags import UsageError
from foir360_jax.files.picture_file import printable

BUILDERS = pathlib.Path(__file__).parents[2] / "datasets"

OPTIONS = {
  "synthetic360": ("difficulty", "picture", "export", "export_split"),
  "rank360": (
    *("manual_dir", "format", "rank_field", "split_dir", "join_seam", "skip_bad"),
    *("ranks_dir", "check", "output", "export", "export_split"),
  ),
  "fixations": ("manual_dir", "skip_bad"),
}
"""The flags that each data set knows beside --dataset, --data_dir and --file_format."""
_FOR_BUILDER = ("format", "rank_field", "split_dir", "join_seam", "skip_bad", "ranks_dir")


def run(flags: types.SimpleNamespace) -> int:
  """Prepares, or checks, the data set that the flags name.

  Returns:
    The exit code: 0; 1 where `--check` found bad records.

  Raises:
    UsageError: flags that do not go together, an unknown data set, or there are no builders.
    ValueError: the data set cannot be written.
  """
  name, _, config = flags.dataset.partition("/")
  if name not in OPTIONS:
    raise UsageError(f"--dataset={name}: no such data set; known are: {', '.join(OPTIONS)}")
  _check_flags(flags, name)
  builder = _import_builders(f"{name}.{name}_dataset_builder").Builder
  configs = [known.name for known in builder.BUILDER_CONFIGS]
  if config and config not in configs:
    raise UsageError(
      f"--dataset={flags.dataset}: no such configuration; known are: {', '.join(configs)}"
    )
  if flags.check:
    return _check(flags, name, builder)
  _prepare(flags, name, builder, config or configs[0])
  return 0


def _import_builders(module: str) -> types.ModuleType:
  """Imports a module of `datasets/`."""
  if not (BUILDERS / "synthetic360/synthetic360_dataset_builder.py").is_file():
    raise UsageError(
      f"the data set builders are not in {BUILDERS}: they come with the project's checkout alone;"
      " prepare there (pip install --editable . in it), and give its --data_dir here"
    )
  if str(BUILDERS) not in sys.path:
    sys.path.insert(0, str(BUILDERS))
  return importlib.import_module(module)


def _check_flags(flags: types.SimpleNamespace, name: str) -> None:
  """Raises UsageError if a flag is given that the data set, or --check, does not know."""
  for option in sorted(set().union(*OPTIONS.values())):
    if option in flags.given and option not in OPTIONS[name]:
      owners = " and ".join(owner for owner in OPTIONS if option in OPTIONS[owner])
      raise UsageError(f"--{option} is for {owners}, not for {name}; leave it out")
  folder = str(flags.data_dir.resolve())
  if not flags.check and printable(folder) != folder:
    raise UsageError(
      f"--data_dir={printable(folder)}: ArrayRecord writes to folders named in UTF-8 only; give"
      " another"
    )
  if flags.output and not flags.check:
    raise UsageError("--output is where --check writes; add --check, or leave it out")
  if flags.check and flags.skip_bad:
    raise UsageError("--check lists bad records and writes no data set; leave out --skip_bad")
  if flags.export_split and not flags.export:
    raise UsageError("--export_split is what --export writes; add --export=FOLDER, or leave it out")
  if flags.export and (flags.check or flags.file_format == "tfrecord"):
    raise UsageError("--export reads ArrayRecord; leave out --check and --file_format")
  if flags.file_format == "tfrecord" and not importlib.util.find_spec("tensorflow"):
    raise UsageError("--file_format=tfrecord needs TensorFlow: pip install 'foir360_jax[tf]'")


def _need_manual_dir(flags: types.SimpleNamespace, builder: type[tfds.core.DatasetBuilder]) -> None:
  """Raises UsageError if `--manual_dir` is no folder."""
  if not flags.manual_dir or not flags.manual_dir.is_dir():
    missing = f"; there is no folder {flags.manual_dir}" if flags.manual_dir else ""
    raise UsageError(
      f"--dataset={flags.dataset} needs --manual_dir=FOLDER{missing}. "
      f"{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
    )


def _builder_options(flags: types.SimpleNamespace, name: str) -> dict[str, object]:
  """The flags that the builder takes, by name; paths as text, which builders keep."""
  values = {option: getattr(flags, option) for option in _FOR_BUILDER if option in OPTIONS[name]}
  return {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in values.items()}


def _check(flags: types.SimpleNamespace, name: str, builder: type[tfds.core.DatasetBuilder]) -> int:
  """Writes and prints the report; returns 1 where records are bad."""
  _need_manual_dir(flags, builder)
  review_folder = _import_builders(f"{name}.review").review_folder
  report = _import_builders(f"{name}.report")
  options = _builder_options(flags, name)
  del options["skip_bad"]
  review = review_folder(str(flags.manual_dir), **options)
  output = flags.output or flags.data_dir / f"{name}_check"
  print(report.write_report(review, output))
  print(f"written with pictures to {output / report.PAGE_FILE}")
  return 1 if review.bad else 0


def _prepare(
  flags: types.SimpleNamespace,
  name: str,
  builder_class: type[tfds.core.DatasetBuilder],
  config: str,
) -> None:
  """Writes the data set, and what else the flags ask for."""
  if flags.export:  # before minutes of work
    _import_builders("export_scenes").check_folder(flags.export)
  builder = builder_class(
    config=config,
    data_dir=flags.data_dir.resolve(),
    file_format=flags.file_format,
    **_builder_options(flags, name),
  )
  kept = builder.data_path.exists()
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not kept:
    _need_manual_dir(flags, builder_class)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      manual_dir=str(flags.manual_dir) if flags.manual_dir else None
    )
  )
  if kept:
    unused = [f"--{name}" for name in ("manual_dir", *_FOR_BUILDER) if name in flags.given]
    if unused:
      print(
        f"{' and '.join(unused)} had no effect: the data set is there already; remove its folder,"
        " or give another --data_dir, to make it anew",
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
  if flags.difficulty:
    print(_import_builders(f"{name}.difficulty").report(builder))
  if flags.picture:
    written = _import_builders(f"{name}.picture").write_picture(flags.picture)
    print(f"{flags.picture}: {'rendered' if written else 'there already, kept'}")
  if flags.export:
    export = _import_builders("export_scenes").export_scenes
    print("\n".join(export(builder, flags.export, flags.export_split)))
