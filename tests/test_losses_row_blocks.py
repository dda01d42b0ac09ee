import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax import losses
from foir360_jax.losses import plackett_luce, row_blocks
from foir360_jax.losses.row_blocks import num_blocks, scan_row_blocks


@pytest.mark.parametrize("tile_elements", [1, 30, 75, 10**6])
@pytest.mark.parametrize("shape", [(1,), (13,), (2, 3, 13)])
def test_sums_over_blocks_equal_the_sums_over_the_whole(monkeypatch, tile_elements, shape):
  monkeypatch.setattr(row_blocks, "_TILE_ELEMENTS", {"cpu": tile_elements})
  a, b = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)

  def function(rows_a, rows_b):
    tile = rows_a * b[..., None, :] - rows_b
    return {"sum": tile.sum(-2)}, (tile.sum(-1), None)

  scan = jax.jit(lambda a, b: scan_row_blocks(function, [a, b], [0.0, 0.0]))
  sums, (found, none) = scan(a, b)
  whole = a[..., :, None] * b[..., None, :] - b[..., :, None]
  np.testing.assert_allclose(sums["sum"], whole.sum(-2), 1e-4, 1e-5)
  np.testing.assert_allclose(found, whole.sum(-1), 1e-4, 1e-5)
  assert none is None


@pytest.mark.parametrize("shape", [(1,), (7,), (16, 1024), (3, 5, 997), (4096, 1024)])
def test_a_tile_has_the_size_of_the_limit_or_one_row(shape):
  blocks = num_blocks(shape)
  rows = -(-shape[-1] // blocks)
  assert rows == 1 or rows * np.prod(shape) <= row_blocks._TILE_ELEMENTS["cpu"]
  assert rows * blocks < shape[-1] + blocks  # less than one row of each block is filler


@pytest.mark.parametrize(
  "loss_fn",
  [
    losses.approx_ndcg_loss,
    losses.lambdarank_loss,
    losses.pairwise_hinge_loss,
    losses.pairwise_logistic_loss,
  ],
)
@pytest.mark.parametrize(("num_lists", "length"), [(4, 512), (16, 1024)])
def test_no_array_over_all_pairs_is_ever_in_memory(monkeypatch, loss_fn, num_lists, length):
  monkeypatch.setattr(row_blocks, "_TILE_ELEMENTS", {"cpu": 2**14})
  scores = jax.ShapeDtypeStruct((num_lists, length), jnp.float32)

  @jax.jit
  def value_and_gradients(scores, labels, weights):
    def loss(scores, weights):
      return loss_fn(scores, labels, where=weights > 0.5, weights=weights)

    return jax.value_and_grad(loss, argnums=(0, 1))(scores, weights)

  program = value_and_gradients.lower(scores, scores, scores).compile()
  all_pairs = 4 * num_lists * length**2
  assert program.memory_analysis().temp_size_in_bytes < all_pairs / 4


@pytest.mark.parametrize("reverse", [False, True])
def test_sums_one_by_one_and_by_doubling_are_the_same_recurrence(reverse):
  decay, values = np.random.default_rng(1).random((2, 3, 37)).astype(np.float32)
  expected, total = np.zeros_like(values), np.zeros(3)
  for place in range(37)[:: -1 if reverse else 1]:
    total = decay[:, place] * total + values[:, place]
    expected[:, place] = total
  for function in (plackett_luce._one_by_one, plackett_luce._by_doubling):
    actual = jax.jit(function, static_argnums=2)(decay, values, reverse)
    np.testing.assert_allclose(actual, expected, 1e-5)
