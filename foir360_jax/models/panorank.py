"""PanoRank: from a panorama to every object with a mask, a category and a rank.

  image -> encoder -> pixel decoder -> fine map -> objectness -> places (peaks on the sphere)
                                          |                        |
                                          +---- query decoder <----+ -> masks, confidence
                                          |                                |
                                          +---- rank decoder  <------------+ -> scores, REM: order

Axes: images [B, H, W, 3], the fine map [B, h, w, C] with h = H / mask_stride, cells P = h w, each
of k x k pixels of masks with k = mask_detail, queries Q, objects N. Encoder and pixel decoder may
compute in bfloat16; the rest is float32.
"""

from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.cells import flat_weights, map_height
from foir360_jax.models.descriptors import Appearance
from foir360_jax.models.encoders import build_encoder
from foir360_jax.models.layers import roll_map
from foir360_jax.models.mask_head import mask_logits
from foir360_jax.models.pixel_decoder import PixelDecoder
from foir360_jax.models.places import Objectness, find_peaks
from foir360_jax.models.precision import computing_in
from foir360_jax.models.query_decoder import Queries, QueryDecoder
from foir360_jax.models.rank_decoder import RankDecoder
from foir360_jax.models.recurrent_ranking import stop_margins

_DUPLICATE_IOU = 0.5


class EncodedScene(NamedTuple):
  """What the decoders know of the panoramas.

  Attributes:
    fine: `[B, h, w, C]`.
    memories: `[B, h', w', C]` each, from coarse to fine; what queries look at.
    pixels: `[B, k h, k w, D]`, from which masks are made; see `mask_head`.
    heat: `[B, h, w]` logits of objects' places.
    appearance: what the rank decoder pools over.
  """

  fine: jax.Array
  memories: tuple[jax.Array, ...]
  pixels: jax.Array
  heat: jax.Array
  appearance: Appearance


class Segmentation(NamedTuple):
  """Candidate objects.

  Attributes:
    mask_logits: `[B, Q, k^2 P]`.
    covered: `[B, Q, k^2 P]` in [0, 1], how surely a mask covers each pixel, for `describe`.
    confidence: `[B, Q]` in [0, 1]; 0 for duplicates.
  """

  mask_logits: jax.Array
  covered: jax.Array
  confidence: jax.Array


class Order(NamedTuple):
  """The order of given objects.

  Attributes:
    importance: `[B, N]` in [0, 1], sigmoid of the scores, sorted and assigned in REM order, so that
      it falls with the rank. 0 in the padding.
    stop_margin: `[B, N]`, by how much the REM preferred an object, and each before it, to stopping;
      see `recurrent_ranking.stop_margins`.
    head_scores: `[B, N]`, the rank head's scores without the REM.
    category_logits: `[B, N, K]`.
  """

  importance: jax.Array
  stop_margin: jax.Array
  head_scores: jax.Array
  category_logits: jax.Array


class RankedCandidates(NamedTuple):
  """What the model says of a panorama; `Q` candidates, in no order.

  Attributes:
    mask_logits: `[B, Q, k^2 P]`.
    confidence: `[B, Q]` in [0, 1], of the detection; the same scale for all panoramas.
    importance: `[B, Q]` in [0, 1]; 0 for candidates that are no object.
    category_logits: `[B, Q, K]`.
  """

  mask_logits: jax.Array
  confidence: jax.Array
  importance: jax.Array
  category_logits: jax.Array


class PanoRank(nnx.Module):
  """The whole model; the arguments are the fields of `config.model`.

  `model(image)` detects and ranks; training and evaluation use the parts `encode`, `decode`,
  `segment`, `describe` and `order`.
  """

  def __init__(
    self,
    *,
    encoder: str,
    widths: tuple[int, int, int, int],
    blocks: tuple[int, int, int, int],
    sphere_from_stride: int,
    last_stride: int,
    drop_path: float,
    feature_channels: int,
    pixel_layers: int,
    mask_channels: int,
    num_queries: int,
    decoder_layers: int,
    num_categories: int,
    mask_stride: int,
    mask_detail: int,
    context: bool,
    condition_on_categories: bool,
    compute_dtype: str,
    remat: bool,
    rngs: nnx.Rngs,
  ):
    self.encoder = build_encoder(
      encoder,
      widths=widths,
      blocks=blocks,
      sphere_from_stride=sphere_from_stride,
      drop_path=drop_path,
      remat=remat,
      rngs=rngs,
    )
    used = {s: c for s, c in self.encoder.channels.items() if mask_stride <= s <= last_stride}
    self.pixel_decoder = PixelDecoder(used, feature_channels, pixel_layers, rngs=rngs)
    self.objectness = Objectness(feature_channels, rngs=rngs)
    self.query_decoder = QueryDecoder(
      feature_channels,
      mask_channels,
      mask_detail,
      decoder_layers,
      num_categories,
      remat=remat,
      rngs=rngs,
    )
    self.rank_decoder = RankDecoder(
      feature_channels, 64, num_categories, context=context, rngs=rngs
    )
    self.num_queries = num_queries
    self.mask_stride = mask_stride
    self.mask_detail = mask_detail
    self.pixel_stride = mask_stride // mask_detail
    self.condition_on_categories = condition_on_categories
    self.compute_dtype = jnp.dtype(compute_dtype)

  def __call__(
    self,
    image: jax.Array,
    confidence_threshold: float = 0.3,
    stop_margin: float = -jnp.inf,
    *,
    yaw_augmentation: int = 1,
  ) -> RankedCandidates:
    """Finds and ranks the objects of `image [B, H, W, 3]` uint8; see `detect` and `encode`."""
    scene = self.encode(image, yaw_augmentation=yaw_augmentation)
    return self.detect(scene, confidence_threshold, stop_margin)

  def detect(
    self,
    scene: EncodedScene,
    confidence_threshold: jax.Array | float,
    stop_margin: jax.Array | float,
  ) -> RankedCandidates:
    """Finds and ranks the objects of encoded panoramas.

    Args:
      scene: of `encode`.
      confidence_threshold: what is at most as confident is no object.
      stop_margin: the REM stops at the first pick that it does not prefer to stopping by more.
    """
    segmentation = self.segment(scene)
    tokens = self.describe(scene, segmentation.covered)
    confidence = segmentation.confidence
    order = self.order(tokens, confidence > confidence_threshold, confidence=confidence)
    importance = jnp.where(order.stop_margin > stop_margin, order.importance, 0.0)
    return RankedCandidates(segmentation.mask_logits, confidence, importance, order.category_logits)

  def rank(
    self,
    image: jax.Array,
    masks: jax.Array,
    where: jax.Array,
    category: jax.Array | None = None,
    *,
    yaw_augmentation: int = 1,
  ) -> Order:
    """Ranks objects that something else found; their masks may be of any source and overlap.

    Args:
      image: `[B, H, W, 3]` uint8.
      masks: `[B, N, k^2 P]` in [0, 1], the covered share of each pixel, of stride `pixel_stride`.
      where: `[B, N]`.
      category: see `order`.
      yaw_augmentation: see `encode`.
    """
    scene = self.encode(image, yaw_augmentation=yaw_augmentation)
    return self.order(self.describe(scene, masks), where, category)

  def encode(
    self, image: jax.Array, seed: jax.Array | None = None, *, yaw_augmentation: int = 1
  ) -> EncodedScene:
    """Panoramas to what the decoders know of them.

    Args:
      image: `[B, H, W, 3]` uint8.
      seed: `[B]` uint32 of the encoder's randomness in training; None: without any.
      yaw_augmentation: number of copies to average, each rotated a little further and back (at test
        time; a stride samples each of them at other pixels).
    """
    image = image.astype(jnp.float32)
    fine, memories = self._features(image, seed)
    for turn in range(1, yaw_augmentation):
      columns = turn * self.pixel_decoder.strides[-1] // yaw_augmentation
      turned = self._features(jnp.roll(image, columns, axis=2), seed)
      back = jax.tree.map(
        lambda x, c=columns: roll_map(x, -c * x.shape[2] / image.shape[2]), turned
      )
      fine, memories = jax.tree.map(jnp.add, (fine, memories), back)
    fine, memories = jax.tree.map(lambda x: x / yaw_augmentation, (fine, memories))
    image = image / 255
    pixels = self.query_decoder.mask_head.pixels(fine, image)
    return EncodedScene(fine, memories, pixels, self.objectness(fine), Appearance(fine, image))

  def _features(self, image, seed) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The fine map and the memories in float32."""
    encoder = computing_in(self.encoder, self.compute_dtype)
    decoder = computing_in(self.pixel_decoder, self.compute_dtype)
    with jax.named_scope("encoder"):
      levels = encoder(image, strides=decoder.strides, seed=seed)
    with jax.named_scope("pixel_decoder"):
      return jax.tree.map(lambda x: x.astype(jnp.float32), decoder(levels))

  def decode(self, scene: EncodedScene, places, where, group) -> Queries:
    """Queries at `places [B, Q]`; see `QueryDecoder`."""
    with jax.named_scope("query_decoder"):
      fine, memories, pixels, heat, _ = scene
      return self.query_decoder(fine, memories, pixels, heat, places, where, group)

  def candidates(
    self, scene: EncodedScene, kernels: jax.Array, object_logits: jax.Array
  ) -> Segmentation:
    """The masks of `kernels [B, Q, D]`, and the inputs of the rank decoder."""
    pixels = einops.rearrange(scene.pixels, "b h w d -> b (h w) d")
    logits = mask_logits(kernels, pixels)
    return Segmentation(logits, jax.nn.sigmoid(logits), confident(logits, object_logits))

  def segment(self, scene: EncodedScene) -> Segmentation:
    """Finds candidate objects at the peaks of the heat map."""
    places, _ = find_peaks(scene.heat, self.num_queries)
    where = jnp.ones(places.shape, bool)
    queries = self.decode(scene, places, where, jnp.zeros(self.num_queries, jnp.int32))
    return self.candidates(scene, queries.kernels[-1], queries.object_logits[-1])

  def describe(self, scene: EncodedScene, masks: jax.Array) -> jax.Array:
    """One token `[B, N, C]` for each object given by `masks [B, N, k^2 P]` in [0, 1]."""
    with jax.named_scope("rank_decoder"):
      return self.rank_decoder.describe(scene.appearance, masks)

  def order(
    self,
    tokens: jax.Array,
    where: jax.Array,
    category: jax.Array | None = None,
    confidence: jax.Array | None = None,
  ) -> Order:
    """Ranks objects, the REM picking one after the other.

    Args:
      tokens: `[B, N, C]` of `describe`.
      where: `[B, N]`.
      category: `[B, N]`, -1 where unknown: for a model with `condition_on_categories`; others use
        predicted categories.
      confidence: `[B, N]` of a `Segmentation`; None: all are objects for certain.
    """
    known = category if self.condition_on_categories else None
    with jax.named_scope("rank_decoder"):
      ranking = self.rank_decoder.compare(tokens, where, known)
      picks = self.rank_decoder.recurrent(ranking.candidates(confidence), where)
    scores = jnp.where(where, ranking.scores, -jnp.inf)
    falling = -jnp.sort(-scores, axis=-1)
    rows = jnp.arange(scores.shape[0])[:, None]
    scores = jnp.zeros_like(scores).at[rows, picks.order].set(falling)
    return Order(
      jax.nn.sigmoid(scores), stop_margins(picks), ranking.scores, ranking.category_logits
    )


def confident(mask_logits: jax.Array, object_logits: jax.Array) -> jax.Array:
  """Confidence `[B, Q]` in [0, 1] of `[B, Q, P]` and `[B, Q]` logits; 0 for what is suppressed."""
  confidence = jax.nn.sigmoid(object_logits)
  return jnp.where(_survives(mask_logits > 0, confidence), confidence, 0.0)


def _survives(masks: jax.Array, confidence: jax.Array) -> jax.Array:
  """Greedy non-maximum suppression of `masks [B, Q, P]` bool -> `[B, Q]`; empty masks go, too.

  From the most confident query on (of equals the first), a query is a duplicate if its mask is
  mostly that of one that stays. What is suppressed suppresses nothing.
  """
  weighted = masks * flat_weights(map_height(masks.shape[-1]))
  both = jnp.einsum("bqp,bkp->bqk", weighted, masks.astype(weighted.dtype))
  area = weighted.sum(-1)
  overlap = both / jnp.maximum(area[:, None] + area[..., None] - both, 1e-6)
  order = jnp.argsort(-confidence, axis=-1)
  rank = jnp.argsort(order, axis=-1)
  rivals = (overlap > _DUPLICATE_IOU) & (rank[:, None] < rank[..., None])  # [B, Q, its betters]
  rows = jnp.arange(len(masks))

  def visit(place: jax.Array, stays: jax.Array) -> jax.Array:
    query = order[:, place]
    duplicate = (rivals[rows, query] & stays).any(-1)
    return stays.at[rows, query].set(stays[rows, query] & ~duplicate)

  return jax.lax.fori_loop(0, masks.shape[1], visit, masks.any(-1))
