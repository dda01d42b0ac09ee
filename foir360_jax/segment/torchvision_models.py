"""Mask R-CNN of torchvision, trained on COCO: 80 categories.

torchvision downloads the weights once, to the user's machine. torch is imported when an instance is
made: only the extra `segment` installs it.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from foir360_jax.segment.coco_names import NAME_OF_COCO_NUMBER
from foir360_jax.segment.picture_masks import touches_border
from foir360_jax.segment.segmenter import SegmenterError
from foir360_jax.segment.weights_file import sha256_of

MODELS = ("maskrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn")
"""Names of torchvision, the default first."""


class TorchvisionSegmenter:
  """Instance segmentation by a Mask R-CNN.

  Args:
    model: of `MODELS`, or a Mask R-CNN that torchvision built, with weights of one's own.
    device: as torch names it; by default CUDA where torch sees it.
    batch_size: pictures at once; by default 4 on CUDA, and 1 else, where more are no faster.
    categories: names by label, background first; by default COCO's.

  Raises:
    SegmenterError: there is no such model, or its weights cannot be had.
  """

  def __init__(
    self,
    model: Any = MODELS[0],
    *,
    device: str | None = None,
    batch_size: int | None = None,
    categories: Sequence[str] | None = None,
  ):
    import torch
    import torchvision

    self._torch = torch
    self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    self._batch_size = batch_size or (4 if self._device.type == "cuda" else 1)
    self.version = f"torchvision {torchvision.__version__}"
    name = type(model).__name__
    if isinstance(model, str):
      name = model
      model, weights, file = _pretrained(model)
      categories = categories or weights.meta["categories"]
      self.version += f", {file.name} sha256 {sha256_of(file)}"
    names = [NAME_OF_COCO_NUMBER.get(label, f"class {label}") for label in range(91)]
    self.categories = tuple(categories or names)
    self.name = f"torchvision:{name}"
    self.settings = {
      "shorter_side": list(model.transform.min_size),
      "longest_side": model.transform.max_size,
      "mask_threshold": 0.5,
    }
    self._model = model.eval().to(self._device)

  def segment_batch(self, pictures: np.ndarray, confidence: float = 0.25) -> list[list[tuple]]:
    """Segments pictures [V, h, w, 3] uint8; see `foir360_jax.segment.segmenter`."""
    found: list[list[tuple]] = []
    self._model.roi_heads.score_thresh = confidence
    with self._torch.inference_mode():
      for start in range(0, len(pictures), self._batch_size):
        batch = np.ascontiguousarray(pictures[start : start + self._batch_size])
        tensor = self._torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2) / 255
        found += [self._objects(answer) for answer in self._model(list(tensor))]
    return found

  def _objects(self, answer: dict[str, Any]) -> list[tuple]:
    masks = (answer["masks"][:, 0] > 0.5).cpu().numpy()
    scores, labels, boxes = (answer[key].cpu().numpy() for key in ("scores", "labels", "boxes"))
    return [
      (float(score), int(label), mask, touches_border(mask, box))
      for score, label, mask, box in zip(scores, labels, masks, boxes, strict=True)
    ]


def _pretrained(name: str) -> tuple[Any, Any, pathlib.Path]:
  """Returns a model of torchvision with its weights, what is known of them, and their file."""
  import torch
  from torchvision.models import get_model, get_model_weights

  if name not in MODELS:
    raise SegmenterError(
      f"torchvision:{name}: no Mask R-CNN of torchvision; there are {' and '.join(MODELS)}"
    )
  weights = get_model_weights(name).DEFAULT
  file = pathlib.Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
  try:
    return get_model(name, weights=weights, weights_backbone=None), weights, file
  except (OSError, RuntimeError) as error:  # no connection; a file that is cut off
    raise SegmenterError(
      f"torchvision:{name}: no weights ({error}); connect to the internet, or put {weights.url}"
      f" at {file}"
    ) from error
