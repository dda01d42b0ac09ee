import itertools

import cv2
import numpy as np
import pytest

from foir360_jax.drawing import draw_overlay, overlay, picture_text
from foir360_jax.drawing.label_placement import place_labels
from foir360_jax.files.id_map_file import topmost
from foir360_jax.scenes import RankedObjects

HEIGHT, WIDTH = 512, 1024
STRIP = 44


def ellipses(rng, num_objects, smallest, largest):
  masks = np.zeros([num_objects, HEIGHT, 3 * WIDTH], np.uint8)
  for mask in masks:
    centre = (int(rng.integers(WIDTH, 2 * WIDTH)), int(rng.integers(40, HEIGHT - 40)))
    axes = [int(length) for length in rng.integers(smallest, largest + 1, 2)]
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
  return masks.reshape(num_objects, HEIGHT, 3, WIDTH).any(axis=2)


def disc(x, y, radius):
  rows, columns = np.mgrid[:HEIGHT, :WIDTH]
  return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def rank(masks, panorama=None):
  if panorama is None:
    panorama = np.full([*masks.shape[1:], 3], 90, np.uint8)
  importance = np.linspace(1, 0.1, len(masks)) if len(masks) else []
  return RankedObjects.from_masks(panorama, masks, importance)


def boxes(labels, aspects):
  halves = [
    (aspect * label.size / 2, label.size / 2) for label, aspect in zip(labels, aspects, strict=True)
  ]
  return [
    (x - half_width, y - half_height, x + half_width, y + half_height)
    for (x, y), (half_width, half_height) in zip(
      [label.centre for label in labels], halves, strict=True
    )
  ]


def overlaps(a, b):
  return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_colours_run_from_red_to_violet_and_ties_share_one():
  colours = overlay.rank_colours(np.array([1, 2, 2, 3, 4, 5, 6, 7]))
  np.testing.assert_array_equal(colours[1], colours[2])
  assert len(np.unique(colours, axis=0)) == 7
  hues = cv2.cvtColor(colours[None], cv2.COLOR_RGB2HSV_FULL)[0, 1:, 0].astype(int)
  assert np.all(np.diff(hues) >= 0)
  red, violet = colours[0].astype(int), colours[-1].astype(int)
  assert red[0] > 2 * max(red[1:]) and violet[2] > violet[0] > violet[1]
  assert overlay.rank_colours(np.array([1]))[0].tolist() == red.tolist()
  assert overlay.rank_colours(np.zeros([0], int)).shape == (0, 3)


@pytest.mark.parametrize(
  ("height", "drawn_width"),
  [(32, 1024), (50, 1100), (64, 1024), (300, 1200), (512, 1024), (600, 1200)],
)
def test_small_pictures_grow_by_a_whole_number_and_others_keep_their_size(height, drawn_width):
  masks = np.zeros([1, height, 2 * height], bool)
  masks[0, 5:20, 8:30] = True
  drawn = draw_overlay(np.full([height, 2 * height, 3], 90, np.uint8), rank(masks))
  strip = round(STRIP * drawn_width / 1024)
  assert drawn.shape == (drawn_width // 2 + strip, drawn_width, 3) and drawn.dtype == np.uint8


def test_objects_are_tinted_in_their_colours_and_the_rest_stays_grey():
  masks = np.stack([disc(200, 250, 80), disc(500, 250, 80), disc(800, 250, 80)])
  drawn = draw_overlay(np.full([HEIGHT, WIDTH, 3], 90, np.uint8), rank(masks)).astype(int)
  for x, colour in zip((200, 500, 800), overlay.rank_colours(np.arange(1, 4)), strict=True):
    np.testing.assert_allclose(drawn[310, x], 0.55 * 90 + 0.45 * colour, atol=1)
  assert np.ptp(drawn[20, 20]) == 0 and 60 <= drawn[20, 20, 0] < 90


def test_drawing_leaves_its_inputs_as_they_were():
  rng = np.random.default_rng()
  ranked = rank(ellipses(rng, 5, 3, 60), rng.integers(0, 256, [HEIGHT, WIDTH, 3], dtype=np.uint8))
  panorama, masks = ranked.panorama.copy(), ranked.masks.copy()
  first = draw_overlay(ranked.panorama, ranked)
  np.testing.assert_array_equal(ranked.panorama, panorama)
  np.testing.assert_array_equal(ranked.masks, masks)
  np.testing.assert_array_equal(draw_overlay(panorama, ranked), first)


def test_without_objects_there_is_the_picture_and_a_line_that_says_so():
  none = np.zeros([0, HEIGHT, WIDTH], bool)
  drawn = draw_overlay(np.full([HEIGHT, WIDTH, 3], 90, np.uint8), rank(none))
  assert len(np.unique(drawn[:HEIGHT])) == 1
  assert len(np.unique(drawn[HEIGHT:])) > 10  # text, anti-aliased
  assert np.ptp(drawn[HEIGHT:].astype(int), axis=-1).max() < 12  # and no rainbow


def test_the_colour_bar_is_red_at_the_left_and_violet_at_the_right():
  bar = overlay.colour_bar(WIDTH, 9)
  colours = overlay.rank_colours(np.array([1, 2]))
  middle = bar[len(bar) // 2]
  coloured = np.flatnonzero(np.ptp(middle.astype(int), axis=-1) > 100)
  np.testing.assert_allclose(middle[coloured[0]], colours[0], atol=2)
  np.testing.assert_allclose(middle[coloured[-1]], colours[1], atol=2)
  assert (overlay.colour_bar(WIDTH, 8) != bar).any()  # the last rank is written


def test_a_panorama_of_another_size_is_refused():
  with pytest.raises(ValueError, match="give the panorama that was ranked"):
    draw_overlay(np.zeros([64, 128, 3], np.uint8), rank(disc(5, 5, 3)[None]))


def test_masks_survive_any_change_of_size():
  masks = np.zeros([3, 256, 512], bool)
  masks[0, 100, 300], masks[1, :, 7], masks[2] = True, True, True
  for height in (60, 512, 700):
    _, scaled = overlay.resize(np.zeros([256, 512, 3], np.uint8), masks, height, 2 * height)
    assert scaled.any(axis=(1, 2)).all() and scaled[2].all()
    row, column = np.argwhere(scaled[0]).mean(axis=0) * 256 / height
    assert abs(row - 100) < 5 and abs(column - 300) < 5


def test_an_object_on_the_seam_has_no_line_along_the_border():
  panorama = np.full([HEIGHT, WIDTH, 3], 90, np.uint8)
  band = np.zeros([1, HEIGHT, WIDTH], bool)
  band[0, 200:300, :60] = band[0, 200:300, -60:] = True
  painted = overlay.paint_masks(
    panorama, band, np.array([[255, 0, 0]], np.uint8), dim=1, grey=0, strength=0.5
  )
  inside = painted[250]
  np.testing.assert_array_equal(inside[0], inside[30])
  np.testing.assert_array_equal(inside[-1], inside[30])
  assert (inside[59] != inside[30]).any()  # but one at its true border


def test_an_object_over_a_pole_has_no_line_along_the_border():
  caps = np.zeros([2, HEIGHT, WIDTH], bool)
  caps[0, :40], caps[1, -40:] = True, True
  painted = overlay.paint_masks(
    np.full([HEIGHT, WIDTH, 3], 90, np.uint8),
    caps,
    np.array([[255, 0, 0], [0, 0, 255]], np.uint8),
    dim=1,
    grey=0,
    strength=0.5,
  )
  np.testing.assert_array_equal(painted[0], painted[15])
  np.testing.assert_array_equal(painted[-1], painted[-15])


def test_the_smaller_of_overlapping_objects_is_on_top():
  masks = np.stack([disc(300, 250, 20), disc(310, 250, 90), disc(330, 250, 50)])
  top = topmost(masks)
  assert top[250, 300] == 0 and top[250, 345] == 2 and top[250, 225] == 1 and top[0, 0] == -1
  np.testing.assert_array_equal(top >= 0, masks.any(axis=0))


def test_numbers_are_inside_their_masks_and_grow_with_them():
  masks = np.stack([disc(200, 250, 9), disc(500, 250, 25), disc(800, 250, 120)])
  labels = place_labels(masks, [0.8] * 3, 13, 30)
  assert [label.centre for label in labels] == [(200, 250), (500, 250), (800, 250)]
  sizes = [label.size for label in labels]
  assert 13 <= sizes[0] < sizes[1] <= sizes[2] == 30


def test_the_number_of_a_bent_object_is_inside_it_and_not_at_its_centroid():
  ring = disc(500, 250, 120) & ~disc(500, 250, 80)
  (label,) = place_labels(ring[None], [0.8], 13, 30)
  assert ring[label.centre[1], label.centre[0]]


def test_the_number_of_an_object_cut_by_the_seam_is_in_its_larger_piece():
  wide = np.roll(disc(500, 250, 80), 560, axis=1)  # centred 36 pixels east of the seam
  narrow = np.roll(disc(500, 250, 80), 480, axis=1)
  labels = place_labels(np.stack([wide]), [0.8], 13, 30) + place_labels(narrow[None], [0.8], 13, 30)
  assert 0 < labels[0].centre[0] < 120
  assert WIDTH - 110 < labels[1].centre[0] < WIDTH


def test_a_tiny_object_gets_its_number_beside_it_on_a_leader():
  for x, y in ((500, 250), (1, 1), (WIDTH - 1, HEIGHT - 1), (0, 250)):
    mask = disc(x, y, 2)
    (label,) = place_labels(mask[None], [1.4], 13, 30)
    assert mask[label.anchor[1], label.anchor[0]]
    left, top, right, bottom = boxes([label], [1.4])[0]
    assert not mask[int(top) : int(bottom) + 1, int(left) : int(right) + 1].any()
    assert left >= 0 and top >= 0 and right < WIDTH and bottom < HEIGHT
    assert np.hypot(label.centre[0] - x, label.centre[1] - y) < 60


def test_the_numbers_of_40_objects_do_not_collide():
  rng = np.random.default_rng()
  masks = ellipses(rng, 40, 2, 45)
  masks = masks[np.argsort([-mask.sum() for mask in masks])]
  aspects = [0.8] * 9 + [1.4] * 31
  labels = place_labels(masks, aspects, 13, 30)
  assert len(labels) == 40
  for a, b in itertools.combinations(boxes(labels, aspects), 2):
    assert not overlaps(a, b)
  for mask, label in zip(masks, labels, strict=True):
    assert mask[label.anchor[1], label.anchor[0]]


def test_numbers_of_objects_on_the_same_spot_do_not_collide():
  masks = np.stack([disc(500, 250, 12)] * 6)
  labels = place_labels(masks, [0.8] * 6, 13, 30)
  for a, b in itertools.combinations(boxes(labels, [0.8] * 6), 2):
    assert not overlaps(a, b)


def test_objects_that_fill_the_sphere_get_numbers_too():
  masks = np.ones([3, 32, 64], bool)
  labels = place_labels(masks, [0.8] * 3, 13, 30)
  assert all(0 <= x < 64 and 0 <= y < 32 for label in labels for x, y in [label.centre])


def test_text_is_bright_with_a_dark_outline_and_is_cut_at_the_border():
  picture = np.full([60, 200, 3], 120, np.uint8)
  picture_text.draw_text(picture, "28", (100, 30), 24)
  rows, columns = np.nonzero((picture == 255).all(axis=-1))
  assert abs((rows.min() + rows.max()) / 2 - 30) <= 1.5
  assert abs((columns.min() + columns.max()) / 2 - 100) <= 2
  assert 22 <= np.ptp(rows) + 1 <= 28
  assert (picture < 20).all(axis=-1).sum() > 100
  for point in ((0, 0), (199, 59), (-500, 30), (100, 500), (300, -300)):
    picture_text.draw_text(picture, "10", point, 24)


@pytest.mark.parametrize("name", ["pavs_attr_MP", "pavs_seq_choir_0"])
def test_real_panoramas_are_drawn_with_every_object_in_sight(shared, name):
  folder = shared / "data" / "erp"
  ids = cv2.imread(str(folder / f"{name}_ids.png"), cv2.IMREAD_UNCHANGED)
  panorama = cv2.imread(str(folder / f"{name}.png"))[..., ::-1].copy()
  ranked = rank(np.stack([ids == i for i in np.unique(ids)[1:]]), panorama)
  drawn = draw_overlay(panorama, ranked)
  scale = drawn.shape[1] // ids.shape[1]
  centred = drawn[scale // 2 :: scale, scale // 2 :: scale][: ids.shape[0]]
  for mask, colour in zip(ranked.masks, overlay.rank_colours(ranked.ranks), strict=True):
    # A small figure is all outline and number, so only the outline's own colour is sure to show.
    assert np.count_nonzero((centred[mask] == colour).all(axis=-1)) >= 10
