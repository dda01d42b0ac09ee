"""Training of the small segmenter: pictures, canvases, targets, loss, measuring, the run."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax import nnx

from foir360_jax.cli.check import validate
from foir360_jax.cli.train import train_and_evaluate
from foir360_jax.config import segmenter_config
from foir360_jax.models.pretrained import load_efficientnet_lite0
from foir360_jax.scenes.run_lengths import RunLengths
from foir360_jax.segment.small.network import STRIDES, SmallNetwork, mask_logits, place_centres
from foir360_jax.segment.small.weights import COMMITTED, file_of_run
from foir360_jax.segment.training import run
from foir360_jax.segment.training.augmentation import Canvas, Settings, draw_canvas, paste
from foir360_jax.segment.training.evaluation import (
  Measured,
  fit_calibration,
  mask_iou,
  measure,
  summarize,
  table,
)
from foir360_jax.segment.training.objective import (
  build_segmenter_objective,
  canvas_batches,
  encode_examples,
  encoded_batches,
)
from foir360_jax.segment.training.pictures import (
  LabelledPicture,
  is_kept_apart,
  read_pictures,
)
from foir360_jax.segment.training.targets import IGNORED, NONE, SIZES, assign, make_targets

PLAIN = Settings(96, 96 * 96, (0.7, 1.4), 0.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def backbone():
  return load_efficientnet_lite0(padding="zero")


def encode(mask):
  return RunLengths.from_mask(mask > 0)


def decode(encoded):
  return encoded.mask().astype(np.uint8)


def draw_picture(rng, key="a", size=(80, 110), crowds=0):
  """Dark grey with rectangles of pure colours, apart from each other; a crowd is white."""
  image = np.full((*size, 3), 40, np.uint8)
  objects = []
  colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)][: 3 - crowds] + [(250, 250, 250)] * crowds
  for column, colour in enumerate(colours):
    top, height, width = rng.integers(4, 20), rng.integers(20, 50), rng.integers(14, 30)
    mask = np.zeros(size, np.uint8)
    mask[top : top + height, 4 + 35 * column : 4 + 35 * column + width] = 1
    image[mask > 0] = colour
    objects.append(encode(mask))
  number = len(objects) - crowds
  return LabelledPicture(key, image, tuple(objects[:number]), tuple(objects[number:]), "", "")


def colour_of(image, mask):
  return image[mask > 250].astype(int)


@pytest.mark.parametrize("mosaic, pasted", [(0, 0), (1, 0), (0, 1)])
def test_masks_stay_on_their_pixels(mosaic, pasted):
  rng = np.random.default_rng(mosaic + 2 * pasted)
  pictures = [draw_picture(rng, size=size) for size in ((80, 110), (110, 130))]
  settings = PLAIN._replace(mosaic=float(mosaic), paste=float(pasted))
  seen = 0
  for draw in range(12):
    canvas = draw_canvas(pictures, draw % 2, settings, rng)
    assert canvas.image.shape == (96, 96, 3) and canvas.image.dtype == np.uint8
    on_objects = np.max([*canvas.masks, canvas.ignored], axis=0)
    # Nothing coloured outside: the soft edge of what is pasted reaches a pixel further.
    outside = cv2.dilate(on_objects, np.ones((5, 5))) == 0
    left = canvas.image[outside].astype(int)
    assert (left.max(-1) - left.min(-1)).max(initial=0) < 40
    for mask in canvas.masks:
      inside = colour_of(canvas.image, cv2.erode(mask, np.ones((3, 3))))
      if len(inside):
        seen += 1
        assert (inside.max(1) > 200).all() and np.ptp(inside, axis=0).max() < 60
  assert seen > 20


def test_what_is_pasted_covers_what_was_there():
  rng = np.random.default_rng(0)
  below, above = (np.zeros((20, 20), np.uint8) for _ in range(2))
  below[2:12, 2:12], above[2:12, 4:18] = 255, 255
  black = Canvas(np.zeros((20, 20, 3), np.uint8), [below], np.full((20, 20), 255, np.uint8))
  white = Canvas(np.full((20, 20, 3), 200, np.uint8), [above], np.zeros((20, 20), np.uint8))
  pasted = next(c for c in (paste(black, white, rng) for _ in range(50)) if len(c.masks) == 2)
  np.testing.assert_array_equal(pasted.masks[0], np.where(above > 0, 0, below))
  np.testing.assert_array_equal(pasted.ignored > 0, above == 0)
  assert (pasted.image[3:11, 6:16] == 200).all() and (pasted.image[15:] == 0).all()
  below[2:12, 2:4] = 0  # now it is nearly hidden
  hidden = next(c for c in (paste(black, white, rng) for _ in range(50)) if c is not black)
  assert len(hidden.masks) == 1


def reference_owner(masks, ignored, size):
  centres, strides = place_centres(*size)
  owner = []
  for (x, y), stride in zip(centres, strides, strict=True):
    half = stride / 2
    cell = ignored[int(y - half) // 4 : int(y + half) // 4, int(x - half) // 4 : int(x + half) // 4]
    chosen, smallest = (IGNORED if np.round(cell.mean()) > 127 else NONE), np.inf
    level = STRIDES.index(int(stride))
    for index, mask in enumerate(masks):
      weight = mask / mask.sum()
      rows, columns = np.nonzero(mask > 76)
      longer = 4 * max(np.ptp(rows) + 1, np.ptp(columns) + 1)
      i, j = np.indices(mask.shape)
      at = 4 * (weight * (j + 0.5)).sum(), 4 * (weight * (i + 0.5)).sum()
      # Of two that are equally near, the first; along each axis.
      nearest = tuple(
        min(np.unique(centres[strides == stride][:, axis]), key=lambda c: abs(c - at[axis]))
        for axis in (0, 1)
      )
      wants = max(abs(x - at[0]), abs(y - at[1])) < 1.5 * stride or (x, y) == nearest
      if SIZES[level][0] <= longer < SIZES[level][1] and wants and mask.sum() < smallest:
        chosen, smallest = index, mask.sum()
    owner.append(chosen)
  return owner


@pytest.mark.parametrize("seed", range(3))
def test_targets_are_those_of_a_loop_over_places(seed):
  rng = np.random.default_rng(seed)
  size = (128, 192)
  masks = []
  for _ in range(5):
    mask = np.zeros((32, 48), np.uint8)
    top, left = rng.integers(0, 24), rng.integers(0, 36)
    part = mask[top : top + rng.integers(2, 30), left : left + rng.integers(2, 40)]
    part[:] = rng.integers(100, 256, part.shape)  # so that no two places are equally near
    masks.append(mask)
  ignored = np.zeros((32, 48), np.uint8)
  ignored[4:20, 8:40] = 255
  owner = assign(masks, ignored, size)
  assert len(set(owner.tolist())) > 4
  np.testing.assert_array_equal(owner, reference_owner(masks, ignored, size))


def test_crowds_specks_and_too_many_objects_are_ignored():
  rng = np.random.default_rng(0)
  picture = draw_picture(rng, crowds=1)
  masks = [255 * decode(x) for x in picture.objects]
  masks = [np.pad(mask, ((0, 16), (0, 18))) for mask in masks]
  crowd = np.pad(255 * decode(picture.crowds[0]), ((0, 16), (0, 18)))
  image = np.zeros((96, 128, 3), np.uint8)
  speck = np.zeros_like(crowd)
  speck[90:92, 60:62] = 255
  small, owner = make_targets(Canvas(image, [*masks, speck], crowd), 4, rng)
  assert small.shape == (4, 24, 32) and small[2:].max() == 0
  assert set(owner.tolist()) == {0, 1, NONE, IGNORED}
  centres, _ = place_centres(96, 128)
  on_crowd = np.array([crowd[int(y), int(x)] > 0 for x, y in centres])
  assert on_crowd[owner == IGNORED].all()
  one, owner = make_targets(Canvas(image, masks, crowd), 1, rng)
  assert one.shape == (1, 24, 32) and set(owner.tolist()) == {0, NONE, IGNORED}


def example_of(picture, backbone, network, settings=PLAIN, number=1):
  batches = canvas_batches([picture], settings, batch_size=2, max_objects=4, seed=0)
  return encode_examples(network, backbone, batches, number)


@pytest.fixture(scope="module")
def network(backbone):
  network = SmallNetwork(16, 8, train_encoder=False, rngs=nnx.Rngs(0))
  network.take_encoder(backbone)
  return network


@pytest.fixture(scope="module")
def examples(backbone, network):
  return example_of(draw_picture(np.random.default_rng(1), crowds=1), backbone, network)


objective = build_segmenter_objective(None, 24)
terms_of = nnx.jit(objective)


def batch_of(examples):
  return next(iter(encoded_batches(examples, 2, 0)))


def test_the_loss_is_that_of_plain_formulas(network, examples):
  batch = batch_of(examples)
  terms = terms_of(network, batch)
  said = network.read({stride: jnp.asarray(batch[f"map_{stride}"]) for stride in (4, 8, 16, 32)})
  p = 1 / (1 + np.exp(-np.asarray(said.objectness, float)))
  owner = batch["owner"]
  positive = -0.25 * (1 - p) ** 2 * np.log(p)
  negative = -0.75 * p**2 * np.log(1 - p)
  expected = positive[owner >= 0].sum() + negative[owner == NONE].sum()
  np.testing.assert_allclose(terms["objectness"], [expected, (owner >= 0).sum()], rtol=1e-4)
  # All that belong to an object are drawn: there are fewer than 24 in a canvas.
  centres, strides = place_centres(96, 96)
  dice, iou, count = 0.0, 0.0, 0
  for example in range(2):
    for place in np.flatnonzero(owner[example] >= 0):
      logits = mask_logits(
        said.mask_features[example],
        said.coefficients[example][place][None],
        centres[[place]],
        strides[[place]],
      )[0]
      mask = batch["masks"][example][owner[example][place]] / 255
      q = 1 / (1 + np.exp(-np.asarray(logits, float)))
      dice += 1 - (2 * (q * mask).sum() + 1) / ((q * q).sum() + (mask * mask).sum() + 1)
      a, b = logits > 0, mask > 0.5
      iou += (a & b).sum() / max((a | b).sum(), 1)
      count += 1
  assert (owner >= 0).sum(1).max() <= 24
  np.testing.assert_allclose(terms["mask"], [dice, count], rtol=1e-3)
  np.testing.assert_allclose(terms["iou"], [iou, count], rtol=1e-3)


def test_places_on_a_crowd_have_no_part_in_the_loss(network, examples):
  batch = batch_of(examples)
  assert (batch["owner"] == IGNORED).any()
  gradient = jax.grad(lambda bias, batch: _objectness(network, bias, batch))
  bias = jnp.zeros(batch["owner"].shape)
  moved = np.asarray(gradient(bias, batch))
  assert (moved[batch["owner"] == IGNORED] == 0).all()
  assert (moved[batch["owner"] != IGNORED] != 0).all()


def _objectness(network, bias, batch):
  class Shifted:
    def read(self, maps):
      said = network.read(maps)
      return said._replace(objectness=said.objectness + bias)

  return objective(Shifted(), batch)["objectness"][0]


def test_a_short_training_learns_one_rendered_picture(network, examples):
  batch = batch_of(examples)
  graphdef, params, rest = nnx.split(network, nnx.Param, ...)
  optimizer = optax.adam(5e-3)

  def loss(params, batch):
    terms = objective(nnx.merge(graphdef, params, rest), batch)
    return sum(terms[name][0] / terms[name][1] for name in ("objectness", "mask", "quality"))

  @jax.jit
  def step(params, state, batch):
    gradient = jax.grad(loss)(params, batch)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state

  state = optimizer.init(params)
  for _ in range(80):
    params, state = step(params, state, batch)
  terms = terms_of(nnx.merge(graphdef, params, rest), batch)
  assert terms["iou"][0] / terms["iou"][1] > 0.85
  assert terms["objectness"][0] / terms["objectness"][1] < 0.1


def picture_files(folder, rng, number=3):
  """A folder in both layouts; returns what the pictures are."""
  entries, images, annotations = {}, [], []
  for index in range(number):
    key = f"{index:012d}"
    picture = draw_picture(rng, key, crowds=1)
    cv2.imwrite(
      str(folder / f"{key}.jpg"), picture.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98]
    )
    height, width = picture.image.shape[:2]
    found = [(x, 0) for x in picture.objects] + [(x, 1) for x in picture.crowds]
    texts = [(rle.to_coco(), crowd) for rle, crowd in found]
    entries[key] = {
      "split": ("train", "test")[index == number - 1],
      "size": [width, height],
      "licence": ("CC BY 2.0", "CC BY-NC 2.0")[index % 2],
      "source": f"http://example.org/{key}",
      "objects": [{"iscrowd": crowd, "segmentation": rle} for rle, crowd in texts],
    }
    images.append(
      {"id": index, "file_name": f"{key}.jpg", "height": height, "width": width}
      | {"license": 4 + index % 2, "flickr_url": f"http://example.org/{key}"}
    )
    for (rle, crowd), (text, _) in zip(found, texts, strict=True):
      columns, rows = np.flatnonzero(decode(rle).any(0)), np.flatnonzero(decode(rle).any(1))
      left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
      polygon = [[left, top, right, top, right, bottom, left, bottom]]
      segmentation = text if crowd else np.array(polygon, float).tolist()
      annotations.append({"image_id": index, "iscrowd": crowd, "segmentation": segmentation})
  url = "http://creativecommons.org/licenses"
  licences = [{"id": 4, "url": f"{url}/by/2.0/"}, {"id": 5, "url": f"{url}/by-nc/2.0/"}]
  (folder / "ann.json").write_text(json.dumps(entries))
  content = {"images": images, "annotations": annotations, "licenses": licences}
  (folder / "instances.json").write_text(json.dumps(content))
  return entries


def test_both_layouts_give_the_same_pictures(tmp_path, monkeypatch):
  monkeypatch.setattr("foir360_jax.segment.training.pictures._VALIDATION_SHARE", 0.0)
  entries = picture_files(tmp_path, np.random.default_rng(0))
  compact = read_pictures(tmp_path, "train")
  coco = read_pictures(tmp_path, "train", annotations=tmp_path / "instances.json")
  assert [p.key for p in compact] == sorted(entries)[:2] and len(coco) == 3
  for a, b in zip(compact, coco, strict=False):
    assert (a.key, a.licence, a.source) == (b.key, b.licence, b.source)
    np.testing.assert_array_equal(a.image, b.image)
    for part in ("objects", "crowds"):
      masks = [[decode(x) for x in getattr(p, part)] for p in (a, b)]
      assert len(masks[0]) == (1, 2)[part == "objects"]
      np.testing.assert_array_equal(*masks)
  free = read_pictures(tmp_path, "train", licences="free")
  assert [p.licence for p in free] == ["CC BY 2.0"]
  assert [p.key for p in read_pictures(tmp_path, "test")] == sorted(entries)[2:]


def test_annotations_that_cannot_be_used_are_refused_in_a_line(tmp_path, monkeypatch):
  monkeypatch.setattr("foir360_jax.segment.training.pictures._VALIDATION_SHARE", 0.0)

  def refusal(**options):
    with pytest.raises(ValueError) as caught:
      read_pictures(tmp_path, options.pop("part", "train"), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)

  assert "ann.json: no annotations can be read" in refusal()
  (tmp_path / "ann.json").write_text("[]")
  assert "ann.json: holds no JSON object" in refusal()
  (tmp_path / "ann.json").write_text('{"a": {"no": "size"}}')
  assert "is neither a COCO instances JSON nor an ann.json" in refusal()
  entries = picture_files(tmp_path, np.random.default_rng(0))
  instances = tmp_path / "instances.json"
  assert "has no pictures of part test" in refusal(part="test", annotations=instances)
  key = sorted(entries)[0]
  cv2.imwrite(str(tmp_path / f"{key}.jpg"), np.zeros((5, 6, 3), np.uint8))
  assert f"{key}.jpg: has 6 x 5 pixels, its annotations are for 110 x 80" in refusal()
  (tmp_path / f"{key}.jpg").unlink()
  assert f"{key}.jpg: no picture can be read" in refusal()


def test_the_committed_list_is_what_the_rule_keeps_apart():
  listed = json.loads(COMMITTED.with_name("training_pictures.json").read_text())
  assert len(listed["train"]) == 500 and len(listed["validation"]) == 77
  for part in ("train", "validation"):
    for key, licence, source in listed[part]:
      assert is_kept_apart(key) == (part == "validation")
      assert listed["licences"][licence] and source.startswith("http")


class Finder:
  """Gives what it is told, whatever the picture."""

  confidence = 0.5

  def __init__(self, found):
    self.found = found

  def __call__(self, picture, confidence):
    assert confidence == 0.0
    return [(score, None, mask, False) for score, mask in self.found]


def test_measuring_matches_one_to_one_and_leaves_crowds_out():
  picture = draw_picture(np.random.default_rng(0), crowds=1)
  first, second = (decode(x) > 0 for x in picture.objects)
  crowd = decode(picture.crowds[0]) > 0
  empty = np.zeros_like(crowd)
  empty[-4:, -4:] = True
  found = [(0.9, first), (0.8, first), (0.7, crowd), (0.6, empty), (0.2, second)]
  (got,) = measure(Finder(found), [picture], max_proposals=4)
  np.testing.assert_array_equal(got.right, [1, 0, -1, 0, 1])
  np.testing.assert_array_equal(got.iou, [1, 0])  # the second one is found too late
  np.testing.assert_array_equal(got.areas, [first.sum(), second.sum()])
  summary = summarize([got, got], 0.5)
  assert summary["recall@0.5"] == [0.5, 0.5, 0.5]
  np.testing.assert_allclose(summary["precision"], 1 / 3, atol=1e-4)
  assert summary["masks a picture"][0] == 4 and summary["objects small"] == 2 * sum(
    area < 32**2 for area in got.areas
  )
  assert "recall@0.5" in table(summary)
  (nothing,) = measure(Finder([]), [picture], 4)
  assert summarize([nothing], 0.5)["recall@0.5"][0] == 0


def test_the_iou_of_masks_is_that_of_sets():
  rng = np.random.default_rng(0)
  masks, objects = rng.random((4, 6, 7)) > 0.5, rng.random((3, 6, 7)) > 0.5
  expected = [[(m & o).sum() / (m | o).sum() for o in objects] for m in masks]
  np.testing.assert_allclose(mask_iou(masks, objects), expected, rtol=1e-6)


def test_a_calibration_finds_the_shares_that_scores_were_drawn_with():
  rng = np.random.default_rng(0)
  results = []
  for _ in range(40):
    scores = np.sort(rng.uniform(0.01, 0.99, 200))[::-1].astype(np.float32)
    shares = 1 / (1 + np.exp(-(2 * np.log(scores / (1 - scores)) - 1)))
    right = (rng.random(200) < shares).astype(int)
    results.append(Measured(np.ones(right.sum()), np.ones(right.sum()), scores, right))
  calibration = fit_calibration(results)
  np.testing.assert_allclose(calibration[:2], (2, -1), atol=0.1)
  assert 0.2 < calibration.confidence < 0.8


def tiny_config(folder):
  config = segmenter_config()
  config.data.data_dir = str(folder)
  config.data.batch_size = 2
  config.data.max_objects = 4
  config.augmentation.size = 64
  config.augmentation.working_pixels = 64 * 64
  config.model.channels, config.model.mask_channels = 16, 8
  config.loss.places = 4
  config.head.canvases, config.head.steps = 2, 2
  config.train.steps = 2
  config.evaluate.proposals = 8
  return config


def test_a_run_trains_calibrates_measures_and_goes_on(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("foir360_jax.segment.training.pictures._VALIDATION_SHARE", 0.2)
  (tmp_path / "data").mkdir()
  picture_files(tmp_path / "data", np.random.default_rng(0), number=8)
  config = tiny_config(tmp_path / "data")
  # The gradient of the encoder's blocks takes long to compile, and has a test of its own.
  build = run._network
  monkeypatch.setattr(run, "_network", lambda *args: build(*args[:2], False))
  train_and_evaluate(config, tmp_path / "run")
  report = json.loads((tmp_path / "run/metrics.json").read_text())
  assert report["split"] == "validation" and report["results"]["pictures"] >= 1
  assert "recall@0.5" in capsys.readouterr().out
  before = safetensors.numpy.load_file(file_of_run(tmp_path / "run"))
  train_and_evaluate(config, tmp_path / "run")  # it is complete
  after = safetensors.numpy.load_file(file_of_run(tmp_path / "run"))
  assert all((after[name] == value).all() for name, value in before.items())
  config.augmentation.blur = 0.5
  with pytest.raises(
    ValueError, match="cannot go on with other settings: config.augmentation.blur"
  ):
    run.train_segmenter(config, tmp_path / "run")


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("data.licences", "some", "must be all or free"),
    ("data.batch_size", 0, "config.data.batch_size must be at least 1"),
    ("evaluate.split", "tune", "must be one of train, validation, test"),
    ("evaluate.overlap", 0.0, r"config.evaluate.overlap must be in \(0, 1\]"),
    ("augmentation.size", 100, "must be a multiple of 32, not 100"),
    ("augmentation.scales", (1.0, 0.5), "the smaller one first"),
    ("augmentation.paste", 1.5, r"config.augmentation.paste must be in \[0, 1\]"),
    ("loss.places", 10**6, "config.loss.places must be at most"),
  ],
)
def test_values_that_cannot_work_are_refused(field, value, message):
  config = segmenter_config()
  validate(config)
  with config.unlocked():
    config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    validate(config)
