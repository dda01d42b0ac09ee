"""Ranks a picture or a folder of pictures: `ranks/ID.json` and `overlays/ID.png` for each."""

import os
import pathlib
from collections.abc import Callable

from foir360_jax.evaluation.ranker import Ranker
from foir360_jax.formats import PanoramaError, find_panoramas, read_panorama


def predict_folder(
  ranker: Ranker,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  overwrite: bool = False,
  say: Callable[[str], None] = print,
) -> int:
  """Ranks every panorama it finds and tells one line about each.

  A picture that cannot be used gets one line that says why, and the others go on.

  Args:
    ranker: the model.
    input_path: a picture or a folder of pictures.
    output: folder for `ranks/` and `overlays/`; made if need be.
    overwrite: whether results that are there already may be replaced.
    say: takes the lines.

  Returns:
    The number of pictures that failed.

  Raises:
    PanoramaError: there is no picture at all.
    ValueError: results are there already and `overwrite` is False; nothing is written then.
  """
  pictures = find_panoramas(input_path)
  output = pathlib.Path(output)
  there = [file for picture in pictures for file in _files(output, picture) if file.exists()]
  if there and not overwrite:
    raise ValueError(
      f"{there[0]} exists ({len(there)} such files); give another --output, or --overwrite to"
      " replace them"
    )
  failed = 0
  for picture in pictures:
    rank_file, overlay = _files(output, picture)
    try:
      ranked = ranker(read_panorama(picture), image=picture.name)
      ranked.save_json(rank_file)
      ranked.save_overlay(overlay)
    except PanoramaError as error:
      say(f"skipped {error}")
      failed += 1
    except (OSError, MemoryError, ValueError) as error:  # the other pictures may still do
      say(f"skipped {picture}: {type(error).__name__}: {error}")
      failed += 1
    else:
      say(f"{picture.name}: {len(ranked)} objects -> {rank_file}, {overlay}")
  return failed


def _files(output: pathlib.Path, picture: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  return output / "ranks" / f"{picture.stem}.json", output / "overlays" / f"{picture.stem}.png"
