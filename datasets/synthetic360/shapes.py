"""The outlines of the objects: a dozen classes, each an inside test in object coordinates.

Coordinates (u, v) grow to the right and upwards; the outline fits about the square [-1, 1]^2. A
class has one or more variants for training and may have variants that only the test split shows, so
that a model must know the class by its shape and not by heart.
"""

from collections.abc import Callable

import numpy as np

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _polar(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  return np.hypot(u, v), np.arctan2(v, u)


def _superellipse(power: float) -> Shape:
  return lambda u, v: np.abs(u) ** power + np.abs(v) ** power < 1


def _trapezoid(top: float) -> Shape:
  """A box whose upper edge is `top` times as wide as its lower one."""
  return lambda u, v: (np.abs(v) < 0.88) & (np.abs(u) < 0.88 * (1 + (top - 1) * (v + 0.88) / 1.76))


def _triangle(apex: float) -> Shape:
  """Corners at (-1, -0.8), (1, -0.8) and (apex, 0.9)."""

  def inside(u, v):
    height = (v + 0.8) / 1.7
    return (height > 0) & (u > -1 + height * (1 + apex)) & (u < 1 - height * (1 - apex))

  return inside


def _cross(arm: float) -> Shape:
  def inside(u, v):
    across, along = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    return (across < arm) & (along < 1)

  return inside


def _ring(hole: float, offset: float) -> Shape:
  return lambda u, v: (np.hypot(u, v) < 1) & (np.hypot(u - offset, v) > hole)


def _star(points: int, depth: float) -> Shape:
  def inside(u, v):
    radius, angle = _polar(u, v)
    # A triangle wave, so that the points are sharp.
    wave = np.abs(((angle - np.pi / 2) * points / (2 * np.pi)) % 1 - 0.5) * 2
    return radius < (1 - depth) + depth * wave

  return inside


def _flower(petals: int) -> Shape:
  def inside(u, v):
    radius, angle = _polar(u, v)
    return radius < 0.72 + 0.26 * np.cos(petals * angle)

  return inside


def _corner(u, v):
  return (np.maximum(np.abs(u), np.abs(v)) < 0.9) & ((u < -0.1) | (v < -0.1))


def _crescent(u, v):
  return (np.hypot(u, v) < 1) & (np.hypot(u - 0.55, v) > 0.8)


def _heart(u, v):
  lobes = np.hypot(np.abs(u) - 0.45, v - 0.35) < 0.5
  return lobes | ((v <= 0.35) & (np.abs(u) * 0.95 < (v + 0.95) * 0.7) & (np.abs(u) < 0.95))


def _pill(u, v):
  return np.hypot(np.maximum(np.abs(u) - 0.6, 0), v) < 0.42


def _arrow(u, v):
  head = (u > 0) & (np.abs(v) < 0.9 * (1 - u))
  return head | ((u <= 0) & (u > -0.95) & (np.abs(v) < 0.32))


# name: (variants seen in training, variants that only the test split shows)
CLASSES: dict[str, tuple[tuple[Shape, ...], tuple[Shape, ...]]] = {
  "disc": ((_superellipse(2.0),), (_superellipse(2.7),)),
  "box": ((_trapezoid(1.0), _trapezoid(0.9)), (_trapezoid(0.6),)),
  "triangle": ((_triangle(0.0), _triangle(0.25)), (_triangle(0.8),)),
  "cross": ((_cross(0.3), _cross(0.36)), (_cross(0.22),)),
  "ring": ((_ring(0.5, 0.0), _ring(0.58, 0.0)), (_ring(0.45, 0.3),)),
  "star": ((_star(5, 0.5), _star(6, 0.45)), (_star(4, 0.5), _star(8, 0.45))),
  "flower": ((_flower(3), _flower(5)), (_flower(4),)),
  "corner": ((_corner,), ()),
  "crescent": ((_crescent,), ()),
  "heart": ((_heart,), ()),
  "pill": ((_pill,), ()),
  "arrow": ((_arrow,), ()),
}
CLASS_NAMES = tuple(CLASSES)


def draw_shape(class_name: str, unseen: bool, rng: np.random.Generator) -> Shape:
  """Draws a variant; with `unseen`, every other time one that training never shows, if any."""
  seen, held_out = CLASSES[class_name]
  variants = held_out if unseen and held_out and rng.random() < 0.5 else seen
  return variants[rng.integers(len(variants))]
