"""Validates a configuration of the task "ranking"."""

from ml_collections import ConfigDict

from foir360_jax.data import Augmentation
from foir360_jax.models.encoders import ENCODERS
from foir360_jax.models.encoders.build import PANOSWIN, SMALL, least_height
from foir360_jax.models.mask_head import AFFINITY_CHANNELS


def validate_ranking(config: ConfigDict) -> None:
  """Raises ValueError with one line for the first value that cannot work."""
  data, model = config.data, config.model
  _validate_encoder(config)
  for field, heights in (("height", (data.height,)), ("train_heights", data.train_heights)):
    for height in heights:
      if height % model.last_stride or height < 3 * model.last_stride:
        raise ValueError(
          f"config.data.{field} must be divisible by {model.last_stride} (config.model.last_stride)"
          f" and at least {3 * model.last_stride}, not {height}"
        )
      _check_height(field, height, model)
  Augmentation(**data.augment)  # checks its values itself
  if config.model.mask_stride not in (2, 4):
    raise ValueError(f"config.model.mask_stride must be 2 or 4, not {config.model.mask_stride}")
  if model.mask_detail not in (1, 2, 4) or model.mask_detail > model.mask_stride:
    raise ValueError(
      f"config.model.mask_detail must be 1, 2 or 4 and at most {model.mask_stride}"
      f" (config.model.mask_stride), not {model.mask_detail}"
    )
  if config.model.mask_channels <= AFFINITY_CHANNELS:
    raise ValueError(
      f"config.model.mask_channels must be above {AFFINITY_CHANNELS} (the channels of likeness and"
      f" the foreground), not {config.model.mask_channels}"
    )
  if config.model.num_queries < config.data.max_objects:
    raise ValueError(
      "config.model.num_queries must be at least config.data.max_objects"
      f" ({config.data.max_objects}), not {config.model.num_queries}"
    )
  cells = 2 * (min((data.height, *data.train_heights)) // model.mask_stride) ** 2
  if model.num_queries > cells:
    raise ValueError(
      f"config.model.num_queries must be at most {cells}, the cells of the smallest picture, not"
      f" {model.num_queries}"
    )
  for field in ("batch_size", "max_objects"):
    if config.data[field] < 1:
      raise ValueError(f"config.data.{field} must be at least 1, not {config.data[field]}")
  if config.benchmark.rounds < 1:
    raise ValueError(f"config.benchmark.rounds must be at least 1, not {config.benchmark.rounds}")
  if not len(config.model.widths) == len(config.model.blocks) == 4:
    raise ValueError("config.model.widths and .blocks need a value for each of the four strides")
  if config.model.feature_channels % 4:
    raise ValueError(
      "config.model.feature_channels must be divisible by the 4 heads of attention, not"
      f" {config.model.feature_channels}"
    )
  thresholds = config.evaluate.confidence_thresholds
  if not thresholds or not all(0 <= threshold < 1 for threshold in thresholds):
    raise ValueError(
      "config.evaluate.confidence_thresholds must be one or more numbers in [0, 1), not"
      f" {thresholds}"
    )
  if config.evaluate.batch_size < 1:
    raise ValueError(
      f"config.evaluate.batch_size must be at least 1, not {config.evaluate.batch_size}"
    )
  if not 0 < config.evaluate.iou_threshold <= 1:
    raise ValueError(
      f"config.evaluate.iou_threshold must be in (0, 1], not {config.evaluate.iou_threshold}"
    )
  if not config.evaluate.stop_margins:
    raise ValueError("config.evaluate.stop_margins must be one or more numbers, -100 for no stop")
  if config.evaluate.choose_by not in ("sa_sor", "f1"):
    raise ValueError(
      f"config.evaluate.choose_by must be sa_sor or f1, not {config.evaluate.choose_by!r}"
    )
  if config.evaluate.yaw_augmentation < 1:
    raise ValueError(
      f"config.evaluate.yaw_augmentation must be at least 1, not {config.evaluate.yaw_augmentation}"
    )
  if config.loss.points < 0:
    raise ValueError(f"config.loss.points must be 0 (all cells) or more, not {config.loss.points}")
  if config.model.compute_dtype not in ("float32", "bfloat16"):
    raise ValueError(
      f"config.model.compute_dtype must be float32 or bfloat16, not {config.model.compute_dtype!r}"
    )
  if not 0 <= config.model.drop_path < 1:
    raise ValueError(f"config.model.drop_path must be in [0, 1), not {config.model.drop_path}")
  if config.model.drop_path and config.model.encoder != PANOSWIN:
    raise ValueError(f"config.model.drop_path is of {PANOSWIN}: leave it 0")
  if not 0 < config.optimizer.layer_decay <= 1:
    raise ValueError(
      f"config.optimizer.layer_decay must be in (0, 1], not {config.optimizer.layer_decay}"
    )
  if not 0 <= config.loss.scheduled_sampling <= 1:
    raise ValueError(
      f"config.loss.scheduled_sampling must be in [0, 1], not {config.loss.scheduled_sampling}"
    )
  if not 0 < config.loss.conditioning_rate <= 1:
    raise ValueError(
      f"config.loss.conditioning_rate must be in (0, 1], not {config.loss.conditioning_rate}"
    )


def _check_height(field: str, height: int, model: ConfigDict) -> None:
  """Raises ValueError where kernels of the encoder would reach around a pole."""

  def needed(sphere_from_stride: int) -> int:
    rows = least_height(model.encoder, model.last_stride, sphere_from_stride)
    return -(-rows // model.last_stride) * model.last_stride  # the next one that is divisible

  if height >= needed(model.sphere_from_stride):
    return
  strides = (2, 4, 8, 16, 32, 2 * model.last_stride)
  fitting = [s for s in strides if s > model.sphere_from_stride and needed(s) <= height]
  cure = f", or config.model.sphere_from_stride {min(fitting)}" if fitting else ""
  raise ValueError(
    f"config.data.{field}: {height} rows are too few for {model.encoder} with"
    f" config.model.sphere_from_stride {model.sphere_from_stride}, whose kernels would reach around"
    f" a pole; give at least {needed(model.sphere_from_stride)}{cure}"
  )


def _validate_encoder(config: ConfigDict) -> None:
  model = config.model
  if model.encoder not in ENCODERS:
    raise ValueError(
      f"config.model.encoder must be one of {', '.join(ENCODERS)}, not {model.encoder!r}"
    )
  strides = (16,) if model.encoder == SMALL else (16, 32)
  if model.last_stride not in strides:
    raise ValueError(
      f"config.model.last_stride must be {' or '.join(map(str, strides))} with {model.encoder}, not"
      f" {model.last_stride}"
    )
  if model.encoder in ("sphere_resnet50", PANOSWIN) and model.mask_stride == 2:
    raise ValueError(
      f"config.model.mask_stride must be 4 with {model.encoder}, whose first map has that stride"
    )
  if config.encoder_weights and model.encoder == SMALL:
    raise ValueError(f"config.encoder_weights: there are none for {SMALL}; leave them out")
