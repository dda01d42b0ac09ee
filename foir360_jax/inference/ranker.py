"""A trained model as one function: panorama in, ranked objects out."""

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.config import base_config
from foir360_jax.files.panorama_file import is_panorama, resize_columns, stretch
from foir360_jax.inference.decision import Decision
from foir360_jax.models import PanoRank, build_model
from foir360_jax.models.cells import cell_masks
from foir360_jax.models.mask_head import picture_masks
from foir360_jax.objective import learns_detection
from foir360_jax.paths import expand
from foir360_jax.scenes import RankedObjects
from foir360_jax.scenes.packed_masks import pack_masks, resample_masks
from foir360_jax.sphere import resize_panorama
from foir360_jax.train.checkpoint import newest_checkpoint, restore_model
from foir360_jax.train.settings import load_settings, settings_file

_FEWEST_PLACES = 16  # that provided masks are padded to; then powers of two


class Ranker:
  """Ranks every object of a panorama: those that it detects, or those of provided masks.

  Args:
    model: with the parameters to use.
    height: rows of the pictures that the model was trained on.
    category_names: what the model's categories stand for; may be empty.
    decision: thresholds of detection, and the number of rotated copies of a picture to average
      (test-time yaw augmentation), each of which costs one more pass of the encoder.
    detects: False for a model that only ranks provided masks.

  Example (after `bash launch/quickstart.sh`)::

    ranker = foir360_jax.Ranker.load("runs/tiny")
    ranked = ranker(panorama)          # uint8 [H, 2 H, 3], any size
    ranked.ranks, ranked.importance, ranked.masks
    ranked.save_json("ranks.json"); ranked.save_overlay("overlay.png")
    ranker.rank_masks(panorama, masks)  # bool [N, H, 2 H] of any other source
  """

  def __init__(
    self,
    model: PanoRank,
    *,
    height: int,
    category_names: tuple[str, ...] = (),
    decision: Decision = Decision(),  # noqa: B008 (it cannot be changed)
    detects: bool = True,
  ):
    graphdef, self._state = nnx.split(model)
    copies = decision.yaw_augmentation
    self._detect = jax.jit(
      lambda state, *inputs: nnx.merge(graphdef, state)(*inputs, yaw_augmentation=copies)
    )
    self._rank = jax.jit(
      lambda state, *inputs: nnx.merge(graphdef, state).rank(*inputs, yaw_augmentation=copies)
    )
    self._pixel_stride = model.pixel_stride
    self._is_conditioned = model.condition_on_categories
    self.height = height
    self.category_names = tuple(category_names)
    self.decision = decision
    self.detects = detects

  @classmethod
  def load(
    cls,
    folder: str | os.PathLike,
    *,
    confidence_threshold: float | None = None,
    stop_margin: float | None = None,
    yaw_augmentation: int | None = None,
  ) -> Self:
    """Loads the newest checkpoint of a run (the `--workdir` of its training).

    Args:
      folder: holds `config.json` and `checkpoints/`; `~` is the user's folder.
      confidence_threshold: in place of the one that evaluation chose on the validation split and
        put into the checkpoint (see `Decision`), which None takes; as for the next two.
      stop_margin: of the recurrent module, chosen together with it; `decision.NEVER` for no stop.
      yaw_augmentation: number of rotated copies of a picture to average.

    Raises:
      ValueError: no run there, or its checkpoint does not fit its configuration.
    """
    folder = expand(folder)
    config, file = load_settings(folder), settings_file(folder)
    if config is None:
      raise ValueError(
        f"{folder} is no run: {file.name} is missing; give the --workdir of a training"
      )
    task = config.get("task", "ranking")  # runs from before there was a choice have no such field
    if task != "ranking":
      raise ValueError(f"{folder} is a run of the task {task}, which ranks nothing")
    config = _completed(config, file)
    checkpoint = newest_checkpoint(folder / "checkpoints")
    model = restore_model(
      checkpoint.parent, nnx.eval_shape(lambda: build_model(config)), step=int(checkpoint.name)
    )
    given: dict[str, Any] = dict(
      confidence_threshold=confidence_threshold,
      stop_margin=stop_margin,
      yaw_augmentation=yaw_augmentation,
    )
    decision = Decision.load(checkpoint)._replace(
      **{name: value for name, value in given.items() if value is not None}
    )
    return cls(
      model,
      height=config["data"]["height"],
      category_names=tuple(config.get("category_names", ())),
      decision=decision,
      detects=learns_detection(config["loss"]),
    )

  def __call__(self, panorama: np.ndarray, *, image: str = "") -> RankedObjects:
    """Ranks the objects of one panorama.

    Args:
      panorama: `[H, 2 H, 3]` uint8 RGB, any size, also a few rows off 2:1 (`is_panorama`); the
        masks of the result have this size.
      image: the picture's name, for the rank file.

    Raises:
      ValueError: the picture has another shape or type.
    """
    panorama = _checked(panorama)
    if not self.detects:
      raise ValueError(
        "this run ranks provided masks only: use rank_masks, or train one with weights on"
        " all terms of config.loss"
      )
    thresholds = self.decision.confidence_threshold, self.decision.stop_margin
    candidates = self._detect(self._state, self._small(panorama)[None], *thresholds)
    mask_logits, importance, category_logits = (x[0] for x in jax.device_get(candidates))
    objects = np.flatnonzero(importance > 0)
    masks = [_full_size(mask_logits[index], panorama.shape[:2]) for index in objects]
    seen = [number for number, mask in enumerate(masks) if mask.any()]
    objects = objects[seen]
    return RankedObjects.from_masks(
      panorama,
      np.array([masks[number] for number in seen], bool).reshape(-1, *panorama.shape[:2]),
      importance[objects],
      [self._category_name(category_logits[index].argmax()) for index in objects],
      image=image,
    )

  def rank_masks(
    self,
    panorama: np.ndarray,
    masks: np.ndarray,
    *,
    categories: Sequence[str] | None = None,
    ids: Sequence[int] | None = None,
    image: str = "",
  ) -> RankedObjects:
    """Ranks objects whose masks are known already, from an annotator or from any other model.

    Args:
      panorama: `[H, 2 H, 3]` uint8 RGB, any size.
      masks: `[N, H, 2 H]` bool, as the panorama; they may overlap. Every one gets a rank.
      categories: N names, "" where unknown; a model with `config.model.condition_on_categories`
        conditions on those that it knows. None: predicted categories.
      ids: N numbers, see `RankedObjects`.
      image: the picture's name, for the rank file.

    Raises:
      ValueError: shapes or types that do not fit, or a mask without a pixel.
    """
    panorama, masks = _checked(panorama), np.asarray(masks)
    if masks.dtype != bool or masks.shape[1:] != panorama.shape[:2] or masks.ndim != 3:
      raise ValueError(
        f"masks must be bool [N, {panorama.shape[0]}, {panorama.shape[1]}], as the panorama, not"
        f" {masks.dtype} {list(masks.shape)}"
      )
    padded = max(_FEWEST_PLACES, 1 << (len(masks) - 1).bit_length())  # few sizes, few programs
    # As in training and evaluation: first of the size that the model knows, then on its pixels.
    packed = np.zeros((padded, self.height, self.height // 4), np.uint8)
    on_sphere = resize_columns(masks, 2 * len(panorama))
    packed[: len(masks)] = resample_masks(pack_masks(on_sphere), self.height)
    covered = cell_masks(packed[None], self._pixel_stride)
    where = np.arange(padded) < len(masks)
    conditioned = np.full(padded, -1, np.int32)
    if categories is not None:
      if len(categories) != len(masks):
        raise ValueError(f"{len(categories)} categories do not fit {len(masks)} masks")
      numbers = {name: number for number, name in enumerate(self.category_names) if name}
      conditioned[: len(masks)] = [numbers.get(name, -1) for name in categories]
    order = self._rank(
      self._state, self._small(panorama)[None], covered, where[None], conditioned[None]
    )
    order = jax.device_get(order)
    if categories is None:
      names = order.category_logits[0, : len(masks)].argmax(-1)
      categories = [self._category_name(index) for index in names]
    return RankedObjects.from_masks(
      panorama, masks, order.importance[0, : len(masks)], categories, ids=ids, image=image
    )

  def settings(self, *, rank_masks: bool = False) -> dict[str, Any]:
    """All that a ranking depends on beside the panorama, as JSON values.

    Args:
      rank_masks: whether it is of `rank_masks`, on which thresholds have no say.
    """
    digest = hashlib.sha256()
    for path, array in jax.tree.leaves_with_path(jax.device_get(self._state)):
      digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
      digest.update(np.ascontiguousarray(array).tobytes())
    decision: dict[str, float] = {"yaw_augmentation": self.decision.yaw_augmentation}
    if not rank_masks:
      decision |= {
        "confidence_threshold": self.decision.confidence_threshold,
        "stop_margin": self.decision.stop_margin,
      }
    return {"parameters_sha256": digest.hexdigest(), "height": self.height} | decision

  def unknown_names(self, categories: Sequence[str]) -> set[str]:
    """The names of provided masks that a model conditioned on categories does not know."""
    return set(categories) - set(self.category_names) - {""} if self._is_conditioned else set()

  def _small(self, panorama: np.ndarray) -> jax.Array:
    return jnp.round(resize_panorama(stretch(panorama), self.height)).astype(jnp.uint8)

  def _category_name(self, category: np.intp) -> str:
    return self.category_names[category] if category < len(self.category_names) else ""


def _full_size(mask_logits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  # One mask at a time: all of them at once would be gigabytes for a large panorama.
  height, width = shape
  return resize_columns(np.asarray(picture_masks(mask_logits[None, None], height)[0, 0]), width)


def _completed(config: dict[str, Any], file: pathlib.Path) -> dict[str, Any]:
  """A run's configuration with the defaults of fields that did not exist when it was trained."""
  complete = base_config().to_dict()
  for section in ("model", "loss"):
    unknown = config[section].keys() - complete[section].keys()
    if unknown:
      raise ValueError(
        f"{file}: has the unknown field {section}.{min(unknown)}; use the version that trained it"
      )
    complete[section] |= config[section]
  return config | {section: complete[section] for section in ("model", "loss")}


def _checked(panorama: np.ndarray) -> np.ndarray:
  panorama = np.asarray(panorama)
  if (
    panorama.dtype != np.uint8
    or panorama.ndim != 3
    or panorama.shape[2] != 3
    or not is_panorama(*panorama.shape[:2])
  ):
    raise ValueError(
      f"panorama must be uint8 [H, 2 H, 3], not {panorama.dtype} {list(panorama.shape)}"
    )
  return panorama
