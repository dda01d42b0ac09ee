"""Adapters of libraries, on small networks with the real layouts: masks land on the right pixels.

Where a library is not installed its tests are skipped; the extra `segment` installs all.
"""

import json

import numpy as np
import pytest

from foir360_jax.segment import SegmenterError, load_segmenter
from foir360_jax.segment.onnx_layouts import suppress_duplicates
from foir360_jax.segment.picture_masks import Letterbox, mask_in_box, touches_border

SIZES = ((96, 192), (150, 100), (128, 128), (37, 211))


def picture_with_a_rectangle(size, seed=0):
  """A dark picture with a white rectangle, and its mask."""
  rng = np.random.default_rng(seed)
  height, width = size
  top, left = int(height * rng.uniform(0.15, 0.3)), int(width * rng.uniform(0.15, 0.3))
  mask = np.zeros(size, bool)
  mask[top : top + int(0.45 * height), left : left + int(0.4 * width)] = True
  return np.where(mask[..., None], 255, 20).repeat(3, -1).astype(np.uint8), mask


def intersection_over_union(a, b):
  return (a & b).sum() / (a | b).sum()


def assert_batches_equal_singles(segmenter, pictures, confidence):
  together = segmenter(pictures, confidence)
  for index, picture in enumerate(pictures):
    (alone,) = segmenter(picture[None], confidence)
    np.testing.assert_allclose(alone.scores, together[index].scores, atol=1e-4)
    assert alone.categories == together[index].categories
    assert (alone.masks != together[index].masks).sum() <= 1e-3 * alone.masks.size


# Between grids and pictures.


@pytest.mark.parametrize("seed", range(4))
def test_a_grid_is_sampled_as_by_the_slow_reference(seed):
  rng = np.random.default_rng(seed)
  values = rng.normal(size=rng.integers(2, 9, 2)).astype(np.float32)
  size = tuple(rng.integers(20, 40, 2))
  frame = np.sort(rng.uniform(-20, 60, (2, 2)), axis=0).ravel()
  box = np.sort(rng.uniform(-5, 45, (2, 2)), axis=0).ravel()
  mask = mask_in_box(values, frame, box, size, threshold=0.0)
  rows, columns = values.shape
  for y in range(size[0]):
    for x in range(size[1]):
      if not (np.floor(box[0]) <= x < np.ceil(box[2]) and np.floor(box[1]) <= y < np.ceil(box[3])):
        assert not mask[y, x]
        continue
      u = np.clip((x + 0.5 - frame[0]) / (frame[2] - frame[0]) * columns - 0.5, 0, columns - 1)
      v = np.clip((y + 0.5 - frame[1]) / (frame[3] - frame[1]) * rows - 0.5, 0, rows - 1)
      i, j = min(int(v), rows - 2), min(int(u), columns - 2)
      upper = values[i, j] * (1 - u + j) + values[i, j + 1] * (u - j)
      lower = values[i + 1, j] * (1 - u + j) + values[i + 1, j + 1] * (u - j)
      value = upper * (1 - v + i) + lower * (v - i)
      assert mask[y, x] == (value > 0) or abs(value) < 0.2  # OpenCV rounds places to 1/32 of a cell


@pytest.mark.parametrize("size", SIZES)
def test_boxes_come_back_from_every_letterbox(size):
  for letterbox in (
    Letterbox.centred(size, (640, 640)),
    Letterbox.rectangle(size, 640),
    Letterbox.corner(size, 800, 1333),
  ):
    picture, mask = picture_with_a_rectangle(size)
    fitted = letterbox.fit(picture, (114, 114, 114))
    assert fitted.shape == (*letterbox.size, 3) and letterbox.size[0] % 32 == 0
    rows, columns = (np.flatnonzero((fitted.min(-1) > 137).any(axis)) for axis in (1, 0))
    box = letterbox.to_picture(np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    true_box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert np.abs(box - true_box).max() < 0.6 + max(size[0] / 640, size[1] / 640)


@pytest.mark.parametrize("seed", range(3))
def test_duplicates_are_found_as_by_the_slow_reference(seed):
  rng = np.random.default_rng(seed)
  corner = rng.uniform(0, 20, (60, 2))
  boxes = np.concatenate([corner, corner + rng.uniform(1, 20, (60, 2))], 1)
  scores = rng.random(60)
  kept = []
  for index in np.argsort(-scores):
    x0, y0, x1, y1 = boxes[index]
    overlaps = []
    for a0, b0, a1, b1 in boxes[kept]:
      common = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
      overlaps.append(common / ((x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - common))
    if max(overlaps, default=0) <= 0.5:
      kept.append(index)
  assert suppress_duplicates(boxes, scores, 0.5, 100).tolist() == kept
  assert suppress_duplicates(boxes, scores, 0.5, 7).tolist() == kept[:7]


def test_an_object_touches_the_border_by_its_mask_or_by_its_box():
  mask = np.zeros((320, 320), bool)
  mask[100:200, 100:200] = True
  assert not touches_border(mask)
  assert touches_border(mask, np.array([1, 100, 200, 200]))
  assert not touches_border(mask, np.array([3, 100, 200, 316]))
  mask[150, 318] = True
  assert touches_border(mask)


# ONNX.


@pytest.fixture
def helper():
  pytest.importorskip("onnxruntime", reason="the extra segment is not installed")
  return pytest.importorskip("onnx.helper", reason="onnx is not installed, which makes the files")


@pytest.fixture
def save(helper, tmp_path):
  """A function that saves a graph as a file and returns the segmenter for it."""
  from onnx import save_model

  def saved(nodes, entry, outputs, constants, metadata=None, **settings):
    kinds = {"f": 1, "i": 7}
    graph = helper.make_graph(
      nodes,
      "network",
      [helper.make_tensor_value_info("image", 1, entry)],
      [helper.make_tensor_value_info(name, kinds[kind], shape) for name, kind, shape in outputs],
      [
        helper.make_tensor(name, kinds[array.dtype.kind], array.shape, array.ravel())
        for name, array in constants.items()
      ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    save_model(model, tmp_path / "network.onnx")
    return load_segmenter(f"onnx:{tmp_path / 'network.onnx'}", **settings)

  return saved


def yolo_of_bright_pixels(helper, rows, batch, side):
  """A YOLO-seg whose only prototype is the brightness - 0.54 at stride 4, for given predictions.

  Rows [1, C, P] are added to 0.2 times the mean brightness in the channel 4 alone, so that answers
  depend on the picture.
  """
  from_mean = np.zeros((1, rows.shape[1], 1), np.float32)
  from_mean[0, 4] = 0.2
  constants = {
    "rows": rows.astype(np.float32),
    "level": np.array(0.54, np.float32),
    "from_mean": from_mean,
  }
  nodes = [
    helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
    helper.make_node("AveragePool", ["grey"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
    helper.make_node("Sub", ["cells", "level"], ["prototypes"]),
    helper.make_node("ReduceMean", ["grey"], ["mean"], axes=[2, 3], keepdims=0),
    helper.make_node("Unsqueeze", ["mean", "last"], ["mean3"]),
    helper.make_node("Mul", ["mean3", "from_mean"], ["part"]),
    helper.make_node("Add", ["part", "rows"], ["predictions"]),
  ]
  constants["last"] = np.array([2])
  quarter = side // 4 if isinstance(side, int) else None
  outputs = [
    ("predictions", "f", [batch, *rows.shape[1:]]),
    ("prototypes", "f", [batch, 1, quarter, quarter]),
  ]
  return nodes, [batch, 3, side, side], outputs, constants


def raw_rows(boxes, probabilities, places=40):
  """[1, 4 + C + 1, P]: centre boxes, probabilities of C categories, one coefficient of 1."""
  rows = np.zeros((1, 4 + len(probabilities[0]) + 1, places), np.float32)
  rows[0, :4, : len(boxes)] = np.array(boxes).T
  rows[0, 4:-1, : len(boxes)] = np.array(probabilities).T
  rows[0, -1] = 1
  return rows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [256, "side"])
def test_masks_of_a_raw_yolo_land_where_the_picture_is_bright(helper, save, size, side):
  whole = 4096  # a box larger than any input
  rows = raw_rows([(128, 128, whole, whole)], [(0, 0.9)])
  segmenter = save(
    *yolo_of_bright_pixels(helper, rows, 1, side),
    {"names": "{0: 'dark', 1: 'bright'}", "imgsz": "[256, 256]"},
  )
  picture, mask = picture_with_a_rectangle(size)
  (found,) = segmenter(picture[None], 0.5)
  assert found.categories == ("bright",) and found.scores == pytest.approx([0.9])
  assert intersection_over_union(found.masks[0], mask) > (0.95 if min(size) > 50 else 0.9)


def test_a_raw_yolo_is_decoded_as_by_hand(helper, save):
  """A picture of 64 x 128 in an input of 256 x 256: twice as large, 64 rows lower."""
  boxes = [
    (128, 128, 64, 64),  # columns 96 to 160, rows 96 to 160: 48 to 80 and 16 to 48 of the picture
    (128, 130, 64, 64),  # the same again
    (20, 128, 40, 20),  # columns 0 to 40, rows 118 to 138: 0 to 20, 27 to 37
    (220, 128, 20, 20),
  ]
  probabilities = [(0.1, 0.9), (0.7, 0), (0.6, 0.1), (0.1, 0.1)]
  rows = raw_rows(boxes, probabilities)
  segmenter = save(*yolo_of_bright_pixels(helper, rows, 1, 256))
  (found,) = segmenter(np.full((1, 64, 128, 3), 255, np.uint8), 0.3)
  # 0.2 of the mean brightness, half of it 114 / 255, is added to the first category.
  mean = 0.5 + 0.5 * 114 / 255
  assert found.scores == pytest.approx([0.9, 0.6 + 0.2 * mean], abs=1e-3)
  assert found.categories == ("class 1", "class 0")  # two categories are not COCO's
  wanted = np.zeros((2, 64, 128), bool)
  wanted[0, 16:48, 48:80] = wanted[1, 27:37, 0:20] = True
  np.testing.assert_array_equal(found.masks, wanted)
  assert found.touches_border.tolist() == [False, True]


def test_a_yolo_with_suppression_inside_is_decoded_as_by_hand(helper, save):
  rows = np.zeros((1, 5, 7), np.float32)  # 5 objects, 6 + 1 values
  rows[0, 0] = (100, 96, 150, 160, 0.4, 2, 1)
  rows[0, 1] = (96, 96, 160, 160, 0.9, 56, 1)
  rows[0, 2] = (96, 96, 160, 160, 0.1, 0, 1)
  names = str({index: f"name {index}" for index in range(80)})
  graph = yolo_of_bright_pixels(helper, np.zeros((1, 5, 7)), 1, 256)
  graph[3]["rows"], graph[3]["from_mean"] = rows, np.zeros((1, 1, 1), np.float32)
  segmenter = save(*graph, {"names": names})
  (found,) = segmenter(np.full((1, 64, 128, 3), 255, np.uint8), 0.25)
  assert found.scores == pytest.approx([0.9, 0.4])  # overlaps stay: the network has chosen
  assert found.categories == ("name 56", "name 2")
  wanted = np.zeros((64, 128), bool)
  wanted[16:48, 48:80] = True
  np.testing.assert_array_equal(found.masks[0], wanted)


@pytest.mark.parametrize("batch", ["batch", 1, 2])
def test_batches_of_an_onnx_file_equal_singles_whatever_it_takes_at_once(helper, save, batch):
  rows = raw_rows([(128, 128, 999, 999)], [[0.5]])
  segmenter = save(*yolo_of_bright_pixels(helper, rows, batch, 256), batch_size=2)
  pictures = np.stack([picture_with_a_rectangle((90, 120), seed)[0] for seed in range(3)])
  assert len({float(found.scores[0]) for found in segmenter(pictures, 0.1)}) == 3
  assert_batches_equal_singles(segmenter, pictures, 0.1)


def test_an_onnx_file_says_what_it_is_and_other_layouts_are_refused(helper, save, tmp_path):
  rows = raw_rows([(128, 128, 999, 999)], [[0.5] * 80], places=90)
  segmenter = save(*yolo_of_bright_pixels(helper, rows, 1, 256))
  about = segmenter.describe()
  assert about["name"] == "onnx:network.onnx" and about["settings"]["layout"] == "yolo"
  assert "network.onnx sha256 " in about["version"]
  (found,) = segmenter(np.full((1, 64, 64, 3), 255, np.uint8), 0.1)
  assert found.categories == ("person",)  # 80 categories without names are COCO's
  version_5 = np.moveaxis(np.pad(rows, ((0, 0), (0, 1), (0, 0))), 1, 2)
  segmenter = save(*yolo_of_bright_pixels(helper, version_5, 1, 256))
  with pytest.raises(SegmenterError, match="network.onnx: predictions .* are neither"):
    segmenter(np.zeros((1, 64, 64, 3), np.uint8), 0.1)
  graph = yolo_of_bright_pixels(helper, rows, 1, 256)
  with pytest.raises(SegmenterError, match="no layout that is known"):
    save(graph[0], graph[1], graph[2][:1], graph[3])
  (tmp_path / "network.onnx").write_bytes(b"none")
  with pytest.raises(SegmenterError, match="network.onnx: cannot be loaded"):
    load_segmenter(f"onnx:{tmp_path / 'network.onnx'}")
  with pytest.raises(SegmenterError, match="no such file"):
    load_segmenter(f"onnx:{tmp_path / 'other.onnx'}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sides", [(160, 224), ("height", "width")])
def test_masks_of_an_exported_mask_rcnn_land_where_the_picture_is_bright(helper, save, size, sides):
  """As torchvision exports it: masks cover the input, labels are COCO's numbers."""
  constants = {
    "boxes": np.array([[0, 0, 999, 999], [0, 0, 9, 9]], np.float32),
    "labels": np.array([62, 3]),
    "scores": np.array([0.8, 0.2], np.float32),
    "twice": np.array([2, 1, 1, 1]),
    "first": np.array([0]),
  }
  nodes = [
    helper.make_node("ReduceMean", ["image"], ["grey"], axes=[0], keepdims=1),
    helper.make_node("Unsqueeze", ["grey", "first"], ["one"]),
    helper.make_node("Tile", ["one", "twice"], ["masks"]),
    *(helper.make_node("Identity", [n], [f"{n}_out"]) for n in ("boxes", "labels", "scores")),
  ]
  outputs = [("boxes_out", "f", ["n", 4]), ("labels_out", "i", ["n"]), ("scores_out", "f", ["n"])]
  outputs.append(("masks", "f", ["n", "a", "b", "c"]))
  segmenter = save(nodes, [3, *sides], outputs, constants)
  assert segmenter.settings == {"layout": "mask_rcnn"}
  picture, mask = picture_with_a_rectangle(size)
  (found,) = segmenter(picture[None], 0.5)
  assert found.categories == ("chair",) and found.scores == pytest.approx([0.8])
  assert intersection_over_union(found.masks[0], mask) > 0.9


def test_a_mask_rcnn_of_the_model_zoo_is_decoded_as_by_hand(helper, save):
  """Blue first, less the mean, 800 rows: masks cover their boxes, labels count from 1."""
  halves = np.zeros((1, 1, 28, 28), np.float32)
  halves[..., 14:] = 1  # the right half
  constants = {
    "boxes": np.array([[200, 400, 600, 600]], np.float32),  # 25 to 75, 50 to 75 at an eighth
    "labels": np.array([57]),
    "masks": halves,
    "scale": np.array(0.001, np.float32),
    "start": np.array([0]),
    "end": np.array([1]),
  }
  nodes = [
    helper.make_node("ReduceMean", ["image"], ["means"], axes=[1, 2], keepdims=0),
    helper.make_node("Slice", ["means", "start", "end"], ["blue"]),
    helper.make_node("Mul", ["blue", "scale"], ["scores"]),
    *(helper.make_node("Identity", [n], [f"{n}_out"]) for n in ("boxes", "labels", "masks")),
  ]
  outputs = [("boxes_out", "f", ["n", 4]), ("labels_out", "i", ["n"]), ("scores", "f", ["n"])]
  outputs.append(("masks_out", "f", ["n", 1, 28, 28]))
  segmenter = save(nodes, [3, "height", "width"], outputs, constants)
  assert segmenter.settings == {"layout": "mask_rcnn_zoo"}
  picture = np.zeros((1, 100, 100, 3), np.uint8)
  picture[..., 2] = 255
  (found,) = segmenter(picture, 0.05)
  assert found.scores == pytest.approx([(255 - 102.9801) / 1000], abs=1e-4)
  assert found.categories == ("chair",)
  wanted = np.zeros((100, 100), bool)
  wanted[50:75, 50:75] = True
  assert intersection_over_union(found.masks[0], wanted) > 0.9


# torchvision.


@pytest.fixture(scope="module")
def torch():
  pytest.importorskip("torchvision", reason="the extra segment is not installed")
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  return torch


def test_a_mask_rcnn_of_torchvision_answers_within_its_boxes_above_the_threshold(torch):
  from torchvision.models.detection import MaskRCNN
  from torchvision.models.detection.anchor_utils import AnchorGenerator
  from torchvision.ops import MultiScaleRoIAlign

  from foir360_jax.segment.torchvision_models import TorchvisionSegmenter

  backbone = torch.nn.Conv2d(3, 8, 8, stride=8)
  backbone.out_channels = 8
  network = MaskRCNN(
    backbone,
    num_classes=91,
    min_size=64,
    max_size=128,
    rpn_anchor_generator=AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),)),
    box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
    mask_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
    box_detections_per_img=5,
    rpn_post_nms_top_n_test=30,
  )
  segmenter = load_segmenter(TorchvisionSegmenter(network, device="cpu", batch_size=2))
  assert segmenter.name == "torchvision:MaskRCNN" and "torchvision " in segmenter.version
  pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 72, 3), np.uint8)
  found = segmenter(pictures, 0.0)[0]
  assert 1 <= len(found) <= 5 and found.masks.shape[1:] == (40, 72)
  assert all(name for name in found.categories)
  middle = float(np.sort(found.scores)[len(found) // 2])
  assert segmenter(pictures[:1], middle + 1e-4)[0].scores.min(initial=1) > middle
  assert_batches_equal_singles(segmenter, pictures, 0.0)


def test_labels_of_torchvision_are_named_as_coco_numbers_them(torch):
  from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

  from foir360_jax.segment.coco_names import NAME_OF_COCO_NUMBER

  names = MaskRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
  assert {n: name for n, name in enumerate(names) if name not in ("__background__", "N/A")} == (
    NAME_OF_COCO_NUMBER
  )


def test_an_unknown_model_of_torchvision_names_those_that_there_are(torch):
  with pytest.raises(SegmenterError, match="there are maskrcnn_resnet50_fpn_v2 and maskrcnn"):
    load_segmenter("torchvision:resnet50")


def test_weights_that_cannot_be_downloaded_are_named_with_their_address_and_place(
  torch, monkeypatch, tmp_path
):
  def refuse(*arguments, **settings):
    raise OSError("no connection")

  monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
  monkeypatch.setenv("TORCH_HOME", str(tmp_path))
  with pytest.raises(SegmenterError, match=r"no connection.* put https.*\.pth at .*checkpoints"):
    load_segmenter("torchvision")


# transformers.


@pytest.fixture(scope="module")
def mask2former(torch):
  """A tiny Mask2Former of random weights."""
  transformers = pytest.importorskip("transformers", reason="the extra segment is not installed")
  backbone = transformers.SwinConfig(
    image_size=64,
    embed_dim=8,
    depths=[1, 1, 1, 1],
    num_heads=[1, 1, 1, 1],
    window_size=4,
    out_features=["stage1", "stage2", "stage3", "stage4"],
  )
  config = transformers.Mask2FormerConfig(
    backbone_config=backbone,
    **dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32),
    **dict.fromkeys(("encoder_feedforward_dim", "dim_feedforward"), 16),
    encoder_layers=1,
    decoder_layers=2,
    num_attention_heads=2,
    num_queries=10,
    id2label={0: "wall", 1: "chair"},
  )
  return transformers.Mask2FormerForUniversalSegmentation(config)


def query_for_bright_pixels(torch, config):
  """A network with the outputs of Mask2Former: what is bright is a chair, the rest wall."""
  from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerForUniversalSegmentationOutput as Output,
  )

  class Network(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.config = config

    def forward(self, pixel_values, pixel_mask=None):
      bright = torch.nn.functional.avg_pool2d(pixel_values.mean(1, keepdim=True), 4) - 0.3
      masks = 10 * torch.cat([bright, -bright], dim=1)
      classes = torch.tensor([[[-9.0, 3, 0], [3, -9, 0]]]).expand(len(masks), -1, -1)
      return Output(class_queries_logits=classes, masks_queries_logits=masks)

  return Network()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("task", ["instance", "panoptic"])
@pytest.mark.parametrize(
  "processing",
  [
    {"size": {"height": 192, "width": 192}},
    {"size": {"shortest_edge": 96, "longest_edge": 320}},
    {"size": {"shortest_edge": 96, "longest_edge": 320}, "pad_size": {"height": 480, "width": 512}},
  ],
)
def test_masks_of_universal_segmentation_land_where_the_picture_is_bright(
  torch, mask2former, size, task, processing
):
  from transformers import Mask2FormerImageProcessor

  from foir360_jax.segment.transformers_models import TransformersSegmenter

  segmenter = load_segmenter(
    TransformersSegmenter(
      query_for_bright_pixels(torch, mask2former.config),
      processor=Mask2FormerImageProcessor(**processing),
      task=task,
      device="cpu",
    )
  )
  picture, mask = picture_with_a_rectangle(size)
  (found,) = segmenter(picture[None], 0.5)
  chair = found.categories.index("chair")
  assert intersection_over_union(found.masks[chair], mask) > (0.9 if min(size) > 50 else 0.8)
  assert not found.touches_border[chair]
  # Instance models name objects alone; of a panoptic one surroundings are left out.
  assert ("wall" in found.categories) == (task == "instance")


@pytest.mark.parametrize("size", SIZES[:2])
def test_masks_of_a_processor_that_pads_land_where_the_picture_is_bright(torch, mask2former, size):
  """EoMT's, which alone knows how it padded."""
  from transformers import EomtImageProcessor

  from foir360_jax.segment.transformers_models import TransformersSegmenter

  sides = {"shortest_edge": 192, "longest_edge": 192}
  processor = EomtImageProcessor(size=sides, do_pad=True, do_split_image=False)
  network = query_for_bright_pixels(torch, mask2former.config)
  segmenter = load_segmenter(TransformersSegmenter(network, processor=processor, device="cpu"))
  picture, mask = picture_with_a_rectangle(size)
  (found,) = segmenter(picture[None], 0.5)
  chair = found.categories.index("chair")
  assert intersection_over_union(found.masks[chair], mask) > 0.9


def test_a_folder_with_a_universal_model_is_loaded_and_batches_equal_singles(
  torch, mask2former, tmp_path
):
  from transformers import Mask2FormerImageProcessor

  mask2former.save_pretrained(tmp_path)
  Mask2FormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
  segmenter = load_segmenter(f"transformers:{tmp_path}", device="cpu", batch_size=2)
  assert segmenter.settings == {"task": "instance"} and "weights sha256 " in segmenter.version
  pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 72, 3), np.uint8)
  answers = segmenter(pictures, 0.0)
  assert {name for found in answers for name in found.categories} <= {"wall", "chair"}
  assert_batches_equal_singles(segmenter, pictures, 0.0)
  level = float(np.median(answers[0].scores))
  assert 0 < len(segmenter(pictures[:1], level)[0]) < len(answers[0])


def test_a_model_of_the_sam_family_is_asked_for_all_masks(torch, tmp_path):
  transformers = pytest.importorskip("transformers", reason="the extra segment is not installed")
  shared = {"hidden_size": 16}
  config = transformers.SamConfig(
    vision_config=transformers.SamVisionConfig(
      **shared,
      num_hidden_layers=1,
      num_attention_heads=2,
      image_size=64,
      output_channels=16,
      num_pos_feats=8,
      mlp_dim=16,
      window_size=2,
      global_attn_indexes=[0],
    ),
    prompt_encoder_config=transformers.SamPromptEncoderConfig(
      **shared, image_size=64, mask_input_channels=4
    ),
    mask_decoder_config=transformers.SamMaskDecoderConfig(
      **shared, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    ),
  )
  transformers.SamModel(config).save_pretrained(tmp_path)
  transformers.SamImageProcessor(
    size={"longest_edge": 64},
    pad_size={"height": 64, "width": 64},
    mask_size={"longest_edge": 16},
    mask_pad_size={"height": 16, "width": 16},
  ).save_pretrained(tmp_path)
  settings = {"device": "cpu", "points_per_side": 3, "least_stability": -1.0}
  segmenter = load_segmenter(f"transformers:{tmp_path}", least_quality=-9.0, **settings)
  assert segmenter.settings["task"] == "mask generation"
  pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 64, 3), np.uint8)
  answers = segmenter(pictures, -9.0)
  assert len(answers) == 2 and len(answers[0]) >= 1
  assert answers[0].masks.shape[1:] == (40, 64) and set(answers[0].categories) == {""}
  assert_batches_equal_singles(segmenter, pictures, -9.0)
  strict = load_segmenter(f"transformers:{tmp_path}", **settings)  # its predicted IoUs are near 0
  assert [len(found) for found in strict(pictures, 0.1)] == [0, 0]


def test_a_model_for_something_else_and_a_folder_without_one_get_a_line(torch, tmp_path):
  transformers = pytest.importorskip("transformers", reason="the extra segment is not installed")
  (tmp_path / "empty").mkdir()
  with pytest.raises(SegmenterError, match="empty: cannot be loaded") as caught:
    load_segmenter(f"transformers:{tmp_path / 'empty'}")
  assert "\n" not in str(caught.value)
  (tmp_path / "config.json").write_text(json.dumps(transformers.ViTConfig().to_dict()))
  with pytest.raises(SegmenterError, match="a model of the kind 'vit', which gives no masks"):
    load_segmenter(f"transformers:{tmp_path}")


def test_surroundings_are_told_by_the_labels_of_any_panoptic_data(torch, mask2former):
  from transformers import Mask2FormerImageProcessor

  from foir360_jax.segment.transformers_models import TransformersSegmenter

  segmenter = TransformersSegmenter(
    query_for_bright_pixels(torch, mask2former.config),
    processor=Mask2FormerImageProcessor(),
    device="cpu",
  )
  segmenter._labels = dict(enumerate(["wall", "Sky-other", "floor, flooring", "chair", "wallet"]))
  assert [segmenter._is_surroundings(label) for label in range(5)] == [True] * 3 + [False] * 2
  segmenter._labels = {label: f"any {label}" for label in range(133)} | {0: "person"}
  assert [segmenter._is_surroundings(label) for label in (0, 79, 80, 132)] == [
    *(False, False, True, True)
  ]
