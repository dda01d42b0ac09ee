"""What the objects stand before: a lit room, or a sky above the ground, as colours per direction.

Arrays: directions [..., 3] unit vectors, colours [..., 3] in about [0, 1]. The light differs
strongly from side to side, so that the surroundings of two objects of one panorama differ too.
"""

from collections.abc import Callable

import numpy as np

from synthetic360 import textures

Surroundings = Callable[[np.ndarray], np.ndarray]


def draw_surroundings(rng: np.random.Generator) -> tuple[Surroundings, np.ndarray]:
  """Draws a room or a landscape; returns its colour function and the direction of the light [3]."""
  draw = _draw_room if rng.random() < 0.5 else _draw_landscape
  return draw(rng)


def _surface(rng: np.random.Generator, base: np.ndarray, strength: float, frequency: float):
  """A painted plane: its colour at plane coordinates (x, y)."""
  texture = textures.SEEN[rng.integers(len(textures.SEEN))]
  seed = int(rng.integers(2**32))
  tint = strength * rng.uniform(0.4, 1.0, 3)

  def colour(x, y):
    pattern = texture(x, y, frequency, np.random.default_rng(seed))
    return base + pattern[..., None] * tint

  return colour


def _unit(vector: np.ndarray) -> np.ndarray:
  return vector / np.linalg.norm(vector)


def _draw_room(rng: np.random.Generator) -> tuple[Surroundings, np.ndarray]:
  """A box seen from inside, lit by one lamp whose light falls off with the distance."""
  near = -rng.uniform([1.5, 1.5, 1.2], [5.0, 5.0, 1.7])
  far = rng.uniform([1.5, 1.5, 1.0], [5.0, 5.0, 2.5])
  bounds = np.stack([near, far])  # [2, 3]: the planes of each axis
  walls = [
    [
      _surface(rng, rng.uniform(0.25, 0.95, 3), rng.uniform(0.0, 0.12), rng.uniform(2, 12))
      for _axis in range(3)
    ]
    for _side in range(2)
  ]
  lamp = rng.uniform(0.75 * near, 0.75 * far)
  reach, ambient = rng.uniform(1.0, 2.5), rng.uniform(0.35, 0.6)

  def colour(directions):
    planes = np.where(directions > 0, bounds[1], bounds[0])
    distance = planes / np.where(np.abs(directions) < 1e-9, 1e-9, directions)
    axis = distance.argmin(-1)
    point = directions * distance.min(-1, keepdims=True)
    out = np.zeros(directions.shape)
    for index in range(3):
      for side in range(2):
        here = (axis == index) & ((directions[..., index] > 0) == side)
        if here.any():
          across = [other for other in range(3) if other != index]
          out[here] = walls[side][index](point[here][:, across[0]], point[here][:, across[1]])
    to_lamp = np.linalg.norm(point - lamp, axis=-1, keepdims=True)
    return out * (ambient + 0.9 / (1 + (to_lamp / reach) ** 2))

  return colour, _unit(lamp)


def _draw_landscape(rng: np.random.Generator) -> tuple[Surroundings, np.ndarray]:
  """A sky with a sun and clouds above a textured ground that fades towards the horizon."""
  sun_lon, sun_lat = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(5, 70))
  sun = np.array(
    [np.cos(sun_lat) * np.cos(sun_lon), np.cos(sun_lat) * np.sin(sun_lon), np.sin(sun_lat)]
  )
  zenith, haze = rng.uniform(0.1, 0.7, 3), rng.uniform(0.4, 0.95, 3)
  ground = _surface(rng, rng.uniform(0.1, 0.7, 3), rng.uniform(0.03, 0.16), rng.uniform(1.5, 8))
  glow, width = rng.uniform(0.15, 0.5), rng.uniform(1.0, 4.0)
  cloud_amount, cloud_seed = rng.uniform(0.0, 0.18), int(rng.integers(2**32))
  hills_seed, hill_height = int(rng.integers(2**32)), np.deg2rad(rng.uniform(0, 7))

  def colour(directions):
    x, y, z = np.moveaxis(directions, -1, 0)
    lon, lat = np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1))
    turns = np.random.default_rng(hills_seed).integers(1, 9, 4)  # whole turns: no seam
    skyline = hill_height * np.mean([np.sin(t * lon + 2.4 * t) for t in turns], axis=0)
    height = np.clip(z, 0, 1)[..., None]
    sky = haze + (zenith - haze) * np.sqrt(height)
    clouds = textures.smooth_noise(
      x / (z + 0.4), y / (z + 0.4), 4.0, np.random.default_rng(cloud_seed)
    )
    sky = sky + cloud_amount * np.tanh(clouds)[..., None] * np.sqrt(height)
    sky = sky + glow * np.exp(width * ((directions @ sun) - 1) * 4)[..., None]
    depth = np.clip(skyline - lat, 0.03, None)  # the ground plane lies at a height of -1
    reach = 1 / np.tan(np.clip(depth, 0.03, np.pi / 2))
    fade = np.exp(-reach / 6)[..., None]
    earth = ground(reach * np.cos(lon), reach * np.sin(lon))
    earth = fade * earth + (1 - fade) * (0.5 * haze + 0.25)
    lit = 1 + 0.35 * np.cos(lon - sun_lon)[..., None] * (1 - 0.5 * np.abs(z)[..., None])
    return np.where((lat > skyline)[..., None], sky, earth) * lit

  return colour, sun
