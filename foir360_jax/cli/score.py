"""`foir360 score`: the predictions of any system against the truth; a table and a report."""

import concurrent.futures.process
import sys
import types

from foir360_jax.cli.progress import progress_bar
from foir360_jax.evaluation.score import Source
from foir360_jax.evaluation.score.report import score_folders, table, to_json
from foir360_jax.files import write_atomically


def run(flags: types.SimpleNamespace) -> int:
  """Runs the command.

  Returns:
    The exit code: 0; 1 where pictures could not be scored, unless `--skip_bad` and others could.

  Raises:
    ValueError: it did not come to that.
    OSError: the report could not be written.
  """
  try:
    with progress_bar("scoring") as show:
      report = score_folders(
        Source(str(flags.gt), flags.gt_format, flags.gt_rank_field),
        Source(str(flags.pred), flags.pred_format, flags.pred_rank_field),
        split=flags.split,
        count_missing=flags.missing == "empty",
        workers=flags.workers,
        weighted=flags.weighted,
        iou_thresholds=flags.iou_threshold,
        num_resamples=flags.resamples,
        show=show,
      )
  except concurrent.futures.process.BrokenProcessPool:
    raise ValueError("a process was ended, probably for want of memory; try --workers=1") from None
  for bad in report["bad"]:
    print(f"not scored: {bad['reason']}", file=sys.stderr)
  print(table(report))
  if flags.out:
    try:
      write_atomically(flags.out, to_json(report))
    except OSError as error:
      raise OSError(f"--out={flags.out}: cannot be written ({error.strerror})") from None
  return 1 if report["bad"] and not (flags.skip_bad and report["images_scored"]) else 0
