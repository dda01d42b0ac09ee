"""The loss of the small segmenter, as sums and counts over places.

Objectness by the focal loss over all places (Lin et al., ICCV 2017), masks by the Dice loss of
drawn places that belong to an object (Milletari et al., 3DV 2016), and their quality: the IoU that
such a mask has just now. Ignored places are in none of them.
"""

import itertools
from collections.abc import Iterator, Sequence

import grain
import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax.batch import Batch, Terms
from foir360_jax.data.loader import EPOCHS
from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.segment.small.network import (
  FROZEN_STAGES,
  MASK_STRIDE,
  SmallNetwork,
  mask_logits,
  place_centres,
)
from foir360_jax.segment.training.augmentation import Settings, draw_canvas
from foir360_jax.segment.training.pictures import LabelledPicture
from foir360_jax.segment.training.targets import IGNORED, make_targets
from foir360_jax.train.step import Objective

_BALANCE, _FOCUS = 0.25, 2.0  # alpha and gamma of the focal loss

MAP_STRIDES = (4, 8, 16, 32)

Example = dict[str, np.ndarray]
"""`image` [S, S, 3] uint8, `masks` [N, S / 4, S / 4] uint8, `owner` [P] int32 (see `targets`) and
`seed` uint32; in batches with B in front. Once encoded it has, instead of the image, `map_4` to
`map_32` [S / 4, S / 4, C] float16."""


def build_segmenter_objective(
  backbone: EfficientNetLite0 | None, places: int
) -> Objective[SmallNetwork]:
  """Returns the terms `objectness`, `mask` and `quality`; `iou`, that of the masks, has no loss.

  Args:
    backbone: gives the maps of the frozen stages of `image`; None: batches have all maps.
    places: of an example whose masks are computed.
  """

  def objective(model: SmallNetwork, batch: Batch) -> Terms:
    if backbone is None:
      said = model.read({stride: batch[f"map_{stride}"] for stride in MAP_STRIDES})
    else:
      said = model(jax.lax.stop_gradient(backbone.stages(batch["image"], FROZEN_STAGES)))
    owner = batch["owner"]
    size = tuple(MASK_STRIDE * length for length in batch["masks"].shape[2:])
    is_object, is_asked = owner >= 0, owner > IGNORED
    loss = _focal_loss(said.objectness, is_object)
    terms = {"objectness": (jnp.where(is_asked, loss, 0.0).sum(), is_object.sum())}
    drawn = jnp.where(is_object, _uniform(batch["seed"], owner.shape[1]), -1.0)
    value, index = jax.lax.top_k(drawn, places)
    chosen = value >= 0
    centres, strides = (jnp.asarray(array)[index] for array in place_centres(*size))
    coefficients = jnp.take_along_axis(said.coefficients, index[..., None], axis=1)
    logits = jax.vmap(mask_logits)(said.mask_features, coefficients, centres, strides)
    mine = jnp.maximum(jnp.take_along_axis(owner, index, axis=1), 0)
    masks = jax.vmap(lambda masks, mine: masks[mine])(batch["masks"], mine)
    masks = masks.astype(jnp.float32) / 255
    count = chosen.sum()
    terms["mask"] = jnp.where(chosen, dice_loss(logits, masks), 0.0).sum(), count
    iou = jax.lax.stop_gradient(_iou(logits > 0, masks > 0.5))
    quality = jnp.take_along_axis(said.quality, index, axis=1)
    terms["quality"] = jnp.where(chosen, _cross_entropy(quality, iou), 0.0).sum(), count
    terms["iou"] = jnp.where(chosen, iou, 0.0).sum(), count
    return terms

  return objective


def dice_loss(logits: jax.Array, masks: jax.Array) -> jax.Array:
  """1 - 2 |p m| / (|p|^2 + |m|^2) of masks [..., h, w]; a cell is added against empty ones."""
  p = jax.nn.sigmoid(logits)
  overlap = (p * masks).sum((-2, -1))
  return 1 - (2 * overlap + 1) / ((p * p).sum((-2, -1)) + (masks * masks).sum((-2, -1)) + 1)


def _focal_loss(logits: jax.Array, is_object: jax.Array) -> jax.Array:
  right = jax.nn.sigmoid(jnp.where(is_object, logits, -logits))
  balance = jnp.where(is_object, _BALANCE, 1 - _BALANCE)
  return balance * (1 - right) ** _FOCUS * _cross_entropy(logits, is_object)


def _cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  return jax.nn.softplus(logits) - logits * target


def _iou(a: jax.Array, b: jax.Array) -> jax.Array:
  overlap = (a & b).sum((-2, -1))
  return overlap / jnp.maximum((a | b).sum((-2, -1)), 1)


def _uniform(seed: jax.Array, number: int) -> jax.Array:
  keys = jax.vmap(jax.random.key)(seed)
  return jax.vmap(lambda key: jax.random.uniform(key, (number,)))(keys)


def canvas_batches(
  pictures: Sequence[LabelledPicture],
  settings: Settings,
  *,
  batch_size: int,
  max_objects: int,
  seed: int,
) -> Iterator[Example]:
  """Shuffled batches of ever new canvases; its `get_state` and `set_state` resume them.

  Args:
    pictures: all that are trained on.
    settings: of the canvases.
    batch_size: canvases of a batch.
    max_objects: N of an example.
    seed: fixes the order and the canvases.
  """

  def read(index: int, rng: np.random.Generator) -> Example:
    canvas = draw_canvas(pictures, index, settings, rng)
    masks, owner = make_targets(canvas, max_objects, rng)
    seed = np.asarray(rng.integers(2**32, dtype=np.uint32))
    return {"image": canvas.image, "masks": masks, "owner": owner, "seed": seed}

  stream = grain.MapDataset.range(len(pictures)).seed(seed).shuffle().repeat(EPOCHS)
  stream = stream.random_map(read)
  # One thread draws ahead while the devices compute; OpenCV needs no more.
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2 * batch_size)
  return iter(stream.to_iter_dataset(options).batch(batch_size))


def encode_examples(
  network: SmallNetwork, backbone: EfficientNetLite0, batches: Iterator[Example], number: int
) -> Example:
  """Passes canvases through the encoder, once: 1.3 MB each of 384 x 384.

  Args:
    network: with the later blocks.
    backbone: with the first ones.
    batches: of canvases.
    number: of batches that are taken.

  Returns:
    All examples in one, encoded, with their number in front.
  """

  @jax.jit
  def encode(
    backbone: EfficientNetLite0, network: SmallNetwork, image: jax.Array
  ) -> list[jax.Array]:
    maps = network.encode(backbone.stages(image, FROZEN_STAGES))
    return [maps[stride].astype(jnp.float16) for stride in MAP_STRIDES]

  columns: Example = {}
  for place, batch in enumerate(itertools.islice(batches, number)):
    maps = encode(backbone, network, batch["image"])
    rows = {f"map_{stride}": np.asarray(x) for stride, x in zip(MAP_STRIDES, maps, strict=True)}
    rows |= {name: batch[name] for name in ("masks", "owner")}
    for name, value in rows.items():
      if not place:  # gigabytes: nothing is held twice
        columns[name] = np.empty((number * len(value), *value.shape[1:]), value.dtype)
      columns[name][place * len(value) : (place + 1) * len(value)] = value
  return columns


def encoded_batches(examples: Example, batch_size: int, seed: int) -> Iterator[Example]:
  """Shuffled batches without end, with seeds; its `get_state` and `set_state` resume them.

  Args:
    examples: all, of `encode_examples`.
    batch_size: examples of a batch.
    seed: fixes the order and the seeds.
  """

  def read(place: int, rng: np.random.Generator) -> Example:
    row = {name: value[place] for name, value in examples.items()}
    return row | {"seed": np.asarray(rng.integers(2**32, dtype=np.uint32))}

  stream = grain.MapDataset.range(len(examples["owner"])).seed(seed).shuffle().repeat(EPOCHS)
  stream = stream.random_map(read)
  # No threads: an example is a look into memory.
  return iter(stream.batch(batch_size).to_iter_dataset(grain.ReadOptions(num_threads=0)))
