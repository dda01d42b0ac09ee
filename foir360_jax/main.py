"""The command line: flags, and which entry point they call.

  python -m foir360_jax.main --config=configs/tiny.py --workdir=runs/tiny

trains and evaluates. `--mode=evaluate` evaluates again; `--mode=predict --workdir=runs/tiny
--input=PICTURE_OR_FOLDER --output=OUT` ranks new panoramas, `--given_masks` masks of them;
`--mode=weak_labels --input=SCENES --output=OUT` does so untrained; `--mode=benchmark` times.
"""

from foir360_jax.allocator import restart_with_huge_pages

if __name__ == "__main__":
  restart_with_huge_pages()

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from foir360_jax import run
from foir360_jax.saliency.build import NAMES as SALIENCY_NAMES

_MODES = ("train", "evaluate", "predict", "weak_labels", "benchmark")
_NEEDED = {"predict": ("workdir", "input", "output"), "weak_labels": ("input", "output")}
_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder: checkpoints, logs, reports.")
_MODE = flags.DEFINE_enum("mode", "train", _MODES, "What to do; train evaluates at its end.")
_INPUT = flags.DEFINE_string(
  "input", None, "predict: a panorama or a folder of them; weak_labels: a folder with masks."
)
_OUTPUT = flags.DEFINE_string("output", None, "The folder for ranks/ and overlays/.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace results that are there already.")
_GIVEN_MASKS = flags.DEFINE_bool(
  "given_masks", False, "predict: rank the masks that the folder of --input brings."
)
_SALIENCY = flags.DEFINE_enum(
  "saliency", None, SALIENCY_NAMES, "weak_labels: in place of the config's."
)


def main(argv):
  """Calls the entry point of the mode; an error is one line and exit code 2.

  With `--verbosity=1` it is a traceback.
  """
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step of theirs
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
  needed = _NEEDED.get(_MODE.value, ("workdir", "config"))
  missing = [f"--{name}" for name in needed if not flags.FLAGS[name].value]
  if missing:
    raise app.UsageError(f"--mode={_MODE.value} needs {', '.join(missing)}")
  if _SALIENCY.value and _MODE.value != "weak_labels":
    raise app.UsageError("--saliency is for --mode=weak_labels; leave it out")
  if _GIVEN_MASKS.value and _MODE.value != "predict":
    raise app.UsageError("--given_masks is for --mode=predict; leave it out")
  try:
    sys.exit(_run())
  except (ValueError, FloatingPointError, OSError) as error:
    if logging.level_debug():
      raise
    print(f"error: {error} (--verbosity=1 shows where)", file=sys.stderr)
    sys.exit(2)


def _run() -> int:
  """Returns the exit code: 1 where some of the pictures could not be used."""
  folders = _INPUT.value, _OUTPUT.value
  overwrite = _OVERWRITE.value
  failed = 0
  if _MODE.value == "train":
    run.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
  elif _MODE.value == "evaluate":
    run.evaluate_run(_CONFIG.value, _WORKDIR.value)
  elif _MODE.value == "predict":
    given = _GIVEN_MASKS.value
    failed = run.predict(_WORKDIR.value, *folders, given_masks=given, overwrite=overwrite)
  elif _MODE.value == "weak_labels":
    saliency = _SALIENCY.value
    failed = run.weak_labels(_CONFIG.value, *folders, saliency=saliency, overwrite=overwrite)
  else:
    run.benchmark(_CONFIG.value, _WORKDIR.value)
  return 1 if failed else 0


if __name__ == "__main__":
  app.run(main)
