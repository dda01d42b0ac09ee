"""Masks as dot products, and queries that look where their masks are."""

import einops
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models import parameter_keys
from foir360_jax.models.cells import flat_directions
from foir360_jax.models.layers import mean_pool
from foir360_jax.models.mask_head import MaskHead, mask_logits
from foir360_jax.models.query_decoder import QueryDecoder
from foir360_jax.sphere import pixel_directions

HEIGHT, CHANNELS, MASK_CHANNELS, QUERIES = 16, 16, 20, 5
SCALES = (4, 8, 16)


@pytest.fixture(scope="module")
def head(draw_parameters):
  return draw_parameters(lambda: MaskHead(CHANNELS, MASK_CHANNELS, rngs=parameter_keys(0)))


def build(num_layers, remat=False):
  return QueryDecoder(
    CHANNELS, MASK_CHANNELS, 1, num_layers, 3, remat=remat, rngs=parameter_keys(0)
  )


def draw_scene(rng, batch_size=2):
  fine = rng.normal(size=(batch_size, HEIGHT, 2 * HEIGHT, CHANNELS)).astype(np.float32)
  memories = [
    rng.normal(size=(batch_size, height, 2 * height, CHANNELS)).astype(np.float32)
    for height in SCALES
  ]
  places = rng.integers(0, 2 * HEIGHT**2, (batch_size, QUERIES))
  return fine, memories, places


def grey(fine, factor=2):
  """A picture without edges, with `factor` rows for each of the map."""
  batch_size, height = fine.shape[:2]
  return jnp.full((batch_size, factor * height, 2 * factor * height, 3), 0.5)


def decode(decoder, fine, memories, places):
  pixels = decoder.mask_head.pixels(fine, grey(fine))
  heat = jnp.zeros(fine.shape[:3])
  where = jnp.ones(places.shape, bool)
  group = jnp.zeros(QUERIES, jnp.int32)
  return decoder(fine, memories, pixels, heat, places, where, group), pixels


def at(maps, places):
  flat = maps.reshape(len(maps), -1, maps.shape[-1])
  return jnp.take_along_axis(flat, places[..., None], axis=1)


def test_the_logits_are_the_terms_that_the_mask_head_lists(head):
  rng = np.random.default_rng(0)
  fine, _, places = draw_scene(rng)
  tokens = rng.normal(size=(2, QUERIES, CHANNELS)).astype(np.float32)
  pixels = head.pixels(fine, grey(fine))
  found = mask_logits(head(tokens, at(pixels, places)), pixels.reshape(2, -1, pixels.shape[-1]))
  features = np.asarray(pixels[..., :MASK_CHANNELS], np.float64).reshape(2, -1, MASK_CHANNELS)
  embedded = np.asarray(head.embed(tokens), np.float64)
  directions = np.asarray(flat_directions(HEIGHT), np.float64)
  for b, q in np.ndindex(2, QUERIES):
    place, (offset, log_gain, *sought) = places[b, q], embedded[b, q]
    likeness = features[b, :, 1:17]
    expected = (
      features[b] @ np.array(sought) * (2 / np.sqrt(MASK_CHANNELS))
      + offset
      + np.exp(np.clip(log_gain + 4, 0, 7)) * (directions @ directions[place] - 1)
      + 1
      + float(head.foreground_gain[...]) * features[b, :, 0]
      + 1
      - 0.3 * ((likeness - likeness[place]) ** 2).sum(-1)
    )
    np.testing.assert_allclose(found[b, q], expected, rtol=1e-4, atol=2e-3)


def test_the_mean_of_the_pixels_gives_the_mean_of_the_logits(head):
  rng = np.random.default_rng(1)
  fine, _, _ = draw_scene(rng)
  pixels = head.pixels(fine, grey(fine))
  kernels = rng.normal(size=(2, QUERIES, pixels.shape[-1])).astype(np.float32)
  coarse = mask_logits(kernels, mean_pool(pixels, 4).reshape(2, -1, pixels.shape[-1]))
  full = mask_logits(kernels, pixels.reshape(2, -1, pixels.shape[-1]))
  maps = full.transpose(0, 2, 1).reshape(2, HEIGHT, 2 * HEIGHT, QUERIES)
  expected = mean_pool(maps, 4).reshape(2, -1, QUERIES).transpose(0, 2, 1)
  np.testing.assert_allclose(coarse, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def one_layer(draw_parameters):
  """A decoder of one layer, compiled; its queries look at the first scale alone."""
  decoder = draw_parameters(lambda: build(1))
  decoder.mask_head.embed.layers[-1].kernel[...] *= 0.1  # masks are caps about their places
  decoder.mask_head.features.kernel[...] *= 0.1
  graphdef, state = nnx.split(decoder)
  run = jax.jit(lambda state, *scene: decode(nnx.merge(graphdef, state), *scene))
  return lambda *scene: jax.device_get(run(state, *scene))


def test_a_query_looks_where_its_mask_is_and_nowhere_else(one_layer):
  rng = np.random.default_rng(2)
  fine, memories, places = draw_scene(rng)
  memories = memories[::-1]  # the finest first: caps of 15 degrees are nowhere on a coarse one
  queries, pixels = one_layer(fine, memories, places)
  inside = mask_logits(queries.kernels[0], pixels.reshape(2, -1, pixels.shape[-1])) > 0
  inside = np.asarray(inside)
  assert inside.any(-1).all() and inside.sum() > 4 * QUERIES
  changed = [memory.copy() for memory in memories]
  # Cells of the first scene that no query sees, then one that some query sees and some does not.
  seen = inside[0].sum(0)
  unseen = np.flatnonzero(seen == 0)
  assert len(unseen)
  changed[0].reshape(2, -1, CHANNELS)[0, unseen] += 5
  for memory in changed[1:]:
    memory += 5  # with one layer nobody looks at the other scales
  again, _ = one_layer(fine, changed, places)
  np.testing.assert_array_equal(again.kernels, queries.kernels)
  cell = np.flatnonzero((seen > 0) & (seen < QUERIES))[0]
  changed[0].reshape(2, -1, CHANNELS)[0, cell] += 5
  again, _ = one_layer(fine, changed, places)
  assert np.abs(again.kernels[1, 0] - queries.kernels[1, 0])[inside[0, :, cell]].max() > 1e-3
  np.testing.assert_array_equal(again.kernels[:, 1], queries.kernels[:, 1])


def test_a_mask_that_is_nowhere_looks_everywhere(one_layer):
  rng = np.random.default_rng(5)
  fine, memories, places = draw_scene(rng)
  queries, pixels = one_layer(fine, memories, places)
  coarse = mean_pool(pixels, HEIGHT // SCALES[0]).reshape(2, -1, pixels.shape[-1])
  nowhere = ~(np.asarray(mask_logits(queries.kernels[0], coarse)) > 0).any(-1)
  assert nowhere.any()
  b, q = np.argwhere(nowhere)[0]
  far = np.argmin(flat_directions(SCALES[0]) @ flat_directions(HEIGHT)[places[b, q]])
  memories[0].reshape(2, -1, CHANNELS)[b, far] += 50
  again, _ = one_layer(fine, memories, places)
  assert np.abs(again.kernels[1, b, q] - queries.kernels[1, b, q]).max() > 0


def test_every_layer_predicts_and_each_scale_has_its_turn(draw_parameters):
  decoder = draw_parameters(lambda: build(3))
  rng = np.random.default_rng(3)
  fine, memories, places = draw_scene(rng)
  run = jax.jit(lambda memories: decode(decoder, fine, memories, places)[0])
  queries = run(memories)
  assert queries.kernels.shape[:3] == queries.object_logits.shape == (4, 2, QUERIES)
  assert queries.category_logits.shape == (4, 2, QUERIES, 3)
  for scale in range(3):
    changed = [memory + (index == scale) for index, memory in enumerate(memories)]
    after = run(changed)
    same = np.array([np.allclose(after.kernels[n], queries.kernels[n]) for n in range(4)])
    assert same.tolist() == [n <= scale for n in range(4)]


def test_computing_layers_again_changes_no_gradient(draw_parameters):
  rng = np.random.default_rng(4)
  fine, memories, places = draw_scene(rng, 1)
  graphs = [nnx.split(draw_parameters(lambda r=remat: build(1, r))) for remat in (False, True)]

  def gradient(graphdef, state):
    def total(state):
      queries, _ = decode(nnx.merge(graphdef, state), fine, memories, places)
      return (queries.kernels**2).mean() + (queries.object_logits**2).mean()

    return jax.jit(jax.grad(total))(state)

  plain, again = (gradient(*graph) for graph in graphs)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain))
  for expected, found in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 * largest)


def test_a_cell_gives_masks_several_pixels_with_features_and_directions_of_their_own():
  head = MaskHead(6, 20, 2, rngs=parameter_keys(3))  # its bias is 0, so a grey picture adds nothing
  fine = jnp.asarray(np.random.default_rng(9).normal(size=(2, 4, 8, 6)), jnp.float32)
  pixels = head.pixels(fine, grey(fine))
  assert pixels.shape == (2, 8, 16, 25)
  features = np.asarray(head.features(fine)).reshape(2, 4, 8, 2, 2, 20)
  for row, column in ((0, 0), (3, 7), (2, 5)):
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
      pixel = pixels[1, 2 * row + i, 2 * column + j]
      np.testing.assert_allclose(pixel[:20], features[1, row, column, i, j], rtol=1e-6)
      direction = pixel_directions(8)[2 * row + i, 2 * column + j]
      np.testing.assert_allclose(pixel[20:23], direction, atol=1e-6)


def test_a_pixel_is_given_what_the_picture_shows_at_it_across_seam_and_poles(draw_parameters):
  head = draw_parameters(lambda: MaskHead(6, 20, 2, rngs=parameter_keys(4)))
  rng = np.random.default_rng(13)
  fine = jnp.asarray(rng.normal(size=(1, 4, 8, 6)), jnp.float32)
  image = rng.random((1, 16, 32, 3))
  found = np.asarray(head.pixels(fine, jnp.asarray(image, jnp.float32)))[0, ..., :20]
  pattern = "(h i) (w j) c -> h w c"
  colours = 4 * einops.reduce(image[0], pattern, "mean", i=2, j=2) - 2
  kernel, bias = (
    np.asarray(x[...], np.float64) for x in (head.edges.conv.kernel, head.edges.conv.bias)
  )
  features = np.asarray(head.features(fine)).reshape(4, 8, 2, 2, 20)
  features = einops.rearrange(features, "h w i j m -> (h i) (w j) m")
  for row, column in np.ndindex(8, 16):
    total = bias.copy()
    for i, j in np.ndindex(3, 3):
      y, x = row + i - 1, column + j - 1
      if not 0 <= y < 8:  # the row beyond the pole is the same one, half a turn away
        y, x = row, x + 8
      total += colours[y, x % 16] @ kernel[i, j]
    seen = np.concatenate([colours[row, column], np.maximum(total, 0)])
    expected = features[row, column] + seen @ np.asarray(head.sharpen.kernel[...])
    np.testing.assert_allclose(found[row, column], expected, rtol=1e-4, atol=1e-4)
