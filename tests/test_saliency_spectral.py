import jax
import numpy as np
import pytest
from scipy import ndimage

from foir360_jax.saliency import SpectralResidual

SIDE = 48
MODEL = SpectralResidual(size=SIDE)
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
CORNERS_EDGES_AND_INSIDE = [
  *[(0, 0), (0, 40), (40, 0), (40, 40)],
  *[(0, 17), (40, 22), (19, 0), (25, 40)],
  *[(20, 20), (7, 31), (30, 9), (3, 36)],
]


def resize_line(line, length):
  """Plain linear resampling: triangles as wide as the coarser of both grids."""
  step = len(line) / length
  wide = max(step, 1)
  out = []
  for index in range(length):
    centre = (index + 0.5) * step - 0.5
    weights = [max(0.0, 1 - abs(place - centre) / wide) for place in range(len(line))]
    out.append(sum(w * v for w, v in zip(weights, line, strict=True)) / sum(weights))
  return np.array(out)


def resize(picture, height, width):
  picture = np.apply_along_axis(resize_line, 0, picture, height)
  return np.apply_along_axis(resize_line, 1, picture, width)


def reference_response(grey, sigma):
  """The steps of the module's docstring, with transforms as sums over all waves."""
  n, m = grey.shape
  margin = max(1, 3 * min(n, m) // 32)
  taper = margin + min(n, m) // 4
  rows, columns = np.mgrid[:n, :m]
  plane = np.stack([np.ones(grey.size), rows.ravel(), columns.ravel()], axis=1)
  fit = plane @ np.linalg.lstsq(plane, grey.ravel(), rcond=None)[0]
  padded = np.pad(grey - fit.reshape(grey.shape), margin, mode="reflect")
  window = np.ones(padded.shape)
  for i in range(padded.shape[0]):
    for j in range(padded.shape[1]):
      for place, length in ((i, padded.shape[0]), (j, padded.shape[1])):
        depth = min(place, length - 1 - place) + 0.5
        window[i, j] *= 0.5 - 0.5 * np.cos(np.pi * min(depth / taper, 1))
  waves = [
    np.exp(-2j * np.pi * np.outer(np.arange(k), np.arange(k)) / k) / np.sqrt(k)
    for k in padded.shape
  ]
  spectrum = waves[0] @ (padded * window) @ waves[1]
  log_amplitude = np.log(np.abs(spectrum) + 1)
  residual = np.zeros(padded.shape, complex)
  for i in range(padded.shape[0]):
    for j in range(padded.shape[1]):
      around = [
        log_amplitude[(i + di) % padded.shape[0], (j + dj) % padded.shape[1]]
        for di in (-1, 0, 1)
        for dj in (-1, 0, 1)
      ]
      gain = np.exp(log_amplitude[i, j] - np.mean(around))
      residual[i, j] = gain * spectrum[i, j] / (np.abs(spectrum[i, j]) + 1)
  picture = waves[0].conj() @ residual @ waves[1].conj()
  blurred = ndimage.gaussian_filter(np.abs(picture) ** 2, sigma, mode="reflect")
  blurred /= ndimage.gaussian_filter(window**2, sigma, mode="reflect") + 0.03
  return blurred[margin:-margin, margin:-margin]


def reference(view, size, sigma, colour):
  height, width = view.shape[:2]
  red, green, blue = np.moveaxis(view.astype(float), -1, 0)
  channels = [0.299 * red + 0.587 * green + 0.114 * blue]
  if colour:
    channels += [red - green, blue - (red + green) / 2]
  scale = min(size / min(height, width), 1)
  small = [resize(c, round(height * scale), round(width * scale)) for c in channels]
  response = sum(reference_response(picture, sigma) for picture in small) + 1e-4
  return resize(response / response.mean(), height, width)


def grey_views(*pictures):
  return np.repeat(np.stack(pictures)[..., None], 3, axis=-1).astype(np.float32)


def pattern(kind, period, across=False):
  """A regular pattern; `across`: the same pattern turned by a right angle."""
  along, other = (ROWS, COLUMNS) if across else (COLUMNS, ROWS)
  if kind == "stripes":
    return 128 + 60 * np.sin(2 * np.pi * along / period)
  along, other = along % period - (period - 1) / 2, other % period - (period - 1) / 2
  return np.where((abs(along) < 0.15 * period) & (abs(other) < 0.4 * period), 210.0, 60.0)


@pytest.mark.parametrize(
  ("shape", "size", "sigma", "colour"),
  [
    ((24, 37), 16, 1.5, False),
    ((24, 37), 16, 1.5, True),
    ((31, 12), 10, 2.5, False),
    ((9, 14), 64, 2.5, True),
  ],
)
def test_maps_equal_the_plain_reference(shape, size, sigma, colour):
  rng = np.random.default_rng([*shape, size])
  views = ndimage.gaussian_filter(rng.uniform(0, 255, (2, *shape, 3)), (0, 1, 1, 0))
  views = np.clip((views - 128) * 3 + 128, 0, 255).astype(np.uint8)
  got = SpectralResidual(size, sigma, colour)(views)
  assert got.dtype == np.float32 and got.shape == (2, *shape)
  for view, saliency in zip(views, got, strict=True):
    expected = reference(view, size, sigma, colour)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(saliency, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("shape", [(20, 20), (50, 31)])
def test_a_constant_picture_has_a_flat_positive_map(shape, colour):
  views = np.stack([np.broadcast_to(c, (*shape, 3)) for c in ([0, 0, 0], [255] * 3, [7, 130, 99])])
  saliency = np.asarray(SpectralResidual(16, colour=colour)(views.astype(np.uint8)))
  np.testing.assert_allclose(saliency, 1.0, atol=1e-3)


@pytest.mark.parametrize(
  ("kind", "period"), [("stripes", 8), ("stripes", 7), ("bars", 8), ("bars", 10)]
)
def test_an_odd_patch_in_a_regular_pattern_is_the_maximum_wherever_it_is(kind, period):
  regular, other = pattern(kind, period), pattern(kind, period, across=True)
  pictures = []
  for row, column in CORNERS_EDGES_AND_INSIDE:
    pictures.append(regular.copy())
    window = np.s_[row : row + 8, column : column + 8]
    pictures[-1][window] = other[window]
  maps = np.asarray(MODEL(grey_views(*pictures)))
  for (row, column), saliency in zip(CORNERS_EDGES_AND_INSIDE, maps, strict=True):
    i, j = np.unravel_index(saliency.argmax(), saliency.shape)
    # The blur may move a maximum by about its sigma.
    assert row - 3 <= i < row + 11 and column - 3 <= j < column + 11, (row, column, i, j)


def test_light_that_falls_off_does_not_make_the_border_salient():
  ramp = 20 + 200 * ROWS / SIDE + 0.5 * COLUMNS
  saliency = np.asarray(MODEL(grey_views(np.round(ramp))))[0]
  border = np.ones(saliency.shape, bool)
  border[6:-6, 6:-6] = False
  assert saliency[border].mean() < 1.2 * saliency[~border].mean()


def test_on_noise_the_border_is_as_salient_as_the_middle():
  views = np.random.default_rng(3).uniform(0, 255, (12, SIDE, SIDE, 3))
  saliency = np.asarray(MODEL(views.astype(np.float32))).mean(axis=0)
  border = np.ones(saliency.shape, bool)
  border[6:-6, 6:-6] = False
  ratio = saliency[border].mean() / saliency[~border].mean()
  assert 0.8 < ratio < 1.2


def test_colour_finds_a_patch_of_the_same_luminance_and_changes_no_grey_picture():
  grey = pattern("stripes", 8)
  view = grey_views(grey)
  coloured = view.copy()
  shift = np.array([40.0, -40 * 0.299 / 0.587, 0.0], np.float32)  # luminance stays
  coloured[0, 12:20, 30:38] += shift
  with_colour = SpectralResidual(SIDE, colour=True)
  np.testing.assert_allclose(MODEL(coloured), MODEL(view), atol=5e-3)
  np.testing.assert_allclose(with_colour(view), MODEL(view), atol=5e-3)
  i, j = np.unravel_index(np.asarray(with_colour(coloured))[0].argmax(), grey.shape)
  assert 9 <= i < 23 and 27 <= j < 41


def test_views_do_not_depend_on_each_other_and_vmap_and_jit_change_nothing():
  rng = np.random.default_rng(1)
  views = rng.integers(0, 256, (4, 20, 16, 3), np.uint8)
  model = SpectralResidual(12)
  together = np.asarray(model(views))
  apart = np.concatenate([model(view[None]) for view in views])
  mapped = jax.jit(jax.vmap(model))(views.reshape(2, 2, 20, 16, 3)).reshape(4, 20, 16)
  np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(together, mapped, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(together.mean(axis=(1, 2)), 1, atol=0.05)
  assert (together > 0).all()


def test_bytes_and_floats_of_the_same_picture_have_the_same_map():
  views = np.random.default_rng(2).integers(0, 256, (1, 20, 16, 3), np.uint8)
  model = SpectralResidual(12)
  np.testing.assert_array_equal(model(views), model(views.astype(np.float32)))


def test_models_with_the_same_settings_are_one_static_argument():
  assert SpectralResidual(32) == SpectralResidual(32) != SpectralResidual(33)
  assert hash(SpectralResidual(32)) == hash(SpectralResidual(32))


@pytest.mark.parametrize("shape", [(20, 20, 3), (1, 20, 20), (1, 20, 20, 4), (1, 7, 20, 3)])
def test_other_shapes_are_refused(shape):
  with pytest.raises(ValueError, match=r"must be \[V, h, w, 3\] with at least 8 x 8"):
    SpectralResidual()(np.zeros(shape, np.float32))


def test_impossible_settings_are_refused():
  with pytest.raises(ValueError, match="size must be at least 8 pixels, not 7"):
    SpectralResidual(7)
  with pytest.raises(ValueError, match="blur_sigma_px must be positive, not 0"):
    SpectralResidual(blur_sigma_px=0)
