"""Networks in ONNX files, run by onnxruntime: what goes in, and which layout comes out.

`onnx_layouts` reads the answers. onnxruntime is imported when an instance is made: only the extra
`segment` installs it.
"""

import ast
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from foir360_jax.paths import expand
from foir360_jax.segment.coco_names import COCO_NAMES, NAME_OF_COCO_NUMBER
from foir360_jax.segment.onnx_layouts import (
  Found,
  read_mask_rcnn,
  read_yolo,
  suppress_duplicates,
)
from foir360_jax.segment.picture_masks import Letterbox, touches_border
from foir360_jax.segment.segmenter import SegmenterError
from foir360_jax.segment.weights_file import sha256_of

Layout = Literal["yolo", "mask_rcnn", "mask_rcnn_zoo"]
YOLO_SIDE = 640  # where the file leaves it open
YOLO_FILL = (114, 114, 114)
MEAN_RGB = (124, 116, 104)  # becomes 0, as the padding is, when the network takes the mean
ZOO_MEAN_BGR = np.array([102.9801, 115.9465, 122.7717], np.float32)
ZOO_SIDES = (800, 1333)
ZOO_NAMES = dict(enumerate(COCO_NAMES, start=1))
LARGEST_BOX_MASK = 64  # cells along a side: larger masks are of the whole picture


class OnnxSegmenter:
  """Instance segmentation by a network in an ONNX file.

  Args:
    path: the file. Categories that it names (metadata `names`, as YOLO's exports have it) are used.
    layout: "yolo" (seg models of version 8 and later, with or without suppression inside),
      "mask_rcnn" (exported by torchvision) or "mask_rcnn_zoo" (of the ONNX model zoo); by default
      what inputs and outputs of the file show.
    categories: names by index for YOLO; by label, 1 ..., behind a background for Mask R-CNN.
    iou: of raw YOLO answers: boxes that overlap a better one by more are dropped, whatever their
      categories.
    most: of raw YOLO answers: objects a picture.
    batch_size: pictures at once, where the file leaves it open.
    providers: of onnxruntime; by default CUDA where it is there, and the CPU.

  Raises:
    SegmenterError: the file cannot be read, or has none of these layouts.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    layout: Layout | None = None,
    categories: Sequence[str] | None = None,
    iou: float = 0.6,
    most: int = 100,
    batch_size: int = 8,
    providers: Sequence[str] | None = None,
  ):
    import onnxruntime

    self._file = file = expand(path)
    if not file.is_file():
      raise SegmenterError(f"onnx:{path}: there is no such file; check the path")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # else torchvision's exports print a line an object
    there = onnxruntime.get_available_providers()
    wanted = providers or ("CUDAExecutionProvider", "CPUExecutionProvider")
    try:
      self._session = onnxruntime.InferenceSession(
        str(file), options, providers=[name for name in wanted if name in there]
      )
    except Exception as error:  # onnxruntime's exceptions have no common class
      reason = " ".join(str(error).split())[:160]
      raise SegmenterError(f"{file}: cannot be loaded ({reason}); export it again") from error
    self._input = self._session.get_inputs()[0]
    self._float = np.float16 if "float16" in self._input.type else np.float32
    self._metadata = dict(self._session.get_modelmeta().custom_metadata_map)
    shapes = [output.shape for output in self._session.get_outputs()]
    if layout is None:
      layout = _layout_of(self._input.shape, shapes)
    if layout is None or "uint8" in self._input.type:
      raise SegmenterError(
        f"{file}: input {self._input.shape}, outputs {shapes} are no layout that is known; export a"
        " YOLO-seg model (boxes with coefficients, prototypes) or a Mask R-CNN (boxes, labels,"
        " scores, masks), or write a class of your own (docs/segmenters.md)"
      )
    self._layout, self._iou, self._most, self._batch_size = layout, iou, most, batch_size
    self._names: Mapping[int, str] = _names(self._metadata)
    if categories:
      self._names = dict(enumerate(categories, start=layout != "yolo"))
    self.name = f"onnx:{file.name}"
    self.version = f"onnxruntime {onnxruntime.__version__}, {file.name} sha256 {sha256_of(file)}"
    self.settings: dict[str, Any] = {"layout": layout}
    if layout == "yolo":
      self.settings |= {"iou": iou, "most": most}

  def segment_batch(self, pictures: np.ndarray, confidence: float = 0.25) -> list[list[tuple]]:
    """Segments pictures [V, h, w, 3] uint8; see `foir360_jax.segment.segmenter`."""
    if self._layout == "yolo":
      found = self._yolo(pictures, confidence)
    else:
      run = self._torchvision if self._layout == "mask_rcnn" else self._zoo
      found = [run(picture, confidence) for picture in pictures]
    return [
      [(f.score, f.category, f.mask, touches_border(f.mask, f.box)) for f in answer]
      for answer in found
    ]

  def _yolo(self, pictures: np.ndarray, confidence: float) -> list[list[Found]]:
    batch, _, height, width = self._input.shape
    size = pictures.shape[1], pictures.shape[2]
    if isinstance(height, int) and isinstance(width, int):
      letterbox = Letterbox.centred(size, (height, width))
    else:
      letterbox = Letterbox.rectangle(size, self._yolo_side())
    count = batch if isinstance(batch, int) else min(self._batch_size, len(pictures))
    known = len(self._names) or None
    found: list[list[Found]] = []
    for start in range(0, len(pictures), count):
      part = pictures[start : start + count]
      inputs = np.zeros((count, 3, *letterbox.size), self._float)
      for index, picture in enumerate(part):
        inputs[index] = letterbox.fit(picture, YOLO_FILL).transpose(2, 0, 1) / np.float32(255)
      predictions, prototypes = self._two_outputs(self._run(inputs))
      for index in range(len(part)):
        raw = read_yolo(predictions[index], len(prototypes[index]), confidence, known)
        if raw is None:
          raise SegmenterError(
            f"{self._file}: predictions {list(predictions.shape)} beside prototypes"
            f" {list(prototypes.shape)} are neither [1, 4 + categories + coefficients, places] nor"
            " [1, objects, 6 + coefficients]; export the model again by a current ultralytics"
          )
        if not raw.suppressed:
          raw = raw.take(suppress_duplicates(raw.boxes, raw.scores, self._iou, self._most))
        names = self._names
        if not names and raw.categories in (None, len(COCO_NAMES)):
          names = dict(enumerate(COCO_NAMES))
        found.append(raw.objects(prototypes[index], letterbox, names))
    return found

  def _two_outputs(self, outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the predictions [B, ., .] and the prototypes [B, coefficients, m, n]."""
    predictions = next(output for output in outputs if output.ndim == 3)
    prototypes = next(output for output in outputs if output.ndim == 4)
    return predictions.astype(np.float32), prototypes.astype(np.float32)

  def _torchvision(self, picture: np.ndarray, confidence: float) -> list[Found]:
    height, width = self._input.shape[-2:]
    size = picture.shape[0], picture.shape[1]
    if isinstance(height, int) and isinstance(width, int):
      letterbox = Letterbox.centred(size, (height, width))
    else:  # the network resizes by itself
      letterbox = Letterbox(size, size, 0, 0, size)
    values = letterbox.fit(picture, MEAN_RGB).transpose(2, 0, 1) / np.float32(255)
    return self._mask_rcnn(values, letterbox, confidence)

  def _zoo(self, picture: np.ndarray, confidence: float) -> list[Found]:
    letterbox = Letterbox.corner((picture.shape[0], picture.shape[1]), *ZOO_SIDES)
    values = picture[..., ::-1].astype(np.float32) - ZOO_MEAN_BGR
    return self._mask_rcnn(
      letterbox.fit(values, (0, 0, 0)).transpose(2, 0, 1), letterbox, confidence
    )

  def _mask_rcnn(self, values: np.ndarray, letterbox: Letterbox, confidence: float) -> list[Found]:
    if len(self._input.shape) == 4:
      values = values[None]
    outputs = self._run(np.ascontiguousarray(values, self._float))
    of_boxes = self._layout == "mask_rcnn_zoo"
    names = self._names or (ZOO_NAMES if of_boxes else NAME_OF_COCO_NUMBER)
    found = read_mask_rcnn(outputs, letterbox, confidence, names, of_boxes=of_boxes)
    if found is None:
      raise SegmenterError(
        f"{self._file}: outputs {[list(output.shape) for output in outputs]} are not boxes [N, 4],"
        " labels [N], scores [N] and masks [N, 1, m, n]; export the model again"
      )
    return found

  def _run(self, values: np.ndarray) -> list[np.ndarray]:
    return self._session.run(None, {self._input.name: values})

  def _yolo_side(self) -> int:
    """The longer side with which a network without a size of its own was exported."""
    try:
      return max(int(side) for side in ast.literal_eval(self._metadata["imgsz"]))
    except (KeyError, ValueError, SyntaxError, TypeError):
      return YOLO_SIDE


def _layout_of(entry: Sequence[Any], outputs: Sequence[Sequence[Any]]) -> Layout | None:
  """Returns the layout that the declared shapes of a file show; names or None where left open."""
  ranks = sorted(len(shape) for shape in outputs)
  if len(entry) == 4 and ranks == [3, 4]:
    return "yolo"
  if len(entry) not in (3, 4) or len(outputs) < 4:
    return None
  masks = max(outputs, key=len)[-2:]
  small = all(isinstance(side, int) and side <= LARGEST_BOX_MASK for side in masks)
  return "mask_rcnn_zoo" if len(masks) == 2 and small else "mask_rcnn"


def _names(metadata: Mapping[str, str]) -> dict[int, str]:
  """Returns the categories of a file's metadata, as {0: 'person', ...} or a list; {} without."""
  try:
    names = ast.literal_eval(metadata["names"])
  except (KeyError, ValueError, SyntaxError):
    return {}
  pairs: Any = names.items() if isinstance(names, dict) else enumerate(names)
  return {int(index): str(name) for index, name in pairs}
