import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax.metrics import crop_masks, mask_iou


def random_masks(count=5, height=7, width=14):
  masks = np.random.default_rng(0).random((count, height, width)) < 0.1
  masks[1] = False
  return masks


def uncrop(cropped):
  masks = np.zeros((len(cropped), *cropped.size), bool)
  for index, crop in enumerate(cropped.crops):
    masks[index][cropped.window(index)] = crop
  return masks


@pytest.mark.parametrize(
  "form",
  [
    lambda masks: masks,
    lambda masks: masks.astype(np.uint8) * 255,
    lambda masks: masks.astype(np.float32) * 0.6 + 0.3,
    lambda masks: np.asfortranarray(masks.transpose(1, 2, 0)).transpose(2, 0, 1),
    lambda masks: masks.tolist(),
    lambda masks: jnp.asarray(masks),
    lambda masks: iter(masks),
  ],
  ids=["bool", "uint8", "float", "column-major", "lists", "device", "iterator"],
)
def test_crops_hold_every_pixel_of_masks_of_any_kind(form):
  masks = random_masks()
  cropped = crop_masks(form(masks))
  np.testing.assert_array_equal(uncrop(cropped), masks)
  np.testing.assert_array_equal(cropped.areas, masks.sum(axis=(1, 2)))
  assert all(crop.flags.c_contiguous for crop in cropped.crops)


def test_boxes_are_tight_and_those_of_empty_masks_are_empty():
  cropped = crop_masks(random_masks())
  assert cropped.crops[1].size == 0
  for index, crop in enumerate(cropped.crops):
    if index != 1:
      assert crop[0].any() and crop[-1].any() and crop[:, 0].any() and crop[:, -1].any()


def test_crops_do_not_change_with_the_masks():
  masks = random_masks()
  cropped = crop_masks(masks)
  before = uncrop(cropped)
  masks[:] = True
  np.testing.assert_array_equal(uncrop(cropped), before)


def test_cropped_masks_are_taken_as_they_are():
  masks = random_masks()
  cropped = crop_masks(masks)
  assert crop_masks(cropped) is cropped
  np.testing.assert_array_equal(mask_iou(cropped, cropped), mask_iou(masks, masks))


def test_no_masks_have_the_size_of_their_array_if_it_has_one():
  assert crop_masks([]).size is None and len(crop_masks([])) == 0
  assert crop_masks(np.zeros((0, 4, 8))).size == (4, 8)


@pytest.mark.parametrize("masks", [[np.ones((2, 4)), np.ones((2, 5))], np.ones((4, 8))])
def test_masks_that_are_not_pictures_of_one_size_are_refused(masks):
  with pytest.raises(ValueError, match=r"n pictures \[H, W\] of one size"):
    crop_masks(masks)
