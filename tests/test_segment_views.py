"""Views of photographs: what they show, what they see, and their masks back on the sphere."""

import dataclasses

import numpy as np
import pytest

from foir360_jax.segment.view_masks import to_sphere, view_fields
from foir360_jax.segment.views import (
  BATCH,
  MODES,
  SIZES,
  flat_views,
  perspective_view,
  plan_views,
  render_views,
)
from foir360_jax.sphere import (
  directions_from_angles,
  pixel_areas,
  pixel_directions,
  render_view,
)

HEIGHT = 64


def noise(rng, height, smooth=4):
  """A random panorama [H, 2 H, 3] uint8 that is smooth on the sphere: a sum of waves of space."""
  waves = rng.normal(0, smooth, (8, 3, 3)), rng.uniform(0, 2 * np.pi, (8, 3))
  phases = np.einsum("hwk,nck->hwnc", pixel_directions(height), waves[0]) + waves[1]
  return np.rint(np.cos(phases).mean(axis=2) * 127 + 128).astype(np.uint8)


def pictures_of(panorama, views):
  """All views, each alone."""
  pictures = [None] * len(views)
  for indices, batch in render_views(panorama, views):
    assert len(indices) == len(batch) <= BATCH
    for index, picture in zip(indices, batch, strict=True):
      pictures[index] = picture
  return pictures


def unpacked(bits, height):
  return np.unpackbits(bits, axis=-1, count=2 * height**2).reshape(-1, height, 2 * height) > 0


def slow_coordinates(view, height):
  """Columns and rows of a view at each pixel of the sphere in float64, NaN behind the view."""
  lat_rad = np.pi / 2 - (np.arange(height)[:, None] + 0.5) * np.pi / height
  lon_rad = (np.arange(2 * height) + 0.5) * np.pi / height - np.pi
  rows, columns = view.size
  if view.fov_deg == 360:
    column = (lon_rad - view.lon_rad + np.pi) % (2 * np.pi) / (2 * np.pi) * columns - 0.5
    row = (np.pi / 2 - lat_rad) / np.pi * rows - 0.5
    return np.broadcast_to(column, (height, 2 * height)), row * np.ones(2 * height)
  directions = directions_from_angles(lon_rad, lat_rad)
  lon, lat = view.lon_rad, view.lat_rad
  ahead = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
  east = np.array([-np.sin(lon), np.cos(lon), 0])
  north = np.cross(ahead, east)
  depth = directions @ ahead
  depth = np.where(depth > 1e-9, depth, np.nan)
  focal = columns / 2 / np.tan(np.radians(view.fov_deg) / 2)
  x, y = directions @ east / depth * focal, directions @ north / depth * focal
  return x + columns / 2 - 0.5, rows / 2 - 0.5 - y


def slow_to_sphere(masks, view, height):
  """The shares [N, H, 2 H] of masks around each pixel, bilinear, 0 outside the view."""
  _, rows, columns = masks.shape
  column, row = slow_coordinates(dataclasses.replace(view, size=(rows, columns)), height)
  shares = np.zeros((len(masks), height, 2 * height))
  for r, c in np.ndindex(shares.shape[1:]):
    x, y = column[r, c], row[r, c]
    if not (-0.5 <= x <= columns - 0.5 and -0.5 <= y <= rows - 0.5):
      continue
    for i in (0, 1):
      for j in (0, 1):
        at_row, at_column = int(np.floor(y)) + i, int(np.floor(x)) + j
        weight = (1 - abs(y - at_row)) * (1 - abs(x - at_column))
        if view.fov_deg == 360:
          if not 0 <= at_row < rows:
            at_column += columns // 2
          at_column %= columns
        at_row, at_column = min(max(at_row, 0), rows - 1), min(max(at_column, 0), columns - 1)
        shares[:, r, c] += weight * masks[:, at_row, at_column]
  return shares


def random_masks(rng, number, size):
  """Random discs [N, h, w], some cut by the border, one of them hardly more than a pixel."""
  y, x = np.mgrid[: size[0], : size[1]]
  masks = []
  for index in range(number):
    centre = rng.uniform(0, 1, 2) * size
    radius = rng.uniform(0.1, 0.6) * size[0] if index else 1.0
    masks.append(np.hypot(y - centre[0], x - centre[1]) < radius)
  return np.array(masks)


VIEWS = (
  perspective_view(0, 0, 90, 40),
  perspective_view(175, 40, 90, 40),
  perspective_view(20, 90, 120, 40),
  perspective_view(-60, -85, 60, 16),
  *(dataclasses.replace(view, size=(36, 72)) for view in flat_views()),
)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_masks_come_back_as_the_plain_reference_says(view):
  rng = np.random.default_rng(len(view.name) + int(view.fov_deg))
  height = 32  # about as fine as the views, so that nothing is smoothed
  masks = random_masks(rng, 4, view.size)
  found = unpacked(to_sphere(masks, view, height), height)
  shares = slow_to_sphere(masks, view, height)
  clear = abs(shares - 0.5) > 0.04  # places are kept to 1/32 of a pixel
  assert clear.mean() > 0.95
  np.testing.assert_array_equal(found[clear], shares[clear] > 0.5)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_sees_what_lies_within_its_border(view):
  column, row = slow_coordinates(view, HEIGHT)
  inside = (abs(column - view.size[1] / 2 + 0.5) - view.size[1] / 2).astype(float)
  inside = np.maximum(inside, abs(row - view.size[0] / 2 + 0.5) - view.size[0] / 2)
  (field,) = unpacked(view_fields([view], HEIGHT), HEIGHT)
  np.testing.assert_array_equal(field[inside < -1e-3], True)
  np.testing.assert_array_equal(field[~(inside < 1e-3)], False)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_views_show_what_the_plain_rendering_shows(view):
  """The source is as fine as the view here, so that it is sampled as it is."""
  rng = np.random.default_rng(int(view.fov_deg))
  panorama = noise(rng, round(np.pi * view.pixels_per_radian))
  (picture,) = pictures_of(panorama, [view])
  if view.fov_deg == 360:
    expected = np.roll(panorama, 0 if view.lon_rad == 0 else len(panorama), axis=1)
    np.testing.assert_array_equal(picture, expected)
    return
  expected = render_view(panorama, view.lon_rad, view.lat_rad, view.fov_deg, view.size)
  assert picture.dtype == np.uint8 and picture.shape == (*view.size, 3)
  assert abs(picture - np.asarray(expected)).max() < 2


@pytest.mark.parametrize("height", [24, 100])
def test_finer_and_coarser_panoramas_of_one_scene_give_alike_views(height):
  scene = np.random.default_rng(5)
  state = scene.bit_generator.state
  same, scene.bit_generator.state = noise(scene, 300), state
  other = noise(scene, height)
  views = [perspective_view(170, 40, 90, 64), perspective_view(0, -90, 120, 64), *flat_views()]
  for fine, coarse in zip(pictures_of(same, views), pictures_of(other, views), strict=True):
    assert abs(fine.astype(int) - coarse).max() <= 6


def test_stripes_too_fine_for_a_view_average_out():
  panorama = np.zeros((1024, 2048, 3), np.uint8)
  panorama[:, ::2] = 255
  views = [perspective_view(30, 0, 90, 64), perspective_view(-179, 20, 120, 64), flat_views()[1]]
  for picture in pictures_of(panorama, views):
    assert abs(picture.astype(int) - 127).max() <= 35  # plain samples reach 127


def test_turning_the_panorama_turns_the_views():
  rng = np.random.default_rng()
  panorama = noise(rng, HEIGHT, 10)
  lons_deg = np.arange(0, 360, 45)
  views = [perspective_view(lon, lat, 100, 32) for lat in (-50, 20) for lon in lons_deg]
  before = np.array(pictures_of(panorama, views)).reshape(2, 8, 32, 32, 3)
  turned = np.roll(panorama, 3 * HEIGHT // 4, axis=1)  # by 135 degrees to the east
  after = np.array(pictures_of(turned, views)).reshape(before.shape)
  np.testing.assert_array_equal(after, np.roll(before, 3, axis=1))


def test_turning_a_view_turns_its_masks():
  rng = np.random.default_rng()
  masks = random_masks(rng, 3, (48, 48))
  first, second = (
    unpacked(to_sphere(masks, perspective_view(lon, 35, 90, 48), HEIGHT), HEIGHT)
    for lon in (-100, 125)
  )
  different = np.roll(first, HEIGHT * 225 // 180, axis=2) ^ second
  assert different.mean() < 1e-4  # rounding only


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("height", [HEIGHT, 2048])
def test_every_direction_is_seen_by_several_views_away_from_their_borders(mode, height):
  views = [
    dataclasses.replace(view, size=(20, 40 if view.is_flat else 20))
    for view in plan_views(height, mode)
  ]
  assert len({view.name for view in plan_views(height, mode)}) == len(views)
  assert (unpacked(view_fields(views, HEIGHT), HEIGHT).sum(axis=0) >= 3).all()
  # Not nearer to a border than a tenth of the view's width: seen whole there by one at least.
  inner = []
  for view in views:
    column, row = slow_coordinates(view, HEIGHT)
    to_border = [column + 0.5, view.size[1] - 0.5 - column]
    if not view.is_flat:  # the flat panorama has no border there, but stretches what is near it
      to_border += [row + 0.5, view.size[0] - 0.5 - row]
    inner.append(np.nan_to_num(np.min(to_border, axis=0), nan=-1) >= 0.1 * view.size[1])
  perspective = [seen for seen, view in zip(inner, views, strict=True) if not view.is_flat]
  assert np.sum(perspective, axis=0).min() >= 1
  assert np.sum(inner, axis=0).min() >= 2


def test_views_are_about_as_fine_as_the_panorama():
  for height in (256, 512, 1024):
    for view in plan_views(height, "full"):
      native = height / np.pi
      if min(SIZES) < view.size[1] < max(SIZES):
        assert 0.75 * native <= view.pixels_per_radian <= 1.7 * native
      elif view.size[1] == max(SIZES):
        assert view.pixels_per_radian <= 1.7 * native


def disc(lon_deg, lat_deg, radius_deg, height):
  """A disc on the sphere, [H, 2 H] bool."""
  centre = directions_from_angles(np.radians(lon_deg), np.radians(lat_deg))
  return pixel_directions(height) @ centre > np.cos(np.radians(radius_deg))


DISCS = ((40, 20, 12), (180, -5, 10), (-175, 40, 25), (70, 88, 20), (0, -90, 30), (10, 0, 70))
"""Longitude, latitude, radius in degrees: anywhere, on the seam, at poles, wider than a view."""


def test_a_mask_seen_by_a_view_comes_back_as_it_was():
  """Into all views that see some of it, and back."""
  height = 128
  views = [
    dataclasses.replace(view, size=(160, 320 if view.is_flat else 160))
    for view in plan_views(height)
  ]
  fields = unpacked(view_fields(views, height), height)
  areas = pixel_areas(height)
  masks = np.stack([disc(*place, height) for place in DISCS], axis=-1)
  compared = np.zeros(len(DISCS))
  for first in (0, 3):  # as channels of a picture
    pictures = pictures_of(masks[..., first : first + 3].astype(np.uint8) * 255, views)
    for view, field, picture in zip(views, fields, pictures, strict=True):
      assert picture.shape == (*view.size, 3)
      found = unpacked(to_sphere(np.moveaxis(picture > 127, -1, 0), view, height), height)
      assert not (found & ~field).any()
      for index, back in enumerate(found, first):
        seen = masks[..., index] & field
        if areas[seen].sum() < 0.3 * areas[masks[..., index]].sum():
          continue
        iou = areas[back & seen].sum() / areas[back | seen].sum()
        assert iou > 0.95, (view.name, DISCS[index])
        compared[index] += 1
  assert (compared >= 4).all()


@pytest.mark.parametrize("height", [30, 50])
def test_heights_whose_rows_are_no_whole_bytes_give_the_same_masks(height):
  view = perspective_view(100, -30, 90, 40)
  masks = random_masks(np.random.default_rng(3), 4, view.size)[1:]
  found = unpacked(to_sphere(masks, view, height), height)
  assert found.any(axis=(1, 2)).all()
  assert (found ^ (slow_to_sphere(masks, view, height) > 0.5)).mean() <= 0.02


def test_outlines_have_no_stairs_where_the_sphere_is_finer_than_the_view():
  """The outline of a disc, 12 pixels of the view across, deviates by little of a pixel."""
  view = dataclasses.replace(perspective_view(0, 0, 90, 32), size=(32, 32))
  y, x = np.mgrid[:32, :32] - 15.5
  mask = np.hypot(y, x) < 6
  (back,) = unpacked(to_sphere(mask[None], view, 256), 256)
  column, row = slow_coordinates(view, 256)
  distance = np.hypot(np.nan_to_num(column, nan=1e3) - 15.5, row - 15.5)
  assert back[distance < 5.4].all() and not back[np.nan_to_num(distance, nan=1e3) > 6.4].any()
  radii = distance[back & ~np.roll(back, 1, axis=1)]
  assert radii.std() < 0.25  # copied pixel by pixel .3


def test_nothing_in_a_view_is_nothing_on_the_sphere_and_wrong_masks_are_refused():
  view = plan_views(HEIGHT)[0]
  assert not to_sphere(np.zeros((2, 20, 20), bool), view, HEIGHT).any()
  assert to_sphere(np.zeros((0, 20, 20), bool), view, HEIGHT).shape == (0, HEIGHT**2 // 4)
  with pytest.raises(ValueError, match=r"bool \[N, h, w\]"):
    to_sphere(np.zeros((2, 20, 20)), view, HEIGHT)
  with pytest.raises(ValueError, match="uint8"):
    next(render_views(np.zeros((8, 16, 3)), [view]))
  with pytest.raises(ValueError, match="fast or full"):
    plan_views(HEIGHT, "slow")
