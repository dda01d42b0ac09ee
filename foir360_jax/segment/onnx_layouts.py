"""Reads what segmentation networks in ONNX files answer: YOLO-seg and Mask R-CNN.

YOLO's answers come in two layouts beside prototypes [K, m, n] (K coefficients, mostly 32):

- raw, [4 + C + K, P]: for each of P places the box (centre x, y, width, height in pixels of the
  input), the probabilities of C categories, the coefficients; duplicates are for us to drop;
- with suppression inside (end to end), [N, 6 + K]: x0, y0, x1, y1, score, category, coefficients,
  filled up with scores of 0.

A mask is where coefficients times prototypes exceed 0, inside the box. Mask R-CNN answers boxes
[N, 4] (x0, y0, x1, y1 in pixels of the input), labels [N], scores [N] and masks of probabilities:
torchvision's [N, 1, h, w] cover the input, those of the model zoo [N, 1, 28, 28] the box.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from foir360_jax.segment.picture_masks import Letterbox, mask_in_box

MOST_COMPARED = 1000  # of the best boxes, duplicates are looked for
BOX_MASK_THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class Found:
  """An object in a picture.

  Attributes:
    score: in [0, 1].
    category: its name.
    mask: [h, w] bool.
    box: [4], x0, y0, x1, y1 in pixels of the picture.
  """

  score: float
  category: str
  mask: np.ndarray
  box: np.ndarray


@dataclasses.dataclass(frozen=True)
class YoloObjects:
  """Objects of a YOLO in one picture, best first, masks not computed yet.

  Attributes:
    boxes: [N, 4], x0, y0, x1, y1 in pixels of the input.
    scores: [N] in [0, 1].
    labels: [N] int.
    coefficients: [N, K].
    categories: how many there are; None where the layout does not show it.
    suppressed: whether duplicates were dropped.
  """

  boxes: np.ndarray
  scores: np.ndarray
  labels: np.ndarray
  coefficients: np.ndarray
  categories: int | None
  suppressed: bool

  def take(self, kept: np.ndarray) -> "YoloObjects":
    """Returns those of some indices [n], duplicates being dropped now."""
    return YoloObjects(
      self.boxes[kept],
      self.scores[kept],
      self.labels[kept],
      self.coefficients[kept],
      self.categories,
      suppressed=True,
    )

  def objects(
    self, prototypes: np.ndarray, letterbox: Letterbox, names: Mapping[int, str]
  ) -> list[Found]:
    """Computes the masks from prototypes [K, m, n], which cover the whole input."""
    grids = np.tensordot(self.coefficients, prototypes, 1)
    frame, boxes = letterbox.frame(), letterbox.to_picture(self.boxes)
    return [
      Found(
        float(min(score, 1)),
        names.get(int(label), f"class {label}"),
        mask_in_box(grid, frame, box, letterbox.picture, threshold=0.0),
        box,
      )
      for grid, box, score, label in zip(grids, boxes, self.scores, self.labels, strict=True)
    ]


def read_yolo(
  predictions: np.ndarray, coefficients: int, confidence: float, categories: int | None = None
) -> YoloObjects | None:
  """Reads the predictions of a YOLO-seg for one picture, in either layout.

  Args:
    predictions: [4 + C + K, P] or [N, 6 + K] float32; see the module.
    coefficients: K.
    confidence: places of a lower score are left out.
    categories: C where it is known.

  Returns:
    Objects, best first; None where the array is neither.
  """
  if predictions.shape[1] == 6 + coefficients:
    found = predictions[predictions[:, 4] >= max(confidence, np.finfo(np.float32).tiny)]
    found = found[np.argsort(-found[:, 4], kind="stable")]
    return YoloObjects(
      found[:, :4], found[:, 4], found[:, 5].astype(int), found[:, 6:], None, suppressed=True
    )
  count = len(predictions) - 4 - coefficients
  # Version 5 gives a row a place, with one more value; there the rows are far more than columns.
  if count < 1 or (categories or count) != count or len(predictions) > predictions.shape[1]:
    return None
  probabilities = predictions[4 : 4 + count]
  scores = probabilities.max(0)
  kept = np.flatnonzero(scores >= confidence)
  kept = kept[np.argsort(-scores[kept], kind="stable")]
  centre, size = predictions[:2, kept].T, predictions[2:4, kept].T
  return YoloObjects(
    np.concatenate([centre - size / 2, centre + size / 2], axis=1),
    scores[kept],
    probabilities[:, kept].argmax(0),
    predictions[4 + count :, kept].T,
    count,
    suppressed=False,
  )


def suppress_duplicates(boxes: np.ndarray, scores: np.ndarray, iou: float, most: int) -> np.ndarray:
  """Returns the indices of boxes that overlap no better one that is kept.

  Args:
    boxes: [N, 4], x0, y0, x1, y1.
    scores: [N].
    iou: the largest intersection over union of two that are kept.
    most: how many are kept.

  >>> boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 5], [4, 0, 8, 4]])
  >>> suppress_duplicates(boxes, np.array([0.5, 0.9, 0.3]), 0.6, 100).tolist()
  [1, 2]
  """
  order = np.argsort(-scores, kind="stable")[:MOST_COMPARED]
  boxes = boxes[order].astype(np.float64)
  area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
  left = np.ones(len(order), bool)
  kept: list[int] = []
  for index in range(len(order)):
    if not left[index] or len(kept) == most:
      continue
    kept.append(index)
    low = np.maximum(boxes[index, :2], boxes[:, :2])
    high = np.minimum(boxes[index, 2:], boxes[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    left &= common <= iou * (area[index] + area - common)
  return order[kept]


def read_mask_rcnn(
  outputs: Sequence[np.ndarray],
  letterbox: Letterbox,
  confidence: float,
  names: Mapping[int, str],
  *,
  of_boxes: bool,
) -> list[Found] | None:
  """Reads the answer of a Mask R-CNN for one picture.

  Args:
    outputs: boxes, labels, scores and masks in any order, told apart by their shapes and types.
    letterbox: how the picture lies in the input.
    confidence: objects of a lower score are left out.
    names: by label.
    of_boxes: masks cover their boxes rather than the input.

  Returns:
    Objects, or None where one of the four is missing.
  """
  masks = next((array for array in outputs if array.ndim >= 3 and array.shape[-1] != 4), None)
  boxes = next((array for array in outputs if array.ndim >= 2 and array.shape[-1] == 4), None)
  if masks is None or boxes is None:
    return None
  boxes = boxes.reshape(-1, 4).astype(np.float32)
  flat = [array.reshape(-1) for array in outputs if array is not masks and array.size == len(boxes)]
  labels = next((array for array in flat if array.dtype.kind in "iu"), None)
  scores = next((array for array in flat if array.dtype.kind == "f"), None)
  if labels is None or scores is None:
    return None
  masks = masks.reshape(len(boxes), *masks.shape[-2:]).astype(np.float32)
  on_picture, frame = letterbox.to_picture(boxes), letterbox.frame()
  found = []
  for index in np.flatnonzero(scores >= confidence):
    box = on_picture[index]
    if of_boxes:
      mask = mask_in_box(
        masks[index], box, box, letterbox.picture, threshold=BOX_MASK_THRESHOLD, outside=0.0
      )
    else:
      whole = np.array([0, 0, letterbox.picture[1], letterbox.picture[0]])
      mask = mask_in_box(
        masks[index], frame, whole, letterbox.picture, threshold=BOX_MASK_THRESHOLD
      )
    label = int(labels[index])
    found.append(Found(float(min(scores[index], 1)), names.get(label, f"class {label}"), mask, box))
  return found
