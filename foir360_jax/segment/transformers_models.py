"""Segmenters of the library transformers: universal segmentation, and masks of all things by SAM.

Which of the two a model is for, its configuration says. Weights are downloaded once, to the user's
machine. torch is imported when an instance is made: only the extra `segment` installs it.
"""

import inspect
import pathlib
from typing import Any, Literal

import numpy as np
from PIL import Image

from foir360_jax.paths import expand
from foir360_jax.segment.coco_names import COCO_NAMES
from foir360_jax.segment.picture_masks import touches_border
from foir360_jax.segment.segmenter import SegmenterError
from foir360_jax.segment.weights_file import sha256_of

DEFAULT_MODEL = "facebook/mask2former-swin-tiny-coco-instance"
SURROUNDINGS = frozenset(
  (
    "building ceiling dirt earth floor grass ground hill house land mountain pavement road rock"
  ).split()
  + "river roof sand sea sidewalk sky snow vegetation wall water".split()
)
"""Panoptic labels that begin with these words are no objects, whatever data they are of."""

_SEPARATORS = str.maketrans("-_,;/", "     ")


class TransformersSegmenter:
  """Objects by a model of transformers.

  Args:
    model: a name on the Hugging Face hub, a folder, or a model that is loaded already.
    processor: its image processor; needed with a loaded model only.
    task: how answers of universal segmentation are read: "instance", a mask for each query, masks
      may overlap; "panoptic", each pixel given to one segment, surroundings left out. None: by the
      model's name.
    device: as torch names it; by default CUDA where torch sees it.
    batch_size: pictures at once; by default 4 on CUDA, and 1 else. Mask generation takes one.
    points_per_side: of mask generation: points in a row of the grid that asks for masks.
    points_per_batch: of mask generation: points at once.
    least_quality: of mask generation: masks of a lower predicted IoU are left out.
    least_stability: the same, of the stability of a mask as its threshold moves.

  Raises:
    SegmenterError: the model cannot be had, or is for something else.
  """

  def __init__(
    self,
    model: Any = DEFAULT_MODEL,
    *,
    processor: Any = None,
    task: Literal["instance", "panoptic"] | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    points_per_side: int = 32,
    points_per_batch: int = 64,
    least_quality: float = 0.88,
    least_stability: float = 0.95,
  ):
    import torch
    import transformers

    self._torch = torch
    self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    self._batch_size = batch_size or (4 if self._device.type == "cuda" else 1)
    self.version = f"transformers {transformers.__version__}"
    name = type(model).__name__
    if isinstance(model, str):
      name = model
      model, processor, revision = _pretrained(model)
      self.version += f", {revision}" if revision else ""
    self.name = f"transformers:{name}"
    self._model, self._processor = model.eval().to(self._device), processor
    self._labels = {int(key): str(label) for key, label in model.config.id2label.items()}
    self._generator: Any = None
    if model.config.model_type in _mask_generators():
      self._generator = transformers.pipeline(
        "mask-generation", model=model, image_processor=processor, device=self._device
      )
      self._points = {"points_per_crop": points_per_side, "points_per_batch": points_per_batch}
      self._least_quality, self._least_stability = least_quality, least_stability
      self.settings: dict[str, Any] = {
        "task": "mask generation",
        "points_per_side": points_per_side,
        "least_quality": least_quality,
        "least_stability": least_stability,
      }
    else:
      self._task = task or ("panoptic" if "panoptic" in name.lower() else "instance")
      self._post_process = getattr(
        processor, f"post_process_{self._task}_segmentation", None
      ) or _no_answer(self.name, self._task)
      self.settings = {"task": self._task}

  def segment_batch(self, pictures: np.ndarray, confidence: float = 0.25) -> list[list[tuple]]:
    """Segments pictures [V, h, w, 3] uint8; see `foir360_jax.segment.segmenter`."""
    with self._torch.inference_mode():
      if self._generator:
        return [self._generate(picture, confidence) for picture in pictures]
      found: list[list[tuple]] = []
      for start in range(0, len(pictures), self._batch_size):
        found += self._universal(pictures[start : start + self._batch_size], confidence)
    return found

  def _generate(self, picture: np.ndarray, confidence: float) -> list[tuple]:
    answer = self._generator(
      Image.fromarray(picture),
      pred_iou_thresh=max(self._least_quality, confidence),
      stability_score_thresh=self._least_stability,
      **self._points,
    )
    found = []
    for mask, score in zip(answer["masks"], answer["scores"], strict=True):
      mask = np.asarray(self._torch.as_tensor(mask).cpu()).astype(bool)
      # A predicted IoU may exceed 1 by a little.
      found.append((float(np.clip(float(score), 0, 1)), None, mask, touches_border(mask)))
    return found

  def _universal(self, pictures: np.ndarray, confidence: float) -> list[list[tuple]]:
    size = pictures.shape[1:3]
    options = {"task_inputs": [self._task] * len(pictures)} if self._takes_task() else {}
    inputs = self._processor(images=list(pictures), return_tensors="pt", **options)
    inputs = inputs.to(self._device)
    accepted = inspect.signature(self._model.forward).parameters
    outputs = self._model(**{key: value for key, value in inputs.items() if key in accepted})
    target = _size_with_padding(size, inputs.get("pixel_mask"))
    if self._task == "instance" and _has_queries(outputs, self._processor):
      answers = self._queries(outputs, target, confidence)
    else:
      answers = self._by_library(outputs, target, confidence, len(pictures))
    found = []
    for answer in answers:
      masks = [(score, label, mask[: size[0], : size[1]]) for score, label, mask in answer]
      found.append([(s, name, m, touches_border(m)) for s, name, m in masks if m.any()])
    return found

  def _takes_task(self) -> bool:
    return "task_inputs" in inspect.signature(type(self._processor).__call__).parameters

  def _queries(self, outputs: Any, target: tuple[int, int], confidence: float) -> list[list[tuple]]:
    """Reads a mask for each query as MaskFormer does, its outline as fine as the picture.

    The library enlarges masks of 0 and 1 there, which leaves steps.
    """
    torch = self._torch
    found = []
    for classes, logits in zip(
      outputs.class_queries_logits, outputs.masks_queries_logits, strict=True
    ):
      probability, label = classes.softmax(-1)[:, :-1].max(-1)
      inside = logits > 0
      quality = (logits.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
      score = probability * quality
      kept = torch.nonzero((score >= confidence) & inside.any(-1).any(-1))[:, 0]
      kept = kept[score[kept].argsort(descending=True)]
      objects = []
      for query in kept.tolist():  # one at a time: all queries at the picture's size are large
        mask = torch.nn.functional.interpolate(
          logits[None, None, query].float(), target, mode="bilinear", align_corners=False
        )
        mask = (mask[0, 0] > 0).cpu().numpy()
        objects.append((float(score[query]), self._name(int(label[query])), mask))
      found.append(objects)
    return found

  def _by_library(
    self, outputs: Any, target: tuple[int, int], confidence: float, count: int
  ) -> list[list[tuple]]:
    accepted = inspect.signature(self._post_process).parameters
    surroundings = {label for label in self._labels if self._is_surroundings(label)}
    options = {
      "return_binary_maps": True,
      "label_ids_to_fuse": surroundings,
      "stuff_classes": sorted(surroundings),
    }
    answers = self._post_process(
      outputs,
      threshold=confidence,
      target_sizes=[target] * count,
      **{key: value for key, value in options.items() if key in accepted},
    )
    found = []
    for answer in answers:
      segmentation = answer["segmentation"]
      objects = []
      for index, segment in enumerate(answer["segments_info"]):
        label = int(segment["label_id"])
        if self._task == "panoptic" and label in surroundings:
          continue
        if segmentation.ndim == 3:  # a mask each, in this order
          mask = segmentation[index] > 0.5
        else:
          mask = segmentation == segment["id"]
        objects.append((float(segment["score"]), self._name(label), mask.cpu().numpy()))
      found.append(objects)
    return found

  def _name(self, label: int) -> str:
    return self._labels.get(label, f"class {label}")

  def _is_surroundings(self, label: int) -> bool:
    """Whether a panoptic label is "stuff": of COCO's 133, those behind its 80 objects."""
    if len(self._labels) == 133 and self._labels.get(0) == COCO_NAMES[0]:
      return label >= len(COCO_NAMES)
    words = self._name(label).lower().translate(_SEPARATORS).split()
    return bool(words) and words[0] in SURROUNDINGS


def _pretrained(name: str) -> tuple[Any, Any, str]:
  """Returns a model, its image processor, and what identifies its weights."""
  import transformers

  folder = expand(name)
  place = str(folder) if folder.is_dir() else name
  try:
    config = transformers.AutoConfig.from_pretrained(place)
    kind = config.model_type
    if kind in _mask_generators():
      loader: Any = transformers.AutoModelForMaskGeneration
      processors: Any = transformers.AutoImageProcessor
    elif kind in _universal():
      loader = transformers.AutoModelForUniversalSegmentation
      processors = transformers.AutoProcessor if kind == "oneformer" else None
    elif kind in _instance():
      loader, processors = transformers.AutoModelForInstanceSegmentation, None
    else:
      raise SegmenterError(
        f"transformers:{name}: a model of the kind {kind!r}, which gives no masks of objects; take"
        f" one for universal segmentation ({', '.join(sorted(_universal()))}) or mask generation"
        f" ({', '.join(sorted(_mask_generators()))})"
      )
    processors = processors or transformers.AutoImageProcessor
    model, processor = loader.from_pretrained(place), processors.from_pretrained(place)
  except (OSError, ValueError, ImportError) as error:
    if isinstance(error, SegmenterError):
      raise
    reason = " ".join(str(error).split())[:200]
    raise SegmenterError(
      f"transformers:{name}: cannot be loaded ({reason}); check the name, connect to the internet"
      " once, or give the folder of a downloaded model"
    ) from error
  revision = getattr(config, "_commit_hash", None)
  if pathlib.Path(place).is_dir():
    return model, processor, f"weights sha256 {sha256_of(folder)}"
  return model, processor, f"revision {revision}" if revision else ""


def _mask_generators() -> set[str]:
  from transformers.models.auto import modeling_auto

  return set(modeling_auto.MODEL_FOR_MASK_GENERATION_MAPPING_NAMES)


def _universal() -> set[str]:
  from transformers.models.auto import modeling_auto

  return set(modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES)


def _instance() -> set[str]:
  from transformers.models.auto import modeling_auto

  return set(modeling_auto.MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES)


def _no_answer(name: str, task: str) -> Any:
  raise SegmenterError(
    f"{name}: its processor has no {task} segmentation; give task="
    f"{'panoptic' if task == 'instance' else 'instance'!r}, or its image processor as processor"
  )


def _has_queries(outputs: Any, processor: Any) -> bool:
  """Whether answers are masks of the whole picture, a query each; EoMT pads, and says how alone."""
  queries = getattr(outputs, "masks_queries_logits", None) is not None
  return queries and not hasattr(processor, "unpad_image")


def _size_with_padding(size: tuple[int, ...], pixel_mask: Any) -> tuple[int, int]:
  """Returns the size at which the picture's part of a padded input has the picture's own size."""
  height, width = size
  if pixel_mask is None:
    return height, width
  valid = pixel_mask[0] > 0
  rows, columns = int(valid.any(1).sum()), int(valid.any(0).sum())
  return round(height * valid.shape[0] / rows), round(width * valid.shape[1] / columns)
