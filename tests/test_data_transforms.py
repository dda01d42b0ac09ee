"""Resampling, selecting and padding against plain NumPy."""

import numpy as np
import pytest

from foir360_jax.data import pad_objects, resample, select_objects
from foir360_jax.files.panorama_file import stretch
from foir360_jax.scenes import pack_masks, unpack_masks


def make_example(rng, height=32, num_objects=5):
  # Smooth blobs by thresholding a coarse random grid: halves of pixels do occur at their borders.
  coarse = rng.random((num_objects, height // 4, height // 2))
  masks = np.kron(coarse, np.ones((4, 4))) + 0.3 * rng.random((num_objects, height, 2 * height))
  return {
    "image": rng.integers(0, 256, (height, 2 * height, 3), np.uint8),
    "image_id": "a",
    "masks": pack_masks(masks > 0.8),
    "importance": rng.permutation(num_objects).astype(np.float32) / max(num_objects, 1),
    "category": rng.integers(0, 7, num_objects),
    "true_importance": rng.random(num_objects).astype(np.float32),
  }


def area_weights(size, new_size):
  """Share [new_size, size] of each old cell in each new one; rows sum to one."""
  edges, old = np.arange(new_size + 1) * size / new_size, np.arange(size)
  overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
  return np.maximum(overlap, 0) * new_size / size


def bilinear(image, height):
  """Enlarges by the convention: longitude wraps, beyond a pole lies its row half a turn on."""
  rows, width = image.shape[:2]
  result = np.zeros((height, 2 * height, *image.shape[2:]))
  for r in range(height):
    for c in range(2 * height):
      y, x = (r + 0.5) * rows / height - 0.5, (c + 0.5) * rows / height - 0.5
      for i in (int(np.floor(y)), int(np.floor(y)) + 1):
        for j in (int(np.floor(x)), int(np.floor(x)) + 1):
          weight = (1 - abs(y - i)) * (1 - abs(x - j))
          turn = 0 if 0 <= i < rows else width // 2
          result[r, c] += weight * image[np.clip(i, 0, rows - 1), (j + turn) % width]
  return result


@pytest.mark.parametrize("width", [1, 8, 20])
@pytest.mark.parametrize("num_objects", [0, 3])
def test_unpacking_undoes_packing(width, num_objects):
  masks = np.random.default_rng(width).random((num_objects, 6, width)) < 0.5
  packed = pack_masks(masks)
  assert packed.shape == (num_objects, 6, -(-width // 8)) and packed.dtype == np.uint8
  unpacked = unpack_masks(packed, width)
  assert unpacked.dtype == bool
  np.testing.assert_array_equal(unpacked, masks)


@pytest.mark.parametrize("height", [4, 8, 12, 16, 20, 28])
def test_shrinking_averages_areas_and_masks_follow_the_majority(height):
  example = make_example(np.random.default_rng(height))
  rows, columns = area_weights(32, height), area_weights(64, 2 * height)
  resampled = resample(example, height)
  image = np.einsum("ri,ijc,sj->rsc", rows, example["image"], columns)
  np.testing.assert_allclose(resampled["image"], image, atol=1)
  coverage = rows @ unpack_masks(example["masks"], 64) @ columns.T
  assert resampled["masks"].shape == (5, height, height // 4)
  expected = coverage >= np.minimum(0.5, coverage.max((1, 2), keepdims=True)) - 1e-6
  np.testing.assert_array_equal(unpack_masks(resampled["masks"], 2 * height), expected)


@pytest.mark.parametrize("height", [32, 48, 56, 60])
def test_an_object_is_shrunk_to_the_same_pixels_wherever_it_lies_and_however_high_it_is(height):
  rng = np.random.default_rng(height)
  masks = np.zeros((40, 64, 128), bool)
  for mask in masks:
    first, end = np.sort(rng.integers(0, 65, 2))
    mask[first:end] = rng.random((end - first, 128)) < 0.5
  masks[0, -1] = masks[1, 0] = masks[2] = True
  rows, columns = area_weights(64, height), area_weights(128, 2 * height)
  coverage = rows @ masks @ columns.T
  example = {"image": np.zeros((64, 128, 3), np.uint8), "masks": pack_masks(masks)}
  resampled = unpack_masks(resample(example, height)["masks"], 2 * height)
  peak = coverage.max((1, 2), keepdims=True)
  np.testing.assert_array_equal(resampled, (coverage >= np.minimum(0.5, peak) - 1e-6) & (peak > 0))


@pytest.mark.parametrize("height", [16, 20, 24])
def test_enlarging_is_bilinear_across_the_seam_and_the_poles(height):
  example = make_example(np.random.default_rng(height), height=12)
  resampled = resample(example, height)
  np.testing.assert_allclose(resampled["image"], bilinear(example["image"], height), atol=1)
  masks = unpack_masks(example["masks"], 24)
  for mask, enlarged in zip(masks, unpack_masks(resampled["masks"], 2 * height), strict=True):
    coverage = bilinear(mask, height)
    sure = abs(coverage - 0.5) > 1e-5
    np.testing.assert_array_equal(enlarged[sure], coverage[sure] >= 0.5)


def test_an_example_of_the_right_size_is_not_touched():
  example = make_example(np.random.default_rng(0))
  assert resample(example, 32) is example


def test_an_object_too_small_for_a_majority_keeps_its_best_pixel_and_an_empty_one_stays_empty():
  masks = np.zeros((2, 512, 1024), bool)
  masks[0, 300, 1023] = True
  example = {"image": np.zeros((512, 1024, 3), np.uint8), "masks": pack_masks(masks)}
  resampled = unpack_masks(resample(example, 16)["masks"], 32)
  np.testing.assert_array_equal(np.argwhere(resampled), [[0, 300 // 32, 31]])


def test_an_example_without_objects_can_be_resampled_selected_and_padded():
  example = make_example(np.random.default_rng(1), num_objects=0)
  padded = pad_objects(resample(select_objects(example, 3), 16), 3)
  assert padded["masks"].shape == (3, 16, 4) and not padded["masks"].any()
  assert not padded["where"].any() and not padded["relevance"].any()
  np.testing.assert_array_equal(padded["category"], [-1, -1, -1])


def test_the_most_important_objects_stay_in_their_order_with_all_that_belongs_to_them():
  example = make_example(np.random.default_rng(2), num_objects=9)
  selected = select_objects(example, 4)
  kept = np.flatnonzero(example["importance"] >= np.sort(example["importance"])[-4])
  names = {"masks": "masks", "relevance": "importance", "category": "category"}
  for key, name in (names | {"true_importance": "true_importance"}).items():
    np.testing.assert_array_equal(selected[key], example[name][kept], err_msg=key)
  assert selected["relevance"].dtype == np.float32 and selected["category"].dtype == np.int32
  assert selected.keys() == {"image", "masks", "relevance", "category", "true_importance"}


def test_of_equally_important_objects_the_earlier_stay():
  example = make_example(np.random.default_rng(3), num_objects=4)
  example |= {"importance": np.array([0.5, 0.2, 0.5, 0.5]), "category": np.arange(4)}
  np.testing.assert_array_equal(select_objects(example, 2)["category"], [0, 2])


def test_ranks_tell_objects_of_one_importance_apart():
  rng = np.random.default_rng()
  example = make_example(rng, num_objects=128)
  rank = rng.permutation(128) + 1
  importance = np.round((128 - rank) / 127, 1)  # eleven values, 0 and 1 among them
  example |= {"rank": rank.astype(np.int32), "importance": importance.astype(np.float32)}
  relevance = select_objects(example, 128)["relevance"]
  np.testing.assert_array_equal(np.argsort(-relevance), np.argsort(rank))
  assert len(np.unique(relevance)) == 128 and 0 <= relevance.min() <= relevance.max() <= 1
  np.testing.assert_allclose(relevance, example["importance"], atol=1.1e-5)
  kept = select_objects(example, 3)
  np.testing.assert_array_equal(kept["masks"], example["masks"][np.sort(np.argsort(rank)[:3])])


@pytest.mark.parametrize("rank", [[1, 1, 2], None])
def test_ties_that_the_ranks_have_too_stay_ties(rank):
  example = make_example(np.random.default_rng(), num_objects=3)
  example["importance"] = np.array([0.7, 0.7, 0.1], np.float32)
  if rank:
    example["rank"] = np.array(rank, np.int32)
  selected = select_objects(example, 3)["relevance"]
  np.testing.assert_array_equal(selected, example["importance"])


def test_data_without_categories_or_true_importance_are_read_too():
  example = make_example(np.random.default_rng(4), num_objects=2)
  del example["category"], example["true_importance"]
  padded = pad_objects(select_objects(example, 3), 3)
  np.testing.assert_array_equal(padded["category"], [-1, -1, -1])
  assert "true_importance" not in padded


def test_padding_keeps_the_objects_and_marks_the_rest():
  selected = select_objects(make_example(np.random.default_rng(5)), 7)
  padded = pad_objects(selected, 7)
  np.testing.assert_array_equal(padded["where"], [True] * 5 + [False] * 2)
  for key, fill in {"masks": 0, "relevance": 0, "true_importance": 0, "category": -1}.items():
    assert padded[key].dtype == selected[key].dtype
    np.testing.assert_array_equal(padded[key][:5], selected[key])
    assert (padded[key][5:] == fill).all()


def test_an_image_that_is_no_full_panorama_is_refused():
  example = make_example(np.random.default_rng(6))
  example["image"] = example["image"][:20]
  with pytest.raises(ValueError, match="twice as wide as high, not 64x20"):
    resample(example, 16)


@pytest.mark.parametrize("height", [0, -4, 18])
def test_a_height_whose_columns_do_not_fill_bytes_is_refused(height):
  with pytest.raises(ValueError, match=f"multiple of 4, not {height}"):
    resample(make_example(np.random.default_rng(7)), height)


@pytest.mark.parametrize("key", ["masks", "image", "importance"])
def test_masks_that_do_not_fit_image_or_labels_are_refused(key):
  example = make_example(np.random.default_rng(8))
  example[key] = example[key][:-1]
  with pytest.raises(ValueError, match="image a of .* needs bit-packed masks"):
    select_objects(example, 5)


@pytest.mark.parametrize("width", [62, 63, 65, 66])
@pytest.mark.parametrize("height", [32, 16, 48])
def test_panoramas_a_row_off_2_to_1_are_stretched_to_it(width, height):
  rng = np.random.default_rng()
  image = rng.integers(0, 256, (32, width, 3), np.uint8)
  masks = np.zeros((2, 32, width), bool)
  masks[0, 8:24, : width // 2], masks[1, 8:24, width // 2 :] = True, True
  example = resample({"image": image, "masks": pack_masks(masks)}, height)
  assert example["image"].shape == (height, 2 * height, 3)
  found = unpack_masks(example["masks"], 2 * height)
  assert found.shape == (2, height, 2 * height)
  np.testing.assert_allclose(found.mean((1, 2)), 0.25, atol=0.02)
  if height == 32:
    np.testing.assert_array_equal(example["image"], stretch(image))
