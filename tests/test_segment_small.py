"""The small segmenter: dynamic masks, proposals, its file of weights, and what it gives."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from foir360_jax.models.pretrained import load_efficientnet_lite0
from foir360_jax.segment import Segmenter
from foir360_jax.segment.small import SmallSegmenter
from foir360_jax.segment.small.network import (
  POSITION_TERMS,
  STRIDES,
  Places,
  SmallNetwork,
  _smooth_twice,
  encoder_arrays,
  mask_logits,
  place_centres,
)
from foir360_jax.segment.small.proposals import is_first, propose
from foir360_jax.segment.small.segmenter import working_size
from foir360_jax.segment.small.weights import (
  COMMITTED,
  Calibration,
  load_network,
  named_arrays,
  save_network,
)

SIZE = (64, 96)


@pytest.fixture(scope="module")
def backbone():
  return load_efficientnet_lite0(padding="zero")


@pytest.fixture(scope="module")
def segmenter():
  return SmallSegmenter(working_pixels=320 * 320)


def sigmoid(x):
  return 1 / (1 + np.exp(-np.asarray(x, float)))


def reference_mask(features, coefficients, centre, stride):
  """One pixel after the other."""
  height, width, channels = features.shape
  logits = np.empty((height, width))
  weights, terms = coefficients[:channels], coefficients[channels:]
  for row in range(height):
    for column in range(width):
      x = np.clip((4 * column + 2 - centre[0]) / (4 * stride), -4, 4)
      y = np.clip((4 * row + 2 - centre[1]) / (4 * stride), -4, 4)
      position = terms @ (1, x, y, x * x, y * y, x * y)
      logits[row, column] = features[row, column] @ weights + position
  return logits


@pytest.mark.parametrize("seed", range(2))
def test_dynamic_masks_are_those_of_a_loop_over_pixels(seed):
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(16, 24, 5)).astype(np.float32)
  coefficients = rng.normal(size=(7, 5 + POSITION_TERMS)).astype(np.float32)
  centres, strides = place_centres(*SIZE)
  index = rng.permutation(len(centres))[:7]
  got = mask_logits(features, coefficients, centres[index], strides[index])
  for k, place in enumerate(index):
    expected = reference_mask(features, coefficients[k], centres[place], strides[place])
    np.testing.assert_allclose(got[k], expected, rtol=1e-4, atol=1e-4)


def test_places_lie_at_the_centres_of_the_cells_of_their_levels():
  centres, strides = place_centres(*SIZE)
  expected = [
    ((column + 0.5) * stride, (row + 0.5) * stride, stride)
    for stride in STRIDES
    for row in range(SIZE[0] // stride)
    for column in range(SIZE[1] // stride)
  ]
  np.testing.assert_array_equal(np.column_stack([centres, strides]), expected)


def test_a_map_is_doubled_by_linear_interpolation():
  x = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
  expected = cv2.resize(x, (14, 10), interpolation=cv2.INTER_LINEAR)
  np.testing.assert_allclose(_smooth_twice(jnp.asarray(x)[None])[0], expected, atol=1e-5)


def reference_proposals(places, number, overlap):
  """Peaks of each level, masks one after the other, duplicates by a loop: [(score, mask)]."""
  centres, strides = place_centres(*SIZE)
  rank = np.sqrt(sigmoid(places.objectness[0]) * sigmoid(places.quality[0]))
  peaks = []
  for place, (centre, stride) in enumerate(zip(centres, strides, strict=True)):
    near = (strides == stride) & (np.abs(centres - centre).max(1) < 1.5 * stride)
    if rank[place] >= rank[near].max():
      peaks.append(place)
  candidates = []
  for place in sorted(peaks, key=lambda place: -rank[place])[:number]:
    args = places.coefficients[0][place], centres[place], strides[place]
    logits = reference_mask(places.mask_features[0], *args)
    inside = logits > 0
    score = rank[place] * sigmoid(logits)[inside].mean() if inside.any() else 0.0
    candidates.append((score, inside))
  kept = []
  for score, mask in sorted(candidates, key=lambda pair: -pair[0]):
    ious = [(mask & other).sum() / (mask | other).sum() for _, other in kept]
    if score > 0 and max(ious, default=0.0) < overlap:
      kept.append((score, mask))
  return kept


@pytest.mark.parametrize("seed", range(2))
def test_proposals_are_those_of_plain_steps(seed):
  rng = np.random.default_rng(seed)
  number = len(place_centres(*SIZE)[0])
  places = Places(
    rng.normal(size=(1, number)).astype(np.float32),
    rng.normal(size=(1, number)).astype(np.float32),
    rng.normal(size=(1, number, 4 + POSITION_TERMS)).astype(np.float32),
    rng.normal(size=(1, 16, 24, 4)).astype(np.float32),
  )
  got = propose(Places(*map(jnp.asarray, places)), SIZE, 12, 0.4)
  expected = reference_proposals(places, 12, 0.4)
  assert 2 < len(expected) < 12  # some repeat others
  scores = np.asarray(got.scores)
  assert (scores > 0).sum() == len(expected)
  np.testing.assert_allclose(scores[: len(expected)], [score for score, _ in expected], rtol=1e-4)
  for logits, (_, mask) in zip(np.asarray(got.logits), expected, strict=False):
    np.testing.assert_array_equal(logits > 0, mask)


def test_a_mask_that_repeats_one_that_is_dropped_is_kept():
  a, b, c = np.zeros((3, 30), np.float32)
  a[0:10], b[4:14], c[8:18] = 1, 1, 1  # b repeats a, c repeats b alone
  np.testing.assert_array_equal(is_first(jnp.stack([a, b, c, 0 * a]), 0.4), [1, 0, 1, 0])


@pytest.fixture(scope="module")
def drawn(backbone):
  """A network that has moved from the public weights."""
  network = nnx.eval_shape(lambda: SmallNetwork(8, 4, rngs=nnx.Rngs(0)))
  graphdef, params, frozen = nnx.split(network, nnx.Param, ...)
  rng = np.random.default_rng(0)
  public = {name: np.asarray(x) for name, x in encoder_arrays(backbone).items()}

  def values(state, spread):
    names = [
      jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
      for path, _ in jax.tree.leaves_with_path(state)
    ]
    leaves = [
      public.get(name, 0) + spread * rng.normal(size=leaf.shape)
      for name, leaf in zip(names, jax.tree.leaves(state), strict=True)
    ]
    leaves = [jnp.asarray(leaf, jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)

  return nnx.merge(graphdef, values(params, 0.01), values(frozen, 0.0))


def test_a_file_of_weights_gives_the_network_back(backbone, drawn, tmp_path):
  network = drawn
  calibration = Calibration(1.5, -0.25, 0.4)
  save_network(tmp_path / "x.safetensors", network, backbone, calibration, {"what": "a test"})
  loaded, calibrated, metadata = load_network(tmp_path / "x.safetensors", backbone)
  assert calibrated == calibration and metadata["what"] == "a test"
  before, after = (named_arrays(x) for x in (network, loaded))
  start = encoder_arrays(backbone)
  assert before.keys() == after.keys()
  for name, value in before.items():
    moved = np.abs(value - start.get(name, 0)).max()
    np.testing.assert_allclose(
      after[name], value, atol=max(2e-3 * np.abs(value).max(), moved / 200)
    )
  # Bytes of what training has added to the encoder, halves of the rest.
  assert (tmp_path / "x.safetensors").stat().st_size < 1.1 * sum(x.size for x in before.values())


def test_files_that_are_no_weights_of_it_are_refused(backbone, drawn, tmp_path):
  def refusal(path):
    with pytest.raises(ValueError) as caught:
      load_network(path, backbone)
    message = str(caught.value)
    assert "\n" not in message and "configs/segmenter.py" in message and str(path) in message
    return message

  path = tmp_path / "x.safetensors"
  assert "no weights of a small segmenter can be read" in refusal(path)
  path.write_bytes(b"no weights")
  assert "no weights of a small segmenter can be read" in refusal(path)
  save_network(path, drawn, backbone, Calibration(), {})
  tensors = safetensors.numpy.load_file(path)
  built = {"channels": "8", "mask_channels": "4"}

  def write(changed, metadata):
    path.write_bytes(safetensors.numpy.save(changed, metadata=metadata))
    return refusal(path)

  assert "do not name channels" in write(tensors, {})
  assert "do not name channels" in write(tensors, built | {"calibration": '{"slope": 1, "x": 2}'})
  built["calibration"] = json.dumps(Calibration()._asdict())
  wider = built | {"mask_channels": "5"}
  assert "is [4], a small segmenter needs [5]" in write(tensors, wider)
  missing = {name: x for name, x in tensors.items() if name != "output.bias"}
  assert "output.bias is missing" in write(missing, built)
  assert "has no place for other" in write(tensors | {"other": np.zeros(1)}, built)


def test_calibration_keeps_the_order_and_knows_the_logistic_function():
  scores = np.array([0.0, 0.1, 0.5, 0.9, 1.0], np.float32)
  np.testing.assert_allclose(Calibration(1.0, 0.0, 0.5)(scores), scores, atol=2e-6)
  got = Calibration(2.0, 0.5, 0.5)(scores)
  assert (np.diff(got) > 0).all() and got.dtype == np.float32
  np.testing.assert_allclose(got[2], sigmoid(0.5), rtol=1e-5)


def test_a_working_size_has_the_pictures_shape_in_whole_cells():
  rng = np.random.default_rng(0)
  for _ in range(50):
    size = tuple(map(int, rng.integers(100, 1000, 2)))
    height, width = working_size(size, 512 * 512)
    assert height % 32 == 0 and width % 32 == 0
    scale = np.sqrt(512 * 512 / np.prod(size))
    assert abs(height - scale * size[0]) <= 16 and abs(width - scale * size[1]) <= 16


def rendered_picture(size=(240, 320)):
  """Two balls and a box on a soft background, one of them cut by the right border."""
  rng = np.random.default_rng(1)
  small = rng.uniform(90, 150, (6, 8, 3)).astype(np.float32)
  image = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
  truth = []
  y, x = np.mgrid[: size[0], : size[1]]
  for row, column, radius, colour in ((90, 90, 45, (220, 60, 50)), (150, 305, 50, (40, 90, 210))):
    distance = np.hypot(y - row, x - column)
    mask = distance <= radius
    light = 1.1 - 0.6 * np.hypot(y - row + radius / 3, x - column + radius / 3) / radius
    image[mask] = (light[..., None] * np.array(colour, np.float32))[mask]
    truth.append(mask)
  image += rng.normal(0, 3, image.shape)
  return np.clip(image, 0, 255).astype(np.uint8), truth


def test_the_committed_weights_find_what_is_rendered(segmenter):
  image, truth = rendered_picture()
  found = Segmenter(segmenter, "small")(np.stack([image, image[:, ::-1]]), segmenter.confidence)
  for segments, expected in zip(found, (truth, [mask[:, ::-1] for mask in truth]), strict=True):
    assert 2 <= len(segments) <= 8
    assert (np.diff(segments.scores) <= 0).all() and set(segments.categories) == {""}
    best = []
    for mask in expected:
      both = (segments.masks & mask).sum((1, 2))
      iou = both / (segments.masks | mask).sum((1, 2))
      assert iou.max() > 0.8
      best.append(iou.argmax())
    np.testing.assert_array_equal(segments.touches_border[best], [False, True])


def test_a_lower_confidence_adds_masks_and_changes_none(segmenter):
  image, _ = rendered_picture()
  few, many = segmenter(image), segmenter(image, confidence=0.0)
  assert len(few) < len(many) <= segmenter.settings["proposals"]
  for (score, _, mask, touches), (score_too, _, mask_too, touches_too) in zip(
    few, many, strict=False
  ):
    assert score == score_too and touches == touches_too
    np.testing.assert_array_equal(mask, mask_too)


def test_what_is_no_picture_is_refused(segmenter):
  with pytest.raises(ValueError, match=r"must be uint8 \[V, h, w, 3\], not float32 \[1, 4, 5, 3\]"):
    segmenter.segment_batch(np.zeros((1, 4, 5, 3), np.float32))


def test_the_committed_file_is_small_and_says_how_it_was_made():
  assert COMMITTED.stat().st_size <= 4e6
  with safetensors.safe_open(COMMITTED, framework="numpy") as file:
    metadata = file.metadata()
  assert "--config=configs/segmenter.py" in metadata["command"]
  assert sum(json.loads(metadata["pictures"]).values()) == 500
  assert "data_dir" not in json.loads(metadata["settings"])["data"]
  assert "/tmp" not in str(metadata) and "/work" not in str(metadata)
  card = COMMITTED.with_name("MODEL_CARD.md").read_text()
  assert "training_pictures.json" in card
