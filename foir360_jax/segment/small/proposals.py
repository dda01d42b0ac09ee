"""From what places say to masks, best first and without duplicates; all of it compiled.

Axes: P places, K proposals, h x w cells of stride 4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foir360_jax.segment.small.network import STRIDES, Places, mask_logits, place_centres


class Proposals(NamedTuple):
  """Of one picture, by falling score.

  Attributes:
    scores: [K] float32 in [0, 1]; 0 for what is empty or repeats a better one.
    logits: [K, h, w] log odds of masks.
  """

  scores: jax.Array
  logits: jax.Array


def propose(places: Places, size: tuple[int, int], number: int, overlap: float) -> Proposals:
  """The best masks of one picture.

  The score is the root of objectness times expected IoU, times the mean probability of the mask's
  pixels: a mask that is sure of itself is more often a good one.

  Args:
    places: with B = 1.
    size: (h, w) of the picture in pixels.
    number: K.
    overlap: IoU from which on a mask repeats a better one.
  """
  centres, strides = (jnp.asarray(array) for array in place_centres(*size))
  rank = jax.nn.sigmoid(places.objectness[0]) * jax.nn.sigmoid(places.quality[0])
  rank = jnp.sqrt(rank)
  peaks = jnp.where(is_peak(rank, size), rank, 0.0)
  scores, index = jax.lax.top_k(peaks, number)
  logits = mask_logits(
    places.mask_features[0], places.coefficients[0][index], centres[index], strides[index]
  )
  p = jax.nn.sigmoid(logits)
  inside = (logits > 0).astype(jnp.float32)
  area = inside.sum((1, 2))
  scores = scores * (p * inside).sum((1, 2)) / jnp.maximum(area, 1.0)
  order = jnp.argsort(-scores)
  scores, logits, inside = scores[order], logits[order], inside[order]
  kept = is_first(inside.reshape(number, -1), overlap) & (scores > 0)
  scores = jnp.where(kept, scores, 0.0)
  order = jnp.argsort(-scores)
  return Proposals(scores[order], logits[order])


def is_peak(scores: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Whether no neighbour of a place on its level has a higher score, [P] bool.

  Args:
    scores: [P].
    size: (h, w) of the picture in pixels.
  """
  peaks, start = [], 0
  for stride in STRIDES:
    rows, columns = size[0] // stride, size[1] // stride
    level = scores[start : start + rows * columns].reshape(rows, columns)
    highest = jax.lax.reduce_window(level, -jnp.inf, jax.lax.max, (3, 3), (1, 1), "SAME")
    peaks.append((level >= highest).ravel())
    start += rows * columns
  return jnp.concatenate(peaks)


def is_first(masks: jax.Array, overlap: float) -> jax.Array:
  """Which masks repeat none before them that is itself kept, [K] bool.

  Args:
    masks: [K, pixels] of 0 and 1, best first; empty ones are not kept.
    overlap: IoU from which on one repeats another.
  """
  area = masks.sum(1)
  both = masks @ masks.T
  iou = both / jnp.maximum(area[:, None] + area - both, 1.0)

  def decide(index: int, kept: jax.Array) -> jax.Array:
    # Those behind it are not kept yet, so that they do not count.
    repeats = (kept & (iou[index] >= overlap)).any()
    return kept.at[index].set(~repeats & (area[index] > 0))

  return jax.lax.fori_loop(0, len(masks), decide, jnp.zeros(len(masks), bool))
