"""The command line: flags, and which entry point they call.

  python -m foir360_jax.main --config=configs/tiny.py --workdir=runs/tiny

trains and evaluates. `--mode=evaluate` evaluates again; `--mode=predict --workdir=runs/tiny
--input=PICTURE_OR_FOLDER --output=OUT` ranks new panoramas; `--mode=benchmark` measures speed.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from foir360_jax import run

_MODES = ("train", "evaluate", "predict", "benchmark")
_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder: checkpoints, logs, reports.")
_MODE = flags.DEFINE_enum("mode", "train", _MODES, "What to do; train evaluates at its end.")
_INPUT = flags.DEFINE_string("input", None, "predict: a panorama or a folder of them.")
_OUTPUT = flags.DEFINE_string("output", None, "predict: the folder for ranks/ and overlays/.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "predict: replace results of the same name.")


def main(argv):
  """Calls the entry point of the mode; an error is one line and exit code 2.

  With `--verbosity=1` it is a traceback.
  """
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step of theirs
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
  needed = {"workdir": _WORKDIR.value}
  if _MODE.value == "predict":
    needed |= {"input": _INPUT.value, "output": _OUTPUT.value}
  else:
    needed |= {"config": _CONFIG.value}
  missing = [f"--{name}" for name, value in needed.items() if not value]
  if missing:
    raise app.UsageError(f"--mode={_MODE.value} needs {', '.join(missing)}")
  try:
    if _MODE.value == "train":
      run.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    elif _MODE.value == "evaluate":
      run.evaluate_run(_CONFIG.value, _WORKDIR.value)
    elif _MODE.value == "benchmark":
      run.benchmark(_CONFIG.value, _WORKDIR.value)
    else:
      failed = run.predict(_WORKDIR.value, _INPUT.value, _OUTPUT.value, overwrite=_OVERWRITE.value)
      sys.exit(1 if failed else 0)
  except (ValueError, FloatingPointError, OSError) as error:
    if logging.level_debug():
      raise
    print(f"error: {error} (--verbosity=1 shows where)", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
  app.run(main)
