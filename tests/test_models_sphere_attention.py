"""The bias of attention by directions: turns change nothing, sums over cells are integrals."""

import jax
import numpy as np
import pytest

from foir360_jax.models.cells import flat_directions, flat_weights
from foir360_jax.models.sphere_attention import PositionBias

HEIGHT = 8


@pytest.fixture(scope="module")
def bias():
  module = PositionBias((2.0, 30.0))
  module.rise[...] = np.array([0.5, -1.0], np.float32)
  return module


def unit_vectors(rng, *shape):
  drawn = rng.normal(size=(*shape, 3))
  return (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).astype(np.float32)


def test_the_formula_written_out(bias):
  rng = np.random.default_rng(0)
  queries, keys = unit_vectors(rng, 2, 5), unit_vectors(rng, 7)
  weights = rng.uniform(0.1, 1, 7).astype(np.float32)
  found = np.asarray(bias(queries, keys, weights))
  for b, head, q, k in np.ndindex(found.shape):
    gain, rise = ((2.0, 0.5), (30.0, -1.0))[head]
    expected = gain * (queries[b, q] @ keys[k] - 1) + rise * keys[k, 2] + np.log(weights[k])
    assert found[b, head, q, k] == pytest.approx(expected, abs=1e-4)


def test_keys_may_differ_from_example_to_example(bias):
  rng = np.random.default_rng(1)
  queries, keys = unit_vectors(rng, 2, 5), unit_vectors(rng, 2, 7)
  found = np.asarray(bias(queries, keys))
  for b in range(2):
    alone = np.asarray(bias(queries[b : b + 1], keys[b]))[0]
    np.testing.assert_allclose(found[b], alone, atol=1e-6)


@pytest.mark.parametrize("turn_rad", [0.3, np.pi, -2.0])
def test_a_turn_about_the_vertical_axis_changes_nothing(bias, turn_rad):
  rng = np.random.default_rng(2)
  queries, keys = unit_vectors(rng, 1, 6), unit_vectors(rng, 9)
  cosine, sine = np.cos(turn_rad), np.sin(turn_rad)
  turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]], np.float32)
  np.testing.assert_allclose(bias(queries @ turn, keys @ turn), bias(queries, keys), atol=2e-5)


def test_attention_to_cells_is_a_mean_over_the_sphere_and_not_over_the_picture(bias):
  flat = PositionBias((1e-6,))  # looks everywhere
  directions = flat_directions(64)
  weights = np.asarray(jax.nn.softmax(flat(directions[:1][None], directions, flat_weights(64))))
  north = np.asarray(directions[:, 2] > 0.5)  # a cap of 60 degrees: a quarter of the sphere
  assert weights[0, 0, 0, north].sum() == pytest.approx(0.25, abs=0.01)
  assert north.mean() == pytest.approx(1 / 3, abs=1e-2)  # of the cells
