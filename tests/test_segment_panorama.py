"""From a panorama's pixels to its objects, by a segmenter that sees what was painted."""

import dataclasses

import numpy as np
import pytest

from foir360_jax.segment import Segmenter
from foir360_jax.segment.panorama import fields_of, segment_panorama
from foir360_jax.segment.study.judge import judge
from foir360_jax.segment.view_masks import view_fields
from foir360_jax.segment.views import flat_views, perspective_view
from foir360_jax.sphere import directions_from_angles, pixel_directions

HEIGHT = 128
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))  # before black
PLACES = ((0, 0, 20), (180, 10, 25), (-100, 55, 15), (80, -40, 12))  # longitude, latitude, radius
VIEWS = tuple(
  dataclasses.replace(view, size=(96, 192) if view.is_flat else (96, 96))
  for view in (
    *(perspective_view(lon, lat, 90, 96) for lat in (0, 40, -40) for lon in range(-180, 180, 60)),
    *flat_views(),
  )
)


class ByColour:
  """Finds what has the colour of an object; scores differ."""

  categories = ("first", "second", "third", "fourth")

  def __init__(self):
    self.pictures = 0

  def __call__(self, picture):
    self.pictures += 1
    for number, colour in enumerate(COLOURS):
      mask = ((picture > 127) == (np.array(colour) > 127)).all(axis=2)
      if mask.sum() >= 12:
        edge = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        yield 0.6 + 0.1 * number, number, mask, edge


@pytest.fixture(scope="module")
def painted():
  directions = pixel_directions(HEIGHT)
  masks = []
  for lon_deg, lat_deg, radius_deg in PLACES:
    centre = directions_from_angles(*np.radians([lon_deg, lat_deg])).astype(np.float32)
    masks.append(directions @ centre > np.cos(np.radians(radius_deg)))
  panorama = np.zeros((HEIGHT, 2 * HEIGHT, 3), np.uint8)
  for mask, colour in zip(masks, COLOURS, strict=True):
    panorama[mask] = colour
  return panorama, np.array(masks)


def test_every_object_is_found_once_and_whole(painted):
  panorama, masks = painted
  seconds = {}
  segmenter = ByColour()
  objects = segment_panorama(
    panorama, Segmenter(segmenter, "colours"), views=VIEWS, confidence=0.1, timings=seconds
  )
  assert segmenter.pictures == len(VIEWS)
  assert judge(objects.masks, masks).iou.min() > 0.9 and len(objects.masks) == len(masks)
  assert objects.categories == ByColour.categories[::-1]  # the surest first
  np.testing.assert_allclose(objects.scores, [0.9, 0.8, 0.7, 0.6], atol=0.03)
  assert objects.whole.all() and (objects.support > 0.9).all()
  assert set(seconds) == {"rendering", "segmenter", "back-projection", "merge"}
  assert min(seconds.values()) > 0
  best = segment_panorama(panorama, Segmenter(ByColour(), "colours"), views=VIEWS, max_objects=2)
  np.testing.assert_array_equal(best.masks, objects.masks[:2])
  sure = segment_panorama(panorama, Segmenter(ByColour(), "colours"), views=VIEWS, confidence=0.75)
  assert sure.categories == ("fourth", "third")


def test_a_partial_panorama_is_looked_at_where_it_has_picture(painted):
  panorama, masks = painted
  data = np.zeros(panorama.shape[:2], bool)
  data[:, HEIGHT // 2 : HEIGHT + HEIGHT // 8] = True  # 90 degrees and a bit, into the first object
  cut = np.where(data[..., None], panorama, 0)
  segmenter = ByColour()
  objects = segment_panorama(
    cut, Segmenter(segmenter, "colours"), views=VIEWS, confidence=0.1, data=data
  )
  assert segmenter.pictures < len(VIEWS)
  assert not objects.masks[:, ~data].any() and len(objects.masks) == 2
  expected = np.array([mask & data for mask in masks])
  assert judge(objects.masks, expected[[0, 2]]).iou.min() > 0.85
  nowhere = np.zeros_like(data)
  objects = segment_panorama(cut, Segmenter(ByColour(), "colours"), views=VIEWS, data=nowhere)
  assert objects.masks.shape == (0, HEIGHT, 2 * HEIGHT)


def test_nothing_found_is_no_objects(painted):
  blank = np.zeros_like(painted[0])
  objects = segment_panorama(blank, Segmenter(ByColour(), "colours"), views=VIEWS)
  assert objects.masks.shape == (0, HEIGHT, 2 * HEIGHT) and objects.categories == ()
  with pytest.raises(ValueError, match="data is bool"):
    segment_panorama(
      blank, Segmenter(ByColour(), "colours"), views=VIEWS, data=np.ones((4, 8), bool)
    )


def test_the_flat_panorama_ends_at_its_seam():
  views = flat_views()
  seen, all_seen = (np.unpackbits(fields(views, 16), axis=1).reshape(2, 16, 32)
                    for fields in (fields_of, view_fields))  # fmt: skip
  assert all_seen.all()
  assert sorted(set(np.nonzero(~seen[0].astype(bool))[1].tolist())) == [0, 31]
  assert sorted(set(np.nonzero(~seen[1].astype(bool))[1].tolist())) == [15, 16]
