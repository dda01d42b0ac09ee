"""PanoRank: a panorama in, every object with a mask, a category and its place in the order out.

  image -> encoder -> pixel decoder -> fine map -> objectness -> places (peaks on the sphere)
                                          |                        |
                                          +---- query decoder <----+ -> masks, confidence
                                          |                                |
                                          +---- rank decoder  <------------+ -> scores, REM: order

Axes: images [B, H, W, 3], the fine map [B, h, w, C] with h = H / mask_stride, cells P = h w,
queries Q, objects N.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.models.cells import flat_weights, map_height
from foir360_jax.models.descriptors import Appearance
from foir360_jax.models.encoders import build_encoder
from foir360_jax.models.pixel_decoder import PixelDecoder
from foir360_jax.models.places import Objectness, find_peaks
from foir360_jax.models.query_decoder import Queries, QueryDecoder
from foir360_jax.models.rank_decoder import RankDecoder

_DUPLICATE_IOU = 0.5


class Scene(NamedTuple):
  """What the decoders know of the panoramas.

  Attributes:
    fine: `[B, h, w, C]`.
    memory: `[B, h', w', C]`, coarser.
    pixels: `[B, P, M]`, from which masks are made.
    heat: `[B, h, w]` logits of objects' places.
    appearance: what the rank decoder pools over.
  """

  fine: jax.Array
  memory: jax.Array
  pixels: jax.Array
  heat: jax.Array
  appearance: Appearance


class Segmentation(NamedTuple):
  """Candidate objects: `mask_logits [B, Q, P]`, `confidence [B, Q]` in [0, 1]; 0 for duplicates."""

  mask_logits: jax.Array
  confidence: jax.Array


class Order(NamedTuple):
  """The order of given objects.

  Attributes:
    importance: `[B, N]` in [0, 1], sigmoid of the scores, dealt out along the REM's picks, so that
      it falls with the rank. 0 in the padding.
    head_scores: `[B, N]`, the rank head's scores without the REM.
    category_logits: `[B, N, K]`.
  """

  importance: jax.Array
  head_scores: jax.Array
  category_logits: jax.Array


class RankedCandidates(NamedTuple):
  """What the model says of a panorama; `Q` candidates, in no order.

  Attributes:
    mask_logits: `[B, Q, P]` on the fine map.
    importance: `[B, Q]` in [0, 1]; 0 for candidates that are no object.
    category_logits: `[B, Q, K]`.
  """

  mask_logits: jax.Array
  importance: jax.Array
  category_logits: jax.Array


class PanoRank(nnx.Module):
  """The whole model; the arguments are the fields of `config.model`.

  `model(image)` ranks; training and evaluation use the parts `encode`, `decode`, `segment`,
  `describe` and `order`.
  """

  def __init__(
    self,
    *,
    encoder: str,
    widths: tuple[int, int, int, int],
    blocks: tuple[int, int, int, int],
    sphere_from_stride: int,
    last_stride: int,
    feature_channels: int,
    mask_channels: int,
    num_queries: int,
    decoder_layers: int,
    num_categories: int,
    mask_stride: int,
    surround: bool,
    rngs: nnx.Rngs,
  ):
    self.encoder = build_encoder(
      encoder, widths=widths, blocks=blocks, sphere_from_stride=sphere_from_stride, rngs=rngs
    )
    used = {s: c for s, c in self.encoder.channels.items() if mask_stride <= s <= last_stride}
    self.pixel_decoder = PixelDecoder(used, feature_channels, rngs=rngs)
    self.objectness = Objectness(feature_channels, rngs=rngs)
    self.query_decoder = QueryDecoder(
      feature_channels, mask_channels, decoder_layers, num_categories, rngs=rngs
    )
    self.rank_decoder = RankDecoder(
      feature_channels, 64, num_categories, surround=surround, rngs=rngs
    )
    self.num_queries = num_queries
    self.mask_stride = mask_stride

  def __call__(self, image: jax.Array, confidence_threshold: float = 0.3) -> RankedCandidates:
    """Finds and ranks the objects of `image [B, H, W, 3]` uint8."""
    scene = self.encode(image)
    segmentation = self.segment(scene)
    tokens = self.describe(scene, jax.nn.sigmoid(segmentation.mask_logits))
    order = self.order(tokens, segmentation.confidence > confidence_threshold)
    return RankedCandidates(segmentation.mask_logits, order.importance, order.category_logits)

  def encode(self, image: jax.Array) -> Scene:
    """`image [B, H, W, 3]` uint8 -> Scene."""
    image = image.astype(jnp.float32)
    with jax.named_scope("encoder"):
      levels = self.encoder(image, strides=self.pixel_decoder.strides)
    with jax.named_scope("pixel_decoder"):
      fine, memory = self.pixel_decoder(levels)
      pixels = self.query_decoder.mask_head.pixel_features(fine)
      heat = self.objectness(fine)
    return Scene(fine, memory, pixels, heat, Appearance(fine, image / 255))

  def decode(self, scene: Scene, places, where, group) -> Queries:
    """Queries at `places [B, Q]`; see `QueryDecoder`."""
    with jax.named_scope("query_decoder"):
      fine, memory, pixels, heat, _ = scene
      return self.query_decoder(fine, memory, pixels, heat, places, where, group)

  def segment(self, scene: Scene) -> Segmentation:
    """Finds candidate objects at the peaks of the heat map."""
    places, _ = find_peaks(scene.heat, self.num_queries)
    where = jnp.ones(places.shape, bool)
    queries = self.decode(scene, places, where, jnp.zeros(self.num_queries, jnp.int32))
    confidence = jax.nn.sigmoid(queries.object_logits)
    duplicate = _is_duplicate(queries.mask_logits > 0, confidence)
    return Segmentation(queries.mask_logits, jnp.where(duplicate, 0.0, confidence))

  def describe(self, scene: Scene, masks: jax.Array) -> jax.Array:
    """One token `[B, N, C]` for each object given by `masks [B, N, P]` in [0, 1]."""
    with jax.named_scope("rank_decoder"):
      return self.rank_decoder.describe(scene.appearance, masks)

  def order(self, tokens: jax.Array, where: jax.Array) -> Order:
    """Ranks objects given by the tokens of `describe`, the REM picking one after the other."""
    with jax.named_scope("rank_decoder"):
      ranking = self.rank_decoder.compare(tokens, where)
      order, _ = self.rank_decoder.recurrent(ranking, where)
    scores = jnp.where(where, ranking.scores, -jnp.inf)
    falling = -jnp.sort(-scores, axis=-1)
    rows = jnp.arange(scores.shape[0])[:, None]
    scores = jnp.zeros_like(scores).at[rows, order].set(falling)
    return Order(jax.nn.sigmoid(scores), ranking.scores, ranking.category_logits)


def _is_duplicate(masks: jax.Array, confidence: jax.Array) -> jax.Array:
  """`masks [B, Q, P]` bool -> `[B, Q]`: empty, or mostly the mask of a more confident query."""
  weighted = masks * flat_weights(map_height(masks.shape[-1]))
  both = jnp.einsum("bqp,bkp->bqk", weighted, masks.astype(weighted.dtype))
  area = weighted.sum(-1)
  overlap = both / jnp.maximum(area[:, None] + area[..., None] - both, 1e-6)
  rank = jnp.argsort(jnp.argsort(-confidence, axis=-1), axis=-1)  # ties: the first one wins
  better = rank[:, None] < rank[..., None]
  return ((overlap > _DUPLICATE_IOU) & better).any(-1) | (area < 0.5)
