"""The command line: flags, and which entry point they call.

  python -m foir360_jax.main --config=configs/tiny.py --workdir=runs/tiny

trains and evaluates. `--mode=evaluate` evaluates again; `--mode=predict --workdir=runs/tiny
--input=PICTURE_OR_FOLDER --output=OUT` ranks new panoramas, `--rank_masks` masks of them;
`--mode=weak_labels --input=FOLDER --output=OUT` does so untrained; `--mode=benchmark` times.
"""

from foir360_jax.allocator import restart_with_huge_pages

if __name__ == "__main__":
  restart_with_huge_pages()

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from foir360_jax.cli import run
from foir360_jax.saliency.build import NAMES as SALIENCY_NAMES

_MODES = ("train", "evaluate", "predict", "weak_labels", "benchmark")
_OF_MODES = {  # flags that say nothing to the other modes
  **dict.fromkeys(("input", "output", "overwrite"), ("predict", "weak_labels")),
  **dict.fromkeys(("rank_masks", "skip_done"), ("predict",)),
  **dict.fromkeys(("confidence_threshold", "stop_margin", "yaw_augmentation"), ("predict",)),
  "saliency": ("weak_labels",),
}
_NEEDED = {"predict": ("workdir", "input", "output"), "weak_labels": ("input", "output")}
_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder: checkpoints, logs, reports.")
_MODE = flags.DEFINE_enum("mode", "train", _MODES, "What to do; train evaluates at its end.")
_INPUT = flags.DEFINE_string(
  "input", None, "predict: a panorama or a folder of them; weak_labels: a folder with masks."
)
_OUTPUT = flags.DEFINE_string("output", None, "The folder for ranks/ and overlays/.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace results that are there already.")
_SKIP_DONE = flags.DEFINE_bool(
  "skip_done", False, "predict: leave out panoramas that have results, whatever run made them."
)
_GIVEN_MASKS = flags.DEFINE_bool(
  "rank_masks", False, "predict: rank the masks that the folder of --input brings."
)
_LIMITS = {
  "confidence_threshold": flags.DEFINE_float(
    "confidence_threshold",
    None,
    "predict: in place of the one that evaluation chose; as the next two.",
    lower_bound=0,
    upper_bound=1,
  ),
  "stop_margin": flags.DEFINE_float("stop_margin", None, "predict: -100 for no stop."),
  "yaw_augmentation": flags.DEFINE_integer(
    "yaw_augmentation", None, "predict: the mean over this number of turned copies.", lower_bound=1
  ),
}
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
  for name, modes in _OF_MODES.items():
    if flags.FLAGS[name].present and _MODE.value not in modes:
      raise app.UsageError(f"--{name} is for --mode={' and '.join(modes)}; leave it out")
  if _GIVEN_MASKS.value:
    for name in ("confidence_threshold", "stop_margin"):
      if flags.FLAGS[name].present:
        raise app.UsageError(f"--{name} says nothing to --rank_masks, all of which are ranked")
  if _OVERWRITE.value and _SKIP_DONE.value:
    raise app.UsageError("--overwrite and --skip_done contradict each other; leave one out")
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
    failed = run.predict(
      _CONFIG.value,
      _WORKDIR.value,
      *folders,
      rank_masks=_GIVEN_MASKS.value,
      overwrite=overwrite,
      skip_done=_SKIP_DONE.value,
      limits={name: flag.value for name, flag in _LIMITS.items()},
    )
  elif _MODE.value == "weak_labels":
    saliency = _SALIENCY.value
    failed = run.weak_labels(_CONFIG.value, *folders, saliency=saliency, overwrite=overwrite)
  else:
    run.benchmark(_CONFIG.value, _WORKDIR.value)
  return 1 if failed else 0


if __name__ == "__main__":
  app.run(main)
