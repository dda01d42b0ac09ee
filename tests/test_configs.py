"""Every file in configs/ is valid and builds a model and an objective; wrong values are refused."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

from foir360_jax.cli.check import validate
from foir360_jax.config import base_config, fixation_config
from foir360_jax.models import build_model
from foir360_jax.objective import build_objective

FILES = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


def load(file):
  """Loads by path under a made-up name, as the command line does."""
  spec = importlib.util.spec_from_file_location("made_up_name", file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def abstract_batch(config):
  batch_size, num_objects, height = (
    config.data.batch_size,
    config.data.max_objects,
    config.data.height,
  )
  shapes = {
    "image": ((height, 2 * height, 3), np.uint8),
    "masks": ((num_objects, height, height // 4), np.uint8),
    "where": ((num_objects,), bool),
    "relevance": ((num_objects,), np.float32),
    "category": ((num_objects,), np.int32),
    "seed": ((), np.uint32),
  }
  batch = {
    key: jax.ShapeDtypeStruct((batch_size, *shape), dtype) for key, (shape, dtype) in shapes.items()
  }
  return batch | {"progress": jax.ShapeDtypeStruct((), np.float32)}


TRACED = {}  # configurations that differ in other sections share their model and objective


def abstract_terms(config):
  key = config.model.to_json(), config.loss.to_json(), str(abstract_batch(config))
  if key not in TRACED:
    TRACED[key] = trace_terms(config)
  return TRACED[key]


def trace_terms(config):
  graphdef, state = nnx.split(nnx.eval_shape(lambda: build_model(config)))
  objective, weights = build_objective(config)
  terms = jax.eval_shape(
    lambda state, batch: objective(nnx.merge(graphdef, state), batch), state, abstract_batch(config)
  )
  return terms, weights


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_configuration_is_valid_and_builds_its_model_and_its_objective(file):
  module = load(file)
  config = module.get_config()
  validate(config)
  assert f"--config=configs/{file.name}" in module.__doc__
  if config.task != "ranking":  # the others' own tests build what they need
    return
  terms, weights = abstract_terms(config)
  assert {term for term, weight in weights.items() if weight} <= set(terms)
  for name, (total, count) in terms.items():
    assert total.shape == () and np.shape(count) == (), name


def test_there_is_a_configuration():
  assert FILES


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("task", "sorting", "config.task must be one of ranking, fixation.*, not 'sorting'"),
    ("data.height", 72, "config.data.height must be divisible by 16"),
    ("evaluate.stop_margins", (), "config.evaluate.stop_margins must be one or more"),
    ("model.mask_channels", 16, "config.model.mask_channels must be above 16 .*, not 16"),
    ("model.drop_path", 0.1, "config.model.drop_path is of panoswin_tiny: leave it 0"),
    ("optimizer.layer_decay", 0.0, "config.optimizer.layer_decay must be in .0, 1., not 0.0"),
    ("evaluate.yaw_augmentation", 0, "config.evaluate.yaw_augmentation must be at least 1, not 0"),
    ("loss.points", -1, "config.loss.points must be 0 .all cells. or more, not -1"),
    ("loss.scheduled_sampling", 1.5, "config.loss.scheduled_sampling must be in .0, 1., not 1.5"),
    ("loss.conditioning_rate", 0.0, "config.loss.conditioning_rate must be in .0, 1., not 0.0"),
    ("model.compute_dtype", "float16", "config.model.compute_dtype must be .*not 'float16'"),
    ("model.drop_path", 1.0, "config.model.drop_path must be in .0, 1., not 1.0"),
    ("data.height", 32, "config.data.height must be .*at least 48"),
    ("data.batch_size", 0, "config.data.batch_size must be at least 1, not 0"),
    ("data.max_objects", 0, "config.data.max_objects must be at least 1, not 0"),
    ("train.mode", "pjit", "config.train.mode must be one of jit, .*pmap, not 'pjit'"),
    ("model.mask_stride", 8, "config.model.mask_stride must be 2 or 4, not 8"),
    ("model.mask_detail", 3, "config.model.mask_detail must be 1, 2 or 4 and at most 2 .*, not 3"),
    ("model.mask_detail", 4, "config.model.mask_detail must be 1, 2 or 4 and at most 2 .*, not 4"),
    ("model.encoder", "resnet", "config.model.encoder must be one of sphere_small.*, not 'resnet'"),
    ("model.encoder", "sphere_resnet50", "config.model.mask_stride must be 4 with sphere_resnet50"),
    ("model.encoder", "panoswin_tiny", "config.model.mask_stride must be 4 with panoswin_tiny"),
    ("model.last_stride", 32, "config.model.last_stride must be 16 with sphere_small, not 32"),
    ("encoder_weights", "package", "config.encoder_weights: there are none for sphere_small"),
    ("model.num_queries", 2049, "config.model.num_queries must be at most 2048, the cells of the"),
    ("evaluate.batch_size", 0, "config.evaluate.batch_size must be at least 1, not 0"),
    ("evaluate.iou_threshold", 0.0, "config.evaluate.iou_threshold must be in .0, 1., not 0.0"),
    ("model.num_queries", 39, "config.model.num_queries .*config.data.max_objects"),
    ("model.widths", (8, 16, 32), "config.model.widths and .blocks need a value for each"),
    ("model.feature_channels", 50, "config.model.feature_channels must be divisible by the 4"),
    (
      "evaluate.confidence_thresholds",
      (),
      "config.evaluate.confidence_thresholds must be one or more",
    ),
    (
      "evaluate.confidence_thresholds",
      (0.5, 1.0),
      "config.evaluate.confidence_thresholds .*in .0, 1.",
    ),
  ],
)
def test_a_value_that_cannot_work_is_refused_by_name(field, value, message):
  config = base_config()
  validate(config)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    validate(config)


def test_pictures_that_are_too_small_for_the_encoders_kernels_are_refused_with_a_cure_that_works():
  config = base_config()
  config.model.encoder = "sphere_efficientnet_lite0"
  message = (
    "config.data.{}: 64 rows are too few for sphere_efficientnet_lite0 with"
    " config.model.sphere_from_stride 4, .*; give at least 80, or config.model.sphere_from_.* 32"
  )
  with pytest.raises(ValueError, match=message.format("height")):
    validate(config)
  config.data.height, config.data.train_heights = 80, (96, 64)
  with pytest.raises(ValueError, match=message.format("train_heights")):
    validate(config)
  for cure in ({"data.train_heights": (96,)}, {"model.sphere_from_stride": 32, "data.height": 64}):
    config.update_from_flattened_dict(cure)
    validate(config)

    def encode(config=config):  # the encoder's own check says nothing either
      image = np.zeros((1, config.data.height, 2 * config.data.height, 3), np.uint8)
      return build_model(config).encode(jax.numpy.asarray(image)).fine

    jax.eval_shape(encode)
  config.model.last_stride = 32
  with pytest.raises(ValueError, match="must be divisible by 32 .*at least 96, not 64"):
    validate(config)
  config.data.height, config.data.train_heights = 128, ()
  with pytest.raises(ValueError, match="give at least 160, or config.model.sphere_from_stride 64"):
    validate(config)
  config.model.sphere_from_stride = 64
  validate(config)


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("data.names", (), "config.data.names must be one or more, and .degrees"),
    ("data.degrees", (0.03,), "config.data.names must be one or more, and .degrees"),
    ("data.width", 460, "config.data.width must be divisible by 8 .*not 460"),
    ("data.height", 24, "config.data.height must be .*at least 32, not 24"),
    ("data.windows", (1.0, 2.0), "config.data.windows must be one or more numbers between 0 and 2"),
    ("data.windows", (), "config.data.windows must be one or more"),
    ("data.batch_size", 0, "config.data.batch_size must be at least 1, not 0"),
    ("data.folds", 1, "config.data.folds must be 0, or 2 or more, not 1"),
    ("data.folds", -3, "config.data.folds must be 0, or 2 or more, not -3"),
    ("evaluate.batch_size", 0, "config.evaluate.batch_size must be at least 1, not 0"),
    ("model.channels", (), "config.model.channels must be one or more numbers of channels"),
    ("model.dropout", 1.0, "config.model.dropout must be in .0, 1., not 1.0"),
    ("model.sharpness", 0.0, "config.model.sharpness must be above 0, not 0.0"),
    ("model.enlargement", 0.5, "config.model.enlargement must be in .1, 4., not 0.5"),
    ("model.enlargement", 1.6, r"config.data.height times .* 336 \* 1.6 = 537.6 is not"),
    ("train.mode", "pjit", "config.train.mode must be one of jit, .*pmap, not 'pjit'"),
  ],
)
def test_a_fixation_value_that_cannot_work_is_refused_by_name(field, value, message):
  config = fixation_config()
  validate(config)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    validate(config)


def test_fewer_queries_than_objects_are_refused_by_the_objective_too():
  config = base_config()
  config.data.height = 48
  config.model.num_queries = 39
  with pytest.raises(ValueError, match="39 queries cannot serve 40 objects.*num_queries"):
    abstract_terms(config)


def test_an_unknown_ranking_loss_is_refused():
  config = base_config()
  config.loss.ranking = "bubblesort"
  with pytest.raises(ValueError, match="listmle.*not 'bubblesort'"):
    build_objective(config)


@pytest.mark.parametrize(
  "section", [None, "data", "model", "loss", "optimizer", "train", "evaluate"]
)
def test_misspelt_fields_and_values_of_another_type_are_refused(section):
  config = base_config()
  part = config if section is None else config[section]
  with pytest.raises((AttributeError, KeyError), match="heigth"):
    part.heigth = 64
  name = next(name for name in part if isinstance(part[name], int | float))
  with pytest.raises(TypeError):
    part[name] = "many"
