"""Spectral residual saliency (Hou and Zhang, CVPR 2007).

Needs no training. Arrays are [V, h, w] views, row 0 at the top; n x m is the small copy.

Source: Hou & Zhang, Saliency detection: a spectral residual approach, CVPR 2007. The edges are
ours: the Fourier transform takes a picture for periodic, so opposite edges of a view, which have
nothing to do with each other, would meet in a step that is salient. Therefore the small copy

- loses its mean and its best linear ramp (light that falls off across a view is no object),
- is continued by its mirror image over a narrow margin, so that the edge of the view lies inside,
- and is faded to zero by a raised cosine, from the margin some way into the view.

What the fading takes from the response near the edge is given back: it is divided by the blurred
square of the window, which is the response that white noise has. A mirror alone is worse, since a
regular pattern breaks at it, and a window alone is blind at the edge.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

MIN_SIDE = 8
_LUMINANCE = ((0.299, 0.587, 0.114),)
_OPPONENT = (*_LUMINANCE, (1.0, -1.0, 0.0), (-0.5, -0.5, 1.0))  # red - green, blue - yellow
_AMPLITUDE_FLOOR = 1.0  # grey levels, orthonormal: weaker waves are rounding, their phase is noise
_WINDOW_FLOOR = 0.03  # bounds what is given back in the corners
_FLAT = 1e-4  # the response of a picture without content; textures have about 1
_EXACT = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class SpectralResidual:
  """Spectral residual saliency of planar views; hashable, so it may be a static argument.

  Calling it maps views [V, h, w, 3], RGB in [0, 255], to saliency [V, h, w]: float32, > 0, mean 1
  over each view up to the rounding of the resampling. A picture without content has 1 everywhere.

  Attributes:
    size: pixels of the shorter side of the copy that is looked at; smaller views are not enlarged.
      It sets the scale: what is salient is of a few of its pixels.
    blur_sigma_px: the Gaussian that smooths the response, in pixels of that copy. 2.5 is that of
      the authors' program.
    colour: adds the responses of red - green and blue - yellow to that of luminance, which is the
      paper's; the sum is before the normalisation, so a grey picture has the same map.

  Raises:
    ValueError: `size` < 8 or `blur_sigma_px` <= 0; on call, views that are not [V, h, w, 3] with
      at least 8 x 8 pixels.

  >>> SpectralResidual()(np.full((2, 24, 32, 3), 90, np.uint8)).shape
  (2, 24, 32)
  """

  size: int = 64
  blur_sigma_px: float = 2.5
  colour: bool = False

  def __post_init__(self) -> None:
    if self.size < MIN_SIDE:
      raise ValueError(f"size must be at least {MIN_SIDE} pixels, not {self.size}")
    if not self.blur_sigma_px > 0:
      raise ValueError(f"blur_sigma_px must be positive, not {self.blur_sigma_px}")

  @functools.partial(jax.jit, static_argnums=0)
  def __call__(self, views: jax.Array) -> jax.Array:
    """[V, h, w, 3] -> [V, h, w]."""
    if views.ndim != 4 or views.shape[-1] != 3 or min(views.shape[1:3]) < MIN_SIDE:
      raise ValueError(
        f"views {views.shape} must be [V, h, w, 3] with at least {MIN_SIDE} x {MIN_SIDE} pixels"
      )
    num_views, height, width = views.shape[:3]
    scale = min(self.size / min(height, width), 1.0)
    small = round(height * scale), round(width * scale)
    matrix = np.array(_OPPONENT if self.colour else _LUMINANCE, np.float32)
    channels = jnp.einsum("vhwc,kc->kvhw", views.astype(jnp.float32), matrix, precision=_EXACT)
    channels = jax.image.resize(channels, (len(matrix), num_views, *small), "linear")
    response = _response(channels, self.blur_sigma_px).sum(axis=0) + _FLAT
    response /= response.mean(axis=(1, 2), keepdims=True)
    return jax.image.resize(response, (num_views, height, width), "linear")


def _response(grey: jax.Array, blur_sigma_px: float) -> jax.Array:
  """The blurred squared residual of pictures [..., n, m], corrected for the window."""
  short = min(grey.shape[-2:])
  margin = max(1, 3 * short // 32)
  rows, columns = (_fade(n + 2 * margin, margin + short // 4) for n in grey.shape[-2:])
  window = rows[:, None] * columns
  padding = [(0, 0)] * (grey.ndim - 2) + [(margin, margin)] * 2
  residual = _residual(jnp.pad(_without_ramp(grey), padding, mode="reflect") * window)
  blur_rows, blur_columns = (_blur_matrix(n, blur_sigma_px) for n in window.shape)
  blurred = jnp.einsum("ri,...ij,cj->...rc", blur_rows, residual**2, blur_columns, precision=_EXACT)
  blurred /= blur_rows @ window**2 @ blur_columns.T + _WINDOW_FLOOR
  return blurred[..., margin:-margin, margin:-margin]


def _residual(grey: jax.Array) -> jax.Array:
  """The picture [..., n, m] with its amplitudes divided by what their neighbours let expect."""
  spectrum = jnp.fft.fft2(grey, norm="ortho")
  amplitude = jnp.abs(spectrum) + _AMPLITUDE_FLOOR
  log_amplitude = jnp.log(amplitude)
  smooth = log_amplitude
  for axis in (-2, -1):  # the spectrum is periodic
    smooth = (jnp.roll(smooth, 1, axis) + smooth + jnp.roll(smooth, -1, axis)) / 3
  spectrum *= jnp.exp(log_amplitude - smooth) / amplitude
  return jnp.fft.ifft2(spectrum, norm="ortho").real


def _without_ramp(grey: jax.Array) -> jax.Array:
  """Takes the least-squares plane from pictures [..., n, m]."""
  grey -= grey.mean(axis=(-2, -1), keepdims=True)
  for axis, length in ((-2, grey.shape[-2]), (-1, grey.shape[-1])):
    place = (np.arange(length, dtype=np.float32) - (length - 1) / 2).reshape(
      (-1, 1) if axis == -2 else -1
    )
    slope = (grey * place).mean(axis=(-2, -1), keepdims=True) / (place**2).mean()
    grey -= slope * place
  return grey


def _fade(length: int, taper: int) -> np.ndarray:
  """[length] window: raised cosines of `taper` pixels at both ends of ones."""
  window = np.ones(length, np.float32)
  window[:taper] = np.sin(np.pi / 2 * (np.arange(taper) + 0.5) / taper) ** 2
  window[-taper:] = window[:taper][::-1]
  return window


def _blur_matrix(length: int, sigma_px: float) -> np.ndarray:
  """[length, length] Gaussian blur, cut at 4 sigma, of a line that its mirror image continues."""
  radius = int(4 * sigma_px + 0.5)
  offsets = np.arange(-radius, radius + 1)
  kernel = np.exp(-0.5 * (offsets / sigma_px) ** 2)
  place = (np.arange(length)[:, None] + offsets) % (2 * length)
  place = np.where(place < length, place, 2 * length - 1 - place)
  matrix = np.zeros((length, length))
  np.add.at(matrix, (np.arange(length)[:, None], place), kernel / kernel.sum())
  return matrix.astype(np.float32)
