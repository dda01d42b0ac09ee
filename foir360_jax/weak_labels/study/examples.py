"""Examples: pictures of known order, measured by steps 1 and 2.

Two kinds of source. Faces of `fixations/crowd`, ranked by how many of 16 viewers looked at them and
for how long (faces that nobody looked at tie below all others); their boxes are the masks, and the
picture is its own view beside crops of it. And panoramas of a prepared set: `synthetic360`,
`rank360`. Axes: B pictures, V views and the whole picture last, N objects.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.data import PreparedSource
from foir360_jax.files.panorama_file import stretch_with_masks
from foir360_jax.saliency.weights import separate_weights
from foir360_jax.scenes import unpack_masks
from foir360_jax.weak_labels.local import LocalRanks, Saliency
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import (
  DescribedScene,
  Strategy,
  local_ranks,
  plan_views,
  tangent_pool,
  whole_pool,
)
from foir360_jax.weak_labels.rank import describe_scene
from foir360_jax.weak_labels.study.pictures import DEFAULT_PLAN, CropPlan, picture_views

_FACE_COUNTS = (32, 128)  # faces are padded to one of these numbers
_LIMIT = 128
_NO_PICTURE = np.zeros(0, np.uint8)


class Labelled(NamedTuple):
  """A picture with its objects in an order that is known.

  Attributes:
    name: its id in the data set.
    image: [H, W, 3] uint8 RGB.
    masks: [n, H, W] bool.
    relevance: [n] higher = more important.
    place: [n, 2] x and y in a photograph, -1 to 1 over it; 0 in a panorama, which has no middle.
  """

  name: str
  image: np.ndarray
  masks: np.ndarray
  relevance: np.ndarray
  place: np.ndarray


class Example(NamedTuple):
  """What steps 1 and 2 measured on a picture of n objects.

  Attributes:
    name: its id in the data set.
    local: fields [V, n, ...], the whole picture last.
    scene: areas, elevation and `where` [n]; no picture.
    relevance: [n].
    pixels: [n] pixels of each object over those of the picture.
    saliency_sum: [n] saliency of the plain picture, summed over the object's pixels.
    place: [n, 2] as of `Labelled`.
  """

  name: str
  local: LocalRanks
  scene: DescribedScene
  relevance: np.ndarray
  pixels: np.ndarray
  saliency_sum: np.ndarray
  place: np.ndarray


def read_faces(source: PreparedSource) -> Iterator[Labelled]:
  """The pictures of a split of `fixations/crowd` with two to 128 faces."""
  for index in range(len(source)):
    example = source[index]
    boxes, rank = np.asarray(example["boxes"]), np.asarray(example["box_rank"])
    if 2 <= len(boxes) <= _LIMIT:
      relevance = np.where(rank > 0, rank.max(initial=0) + 1 - rank, 0).astype(np.float32)
      height, width = example["image"].shape[:2]
      masks = box_masks(boxes, (height, width))
      place = (boxes[:, :2] + boxes[:, 2:]) / (width, height) - 1
      yield Labelled(example["image_id"], example["image"], masks, relevance, place)


def read_panoramas(source: PreparedSource) -> Iterator[Labelled]:
  """The panoramas of a split with two to 128 objects."""
  for index in range(len(source)):
    example = source[index]
    image, relevance = example["image"], np.asarray(example["importance"], np.float32)
    masks = unpack_masks(example["masks"], image.shape[1])
    image, masks = stretch_with_masks(image, masks)
    if 2 <= len(masks) <= _LIMIT:
      place = np.zeros((len(masks), 2))
      yield Labelled(str(example["image_id"]), image, masks, relevance, place)


def box_masks(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Boxes [n, 4] (x0, y0, x1, y1 in pixels) as masks [n, H, W] bool of at least one pixel each."""
  masks = np.zeros((len(boxes), *size), bool)
  for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
    rows, columns = (
      _pixels(start, end, length) for start, end, length in ((y0, y1, size[0]), (x0, x1, size[1]))
    )
    mask[rows, columns] = True
  return masks


def _pixels(start: float, end: float, length: int) -> slice:
  """The pixels whose centres lie between `start` and `end`, or the one that holds the middle."""
  first, last = np.ceil(start - 0.5), np.ceil(end - 0.5)
  if min(last, length) <= max(first, 0):
    first = np.floor((start + end) / 2)
    last = first + 1
  first = int(np.clip(first, 0, length - 1))
  return slice(first, int(np.clip(last, first + 1, length)))


def measure_faces(
  pictures: Iterable[Labelled],
  *,
  saliency: Saliency,
  strategy: Strategy,
  object_score: ObjectScore,
  plan: CropPlan = DEFAULT_PLAN,
  batch_size: int = 4,
) -> Iterator[Example]:
  """Runs steps 1 and 2 on perspective pictures."""

  def pools(batch: DescribedScene, masks: jax.Array):
    crops, whole = jax.vmap(functools.partial(picture_views, plan=plan))(
      batch.panorama, masks, batch.where
    )
    join = functools.partial(jax.tree.map, lambda x: einops.rearrange(x, "b v ... -> (b v) ..."))
    return join(crops), join(whole)

  def describe(picture: Labelled) -> DescribedScene:
    count = len(picture.masks)
    padded = next(number for number in _FACE_COUNTS if number >= count)
    area, elevation = np.zeros(padded, np.float32), np.zeros(padded, np.float32)
    area[:count] = picture.masks.mean((1, 2)) * plan.solid_angle
    elevation[:count] = _elevation(picture.masks, plan)
    where = np.arange(padded) < count
    return DescribedScene(picture.image, _NO_PICTURE, area, elevation, where)

  arguments = saliency, strategy, object_score, batch_size
  yield from _measure(pictures, describe, pools, *arguments, panoramic=False)


def measure_panoramas(
  pictures: Iterable[Labelled],
  *,
  saliency: Saliency,
  strategy: Strategy,
  object_score: ObjectScore,
  batch_size: int = 4,
) -> Iterator[Example]:
  """Runs steps 1 and 2 on panoramas."""

  def pools(batch: DescribedScene, masks: jax.Array):
    plan = plan_views(batch.panorama.shape[1])
    tangent = tangent_pool(batch, plan) if strategy.tangent_views else None
    return tangent, whole_pool(batch, plan)

  def describe(picture: Labelled) -> DescribedScene:
    return describe_scene(picture.image, picture.masks)

  arguments = saliency, strategy, object_score, batch_size
  yield from _measure(pictures, describe, pools, *arguments, panoramic=True)


def _measure(
  pictures: Iterable[Labelled],
  describe: Callable[[Labelled], DescribedScene],
  pools: Callable,
  saliency: Saliency,
  strategy: Strategy,
  object_score: ObjectScore,
  batch_size: int,
  *,
  panoramic: bool,
) -> Iterator[Example]:
  """Batches of pictures of one size and padded number of objects, as they fill up."""
  weights, rebuild = separate_weights(saliency)

  @jax.jit
  def measure(weights, batch: DescribedScene, masks: jax.Array):
    saliency = rebuild(weights)
    local = local_ranks(
      *pools(batch, masks),
      saliency=saliency,
      strategy=strategy,
      object_score=object_score,
      panoramic=panoramic,
    )
    density = jax.lax.map(lambda image: saliency(image[None])[0], batch.panorama)
    density = density / density.sum((1, 2), keepdims=True)
    summed = jnp.einsum("bnhw,bhw->bn", masks.astype(jnp.float32), density)
    return local, summed

  def run(waiting: Sequence[tuple[Labelled, DescribedScene]]) -> Iterator[Example]:
    # A short batch is filled up by its last picture, so that nothing compiles anew.
    filled = [*waiting, *[waiting[-1]] * (batch_size - len(waiting))]
    batch = jax.tree.map(lambda *x: np.stack(x), *(scene for _, scene in filled))
    masks = np.zeros((batch_size, batch.where.shape[1], *batch.panorama.shape[1:3]), bool)
    for row, (picture, _) in zip(masks, filled, strict=True):
      row[: len(picture.masks)] = picture.masks
    local, summed = jax.device_get(measure(weights, batch, masks))
    for index, (picture, scene) in enumerate(waiting):
      count = len(picture.masks)
      area, elevation, where = (x[:count] for x in scene[2:])
      yield Example(
        name=picture.name,
        local=jax.tree.map(lambda x: x[index][:, :count] if x.ndim else x, local),  # noqa: B023
        scene=DescribedScene(_NO_PICTURE, _NO_PICTURE, area, elevation, where),
        relevance=picture.relevance,
        pixels=picture.masks.mean((1, 2)),
        saliency_sum=summed[index, :count],
        place=picture.place,
      )

  waiting: dict[tuple, list] = {}
  for picture in pictures:
    scene = describe(picture)
    group = waiting.setdefault((picture.image.shape, len(scene.where)), [])
    group.append((picture, scene))
    if len(group) == batch_size:
      yield from run(group)
      group.clear()
  for group in waiting.values():
    if group:
      yield from run(group)


def _elevation(masks: np.ndarray, plan: CropPlan) -> np.ndarray:
  """Sine of the latitude [n] of masks [n, H, W], the horizon in the middle of the picture."""
  rows = masks.sum(-1)
  height = rows.shape[-1]
  middle = rows @ (np.arange(height) + 0.5) / rows.sum(-1)
  return np.sin(np.radians((0.5 - middle / height) * plan.height_deg))
