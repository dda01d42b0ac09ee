"""`foir360 segment`: the objects of photographed panoramas as a SCENES folder, or their views."""

import types

from foir360_jax.cli.flags import UsageError
from foir360_jax.cli.progress import progress_bar
from foir360_jax.cli.rank import photo_ranker
from foir360_jax.compilation import keep_compiled_programs
from foir360_jax.inference.photographs import segment_photographs, write_views

_OF_A_SEGMENTER = ("segmenter", "confidence", "max_objects")


def run(flags: types.SimpleNamespace) -> int:
  """Runs the command; returns its exit code."""
  if (flags.output is None) == (flags.write_views is None):
    raise UsageError(
      "segment needs --output=SCENES for the objects, or --write_views=FOLDER for the views"
    )
  if flags.write_views is not None:
    for name in _OF_A_SEGMENTER:
      if name in flags.given:
        raise UsageError(f"--{name} says nothing to --write_views, which segments nothing")
    keep_compiled_programs()
    with progress_bar("views") as show:
      summary = write_views(
        flags.views, flags.pictures, flags.write_views, overwrite=flags.overwrite, show=show
      )
    return 1 if summary.bad else 0
  ranker = photo_ranker(flags)
  with progress_bar("segmenting") as show:
    summary = segment_photographs(
      ranker, flags.pictures, flags.output, overwrite=flags.overwrite, show=show
    )
  return 1 if summary.bad else 0
