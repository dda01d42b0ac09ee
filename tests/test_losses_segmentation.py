import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax import losses

HEIGHT, WIDTH = 8, 16
NUM_PIXELS = HEIGHT * WIDTH
LATITUDE = (0.5 - (np.arange(HEIGHT) + 0.5) / HEIGHT) * np.pi
PIXEL_WEIGHTS = np.repeat(np.cos(LATITUDE), WIDTH).astype(np.float32)

MASK_LOSSES = [losses.dice_loss, losses.mask_cross_entropy]


def jitted(loss_fn):
  """One program a shape, where each operation would be one of its own."""
  return jax.jit(loss_fn, static_argnames="reduce_fn")


def weighted(loss_fn):
  return functools.partial(loss_fn, pixel_weights=PIXEL_WEIGHTS)


ALL_LOSSES = [jitted(weighted(loss_fn)) for loss_fn in MASK_LOSSES]
ALL_LOSSES.append(jitted(losses.focal_heatmap_loss))
every_loss = pytest.mark.parametrize("loss_fn", ALL_LOSSES, ids=["dice", "entropy", "focal"])


def random_masks(seed, *shape):
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 3, (*shape, NUM_PIXELS)).astype(np.float32)
  targets = (rng.random((*shape, NUM_PIXELS)) < 0.2).astype(np.float32)
  return logits, targets, rng.random(shape) < 0.6


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(loss_fn, logits, targets, where=True):
  return jax.value_and_grad(lambda x: loss_fn(x, targets, where=where))(logits)


def sigmoid(x):
  return 1 / (1 + np.exp(-x.astype(float)))


def dice_reference(logits, targets):
  p = sigmoid(logits)
  overlap = np.sum(PIXEL_WEIGHTS * p * targets, -1)
  return 1 - (2 * overlap + 1) / (np.sum(PIXEL_WEIGHTS * (p + targets), -1) + 1)


def entropy_reference(logits, targets):
  p = sigmoid(logits)
  entropy = -targets * np.log(p) - (1 - targets) * np.log(1 - p)
  return np.sum(PIXEL_WEIGHTS * entropy, -1) / (2 * np.sum(PIXEL_WEIGHTS * targets, -1) + 5)


@pytest.mark.parametrize(
  ("loss_fn", "reference"),
  [(losses.dice_loss, dice_reference), (losses.mask_cross_entropy, entropy_reference)],
)
def test_mask_loss_equals_its_formula_written_out(loss_fn, reference):
  logits, targets, where = random_masks(0, 2, 3)
  expected = reference(logits, targets)
  loss_fn, kwargs = jitted(loss_fn), {"where": where, "pixel_weights": PIXEL_WEIGHTS}
  each = loss_fn(logits, targets, **kwargs, reduce_fn=None)
  np.testing.assert_allclose(each, np.where(where, expected, 0), 2e-5)
  np.testing.assert_allclose(loss_fn(logits, targets, **kwargs), expected[where].mean(), 2e-5)


def test_focal_loss_equals_its_formula_written_out():
  rng = np.random.default_rng(1)
  logits = rng.normal(0, 2, (3, 40)).astype(np.float32)
  targets = rng.uniform(0, 0.99, (3, 40)).astype(np.float32)
  targets[:, :4] = [1, 1, 1, 0.9995]
  p = sigmoid(logits)
  elsewhere = -((1 - targets) ** 4) * p**2 * np.log(1 - p)
  expected = np.where(targets > 0.999, -((1 - p) ** 2) * np.log(p), elsewhere).sum(-1)
  each = losses.focal_heatmap_loss(logits, targets, reduce_fn=None)
  np.testing.assert_allclose(each, expected, 2e-5)
  np.testing.assert_allclose(losses.focal_heatmap_loss(logits, targets), expected.mean(), 2e-5)


@every_loss
@pytest.mark.parametrize("filler", [1e30, 3.4e38, np.inf, np.nan])
def test_what_lies_in_the_padding_changes_neither_value_nor_gradient(loss_fn, filler):
  logits, targets, where = random_masks(2, 6)
  value, gradient = value_and_gradient(loss_fn, logits, targets, where)
  fill = [np.where(where[:, None], array, filler).astype(np.float32) for array in (logits, targets)]
  value_2, gradient_2 = value_and_gradient(loss_fn, *fill, where)
  np.testing.assert_array_equal(value_2, value)
  np.testing.assert_array_equal(gradient_2, gradient)
  assert not np.any(np.asarray(gradient)[~where])


@every_loss
def test_more_padding_does_not_change_the_mean(loss_fn):
  logits, targets, _ = random_masks(3, 6)
  longer = [np.concatenate([array, array + 1]) for array in (logits, targets)]
  value = loss_fn(*longer, where=np.arange(12) < 6)
  np.testing.assert_allclose(value, loss_fn(logits, targets), 1e-6)


@every_loss
def test_loss_of_padding_alone_is_zero_with_zero_gradient(loss_fn):
  logits, targets, where = random_masks(4, 6)
  value, gradient = value_and_gradient(loss_fn, logits, targets, np.zeros_like(where))
  assert value == 0
  np.testing.assert_array_equal(gradient, np.zeros_like(logits))


@every_loss
@pytest.mark.parametrize("logit", [0.0, 50.0, 1e4, 1e30])
@pytest.mark.parametrize("sign", [-1, 1])
def test_loss_and_gradient_are_finite_for_large_logits(loss_fn, logit, sign):
  targets = np.zeros((6, NUM_PIXELS), np.float32)
  targets[0, :7], targets[1] = 1, 1  # the others are empty
  logits = np.full_like(targets, sign * logit)
  value, gradient = value_and_gradient(loss_fn, logits, targets, np.ones(6, bool))
  assert np.isfinite(value) and value >= 0 and np.all(np.isfinite(gradient))


@every_loss
def test_the_largest_logits_bring_no_nan(loss_fn):
  """Neither where they are right nor where they are wrong, whatever the target of the pixel."""
  targets = random_masks(4, 6)[1]
  targets = np.where(targets > 0, [[0.5], [1], [1], [0.9995], [1], [1]], targets)
  sides = np.where(np.array([1, -1] * 3)[:, None] * (targets - 0.2) > 0, 1.0, -1.0)
  for logit, row in itertools.product((3.4e38, -3.4e38, 1e32), range(6)):
    lists = (logit * sides).astype(np.float32), targets.astype(np.float32), np.arange(6) == row
    for array in value_and_gradient(loss_fn, *lists):
      assert not np.isnan(array).any()


@every_loss
def test_perfect_prediction_costs_nothing(loss_fn):
  targets = random_masks(5, 6)[1]
  assert loss_fn(np.where(targets > 0, 1e4, -1e4), targets) == 0


@every_loss
def test_nan_in_a_real_logit_is_not_hidden(loss_fn):
  logits, targets, _ = random_masks(6, 6)
  logits[1, 5] = np.nan
  assert np.isnan(loss_fn(logits, targets))


@every_loss
def test_leading_axes_are_batch_axes(loss_fn):
  logits, targets, where = random_masks(7, 2, 3)
  each = loss_fn(logits, targets, where=where, reduce_fn=None)
  for place in np.ndindex(2, 3):
    alone = loss_fn(logits[place], targets[place], where=where[place])
    np.testing.assert_allclose(each[place], alone, 1e-6)


@every_loss
def test_bfloat16_logits_are_summed_in_float32(loss_fn):
  logits, targets, _ = random_masks(8, 6)
  logits = logits.astype(jnp.bfloat16)
  value = loss_fn(logits, targets > 0)
  assert value.dtype == jnp.float32
  np.testing.assert_array_equal(value, loss_fn(logits.astype(np.float32), targets))


@every_loss
def test_targets_of_another_shape_are_refused(loss_fn):
  logits, targets, _ = random_masks(9, 6)
  with pytest.raises(ValueError, match=r"logits \(6, 128\) and targets \(2, 128\)"):
    loss_fn(logits, targets[:2])


@pytest.mark.parametrize("loss_fn", MASK_LOSSES)
def test_a_wrong_pixel_costs_less_near_the_pole_than_at_the_equator(loss_fn):
  targets = np.zeros((2, HEIGHT, WIDTH), np.float32)
  targets[:, 3:5, :4] = 1
  logits = np.where(targets > 0, 9.0, -9.0).astype(np.float32)
  logits[0, 0, 9], logits[1, 4, 9] = 9.0, 9.0
  flat = [array.reshape(2, -1) for array in (logits, targets)]
  at_pole, at_equator = loss_fn(*flat, pixel_weights=PIXEL_WEIGHTS, reduce_fn=None)
  assert 0 < at_pole < at_equator


def test_cross_entropy_does_not_depend_on_how_much_background_is_solved():
  targets = np.zeros(400, np.float32)
  targets[:6] = 1
  logits = np.where(np.arange(400) < 20, 0.3, -99).astype(np.float32)
  small = losses.mask_cross_entropy(logits[:100], targets[:100], pixel_weights=np.ones(100))
  large = losses.mask_cross_entropy(logits, targets, pixel_weights=np.ones(400))
  np.testing.assert_allclose(small, large, 1e-6)


def test_focal_loss_is_milder_near_a_peak():
  near, far = losses.focal_heatmap_loss(
    jnp.zeros((2, 1)), jnp.array([[0.9], [0.1]]), reduce_fn=None
  )
  assert near < far
