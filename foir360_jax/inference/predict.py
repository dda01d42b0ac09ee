"""Ranks a picture or a folder: `ranks/ID.json` and `overlays/ID.png` for each panorama.

The objects are those that the model finds, or those of masks that the folder brings.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from foir360_jax.files import PanoramaError, find_panoramas, read_panorama
from foir360_jax.inference.decision import Decision
from foir360_jax.inference.ranker import Ranker
from foir360_jax.scenes import RankedObjects, SceneError, open_scenes
from foir360_jax.train.checkpoint import newest_checkpoint


def predict_folder(
  ranker: Ranker,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  overwrite: bool = False,
  skip_done: bool = False,
  say: Callable[[str], None] = print,
) -> int:
  """Ranks every panorama it finds and tells one line about each.

  A picture that cannot be used gets one line that says why, and the others go on.

  Args:
    ranker: the model.
    input_path: a picture or a folder of pictures.
    output: folder for `ranks/` and `overlays/`; made if need be.
    overwrite: whether results that are there already may be replaced.
    skip_done: whether pictures of which both files are there already are left out.
    say: takes the lines.

  Returns:
    The number of pictures that failed.

  Raises:
    PanoramaError: there is no picture at all.
    ValueError: results are there already and `overwrite` is False; nothing is written then.
  """
  output = pathlib.Path(output)
  pictures = {picture.stem: picture for picture in find_panoramas(input_path)}
  names = _free(output, list(pictures), overwrite, skip_done, say)

  def rank(picture: pathlib.Path) -> RankedObjects:
    return ranker(read_panorama(picture), image=picture.name)

  return _rank_each([(name, pictures[name], pictures[name]) for name in names], rank, output, say)


def rank_folder_masks(
  ranker: Ranker,
  input_path: str | os.PathLike,
  output: str | os.PathLike,
  *,
  overwrite: bool = False,
  skip_done: bool = False,
  say: Callable[[str], None] = print,
) -> int:
  """Ranks the objects whose masks a folder brings, and tells one line about each panorama.

  The last line names the categories that a model does not know which is told them.

  Args:
    ranker: the model.
    input_path: a folder of any format of `scenes.open_scenes` that has pictures and masks; ranks
      that it may have as well are not read.
    output: see `predict_folder`, as the rest.
    overwrite: see there.
    skip_done: see there.
    say: see there.

  Returns:
    The number of panoramas that failed.

  Raises:
    ValueError: the folder cannot be opened, holds nothing, or is the output folder; or results are
      there already and `overwrite` is False; nothing is written then.
  """
  folder = open_scenes(input_path, check_pictures=False)
  if not len(folder):
    raise SceneError(f"{folder.path}: holds no picture; give the folder with images and instances")
  output = pathlib.Path(output)
  if output.resolve() == folder.path.resolve():
    raise ValueError(f"{output} is the folder of the panoramas; give another --output")
  ids = _free(output, folder.ids, overwrite, skip_done, say)
  unknown: set[str] = set()

  def rank(scene_id: str) -> RankedObjects:
    scene = folder.read(scene_id)
    if scene.image_file is None:
      raise SceneError(
        f"{folder.path}: {scene_id}: there is no picture; put it where the layout has it"
      )
    categories = [item.category for item in scene.objects]
    unknown.update(ranker.unknown_names(categories))
    panorama = read_panorama(scene.image_file)
    return ranker.rank_masks(
      panorama,
      _stretched(scene.masks(), panorama.shape[1]),
      categories=categories,
      ids=[item.id for item in scene.objects],
      image=scene.image_file.name,
    )

  scenes = [(scene_id, scene_id, f"{folder.path}: {scene_id}") for scene_id in ids]
  failed = _rank_each(scenes, rank, output, say)
  if unknown:
    say(
      f"the model does not know {', '.join(sorted(unknown))} and ranked these by their looks; it"
      f" knows {', '.join(filter(None, ranker.category_names)) or 'no names'}"
    )
  return failed


def _stretched(masks: np.ndarray, width: int) -> np.ndarray:
  """Masks of a picture that `read_panorama` stretched by a column or two, as it."""
  _, height, own = masks.shape
  if own == width or abs(own - width) > 2 or width != 2 * height:
    return masks
  columns = np.minimum((np.arange(width) + 0.5) * own / width, own - 1).astype(int)
  return masks[..., columns]


def _free(
  output: pathlib.Path,
  names: Sequence[str],
  overwrite: bool,
  skip_done: bool,
  say: Callable[[str], None],
) -> Sequence[str]:
  """Those of the names that are to be ranked."""
  if skip_done:
    missing = [name for name in names if not all(file.exists() for file in _files(output, name))]
    if len(missing) < len(names):
      say(f"{len(names) - len(missing)} of {len(names)} are done already in {output}")
    return missing
  there = [file for name in names for file in _files(output, name) if file.exists()]
  if there and not overwrite:
    raise ValueError(
      f"{there[0]} exists ({len(there)} such files); give another --output, --skip_done to go on,"
      " or --overwrite to replace them"
    )
  return names


def _rank_each(
  panoramas: Sequence[tuple[str, Any, Any]],
  rank: Callable[[Any], RankedObjects],
  output: pathlib.Path,
  say: Callable[[str], None],
) -> int:
  """Ranks and writes all; each is the name of its files, what `rank` takes, what a line names."""
  failed = 0
  for name, panorama, title in panoramas:
    rank_file, overlay = _files(output, name)
    try:
      ranked = rank(panorama)
      ranked.save_json(rank_file)
      ranked.save_overlay(overlay)
    except (PanoramaError, SceneError) as error:  # these name the file themselves
      say(f"skipped {error}")
      failed += 1
    except (OSError, MemoryError, ValueError) as error:  # the others may still do
      say(f"skipped {title}: {type(error).__name__}: {error}")
      failed += 1
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      say(f"skipped {title}: the device has too little memory for it")
      failed += 1
    else:
      say(f"{ranked.image or name}: {len(ranked)} objects -> {rank_file}, {overlay}")
  return failed


def _files(output: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
  return output / "ranks" / f"{name}.json", output / "overlays" / f"{name}.png"


def load_ranker(
  workdir: pathlib.Path, rank_masks: bool, limits: Mapping[str, float | int | None]
) -> Ranker:
  """The run in `workdir` as a ranker for new panoramas; says so if nobody chose its limits.

  Args:
    workdir: the run.
    rank_masks: whether it is to rank masks that are there, rather than to find objects.
    limits: see `Ranker.load`.
  """
  ranker = Ranker.load(workdir, **limits)
  if rank_masks:
    return ranker
  if not ranker.detects:
    raise ValueError(f"{workdir} learnt to rank given masks alone: add --rank_masks")
  if not Decision.is_chosen(newest_checkpoint(workdir / "checkpoints")):
    print(
      "the newest checkpoint was never evaluated: what is an object is decided by default limits"
      " (--mode=evaluate chooses them)"
    )
  return ranker
