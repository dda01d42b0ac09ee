"""What all encoders have in common, and PanoRank on each of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models import build_model, parameter_keys
from foir360_jax.models.encoders import ENCODERS, build_encoder
from foir360_jax.models.pretrained import load_encoder_weights
from foir360_jax.train import build_optimizer


def build(name, sphere_from_stride=16):
  return build_encoder(
    name,
    widths=(8, 8, 16, 16),
    blocks=(0, 1, 1, 1),
    sphere_from_stride=sphere_from_stride,
    rngs=parameter_keys(0),
  )


@functools.cache
def abstract(name):
  """An encoder of shapes alone: to trace how its parameters are drawn takes longest."""
  return nnx.eval_shape(lambda: build(name))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_gives_the_maps_that_it_names(name):
  graphdef, state = nnx.split(abstract(name))
  image = jax.ShapeDtypeStruct((2, 96, 192, 3), jnp.float32)
  maps = jax.eval_shape(
    lambda state, image: nnx.merge(graphdef, state)(image, strides=(16, 4)), state, image
  )
  channels = abstract(name).channels
  assert list(channels) == sorted(channels) and {4, 8, 16} <= set(channels)
  expected = {stride: (2, 96 // stride, 192 // stride, channels[stride]) for stride in (16, 4)}
  assert {stride: x.shape for stride, x in maps.items()} == expected


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
  ("shape", "strides", "message"),
  [
    ((1, 96, 192), (4,), "needs images"),
    ((1, 96, 180, 3), (4,), "H divisible by 4"),
    ((1, 16, 32, 3), (16,), "give at least"),
    ((1, 96, 192, 3), (3,), "strides must be of"),
  ],
)
def test_an_encoder_refuses_what_it_cannot_take(name, shape, strides, message):
  with pytest.raises(ValueError, match=message) as caught:
    abstract(name)(jax.ShapeDtypeStruct(shape, np.float32), strides=strides)
  assert "\n" not in str(caught.value)


def test_an_unknown_encoder_is_refused():
  with pytest.raises(ValueError, match="encoder must be one of sphere_small, .*, not 'resnet'"):
    build("resnet")


@pytest.mark.parametrize("name", ENCODERS[1:])
@pytest.mark.parametrize("last_stride", [16, 32])
def test_panorank_ranks_with_every_encoder(make_tiny_config, name, last_stride):
  config = make_tiny_config()
  config.model.encoder = name
  config.model.last_stride = last_stride
  config.model.mask_stride = 4
  # 5x5 kernels on the sphere need five rows on the coarsest level.
  config.model.sphere_from_stride = 64
  image = jax.ShapeDtypeStruct((2, 96, 192, 3), np.uint8)
  model = nnx.eval_shape(lambda: build_model(config))
  graphdef, state = nnx.split(model)
  ranked = jax.eval_shape(lambda *inputs: nnx.merge(graphdef, inputs[0])(inputs[1]), state, image)
  assert ranked.mask_logits.shape == (2, 8, 48 * 96)
  assert model.pixel_decoder.strides == tuple(s for s in (4, 8, 16, 32) if s <= last_stride)


def test_turning_a_panorama_turns_the_features_of_the_small_encoder(draw_parameters):
  encoder = draw_parameters(lambda: build("sphere_small", sphere_from_stride=4))
  image = np.random.default_rng(0).uniform(0, 255, (1, 48, 96, 3)).astype(np.float32)
  run = jax.jit(lambda image: encoder(image, strides=(2, 16)))
  turned = run(np.roll(image, 16, axis=2))
  for stride, features in run(image).items():
    np.testing.assert_allclose(
      turned[stride], np.roll(features, 16 // stride, axis=2), atol=1e-4 * np.abs(features).max()
    )


@pytest.mark.parametrize(
  ("name", "source", "message"),
  [
    ("sphere_resnet50", "package", "no package has weights for ResNet50: give a file"),
    ("sphere_small", "package", "no public weights for SphereEncoder"),
    ("sphere_efficientnet_lite0", "none.pth", "none.pth: cannot be read"),
  ],
)
def test_weights_that_there_are_not_are_refused(name, source, message):
  with pytest.raises(ValueError, match=message):
    load_encoder_weights(abstract(name), source)


def test_the_encoder_may_learn_more_slowly():
  params = {"encoder": {"kernel": np.ones((2, 2), np.float32)}, "encoders": np.ones((2, 2))}

  @functools.partial(jax.jit, static_argnums=0)
  def step(rate, params):
    optimizer = build_optimizer(1e-2, 0, 0.1, 0.99, 1.0, rate)
    gradients = jax.tree.map(lambda x: 0.1 * x, params)
    return optimizer.update(gradients, optimizer.init(params), params, progress=0.0)[0]

  steps = [step(rate, params) for rate in (1.0, 0.1)]
  np.testing.assert_allclose(
    steps[1]["encoder"]["kernel"], 0.1 * steps[0]["encoder"]["kernel"], rtol=1e-6
  )
  np.testing.assert_array_equal(steps[1]["encoders"], steps[0]["encoders"])
