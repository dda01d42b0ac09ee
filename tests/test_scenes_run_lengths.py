import numpy as np
import pytest
from pycocotools import mask as coco_mask

from foir360_jax.scenes import RunLengths
from foir360_jax.scenes.run_lengths import split_id_map
from foir360_jax.scenes.segmentation import (
  planar_box,
  read_masks,
  read_segmentation,
  write_segmentation,
)

HEIGHT, WIDTH = 13, 29


def random_masks(count=40):
  rng = np.random.default_rng()
  masks = rng.random([count, HEIGHT, WIDTH]) < rng.random([count, 1, 1])
  masks[:, 4, 7] = True
  masks[0] = True
  masks[1] = False
  masks[1, -1, -1] = masks[2, 0, 0] = True
  return masks


def plain_runs(mask):
  """Run lengths by the definition, one pixel at a time."""
  runs, value = [0], False
  for pixel in mask.T.ravel():
    if pixel != value:
      runs.append(0)
      value = pixel
    runs[-1] += 1
  return runs


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_encoding_is_what_pycocotools_writes_and_decoding_gives_the_mask_back():
  for mask in random_masks():
    encoded = RunLengths.from_mask(mask)
    expected = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert encoded.counts == expected["counts"]
    assert encoded.runs().tolist() == plain_runs(mask)
    np.testing.assert_array_equal(encoded.mask(), mask)
    assert encoded.area() == mask.sum()
    assert encoded.mask().flags.c_contiguous
    assert planar_box(encoded) == coco_mask.toBbox(expected).tolist()


def test_long_runs_of_a_large_picture_survive():
  mask = np.zeros([4096, 8192], bool)
  mask[17, 3:9], mask[4000, 8000] = True, True
  encoded = RunLengths.from_mask(mask)
  assert encoded.counts == coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
  assert encoded.area() == 7


def test_all_forms_of_one_mask_compare_equal():
  for mask in random_masks():
    encoded = RunLengths.from_mask(mask)
    forms = [
      {"size": [HEIGHT, WIDTH], "counts": plain_runs(mask)},
      {"size": [HEIGHT, WIDTH], "counts": [0, 0, *plain_runs(mask), 0, 0, 0]},
      encoded.to_coco(),
    ]
    for form in forms:
      assert read_segmentation(form, HEIGHT, WIDTH) == encoded
  pieces = {"size": [2, 4], "counts": [1, 2, 0, 3, 0, 0, 2]}
  assert read_segmentation(pieces, 2, 4).runs().tolist() == [1, 5, 2]


def test_an_id_map_splits_into_the_masks_of_its_numbers():
  rng = np.random.default_rng()
  for dtype in (np.uint8, np.uint16, np.int32):
    id_map = rng.choice([0, 1, 4, 200], [HEIGHT, WIDTH]).astype(dtype)
    found = split_id_map(id_map)
    assert list(found) == sorted(set(np.unique(id_map).tolist()) - {0})
    for number, encoded in found.items():
      np.testing.assert_array_equal(encoded.mask(), id_map == number)
  assert split_id_map(np.zeros([3, 4], np.uint8)) == {}
  assert split_id_map(np.full([3, 4], 9, np.uint8))[9].area() == 12


@pytest.mark.parametrize(
  ("mask", "message"),
  [
    (np.zeros([3, 4], bool), "no pixel"),
    (np.ones([3, 4], np.uint8), "bool"),
    (np.ones([1, 3, 4], bool), "bool"),
  ],
)
def test_arrays_that_are_no_mask_are_refused(mask, message):
  with pytest.raises(ValueError, match=message):
    RunLengths.from_mask(mask)


SIZE = [HEIGHT, WIDTH]
PIXELS = HEIGHT * WIDTH


@pytest.mark.parametrize(
  ("segmentation", "message"),
  [
    (None, "must be polygons or run lengths"),
    ([], "must be polygons or run lengths"),
    ("abc", "must be polygons or run lengths"),
    ({}, "has size None"),
    ({"size": SIZE[::-1], "counts": [1, PIXELS - 1]}, "resample the mask"),
    ({"size": SIZE}, "must be text or a list"),
    ({"size": SIZE, "counts": [1.0, PIXELS - 1]}, "must be text or a list"),
    ({"size": SIZE, "counts": [True, PIXELS - 1]}, "must be text or a list"),
    ({"size": SIZE, "counts": []}, "not a run-length encoding"),
    ({"size": SIZE, "counts": [1, PIXELS]}, "not a run-length encoding"),
    ({"size": SIZE, "counts": [-1, PIXELS + 1]}, "not a run-length encoding"),
    ({"size": SIZE, "counts": [10**30, 1]}, "not a run-length encoding"),
    ({"size": SIZE, "counts": [2**62, 2**62, 2**62, 2**62, PIXELS]}, "not a run-length"),
    ({"size": SIZE, "counts": [PIXELS]}, "no pixel"),
    ({"size": SIZE, "counts": ""}, "not a run-length encoding"),
    ({"size": SIZE, "counts": "\udcff"}, "not a run-length encoding"),
    ({"size": SIZE, "counts": "o" * 20 + "0"}, "not a run-length encoding"),
    ([[1, 1, 5, 1]], r"segmentation\[0\] must be a list x1"),
    ([[1, 1, 5, 1, 5, 5], [1, 1, 2, 2, 3, 3, 4]], r"segmentation\[1\] must be a list"),
    ([1, 1, 5, 1, 5, 5], r"segmentation\[0\] must be a list"),
    ([[1, 1, 5, float("nan"), 5, 5]], "holds nan"),
    ([[1, 1, 5, None, 5, 5]], "holds None"),
    ([[1, 1, 5, True, 5, 5]], "holds True"),
    ([[1, 1, 5, 1, 5, HEIGHT + 2]], "leaves the picture .* at y = 15"),
    ([[-2, 1, 5, 1, 5, 5]], "leaves the picture .* at x = -2"),
    ([[1, 1, 10**400, 1, 5, 5]], "give finite numbers"),
    ([[3, 3, 3, 3, 3, 3]], "no pixel"),
  ],
)
def test_segmentations_that_are_none_are_refused(segmentation, message):
  with pytest.raises(ValueError, match=message) as error:
    read_segmentation(segmentation, HEIGHT, WIDTH)
  assert "\n" not in str(error.value)


def test_corrupt_run_lengths_are_refused_or_another_valid_mask():
  rng = np.random.default_rng()
  letters = np.frombuffer(RunLengths.from_mask(random_masks()[5]).counts, np.uint8)
  refused = 0
  for _ in range(300):
    changed = letters.copy()
    changed[rng.integers(len(changed))] = rng.integers(1, 128)
    try:
      coco = {"size": SIZE, "counts": changed.tobytes().decode("ascii")}
      assert 0 < RunLengths.from_coco(coco, HEIGHT, WIDTH).mask().sum() <= PIXELS
    except ValueError:
      refused += 1
  assert refused > 100


def test_polygons_of_pixel_edges_fill_their_pixels_and_join():
  mask = np.zeros([HEIGHT, WIDTH], bool)
  mask[2:6, 3:9] = mask[8:13, 20:29] = True
  polygons = [[3, 2, 9, 2, 9, 6, 3, 6], [20, 8, 29, 8, 29, 13, 20, 13]]
  np.testing.assert_array_equal(read_segmentation(polygons, HEIGHT, WIDTH).mask(), mask)


def test_the_original_form_is_written_while_it_is_the_mask():
  polygons = [[3, 2, 9, 2, 9, 6, 3, 6]]
  mask = read_segmentation(polygons, HEIGHT, WIDTH)
  assert write_segmentation(mask, polygons) is polygons
  other = RunLengths.from_mask(~mask.mask())
  assert write_segmentation(other, polygons) == other.to_coco()
  assert write_segmentation(other) == other.to_coco()


def test_a_size_of_gigabytes_is_refused_before_it_is_decoded():
  with pytest.raises(ValueError, match="no size of a picture here"):
    RunLengths.from_coco({"size": [10**6, 10**6], "counts": [0, 10**12]}, 10**6, 10**6)


def test_a_list_names_the_record_that_is_wrong():
  good = {"segmentation": [[3, 2, 9, 2, 9, 6, 3, 6]]}
  assert len(read_masks([good, good], "annotations", HEIGHT, WIDTH)) == 2
  for bad in ({}, None, 3, {"segmentation": []}):
    with pytest.raises(ValueError, match=r"annotations\[1\]: "):
      read_masks([good, bad], "annotations", HEIGHT, WIDTH)
