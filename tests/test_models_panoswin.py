"""PanoSwin: its windows against the geometry they stand for, its attention against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.spatial.transform import Rotation

from foir360_jax.models import parameter_keys
from foir360_jax.models.encoders import PanoSwin, panoswin, windows
from foir360_jax.models.encoders.stochastic_depth import branch_factors, linear_rates
from foir360_jax.sphere import pixel_directions
from foir360_jax.sphere.grid import directions_from_angles


def tiny(**changes):
  options = dict(channels=8, depths=(2, 2, 3, 1), num_heads=(1, 2, 2, 2), window=2)
  return PanoSwin(**options | changes, rngs=parameter_keys(0))


@pytest.mark.parametrize("size", [0, 1, 2, 4])
def test_unshift_undoes_shift(size):
  x = np.random.default_rng(size).normal(size=(2, 8, 16, 3))
  shifted = windows.shift(x, size)
  assert shifted.shape == (2, 16, 8, 3)
  np.testing.assert_array_equal(windows.unshift(shifted, size), x)
  np.testing.assert_array_equal(windows.shift(jnp.asarray(x), size), shifted.astype(np.float32))


@pytest.mark.parametrize(("height", "window"), [(8, 4), (16, 8), (8, 8)])
def test_all_that_is_side_by_side_in_a_shifted_window_is_so_on_the_sphere(height, window):
  directions = windows.shift(pixel_directions(height)[None].astype(np.float64), window // 2)
  parts = windows.partition(directions, window)[0]
  parts = parts.reshape(*parts.shape[:2], window, window, 3)
  step = np.pi / height

  def angle(a, b):
    return 2 * np.arcsin(np.linalg.norm(a - b, axis=-1) / 2)

  np.testing.assert_allclose(angle(parts[:, :, 1:], parts[:, :, :-1]), step, rtol=1e-5)
  latitude = np.arcsin(parts[..., 2])
  apart = 2 * np.arcsin(np.cos(latitude[:, :, :, 1:]) * np.sin(step / 2))
  np.testing.assert_allclose(angle(parts[:, :, :, 1:], parts[:, :, :, :-1]), apart, rtol=1e-5)
  # Every token is in exactly one window.
  assert len(np.unique(parts.reshape(-1, 3).round(6), axis=0)) == 2 * height**2


def test_distances_are_the_same_for_all_windows_of_a_row():
  directions = windows.partition(windows.shift(pixel_directions(8)[None], 2), 4)[0]
  first = windows.great_circle(*[windows.token_directions(8, 4, shifted=True)] * 2)
  for column in range(directions.shape[1]):
    found = windows.great_circle(*[directions[:, column]] * 2)
    np.testing.assert_allclose(found, first, atol=1e-6)
  np.testing.assert_allclose(
    np.cos(first), np.einsum("rnc,rmc->rnm", *[directions[:, 0]] * 2), atol=1e-5
  )


@pytest.mark.parametrize(("height", "window"), [(16, 4), (8, 8), (32, 2)])
def test_a_pitched_window_is_a_window_of_the_grid_that_was_turned(height, window):
  pitch = np.pi / height
  seen = windows.pitched_directions(height, window)
  offsets = (np.arange(window) - (window - 1) / 2) * pitch
  meridian = window / 2 * pitch - np.pi
  east = np.array([-np.sin(meridian), np.cos(meridian), 0])
  for row, tokens in enumerate(seen):
    latitude = np.pi / 2 - (row + 0.5) * window * pitch
    turned = latitude - np.pi / 2 if latitude >= 0 else latitude + np.pi / 2
    # A positive rotation about the east turns the meridian down, towards the south.
    back = Rotation.from_rotvec(-(latitude - turned) * east)
    expected = [
      back.apply(directions_from_angles(meridian + beside, turned - below))
      for below in offsets
      for beside in offsets
    ]
    np.testing.assert_allclose(tokens, expected, atol=1e-6)
    centre = back.apply(directions_from_angles(meridian, turned))
    np.testing.assert_allclose(centre, directions_from_angles(meridian, latitude), atol=1e-6)


def test_the_window_at_the_pole_is_undistorted_when_it_is_pitched():
  pitch = np.pi / 32
  for directions, least in (
    (windows.token_directions(32, 4, shifted=False), 0.02),
    (windows.pitched_directions(32, 4), 0.93),
  ):
    beside = np.diff(directions[0].reshape(4, 4, 3), axis=1)
    narrowest = np.linalg.norm(beside, axis=-1).min() / pitch
    assert least < narrowest < least + 0.1


def test_positions_move_with_the_window():
  seen = windows.pitched_directions(8, 4)
  row, column = windows.window_positions(seen, 8, 4)
  assert row.shape == (2, 1, 16) and column.shape == (2, 4, 16)
  np.testing.assert_allclose(column - column[:, :1], np.arange(4)[:, None] * 4 + 0 * column)


@pytest.mark.parametrize("seed", range(2))
def test_attention_equals_loops(seed, draw_parameters):
  rng = np.random.default_rng(seed)
  layer = draw_parameters(lambda: panoswin._WindowAttention(6, 2, 4, rngs=parameter_keys(0)))
  tokens, keys = rng.normal(size=(2, 1, 3, 2, 4, 6))
  distance = rng.uniform(size=(3, 4, 4))
  weights = {
    name: [np.asarray(getattr(layer, name).kernel), np.asarray(getattr(layer, name).bias)]
    for name in ("query", "key", "value", "output")
  }
  expected = np.empty_like(tokens)
  for row, column in np.ndindex(3, 2):
    project = {
      name: x[0, row, column] @ weights[name][0] + weights[name][1]
      for name, x in (("query", tokens), ("key", keys), ("value", tokens))
    }
    heads = []
    for head in range(2):
      part = {name: x[:, 3 * head : 3 * head + 3] for name, x in project.items()}
      mixed = np.zeros((4, 3))
      for i in range(4):
        logits = np.empty(4)
        for j in range(4):
          above, beside = abs(j // 2 - i // 2), j % 2 - i % 2
          place = above * 7 + beside + 3  # of a table for windows of 4
          bias = distance[row, i, j] * layer.alpha[place, head] + layer.beta[place, head]
          logits[j] = part["query"][i] @ part["key"][j] / np.sqrt(3) + bias
        share = np.exp(logits - logits.max())
        mixed[i] = share / share.sum() @ part["value"]
      heads.append(mixed)
    expected[0, row, column] = (
      np.concatenate(heads, axis=1) @ weights["output"][0] + weights["output"][1]
    )
  inputs = (x.astype(np.float32) for x in (tokens, keys, distance))
  actual = jax.jit(layer, static_argnums=3)(*inputs, 2)
  np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_turning_a_panorama_by_whole_windows_turns_the_features(draw_parameters):
  model = draw_parameters(tiny)
  image = np.random.default_rng(0).uniform(0, 255, (1, 64, 128, 3)).astype(np.float32)
  run = jax.jit(lambda image: model(image, strides=(4, 8, 16)))
  plain, turned = run(image), run(np.roll(image, 32, axis=2))
  for stride, features in plain.items():
    scale = np.abs(features).max()
    np.testing.assert_allclose(
      turned[stride], np.roll(features, 32 // stride, axis=2), atol=1e-5 * scale
    )
  # By less than a window it does not, or the windows would have no effect.
  other = run(np.roll(image, 4, axis=2))[4]
  assert np.abs(other - np.roll(plain[4], 1, axis=2)).max() > 1e-3 * np.abs(plain[4]).max()


def test_shapes_and_parameters_are_those_of_the_tiny_swin():
  model = nnx.eval_shape(lambda: PanoSwin(rngs=parameter_keys(0)))
  assert model.channels == {4: 96, 8: 192, 16: 384, 32: 768}
  image = jax.ShapeDtypeStruct((1, 128, 256, 3), np.float32)
  maps = jax.eval_shape(lambda model, image: model(image), model, image)
  assert {s: x.shape for s, x in maps.items()} == {
    s: (1, 128 // s, 256 // s, model.channels[s]) for s in (4, 8, 16, 32)
  }
  kinds = [[block.kind for block in stage] for stage in model.stages]
  pairs = ["plain", "shifted"]
  assert kinds == [pairs, pairs, [*pairs * 3, "pitched"], pairs]
  count = sum(x.size for x in jax.tree.leaves(nnx.state(model)))
  assert 29e6 < count < 31e6  # Swin tiny has 27.5 million, a seventh block in stage 3 has 1.8


def test_too_few_rows_are_refused():
  model = nnx.eval_shape(tiny)
  with pytest.raises(ValueError, match="PanoSwin: 32 rows are too few .* give at least 64"):
    model(jax.ShapeDtypeStruct((1, 32, 64, 3), np.float32), strides=(32,))


def test_factors_leave_a_branch_out_at_its_rate_and_have_mean_1():
  rates = linear_rates(0.6, 4)
  np.testing.assert_allclose(rates, [0, 0.2, 0.4, 0.6])
  factors = np.asarray(branch_factors(np.arange(20000, dtype=np.uint32), rates, 2))
  assert factors.shape == (4, 2, 20000)
  np.testing.assert_allclose((factors == 0).mean(-1), np.stack([rates, rates], 1), atol=0.015)
  np.testing.assert_allclose(factors.max(-1), np.stack([1 / (1 - rates)] * 2, 1), rtol=1e-6)
  np.testing.assert_allclose(factors.mean(-1), 1, atol=0.03)
  assert abs(np.corrcoef(factors[1:].reshape(6, -1)) - np.eye(6)).max() < 0.03


@pytest.mark.parametrize("silent", ["output", "narrow"])
def test_the_mean_over_seeds_is_what_a_block_gives_with_both_branches(silent, draw_parameters):
  block = draw_parameters(lambda: panoswin._Block(4, 2, 2, "shifted", rngs=parameter_keys(0)))
  # One branch at a time: the second one is not linear in what the first one adds.
  layer = block.attention.output if silent == "output" else block.narrow
  layer.kernel[...] *= 0
  layer.bias[...] *= 0
  x = np.random.default_rng(0).normal(size=(1, 4, 8, 4)).astype(np.float32)
  (factors,) = branch_factors(np.arange(4000, dtype=np.uint32), np.array([0.3]), 2)
  outs = jax.jit(block)(np.repeat(x, 4000, axis=0), factors)
  expected = jax.jit(block)(x)
  scale = np.abs(expected - x).max()
  assert np.abs(outs.mean(0) - expected[0]).max() < 0.05 * scale
  # Each one has the branch or not.
  branch = 1 if silent == "output" else 0
  dropped = np.asarray(factors[branch] == 0)
  assert dropped.any() and not dropped.all()
  np.testing.assert_allclose(outs[dropped], np.repeat(x, dropped.sum(), axis=0), atol=1e-6)
  np.testing.assert_allclose(
    outs[~dropped] - x, np.repeat((expected - x) / 0.7, (~dropped).sum(), axis=0), atol=1e-4 * scale
  )


def test_stochastic_depth_needs_a_seed_and_knows_no_other_example(draw_parameters):
  sizes = dict(depths=(2, 1, 1, 1), window=2)
  plain = draw_parameters(lambda: tiny(**sizes))
  model = draw_parameters(lambda: tiny(**sizes, drop_path=0.5))
  assert model.drop_rates == (0, 0.125, 0.25, 0.375, 0.5)
  image = np.random.default_rng(0).uniform(0, 255, (3, 32, 64, 3)).astype(np.float32)
  seed = np.array([7, 2**32 - 1, 7], np.uint32)
  run = nnx.jit(lambda model, image, seed: model(image, strides=(16,), seed=seed)[16])

  def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())

  expected = run(plain, image, None)
  assert_close(run(plain, image, seed), expected)
  assert_close(run(model, image, None), expected)
  dropped = run(model, image, seed)
  other = run(model, image[::-1], np.array([7, 11, 12], np.uint32))
  assert_close(other[0], dropped[2])
  same = run(model, np.repeat(image[:1], 3, axis=0), np.array([0, 1, 7], np.uint32))
  assert_close(same[2], dropped[0])
  assert len({float(np.abs(x).sum()) for x in same}) > 1


def test_a_rate_of_1_is_refused():
  with pytest.raises(ValueError, match=r"drop_path must be in \[0, 1\), not 1.0"):
    nnx.eval_shape(lambda: tiny(drop_path=1.0))
