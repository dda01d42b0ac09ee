"""Metrics of saliency maps against fixations, and the density of fixations.

Maps are [H, W], higher = looked at more; fixations [F] are continuous pixel positions, x to the
right and y down from the top left corner of the picture, so pixel (row, column) has its centre at
(column + 0.5, row + 0.5) and holds the fixations with floor(y) = row and floor(x) = column.
Fixations outside the picture (eye trackers give some) are left out of everything here.

All pixels weigh the same: for a panorama, score views, in which that is nearly true.

Sources: Bylinskii et al., What do different evaluation metrics tell us about saliency models?,
PAMI 2019, and the program of its benchmark (MIT); Judd et al., Learning to predict where humans
look, ICCV 2009.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from foir360_jax.metrics.accumulate import Score
from foir360_jax.metrics.correlation import pearson

_UNDEFINED = Score(float("nan"), "undefined")
_ZERO = Score(0.0, "counted_zero")
_EPSILON = float(np.finfo(float).eps)  # the benchmark's; KL depends on it


def fixation_density(
  x: ArrayLike, y: ArrayLike, size: tuple[int, int], sigma_px: float
) -> np.ndarray:
  """The density of fixations: their number in each pixel, blurred and divided by its sum.

  Blur that falls off the picture is lost (`mode="constant"` as in the field), so a fixation near
  the edge counts less.

  Args:
    x: [F] positions to the right, in pixels.
    y: [F] positions down, in pixels.
    size: (H, W) of the picture.
    sigma_px: standard deviation of the Gaussian, in pixels; the field takes one degree of visual
      angle. 0 leaves the counts.

  Returns:
    [H, W] float32, sums to 1.

  Raises:
    ValueError: if the positions differ in number or are not finite, the size or sigma_px is out of
      range, or no fixation is inside: there is no density then. Leave the picture out.

  >>> fixation_density([0.2, 2.5, 2.5, 9.0], [0.9, 1.0, 1.7, 1.0], (2, 3), 0.0).round(2).tolist()
  [[0.33000001311302185, 0.0, 0.0], [0.0, 0.0, 0.6700000166893005]]
  """
  height, width = size
  if height < 1 or width < 1:
    raise ValueError(f"size must be (height, width) of at least 1 pixel, not {size}")
  if not 0 <= sigma_px < np.inf:
    raise ValueError(f"sigma_px must be 0 or more pixels, not {sigma_px}")
  rows, columns = _pixels(x, y, size)
  if not rows.size:
    raise ValueError(f"no fixation is inside the picture of {height} x {width}: leave it out")
  counts = np.bincount(rows * width + columns, minlength=height * width).reshape(size)
  density = ndimage.gaussian_filter(counts.astype(float), sigma_px, mode="constant")
  return (density / density.sum()).astype(np.float32)


def nss(saliency: ArrayLike, x: ArrayLike, y: ArrayLike) -> Score:
  """Normalised scanpath saliency: the mean at the fixations of (map - its mean) / its deviation.

  Each fixation counts, also where several are in one pixel (the benchmark's program counts pixels).
  The deviation is that of all pixels, divided by their number.

  Args:
    saliency: [H, W].
    x: [F] positions to the right, in pixels.
    y: [F] positions down, in pixels.

  Returns:
    The value, 0 = chance; 0, "counted_zero", for a constant map; "undefined" without a fixation
    inside.

  Raises:
    ValueError: if a shape is wrong or a value not finite.

  >>> nss([[0.0, 0.0], [0.0, 4.0]], [1.5, 0.5], [1.5, 0.5]).value.__round__(4)
  0.5774
  """
  saliency = _map(saliency, "saliency")
  rows, columns = _pixels(x, y, saliency.shape)
  if not rows.size:
    return _UNDEFINED
  if _is_constant(saliency):
    return _ZERO
  return Score(float((saliency[rows, columns].mean() - saliency.mean()) / saliency.std()), "used")


def auc_judd(saliency: ArrayLike, x: ArrayLike, y: ArrayLike) -> Score:
  """Area under the ROC curve of Judd et al.: fixated pixels against all others.

  Several fixations in one pixel are one. The curve has a point for each value that a fixated pixel
  has, at the shares of fixated and of other pixels with this value or more, and (0, 0) and (1, 1);
  straight lines join them. So pixels between the values of two fixated pixels, though below the
  upper and above the lower one, count half for the lower one: with N fixated pixels a map without
  information has 0.5 + 1 / (2 N + 2) on average.

  Ties: there is no jitter. Pixels of the same value pass a threshold together, so a fixated and
  another pixel that tie count one half, and a constant map has 0.5. The benchmark's program adds
  small noise first, which breaks ties by chance; without ties both are the same.

  Args:
    saliency: [H, W]; only the order of its values matters.
    x: [F] positions to the right, in pixels.
    y: [F] positions down, in pixels.

  Returns:
    The area in [0, 1]; "undefined" if no pixel is fixated or all are.

  Raises:
    ValueError: if a shape is wrong or a value not finite.

  >>> auc_judd([[0.1, 0.2], [0.3, 0.4]], [0.5, 1.5], [1.5, 1.5])
  Score(value=1.0, status='used')
  """
  saliency = _map(saliency, "saliency")
  rows, columns = _pixels(x, y, saliency.shape)
  is_fixated = np.zeros(saliency.shape, bool)
  is_fixated[rows, columns] = True
  fixated, others = np.sort(saliency[is_fixated]), np.sort(saliency[~is_fixated])
  if not fixated.size or not others.size:
    return _UNDEFINED
  thresholds = np.unique(fixated)[::-1]
  true_positives = 1 - np.searchsorted(fixated, thresholds) / fixated.size
  false_positives = 1 - np.searchsorted(others, thresholds) / others.size
  area = np.trapezoid([0, *true_positives, 1], [0, *false_positives, 1])
  return Score(float(area), "used")


def cc(saliency: ArrayLike, density: ArrayLike) -> Score:
  """Pearson's correlation of two maps over their pixels.

  Args:
    saliency: [H, W].
    density: [H, W], as from `fixation_density`.

  Returns:
    The value in [-1, 1]; 0, "counted_zero", for a constant map; "undefined" for a constant density.

  Raises:
    ValueError: if a shape is wrong or a value not finite.

  >>> cc([[3.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]).value.__round__(9)
  1.0
  """
  saliency, density = _two_maps(saliency, density)
  if _is_constant(density):
    return _UNDEFINED
  if _is_constant(saliency):
    return _ZERO
  return Score(pearson(saliency.ravel(), density.ravel()), "used")


def kl_divergence(saliency: ArrayLike, density: ArrayLike) -> Score:
  """Kullback-Leibler divergence of the map from the density, in nats; 0 is best.

  sum of D log(eps + D / (S + eps)), both maps divided by their sums, eps = 2.2e-16 as in the
  benchmark's program: a fixated pixel where the map has 0 costs up to 36 D, so maps with zeros do
  badly. A map of zeros is left as it is.

  Args:
    saliency: [H, W], not negative.
    density: [H, W], as from `fixation_density`.

  Returns:
    The value; "undefined" for a density of zeros.

  Raises:
    ValueError: if a shape is wrong, or a value negative or not finite.

  >>> kl_divergence([[1.0, 1.0]], [[1.0, 0.0]]).value.__round__(4)
  0.6931
  """
  saliency, density = _two_maps(saliency, density)
  for name, values in (("saliency", saliency), ("density", density)):
    if values.min() < 0:
      raise ValueError(f"{name} must not be negative, but has {values.min()}; pass a density")
  if not density.any():
    return _UNDEFINED
  predicted, true = saliency / (saliency.sum() or 1), density / density.sum()
  terms = true * np.log(_EPSILON + true / (predicted + _EPSILON))
  return Score(float(terms.sum()), "used")


def similarity(saliency: ArrayLike, density: ArrayLike) -> Score:
  """SIM, histogram intersection: the sum over the pixels of the lower of the two maps.

  As in the benchmark's program each map first loses its minimum, so that a model gains nothing by
  a background, and is then divided by its sum. (The paper's formula does not take the minimum away;
  it is the same where both maps have a 0.)

  Args:
    saliency: [H, W].
    density: [H, W], as from `fixation_density`.

  Returns:
    The value in [0, 1]; 0, "counted_zero", for a constant map, of which nothing is left;
    "undefined" for a constant density.

  Raises:
    ValueError: if a shape is wrong or a value not finite.

  >>> similarity([[1.0, 3.0, 2.0]], [[0.0, 0.5, 0.5]]).value.__round__(4)
  0.8333
  """
  saliency, density = _two_maps(saliency, density)
  if _is_constant(density):
    return _UNDEFINED
  if _is_constant(saliency):
    return _ZERO
  predicted, true = saliency - saliency.min(), density - density.min()
  return Score(float(np.minimum(predicted / predicted.sum(), true / true.sum()).sum()), "used")


def _map(values: ArrayLike, name: str) -> np.ndarray:
  values = np.asarray(values, float)
  if values.ndim != 2 or not values.size:
    raise ValueError(f"{name} {values.shape} must be one map [H, W] with at least one pixel")
  if not np.isfinite(values).all():
    raise ValueError(f"NaN or infinity in {name}: pass finite values only")
  return values


def _two_maps(saliency: ArrayLike, density: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
  saliency, density = _map(saliency, "saliency"), _map(density, "density")
  if saliency.shape != density.shape:
    raise ValueError(
      f"saliency {saliency.shape} and density {density.shape} must have one size: resample one"
    )
  return saliency, density


def _pixels(x: ArrayLike, y: ArrayLike, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
  """Rows and columns [f] of the fixations inside the picture, duplicates included."""
  x, y = np.asarray(x, float), np.asarray(y, float)
  if x.ndim != 1 or x.shape != y.shape:
    raise ValueError(f"x {x.shape} and y {y.shape} must both be [F], one for each fixation")
  if not (np.isfinite(x).all() and np.isfinite(y).all()):
    raise ValueError("NaN or infinity in x or y: leave out fixations without a position")
  is_inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
  return y[is_inside].astype(int), x[is_inside].astype(int)


def _is_constant(values: np.ndarray) -> bool:
  return values.max() == values.min()
