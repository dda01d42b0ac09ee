"""A trained model as one function: panorama in, ranked objects out."""

import json
import os
import pathlib
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.evaluation.infer import picture_masks
from foir360_jax.formats import RankedObjects
from foir360_jax.models import PanoRank, build_model
from foir360_jax.sphere import resize_panorama
from foir360_jax.train.checkpoint import restore_model

DEFAULT_THRESHOLD = 0.3  # of runs that were never evaluated


class Ranker:
  """Ranks every object of a panorama.

  Args:
    model: with the parameters to use.
    height: rows of the pictures that the model was trained on.
    category_names: what the model's categories stand for; may be empty.
    confidence_threshold: candidates of at most this confidence are left out, in [0, 1).

  Example (after `bash launch/quickstart.sh`)::

    ranker = foir360_jax.Ranker.load("runs/tiny")
    ranked = ranker(panorama)          # uint8 [H, 2 H, 3], any size
    ranked.ranks, ranked.importance, ranked.masks
    ranked.save_json("ranks.json"); ranked.save_overlay("overlay.png")
  """

  def __init__(
    self,
    model: PanoRank,
    *,
    height: int,
    category_names: tuple[str, ...] = (),
    confidence_threshold: float = DEFAULT_THRESHOLD,
  ):
    graphdef, self._state = nnx.split(model)
    self._rank = jax.jit(lambda state, *inputs: nnx.merge(graphdef, state)(*inputs))
    self.height = height
    self.category_names = tuple(category_names)
    self.confidence_threshold = confidence_threshold

  @classmethod
  def load(cls, folder: str | os.PathLike, *, confidence_threshold: float | None = None) -> Self:
    """Loads the newest checkpoint of a run (the `--workdir` of its training).

    Args:
      folder: holds `config.json`, `checkpoints/` and, once evaluated, `metrics.json`.
      confidence_threshold: None takes the one that the run's evaluation chose on the validation
        split, or 0.3.

    Raises:
      ValueError: no run there, or its checkpoint does not fit its configuration.
    """
    folder = pathlib.Path(folder)
    config_file = folder / "config.json"
    if not config_file.is_file():
      raise ValueError(
        f"{folder} is no run: {config_file.name} is missing; give the --workdir of a training"
      )
    config = json.loads(config_file.read_text())
    task = config.get("task", "ranking")  # runs from before there was a choice have no such field
    if task != "ranking":
      raise ValueError(f"{folder} is a run of the task {task}, which ranks nothing")
    if confidence_threshold is None:
      metrics = folder / "metrics.json"
      known = json.loads(metrics.read_text()) if metrics.is_file() else {}
      confidence_threshold = known.get("confidence_threshold", DEFAULT_THRESHOLD)
    model = restore_model(folder / "checkpoints", nnx.eval_shape(lambda: build_model(config)))
    return cls(
      model,
      height=config["data"]["height"],
      category_names=tuple(config.get("category_names", ())),
      confidence_threshold=confidence_threshold,
    )

  def __call__(self, panorama: np.ndarray, *, image: str = "") -> RankedObjects:
    """Ranks the objects of one panorama.

    Args:
      panorama: `[H, 2 H, 3]` uint8 RGB, any size; the masks of the result have this size.
      image: the picture's name, for the rank file.

    Raises:
      ValueError: the picture has another shape or type.
    """
    panorama = np.asarray(panorama)
    if panorama.dtype != np.uint8 or panorama.ndim != 3 or panorama.shape[-1] != 3:
      raise ValueError(
        f"panorama must be uint8 [H, 2 H, 3], not {panorama.dtype} {list(panorama.shape)}"
      )
    small = jnp.round(resize_panorama(panorama, self.height)).astype(jnp.uint8)
    candidates = self._rank(self._state, small[None], self.confidence_threshold)
    mask_logits, importance, category_logits = (x[0] for x in jax.device_get(candidates))
    objects = np.flatnonzero(importance > 0)
    masks = [_full_size(mask_logits[index], panorama.shape[0]) for index in objects]
    seen = [number for number, mask in enumerate(masks) if mask.any()]
    objects = objects[seen]
    return RankedObjects.from_masks(
      panorama,
      np.array([masks[number] for number in seen], bool).reshape(-1, *panorama.shape[:2]),
      importance[objects],
      [self._category_name(category_logits[index].argmax()) for index in objects],
      image=image,
    )

  def _category_name(self, category: np.intp) -> str:
    return self.category_names[category] if category < len(self.category_names) else ""


def _full_size(mask_logits: np.ndarray, height: int) -> np.ndarray:
  # One mask at a time: all of them at once would be gigabytes for a large panorama.
  return np.asarray(picture_masks(mask_logits[None, None], height)[0, 0])
