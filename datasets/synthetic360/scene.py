"""One panorama with its objects: drawn by lot, painted from far to near, with exact masks.

Arrays: image [H, W, 3], masks [N, H, W]; the conventions of the project (W = 2 H, row 0 north-most,
column 0 at longitude -pi). The picture is painted at twice its height and averaged, a pixel belongs
to an object that covers more than half of it (a tie is broken by the pixel's first quarter, so
opaque masks never overlap); behind a translucent object masks go on, so there they overlap.
"""

import dataclasses

import numpy as np

from foir360_jax.sphere import pixel_areas, pixel_directions
from synthetic360 import shapes, textures
from synthetic360.surroundings import draw_surroundings

MAX_OBJECTS = 40
# Visible solid angle that an object must keep: about 10 pixels of a 64x128 picture.
SMALLEST_SR = 0.02
SMALLEST_VISIBLE = 0.3  # ... and the share of its outline
OVERSAMPLING = 2


@dataclasses.dataclass(frozen=True)
class RenderedScene:
  """A rendered panorama and its visible objects.

  Attributes:
    image: `[H, W, 3]` uint8.
    masks: `[N, H, W]` bool, visible pixels; they overlap where an object is translucent.
    category: `[N]` int, index into `shapes.CLASS_NAMES`.
    occlusion: `[N]` hidden share of each outline's solid angle, 0 to 1 - SMALLEST_VISIBLE.
  """

  image: np.ndarray
  masks: np.ndarray
  category: np.ndarray
  occlusion: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Placement:
  """Where an object stands: its tangent frame (forward, east, north), half extent and outline."""

  forward: np.ndarray
  east: np.ndarray
  north: np.ndarray
  lat_rad: float
  half_extent: float  # on the tangent plane
  turn_rad: float
  stretch: float
  shape: shapes.Shape

  def rows(self, height: int) -> slice:
    """The rows of a picture that the object can reach."""
    radius = np.arctan(1.6 * self.half_extent * max(self.stretch, 1 / self.stretch))
    top = (np.pi / 2 - self.lat_rad - radius) / np.pi * height
    bottom = (np.pi / 2 - self.lat_rad + radius) / np.pi * height
    return slice(max(0, int(top)), min(height, int(bottom) + 1))

  def coordinates(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Object coordinates u, v of directions, and where these lie in front of the tangent plane."""
    forward = directions @ self.forward
    in_front = forward > 0.2
    scale = 1 / (np.where(in_front, forward, 1.0) * self.half_extent)
    x, y = (directions @ self.east) * scale, (directions @ self.north) * scale
    u = (np.cos(self.turn_rad) * x + np.sin(self.turn_rad) * y) * self.stretch
    v = (np.cos(self.turn_rad) * y - np.sin(self.turn_rad) * x) / self.stretch
    return u, v, in_front


def _draw_placement(rng: np.random.Generator, extent_deg: float, shape: shapes.Shape) -> _Placement:
  if rng.random() < 0.25:  # anywhere on the sphere, the poles included; else about the horizon
    lat = np.arcsin(rng.uniform(-1, 1))
  else:
    lat = np.clip(np.deg2rad(rng.normal(-4, 20)), -1.45, 1.45)
  lon = rng.uniform(-np.pi, np.pi)
  forward = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
  east = np.array([-np.sin(lon), np.cos(lon), 0.0])
  return _Placement(
    forward=forward,
    east=east,
    north=np.cross(forward, east),
    lat_rad=lat,
    half_extent=np.tan(np.deg2rad(extent_deg)),
    turn_rad=rng.normal(0, 0.3),
    stretch=np.exp(rng.normal(0, 0.2)),
    shape=shape,
  )


def _paint(
  rng: np.random.Generator,
  behind: np.ndarray,
  u: np.ndarray,
  v: np.ndarray,
  light: np.ndarray,
  unseen: bool,
) -> np.ndarray:
  """Colours [P, 3] of an object's pixels; many objects come close to the colour behind them."""
  family = textures.UNSEEN if unseen else textures.SEEN
  texture = family[rng.integers(len(family))]
  base = behind.mean(0) + rng.normal(size=3) * rng.choice([0.1, 0.2, 0.4])
  pattern = texture(u, v, np.exp(rng.uniform(np.log(3), np.log(14))), rng)
  strength = np.exp(rng.uniform(np.log(0.015), np.log(0.22)))
  colour = base.clip(0.03, 0.97) + strength * pattern[:, None] * rng.uniform(0.3, 1, 3)
  # A bulging surface lit from the light's side.
  depth = np.sqrt(np.clip(1 - 0.45 * (u**2 + v**2), 0.05, 1))
  lit = np.clip(0.67 * (u * light[0] + v * light[1]) + depth * light[2], -1, 1)
  return colour * (1 + rng.uniform(0.05, 0.3) * (lit - 0.3))[:, None]


def render_scene(rng: np.random.Generator, height: int, *, unseen: bool = False) -> RenderedScene:
  """Draws and paints one panorama.

  Args:
    rng: source of all chance; the same state gives the same scene.
    height: rows of the picture; it has twice as many columns.
    unseen: objects wear textures, and half of them outlines where their class has such, that scenes
      drawn without this flag never show.
  """
  fine = height * OVERSAMPLING
  directions = pixel_directions(fine).astype(np.float64)
  areas = pixel_areas(fine)
  colour_of, light = draw_surroundings(rng)
  image = colour_of(directions)

  count = int(np.clip(np.round(np.exp(rng.normal(np.log(18.5), 0.5))), 5, MAX_OBJECTS))
  present = rng.choice(len(shapes.CLASS_NAMES), rng.integers(2, 8), replace=False)
  share = rng.dirichlet(np.full(len(present), 0.8))
  extents = np.clip(np.exp(rng.normal(np.log(10), 0.45, count)), 4.5, 32)
  # What looks small tends to be far: painted first.
  extents = extents[np.argsort(0.6 * np.log(extents) + rng.normal(size=count))]

  category = rng.choice(present, size=count, p=share)
  visible = np.zeros((count, fine, 2 * fine), bool)
  outline = np.zeros(count)
  for index in range(count):
    shape = shapes.draw_shape(shapes.CLASS_NAMES[category[index]], unseen, rng)
    place = _draw_placement(rng, extents[index], shape)
    rows = place.rows(fine)
    u, v, in_front = place.coordinates(directions[rows])
    inside = shape(u, v) & in_front
    frame = np.stack([place.east, place.north, -place.forward]) @ light
    behind = image[rows][inside]
    if not len(behind):
      continue
    painted = _paint(rng, behind, u[inside], v[inside], frame, unseen)
    opacity = rng.uniform(0.45, 0.7) if rng.random() < 0.08 else 1.0
    image[rows][inside] = opacity * painted + (1 - opacity) * behind
    if opacity == 1:
      visible[:index, rows] &= ~inside
    visible[index, rows] = inside
    outline[index] = areas[rows][inside].sum()

  quarters = image.reshape(height, OVERSAMPLING, 2 * height, OVERSAMPLING, 3)
  noisy = quarters.mean((1, 3)) + rng.normal(size=(height, 2 * height, 3)) * 0.012
  masks = _reduce_masks(visible)
  shown = np.einsum("nhw,hw->n", masks, pixel_areas(height))
  hidden = 1 - np.minimum(shown / np.maximum(outline, 1e-9), 1)
  keep = (shown >= SMALLEST_SR) & (hidden <= 1 - SMALLEST_VISIBLE)
  return RenderedScene(
    image=np.round(noisy.clip(0, 1) * 255).astype(np.uint8),
    masks=masks[keep],
    category=category[keep],
    occlusion=hidden[keep],
  )


def _reduce_masks(fine: np.ndarray) -> np.ndarray:
  """Masks [N, 2H, 2W] -> [N, H, W] by majority; the first quarter decides a tie."""
  covered = sum(
    fine[:, row::OVERSAMPLING, column::OVERSAMPLING].astype(np.uint8)
    for row in range(OVERSAMPLING)
    for column in range(OVERSAMPLING)
  )
  half = OVERSAMPLING**2 // 2
  return (covered > half) | ((covered == half) & fine[:, ::OVERSAMPLING, ::OVERSAMPLING])
