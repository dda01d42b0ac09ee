"""A trained model as one function: panorama in, ranked objects out."""

import hashlib
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.compilation import compiling, keep_compiled_programs
from foir360_jax.config import base_config
from foir360_jax.files.panorama_file import resize_columns, stretch
from foir360_jax.inference.decision import Decision
from foir360_jax.inference.full_size_masks import full_size_masks
from foir360_jax.inference.ranker_input import (
  InputPanorama,
  Panorama,
  ProvidedMasks,
  cut_to_data,
  one_each,
  open_masks,
  open_panorama,
)
from foir360_jax.models import PanoRank, build_model
from foir360_jax.models.cells import cell_masks
from foir360_jax.objective import learns_detection
from foir360_jax.paths import expand
from foir360_jax.scenes import RankedObjects
from foir360_jax.scenes.packed_masks import pack_masks, resample_masks
from foir360_jax.sphere import resize_panorama
from foir360_jax.train.checkpoint import newest_checkpoint, restore_model
from foir360_jax.train.settings import load_settings, settings_file

_FEWEST_PLACES = 16  # that provided masks are padded to; then powers of two
_BATCH = 8  # pictures that go through the model together at most; fewer: the next power of two
_logger = logging.getLogger(__name__)


class Ranker:
  """Ranks every object of a panorama: those that it detects, or those of provided masks.

  Each program is compiled when it is first needed: the encoder and the detection once a batch size
  (1, 2, 4 or 8 pictures), the order of provided masks once a padded number of masks (16, 32, 64
  ...), too. The logger of this module says so (level INFO). The picture seen last stays encoded on
  the device, so that to detect its objects and then rank masks of it encodes it once. To build a
  ranker turns JAX's compilation cache on for the whole process, unless the user decided on it: see
  `compilation.keep_compiled_programs`.

  Args:
    model: with the parameters to use.
    height: rows of the pictures that the model was trained on.
    category_names: what the model's categories stand for; may be empty.
    decision: thresholds of detection, and the number of rotated copies of a picture to average
      (test-time yaw augmentation), each of which costs one more pass of the encoder.
    detects: False for a model that only ranks provided masks.

  Example (after `bash launch/quickstart.sh`)::

    ranker = foir360_jax.Ranker.load("runs/tiny")
    ranked = ranker(panorama)          # uint8 [H, 2 H, 3], any size, or "panorama.jpg"
    ranked.ranks, ranked.importance, ranked.detection_confidence, ranked.masks
    ranked.save_json("ranks.json"); ranked.save_overlay("overlay.png")
    ranker.rank_masks(panorama, masks)  # bool [N, H, 2 H] of any other source
    ranker([panorama, "another.png"])   # several at once: a list of their ranked objects
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
    keep_compiled_programs()
    graphdef, self._state = nnx.split(model)

    def encode(state, image):
      merged = nnx.merge(graphdef, state)
      return merged.encode(image, yaw_augmentation=decision.yaw_augmentation)

    def detect(state, scene, *thresholds):
      return nnx.merge(graphdef, state).detect(scene, *thresholds)

    def order(state, scene, packed, where, category):
      merged = nnx.merge(graphdef, state)
      masks = cell_masks(packed, merged.pixel_stride)
      return merged.order(merged.describe(scene, masks), where, category)

    # Apart, since the encoder, by far the largest, need not know the number of masks.
    self._encode = _Program("the encoder", encode)
    self._detect = _Program("the detection", detect)
    self._order = _Program("the order of provided masks", order)
    self._last: tuple[np.ndarray, Any] | None = None  # a picture at the model's size, and encoded
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

  @overload  # a str is a sequence of strs, too
  def __call__(  # type: ignore[overload-overlap]
    self, panorama: Panorama, *, image: str = ""
  ) -> RankedObjects: ...

  @overload
  def __call__(
    self, panorama: Sequence[Panorama], *, image: Sequence[str] | str = ""
  ) -> list[RankedObjects]: ...

  def __call__(self, panorama, *, image=""):
    """Ranks the objects of a panorama, or of each of several, which may be of different sizes.

    Args:
      panorama: `[H, 2 H, 3]` uint8 RGB, any size, also a few rows off 2:1 (`is_panorama`), or the
        path of a picture, or a PIL image; or a list of these. The masks of a result have its
        picture's size.
      image: the picture's name, for the rank file; with a list a list. "": that of the file.

    Returns:
      The objects of the panorama; of a list, a list.

    Raises:
      ValueError: an array has another shape or type, a file cannot be used, or the run ranks
        provided masks only.
      TypeError: something is neither an array nor a path.
    """
    if not self.detects:
      raise ValueError(
        "this run ranks provided masks only: use rank_masks, or train one with weights on"
        " all terms of config.loss"
      )
    if not isinstance(panorama, list | tuple):
      return self._detected([open_panorama(panorama, image)])[0]
    names = one_each(image, len(panorama), "names", "")
    return [
      ranked
      for part in _parts(len(panorama))
      for ranked in self._detected([_of_list(i, open_panorama, panorama, names) for i in part])
    ]

  @overload
  def rank_masks(
    self,
    panorama: Panorama,
    masks: np.ndarray,
    *,
    categories: Sequence[str] | None = None,
    ids: Sequence[int] | None = None,
    image: str = "",
  ) -> RankedObjects: ...

  @overload
  def rank_masks(
    self,
    panorama: Sequence[Panorama],
    masks: Sequence[np.ndarray],
    *,
    categories: Sequence[Sequence[str] | None] | None = None,
    ids: Sequence[Sequence[int] | None] | None = None,
    image: Sequence[str] | str = "",
  ) -> list[RankedObjects]: ...

  def rank_masks(self, panorama, masks, *, categories=None, ids=None, image=""):
    """Ranks objects whose masks are known already, from an annotator or from any other model.

    Args:
      panorama: as of a call; with a list, the other arguments are lists with an entry each.
      masks: `[N, H, 2 H]` bool, as the panorama; they may overlap. Every one gets a rank. N may
        be 0.
      categories: N names, "" where unknown; a model with `config.model.condition_on_categories`
        conditions on those that it knows. None: predicted categories.
      ids: N numbers, see `RankedObjects`.
      image: as of a call.

    Returns:
      The objects, without `detection_confidence`; of a list, a list.

    Raises:
      ValueError: shapes or types that do not fit, or a mask without a pixel.
      TypeError: a panorama is neither an array nor a path.
    """
    if not isinstance(panorama, list | tuple):
      return self._ordered([open_masks(panorama, masks, categories, ids, image)])[0]
    count = len(panorama)
    given = (
      panorama,
      one_each(masks, count, "arrays of masks"),
      one_each(categories, count, "lists of categories"),
      one_each(ids, count, "lists of ids"),
      one_each(image, count, "names", ""),
    )
    return [
      ranked
      for part in _parts(count)
      for ranked in self._ordered([_of_list(i, open_masks, *given) for i in part])
    ]

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

  def _detected(self, pictures: list[InputPanorama]) -> list[RankedObjects]:
    """The objects that the model detects in at most `_BATCH` pictures."""
    decision = self.decision
    scene = self._encoded(pictures)
    found = self._detect(self._state, scene, decision.confidence_threshold, decision.stop_margin)
    found = jax.device_get(found)
    results = []
    for row, picture in enumerate(pictures):
      objects = np.flatnonzero(found.importance[row] > 0)
      height, width = picture.pixels.shape[:2]
      masks = resize_columns(full_size_masks(found.mask_logits[row, objects], height), width)
      masks, seen = cut_to_data(masks, picture.data)
      objects = objects[seen]
      ranked = RankedObjects.from_masks(
        picture.pixels,
        masks,
        found.importance[row, objects],
        self._names_of(found.category_logits[row, objects]),
        image=picture.image,
        detection_confidence=found.confidence[row, objects],
        pose=picture.pose,
      )
      results.append(ranked)
    return results

  def _ordered(self, given: list[ProvidedMasks]) -> list[RankedObjects]:
    """The provided masks of at most `_BATCH` pictures, ranked."""
    most = max(len(entry.masks) for entry in given)
    places = max(_FEWEST_PLACES, _next_power_of_two(most))  # few sizes, few programs
    size = _next_power_of_two(len(given))
    packed = np.zeros((size, places, self.height, self.height // 4), np.uint8)
    where = np.zeros((size, places), bool)
    category = np.full((size, places), -1, np.int32)
    numbers = {name: number for number, name in enumerate(self.category_names) if name}
    for row, (_, masks, names, _) in enumerate(given):
      if len(masks):
        # As in training and evaluation: first of the size that the model knows, then on its pixels.
        on_sphere = resize_columns(masks, 2 * masks.shape[1])
        packed[row, : len(masks)] = resample_masks(pack_masks(on_sphere), self.height)
      where[row, : len(masks)] = True
      if names is not None:
        category[row, : len(masks)] = [numbers.get(name, -1) for name in names]
    if most:
      scene = self._encoded([entry.picture for entry in given])
      order = jax.device_get(self._order(self._state, scene, packed, where, category))
    results = []
    for row, (picture, masks, names, ids) in enumerate(given):
      importance, count = [], len(masks)
      if count:
        importance = order.importance[row, :count]
        if names is None:
          names = self._names_of(order.category_logits[row, :count])
      ranked = RankedObjects.from_masks(
        picture.pixels, masks, importance, names, ids=ids, image=picture.image, pose=picture.pose
      )
      results.append(ranked)
    return results

  def _encoded(self, pictures: list[InputPanorama]) -> Any:
    """The `EncodedScene` of a batch; one picture, shown again, is not encoded again."""
    size = _next_power_of_two(len(pictures))
    batch = np.zeros((size, self.height, 2 * self.height, 3), np.uint8)
    for small, picture in zip(batch, pictures, strict=False):
      pixels = stretch(picture.pixels)
      small[:] = jnp.round(resize_panorama(pixels, self.height)).astype(jnp.uint8)
    last = self._last
    if last is not None and np.array_equal(last[0], batch):
      return last[1]
    self._last = None  # else two would take the device's memory
    scene = self._encode(self._state, batch)
    if size == 1:  # of more the maps would take memory for nothing
      self._last = batch, scene
    return scene

  def _names_of(self, category_logits: np.ndarray) -> list[str]:
    """The predicted category of each object, [N, K] -> N names."""
    names = dict(enumerate(self.category_names))
    return [names.get(int(number), "") for number in category_logits.argmax(-1)]


class _Program:
  """A jitted function of (state, *arrays) that logs before it is compiled for new shapes."""

  def __init__(self, name: str, function: Callable):
    self._name, self._run = name, jax.jit(function)
    self._shapes: set[tuple[tuple[int, ...], ...]] = set()

  def __call__(self, state: Any, *arrays: Any) -> Any:
    shapes = tuple(np.shape(array) for array in jax.tree.leaves(arrays))
    if shapes not in self._shapes:
      _logger.info(compiling(f"{self._name} for batches of {shapes[0][0]}"))
      self._shapes.add(shapes)
    return self._run(state, *arrays)


def _parts(count: int) -> Iterator[range]:
  """The places of each batch in a list of this length."""
  return (range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH))


def _of_list(place: int, read: Callable[..., Any], *given: Sequence[Any]) -> Any:
  """Reads or checks an entry of a list; what is wrong with it is said with its place."""
  try:
    return read(*(entries[place] for entries in given))
  except (TypeError, ValueError) as error:
    raise type(error)(f"panoramas[{place}]: {error}") from error


def _next_power_of_two(count: int) -> int:
  return 1 << max(count - 1, 0).bit_length()


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
