"""`foir360 rank`: the objects of photographed panoramas, found and ranked without training."""

import types

from foir360_jax.cli.progress import progress_bar
from foir360_jax.inference.photo_ranker import PhotoRanker
from foir360_jax.inference.photographs import rank_photographs


def run(flags: types.SimpleNamespace) -> int:
  """Runs the command; returns its exit code."""
  ranker = photo_ranker(flags)
  with progress_bar("ranking") as show:
    summary = rank_photographs(
      ranker, flags.pictures, flags.output, overwrite=flags.overwrite, show=show
    )
  return 1 if summary.bad else 0


def photo_ranker(flags: types.SimpleNamespace) -> PhotoRanker:
  """Builds what the flags ask for."""
  return PhotoRanker(
    flags.segmenter,
    views=flags.views,
    confidence=flags.confidence,
    max_objects=flags.max_objects,
  )
