import itertools
import math

import numpy as np
import pytest
from scipy import stats

from foir360_jax.metrics import (
  Score,
  auc_judd,
  cc,
  fixation_density,
  kl_divergence,
  nss,
  similarity,
)

AT_FIXATIONS = [nss, auc_judd]
AGAINST_DENSITY = [cc, kl_divergence, similarity]
EPS = 2.220446049250313e-16
SEEDS = range(8)


def random_case(seed):
  """A map with ties and zeros, a density, and fixations, some of them outside or twice."""
  rng = np.random.default_rng(seed)
  height, width = rng.integers(3, 9, 2)
  saliency = rng.integers(0, 12, (height, width)).astype(float)
  density = rng.random((height, width)) * (rng.random((height, width)) < 0.7)
  x, y = rng.uniform(-1, width + 1, 12), rng.uniform(-1, height + 1, 12)
  x[:2], y[:2] = (1.25, 1.75), (0.5, 0.1)  # inside, in one pixel
  return saliency, density, x, y


def inside(x, y, size):
  """[(row, column)] of the fixations inside the picture."""
  found = []
  for right, down in zip(x, y, strict=True):
    if 0 <= right < size[1] and 0 <= down < size[0]:
      found.append((math.floor(down), math.floor(right)))
  return found


def reference_density(x, y, size, sigma):
  """A sum of a Gaussian for each fixation, cut at 4 sigma, over double loops."""
  density, radius = np.zeros(size), int(4 * sigma + 0.5)
  weight = {o: math.exp(-0.5 * (o / sigma) ** 2) for o in range(-radius, radius + 1)}
  for row, column in inside(x, y, size):
    for i in range(size[0]):
      for j in range(size[1]):
        density[i, j] += weight.get(i - row, 0) * weight.get(j - column, 0)
  return density / density.sum()


def reference_nss(saliency, x, y):
  mean = sum(saliency.flat) / saliency.size
  deviation = math.sqrt(sum((v - mean) ** 2 for v in saliency.flat) / saliency.size)
  values = [(saliency[pixel] - mean) / deviation for pixel in inside(x, y, saliency.shape)]
  return sum(values) / len(values)


def reference_auc(saliency, x, y):
  """Points of the curve by counting, one for each fixated pixel; then trapezia."""
  fixated = set(inside(x, y, saliency.shape))
  others = set(np.ndindex(saliency.shape)) - fixated
  points = {(0.0, 0.0), (1.0, 1.0)}
  for threshold in {saliency[pixel] for pixel in fixated}:
    hits = sum(saliency[pixel] >= threshold for pixel in fixated)
    false = sum(saliency[pixel] >= threshold for pixel in others)
    points.add((false / len(others), hits / len(fixated)))
  return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(sorted(points)))


def reference_benchmark_auc(saliency, x, y):
  """As the benchmark's program counts, without its noise: only for maps without ties."""
  pixels = set(inside(x, y, saliency.shape))
  points = [(0.0, 0.0)]
  for place, value in enumerate(sorted((saliency[p] for p in pixels), reverse=True), start=1):
    above = sum(v >= value for v in saliency.flat)
    points.append(((above - place) / (saliency.size - len(pixels)), place / len(pixels)))
  points.append((1.0, 1.0))
  return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))


def reference_kl(saliency, density):
  total = 0.0
  for i, j in np.ndindex(saliency.shape):
    s, d = saliency[i, j] / saliency.sum(), density[i, j] / density.sum()
    total += d * math.log(EPS + d / (s + EPS))
  return total


def reference_similarity(saliency, density):
  s_sum = sum(v - saliency.min() for v in saliency.flat)
  d_sum = sum(v - density.min() for v in density.flat)
  total = 0.0
  for i, j in np.ndindex(saliency.shape):
    s, d = (saliency[i, j] - saliency.min()) / s_sum, (density[i, j] - density.min()) / d_sum
    total += min(s, d)
  return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sigma", [0.6, 1.7])
def test_density_equals_a_sum_of_gaussians(seed, sigma):
  saliency, _, x, y = random_case(seed)
  density = fixation_density(x, y, saliency.shape, sigma)
  assert density.dtype == np.float32
  np.testing.assert_allclose(density.sum(dtype=float), 1, atol=1e-6)
  np.testing.assert_allclose(density, reference_density(x, y, saliency.shape, sigma), atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("metric", "reference"), [(nss, reference_nss), (auc_judd, reference_auc)])
def test_metrics_at_fixations_equal_plain_references(metric, reference, seed):
  saliency, _, x, y = random_case(seed)
  assert len(inside(x, y, saliency.shape)) < len(x)
  value, status = metric(saliency, x, y)
  assert status == "used"
  np.testing.assert_allclose(value, reference(saliency, x, y), atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
  ("metric", "reference"),
  [
    (cc, lambda a, b: stats.pearsonr(a.ravel(), b.ravel()).statistic),
    (kl_divergence, reference_kl),
    (similarity, reference_similarity),
  ],
)
def test_metrics_against_a_density_equal_plain_references(metric, reference, seed):
  saliency, density, _, _ = random_case(seed)
  value, status = metric(saliency, density)
  assert status == "used"
  np.testing.assert_allclose(value, reference(saliency, density), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_ties_auc_is_what_the_benchmark_counts(seed):
  saliency, _, x, y = random_case(seed)
  saliency = np.random.default_rng(seed).permutation(saliency.size).reshape(saliency.shape)
  expected = reference_benchmark_auc(saliency, x, y)
  np.testing.assert_allclose(auc_judd(saliency, x, y).value, expected, atol=1e-12)


def test_auc_of_maps_without_information_is_half_and_a_little_on_average():
  rng = np.random.default_rng(0)
  x, y = [0.5, 3.5, 6.5], [0.5, 2.5, 1.5]
  areas = [auc_judd(rng.random((4, 8)), x, y).value for _ in range(4000)]
  error = np.std(areas) / np.sqrt(len(areas))
  assert abs(np.mean(areas) - (0.5 + 1 / 8)) < 4 * error < 0.02


def test_a_map_that_is_the_density_is_perfect():
  _, _, x, y = random_case(0)
  density = fixation_density(x, y, (9, 11), 1.2)
  np.testing.assert_allclose(cc(density, density).value, 1)
  np.testing.assert_allclose(similarity(density, density).value, 1)
  np.testing.assert_allclose(kl_divergence(density, density).value, 0, atol=1e-12)
  assert auc_judd(density, x, y).value > 0.8 and nss(density, x, y).value > 0.8


def test_maps_that_share_nothing_have_the_lowest_similarity():
  saliency, density = np.array([[1.0, 2.0, 0, 0]]), np.array([[0, 0, 1.0, 1.0]])
  assert similarity(saliency, density) == Score(0.0, "used")
  np.testing.assert_allclose(kl_divergence(saliency, density).value, math.log(0.5 / EPS))


def test_a_constant_map_knows_nothing():
  constant, density = np.full((3, 4), 0.1), np.arange(12.0).reshape(3, 4)
  x, y = [0.5, 3.5], [0.5, 2.5]
  assert auc_judd(constant, x, y) == Score(0.5, "used")
  for score in (nss(constant, x, y), cc(constant, density), similarity(constant, density)):
    assert score == Score(0.0, "counted_zero")
  share = density[density > 0] / density.sum()
  np.testing.assert_allclose(
    kl_divergence(constant, density).value, np.log(12) - stats.entropy(share)
  )
  # A map of zeros is no density, but the benchmark's formula has a number for it.
  expected = np.sum(share * np.log(share / EPS))
  np.testing.assert_allclose(kl_divergence(np.zeros((3, 4)), density).value, expected)


@pytest.mark.parametrize("metric", [cc, similarity])
def test_a_constant_density_leaves_the_picture_out(metric):
  assert metric(np.arange(6.0).reshape(2, 3), np.full((2, 3), 0.1)).status == "undefined"


def test_a_density_of_zeros_leaves_the_picture_out():
  for metric in AGAINST_DENSITY:
    score = metric(np.arange(6.0).reshape(2, 3), np.zeros((2, 3)))
    assert score.status == "undefined" and np.isnan(score.value)


@pytest.mark.parametrize("seed", SEEDS)
def test_affine_changes_leave_nss_cc_and_similarity_and_monotone_ones_auc(seed):
  saliency, density, x, y = random_case(seed)
  changed = 3.7 * saliency - 11
  np.testing.assert_allclose(nss(changed, x, y).value, nss(saliency, x, y).value, atol=1e-9)
  for metric in (cc, similarity):
    value = metric(saliency, density).value
    np.testing.assert_allclose(metric(changed, density).value, value, atol=1e-9)
    np.testing.assert_allclose(metric(saliency, 5 * density + 2).value, value, atol=1e-9)
  assert auc_judd(np.exp(saliency), x, y) == auc_judd(saliency, x, y)
  assert nss(np.exp(saliency), x, y) != nss(saliency, x, y)
  reverse = (nss(-saliency, x, y).value, cc(-saliency, density).value)
  np.testing.assert_allclose(
    reverse, (-nss(saliency, x, y).value, -cc(saliency, density).value), atol=1e-12
  )


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_and_similarity_do_not_depend_on_the_scale_of_either_map(seed):
  saliency, density, _, _ = random_case(seed)
  for metric in (kl_divergence, similarity):
    np.testing.assert_allclose(
      metric(255 * saliency, 0.01 * density).value, metric(saliency, density).value
    )


def test_duplicates_count_for_nss_and_density_but_not_for_auc():
  saliency = np.random.default_rng(4).random((3, 4))
  once, twice = ([0.5, 2.5], [0.5, 1.5]), ([0.5, 2.5, 2.9], [0.5, 1.5, 1.1])
  assert nss(saliency, *once).value != nss(saliency, *twice).value
  assert auc_judd(saliency, *once) == auc_judd(saliency, *twice)
  np.testing.assert_allclose(fixation_density(*twice, (3, 4), 0.0)[1, 2], 2 / 3)


def test_the_right_and_bottom_edges_are_outside_and_fixations_there_do_not_count():
  saliency = np.random.default_rng(5).random((3, 4))
  inner = ([0.0, 3.999], [0.0, 2.999])
  more = ([*inner[0], 4.0, 1.0, -0.001, 1.0, 99.0], [*inner[1], 1.0, 3.0, 1.0, -0.001, 99.0])
  for metric in AT_FIXATIONS:
    assert metric(saliency, *inner) == metric(saliency, *more)
  density = fixation_density(*more, (3, 4), 0.0)
  assert density[0, 0] == density[2, 3] == 0.5


def test_without_a_fixation_inside_there_is_no_score_and_no_density():
  saliency = np.arange(12.0).reshape(3, 4)
  for metric, fixations in itertools.product(AT_FIXATIONS, [([], []), ([-1.0, 9.0], [1.0, 1.0])]):
    score = metric(saliency, *fixations)
    assert score.status == "undefined" and np.isnan(score.value)
    with pytest.raises(ValueError, match="no fixation is inside the picture of 3 x 4"):
      fixation_density(*fixations, (3, 4), 1.0)


def test_auc_is_undefined_where_every_pixel_is_fixated():
  assert auc_judd([[1.0, 2.0]], [0.5, 1.5], [0.5, 0.5]).status == "undefined"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
  good, broken = np.ones((2, 3)), np.array([[0, 1, 2], [3, bad, 4]])
  for metric in AT_FIXATIONS:
    with pytest.raises(ValueError, match="NaN or infinity in saliency"):
      metric(broken, [1.0], [1.0])
    with pytest.raises(ValueError, match="NaN or infinity in x or y"):
      metric(good, [1.0, bad], [1.0, 1.0])
  for metric in AGAINST_DENSITY:
    with pytest.raises(ValueError, match="NaN or infinity in saliency"):
      metric(broken, good)
    with pytest.raises(ValueError, match="NaN or infinity in density"):
      metric(good, broken)
  with pytest.raises(ValueError, match="NaN or infinity in x or y"):
    fixation_density([1.0], [bad], (2, 3), 1.0)


def test_wrong_shapes_and_negative_densities_are_refused():
  good = np.ones((2, 3))
  for metric in AT_FIXATIONS:
    with pytest.raises(ValueError, match=r"x \(2,\) and y \(1,\) must both be \[F\]"):
      metric(good, [1.0, 1.0], [1.0])
    with pytest.raises(ValueError, match=r"saliency \(1, 2, 3\) must be one map"):
      metric(good[None], [1.0], [1.0])
  for metric in AGAINST_DENSITY:
    with pytest.raises(ValueError, match=r"\(2, 3\) and density \(3, 2\) must have one size"):
      metric(good, good.T)
  with pytest.raises(ValueError, match="saliency must not be negative, but has -1.0"):
    kl_divergence(-good, good)
  for size, sigma, message in [((0, 3), 1.0, "size must be"), ((2, 3), -1.0, "sigma_px must be")]:
    with pytest.raises(ValueError, match=message):
      fixation_density([1.0], [1.0], size, sigma)
