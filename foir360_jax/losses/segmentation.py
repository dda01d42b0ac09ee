"""Mask losses, and the focal loss of the heat map of object centres.

Axes: masks [..., N, P] (objects, pixels of the flattened panorama), heat maps [..., P]. Pixels of
an equirectangular panorama cover less of the sphere towards the poles, so masks weigh them by
cos(latitude): `pixel_weights` [P], 1 at the equator. All functions take logits and stay finite for
large ones; `where` and `reduce_fn` end in `masking.safe_reduce`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from foir360_jax.losses.masking import ReduceFn, at_least_float32, safe_reduce

PEAK = 0.999
"""Targets of a heat map above this are peaks."""


def dice_loss(
  logits: ArrayLike,
  targets: ArrayLike,
  *,
  pixel_weights: ArrayLike,
  where: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Soft dice loss of each object, weighted by cos(latitude).

      loss = 1 - (2 sum w p t + 1) / (sum w p + sum w t + 1),    p = sigmoid(logits)

  The 1 is one equatorial pixel: it keeps an empty target (and its gradient) well defined.
  Source: Milletari et al., V-Net, 3DV 2016; the smoothing as in Mask2Former.

  Args:
    logits: [..., N, P].
    targets: [..., N, P] in [0, 1].
    pixel_weights: [P], cos(latitude).
    where: Broadcastable to [..., N] bool, True for objects.
    reduce_fn: Reduction over objects, or None.

  Returns:
    A scalar, or one loss an object, [..., N], in [0, 1).

  Raises:
    ValueError: if the shapes of logits and targets differ.

  >>> mask = jnp.array([[1.0, 1.0, 0.0, 0.0]])
  >>> float(dice_loss(jnp.where(mask > 0, 99.0, -99.0), mask, pixel_weights=jnp.ones(4)))
  0.0
  """
  logits, targets = _mask_pixels(logits, targets, where)
  pixel_weights = at_least_float32(pixel_weights)
  mass = pixel_weights * jax.nn.sigmoid(logits)
  overlap = jnp.sum(mass * targets, axis=-1)
  total = jnp.sum(mass, axis=-1) + jnp.sum(pixel_weights * targets, axis=-1)
  return safe_reduce(1 - (2 * overlap + 1) / (total + 1), where, reduce_fn)


def mask_cross_entropy(
  logits: ArrayLike,
  targets: ArrayLike,
  *,
  pixel_weights: ArrayLike,
  where: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Sigmoid cross entropy of each object, divided by its own size and not by the picture's.

      loss = sum w (softplus(logits) - logits t) / (2 sum w t + 5)

  A mean over the picture would weigh an object by its area, and most objects of a panorama cover
  less than a thousandth of it: their masks would hardly be trained. Twice the area stands for the
  object and as many pixels around it, where the errors are; the 5 equatorial pixels keep objects of
  a pixel or two from outweighing all others.

  Args:
    logits: [..., N, P].
    targets: [..., N, P] in [0, 1].
    pixel_weights: [P], cos(latitude).
    where: Broadcastable to [..., N] bool, True for objects.
    reduce_fn: Reduction over objects, or None.

  Returns:
    A scalar, or one loss an object, [..., N].

  Raises:
    ValueError: if the shapes of logits and targets differ.

  >>> mask = jnp.array([[1.0, 1.0, 0.0, 0.0]])
  >>> float(mask_cross_entropy(jnp.where(mask > 0, 9e9, -9e9), mask, pixel_weights=jnp.ones(4)))
  0.0
  """
  logits, targets = _mask_pixels(logits, targets, where)
  pixel_weights = at_least_float32(pixel_weights)
  entropy = jnp.sum(pixel_weights * (jax.nn.softplus(logits) - logits * targets), axis=-1)
  area = jnp.sum(pixel_weights * targets, axis=-1)
  return safe_reduce(entropy / (2 * area + 5), where, reduce_fn)


def focal_heatmap_loss(
  logits: ArrayLike,
  targets: ArrayLike,
  *,
  where: ArrayLike | None = None,
  reduce_fn: ReduceFn | None = jnp.mean,
) -> jax.Array:
  """Focal loss of a heat map with one peak an object, milder near the peaks (CenterNet).

      loss = sum -(1 - p)^2 log p                at the peaks, p = sigmoid(logits)
                 -(1 - t)^4 p^2 log(1 - p)       elsewhere

  It is the sum over pixels: to divide it by the number of objects is left to the caller. Pixels are
  not weighted by cos(latitude): each object has one peak, wherever it lies.
  Source: Zhou et al., Objects as points, 2019, equation 1.

  Args:
    logits: [..., P].
    targets: [..., P] in [0, 1], above `PEAK` at the peaks (as the exponential of a rounded cosine
      seldom is exactly 1).
    where: Broadcastable to [...] bool, True for images.
    reduce_fn: Reduction over images, or None.

  Returns:
    A scalar, or one loss an image, [...].

  Raises:
    ValueError: if the shapes of logits and targets differ.

  >>> round(float(focal_heatmap_loss(jnp.zeros(2), jnp.array([1.0, 0.5]))), 4)
  0.1841
  """
  logits, targets = _mask_pixels(logits, targets, where)
  largest = jnp.finfo(logits.dtype).max / 4  # twice as much occurs in the gradient, times 0
  probability = jax.nn.sigmoid(logits)
  at_peak = jnp.minimum(jax.nn.softplus(-logits), largest) * (1 - probability) ** 2
  elsewhere = jnp.minimum(jax.nn.softplus(logits), largest) * probability**2 * (1 - targets) ** 4
  return safe_reduce(jnp.sum(jnp.where(targets > PEAK, at_peak, elsewhere), -1), where, reduce_fn)


def _mask_pixels(
  logits: ArrayLike, targets: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
  """Returns both as floats, 0 where the object (or image) of the pixels is padding."""
  logits, targets = at_least_float32(logits), at_least_float32(targets)
  if logits.shape != targets.shape:
    raise ValueError(f"logits {logits.shape} and targets {targets.shape} must have the same shape")
  if where is None:
    return logits, targets
  is_real = jnp.asarray(where, bool)[..., None]
  return jnp.where(is_real, logits, 0.0), jnp.where(is_real, targets, 0.0)
