"""Surface patterns: functions of plane coordinates with values in about [-1, 1].

`SEEN` patterns cover the objects of the training and validation splits; the objects of the test
split have only `UNSEEN` ones. The frequency is in radians per unit of the coordinates.
"""

from collections.abc import Callable

import numpy as np

Texture = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]


def smooth_noise(x, y, frequency, rng, waves=6):
  """Band-limited noise: a few plane waves of random direction, about unit variance."""
  angle, phase = rng.uniform(0, 2 * np.pi, (2, waves))
  scale = frequency * rng.uniform(0.5, 1.0, waves)
  total = sum(
    np.sin(s * (np.cos(a) * x + np.sin(a) * y) + p)
    for s, a, p in zip(scale, angle, phase, strict=True)
  )
  return total * np.sqrt(2 / waves)


def _plain(x, y, frequency, rng):
  return np.zeros(np.broadcast(x, y).shape)


def _stripes(x, y, frequency, rng):
  angle = rng.uniform(0, np.pi)
  return np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y))


def _bars(x, y, frequency, rng):
  return np.sign(_stripes(x, y, frequency, rng))


def _checks(x, y, frequency, rng):
  return np.sign(np.sin(frequency * x) * np.sin(frequency * y))


def _grain(x, y, frequency, rng):
  return rng.normal(size=np.broadcast(x, y).shape)


def _ramp(x, y, frequency, rng):
  angle = rng.uniform(0, 2 * np.pi)
  return np.cos(angle) * x + np.sin(angle) * y


def _blobs(x, y, frequency, rng):
  return np.tanh(2 * smooth_noise(x, y, frequency * 0.6, rng))


def _dots(x, y, frequency, rng):
  cell = frequency / np.pi
  return np.where(np.hypot((x * cell) % 1 - 0.5, (y * cell) % 1 - 0.5) < 0.3, 1.0, -0.4)


def _rings(x, y, frequency, rng):
  centre = rng.uniform(-0.6, 0.6, 2)
  return np.sin(frequency * np.hypot(x - centre[0], y - centre[1]))


def _bricks(x, y, frequency, rng):
  row = y * frequency / np.pi
  column = x * frequency / (2 * np.pi) + 0.5 * (np.floor(row) % 2)
  return np.where((row % 1 < 0.25) | (column % 1 < 0.15), -1.0, 0.35)


def _zigzag(x, y, frequency, rng):
  return np.sign(np.sin(frequency * (y + 0.5 * np.abs((x * frequency / 4) % 2 - 1))))


def _marble(x, y, frequency, rng):
  return np.sin(frequency * x + 2.5 * smooth_noise(x, y, frequency * 0.4, rng))


SEEN: tuple[Texture, ...] = (_plain, _stripes, _bars, _checks, _grain, _ramp, _blobs)
UNSEEN: tuple[Texture, ...] = (_dots, _rings, _bricks, _zigzag, _marble)
