"""The learned saliency of whole panoramas: no edge, and nothing depends on where the seam is."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models import parameter_keys
from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.models.pretrained import has_efficientnet_lite0
from foir360_jax.saliency import (
  FixationReadout,
  LearnedSaliency,
  PanoramicSaliency,
  SpectralResidual,
  build_saliency,
  for_panoramas,
)
from foir360_jax.saliency.alignment import tile_centres
from foir360_jax.saliency.readout import FEATURES
from foir360_jax.sphere import resize_panorama
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.rank import WeakRanker

ENLARGEMENT = 1.4


def draw_panoramas(seed, height, count=2):
  """[count, height, 2 height, 3], smooth and of full contrast."""
  rng = np.random.default_rng(seed)
  coarse = rng.uniform(0, 255, (count, height // 16, height // 8, 3)).astype(np.float32)
  return np.stack([cv2.resize(x, (2 * height, height)) for x in coarse])


def continued(panoramas):
  """With the margins of the view of the whole."""
  margin = panoramas.shape[1] // 2
  return np.pad(panoramas, ((0, 0), (0, 0), (margin, margin), (0, 0)), mode="wrap")


@pytest.fixture(scope="module")
def model(draw_parameters):
  backbone = draw_parameters(lambda: EfficientNetLite0(padding="zero", rngs=parameter_keys(0)))
  readout = draw_parameters(lambda: FixationReadout((6, 5), ENLARGEMENT, rngs=parameter_keys(0)))
  for projection in readout.projections:
    projection.deviation[...] = 1 + abs(projection.deviation[...])
  readout.log_blur[...] = np.log(2.5)
  return LearnedSaliency(backbone, readout)


@pytest.fixture(scope="module")
def observe(model):
  """What the model sees in panoramas with margins, compiled."""
  run = jax.jit(PanoramicSaliency.observe)
  return lambda views: jax.device_get(run(for_panoramas(model), views))


@pytest.fixture(scope="module")
def quick(model, pooling_backbone):
  """The same on maps that are soon compiled: what becomes of margins does not depend on them."""
  quick = for_panoramas(model)
  quick.backbone = pooling_backbone
  return quick


def test_models_that_know_nothing_of_panoramas_stay_as_they_are(model):
  spectral = SpectralResidual()
  assert for_panoramas(spectral) is spectral
  assert isinstance(for_panoramas(model), PanoramicSaliency)


@pytest.mark.parametrize("height", [128, 160])  # 160 rows: the backbone sees 192
def test_a_quarter_turn_turns_the_map_and_changes_nothing_else(observe, height):
  panoramas = draw_panoramas(height, height)
  before, after = (observe(continued(x)) for x in (panoramas, np.roll(panoramas, height // 2, 2)))
  for name, here, turned in zip(before._fields, before, after, strict=True):
    margin = here.shape[2] // 6  # half of the rows, so a sixth of all columns
    here, turned = here[:, :, margin:-margin], turned[:, :, margin:-margin]
    expected = np.roll(here, here.shape[2] // 4, 2)
    np.testing.assert_allclose(turned, expected, rtol=1e-3, atol=1e-4 * here.std(), err_msg=name)


def test_margins_repeat_what_lies_beyond_the_seam(quick):
  panoramas = draw_panoramas(0, 128)
  for x in jax.jit(PanoramicSaliency.observe)(quick, continued(panoramas)):
    margin = x.shape[2] // 6
    np.testing.assert_array_equal(x[:, :, :margin], x[:, :, -2 * margin : -margin])
    np.testing.assert_array_equal(x[:, :, -margin:], x[:, :, margin : 2 * margin])
  inside = np.asarray(quick(continued(panoramas)))[:, :, 64:-64]
  np.testing.assert_allclose(inside.mean((1, 2)), 1, rtol=1e-5)


def test_it_is_the_readout_of_a_panorama_that_goes_on_for_two_more_turns(model, observe):
  panoramas = draw_panoramas(3, 128)
  got = observe(continued(panoramas))

  backbone = nnx.eval_shape(lambda: EfficientNetLite0(padding="sphere", rngs=parameter_keys(0)))
  backbone = nnx.merge(nnx.graphdef(backbone), nnx.state(model.backbone))
  height, width = 192, 384  # 256 * 1.4 = 358.4, of which 384 is the nearest multiple of 128

  @jax.jit
  def continued_readout(backbone, readout, panoramas):
    features = backbone.stages(resize_panorama(panoramas, height), tuple(FEATURES))
    features = {number: jnp.tile(x, (1, 1, 3, 1)) for number, x in features.items()}
    return readout.observe(features, (height, 3 * width))

  cells, appearance = jax.device_get(continued_readout(backbone, model.readout, panoramas))
  rows, columns = tile_centres(height, 8), tile_centres(3 * width, 8)
  y = (np.arange(128) + 0.5) * 1.5
  x = width + (np.arange(256) + 0.5) * 1.5
  along = np.array([[np.interp(x, columns, line) for line in picture] for picture in cells])
  log_density = np.array(
    [np.array([np.interp(y, rows, line) for line in picture.T]).T for picture in along]
  )
  density = np.exp(log_density)
  density /= density.mean((1, 2), keepdims=True)
  np.testing.assert_allclose(got.density[:, :, 64:-64], density, rtol=2e-4)
  np.testing.assert_allclose(got.appearance, appearance[:, :, 48 - 12 : 96 + 12], atol=1e-4)


@pytest.mark.parametrize("margin", [0, 16])
def test_with_other_margins_it_is_the_same_map(quick, margin):
  panoramas = draw_panoramas(5, 128)
  inside = np.asarray(quick(continued(panoramas)))[:, :, 64 - margin : 256 + 64 + margin]
  views = np.pad(panoramas, ((0, 0), (0, 0), (margin, margin), (0, 0)), mode="wrap")
  np.testing.assert_allclose(quick(views), inside, rtol=1e-4)


@pytest.mark.parametrize(
  "shape, message",
  [
    ((1, 128, 255, 3), r"must be \[V, h, 2 h \+ 2 m, 3\], not \[1, 128, 255, 3\]"),
    ((1, 128, 256, 1), r"must be \[V, h, 2 h \+ 2 m, 3\]"),
    ((1, 128, 296, 3), r"margins of 20 columns are no whole cells: a panorama of 128 rows has 48"),
    ((1, 128, 128, 3), r"must be \[V, h, 2 h \+ 2 m, 3\], not \[1, 128, 128, 3\]"),
  ],
)
def test_other_pictures_are_refused(model, shape, message):
  with pytest.raises(ValueError, match=message):
    for_panoramas(model)(np.zeros(shape, np.float32))


@pytest.mark.skipif(not has_efficientnet_lite0(), reason="its weights are not installed")
def test_a_turn_by_the_spacing_of_the_views_keeps_the_ranks_of_the_learned_saliency():
  # Perspective views are the same to the bit (test_weak_labels_rank), so the whole alone is ranked.
  rng = np.random.default_rng(2)
  panorama = draw_panoramas(2, 64, count=1)[0].astype(np.uint8)
  masks = np.zeros((9, 64, 128), bool)
  for mask in masks:
    row, column = rng.integers(4, 52), rng.integers(128)
    size = rng.integers(4, 10)
    mask[row : row + size, (column + np.arange(size)) % 128] = True
    panorama[mask] = rng.integers(0, 256, 3)
  masks[0] = False
  masks[0, 30:36, [0, 1, 2, 126, 127]] = True  # cut by the seam
  panorama[masks[0]] = 250, 30, 30
  strategy = Strategy(tangent_views=False, max_erased_whole=3)
  ranker = WeakRanker(build_saliency("learned"), strategy=strategy)
  before = ranker(panorama, masks)
  for turn in (32, 96):
    after = ranker(np.roll(panorama, turn, 1), np.roll(masks, turn, 2))
    np.testing.assert_array_equal(after.ids, before.ids)
    np.testing.assert_allclose(after.importance, before.importance, atol=1e-4)
