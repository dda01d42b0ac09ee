"""Rates that differ between the parts of a model, and the depths in the encoder behind them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models import parameter_keys
from foir360_jax.models.encoders import ENCODERS, build_encoder, layer_depths
from foir360_jax.saliency import FixationReadout
from foir360_jax.saliency.fixations.training import BiasedReadout
from foir360_jax.train import build_optimizer
from foir360_jax.train.optimizer import is_kernel, learning_rate_factors

BLOCKS = dict(zip(ENCODERS, (6, 16, 16, 13), strict=True))


def build(name):
  sizes = dict(widths=(4, 4, 8, 8), blocks=(0, 1, 1, 1), sphere_from_stride=64)
  return build_encoder(name, **sizes, rngs=parameter_keys(0))


class Model(nnx.Module):
  def __init__(self, name="sphere_small"):
    self.encoder = build(name)
    self.stem = nnx.Linear(2, 2, rngs=parameter_keys(1))
    self.norms = nnx.List([nnx.LayerNorm(2, rngs=parameter_keys(2))])


@functools.cache
def abstract_model(name):
  return nnx.eval_shape(lambda: Model(name))


def parameters(name):
  return nnx.state(abstract_model(name), nnx.Param)


@pytest.mark.parametrize("name", ENCODERS)
def test_depths_rise_along_the_way_of_an_image(name):
  graphdef, state = nnx.split(abstract_model(name).encoder)

  def run(state, image):
    encoder = nnx.merge(graphdef, state)
    return encoder(image, strides=tuple(encoder.channels))

  image = jax.ShapeDtypeStruct((1, 64, 128, 3), jnp.float32)
  jaxpr = jax.make_jaxpr(run)(state, image).jaxpr
  first_use = {}
  for step, equation in enumerate(jaxpr.eqns):
    for operand in equation.invars:
      if operand in jaxpr.invars:
        first_use.setdefault(operand, step)
  uses = [first_use[parameter] for parameter in jaxpr.invars[:-1]]  # every parameter has one
  depths = jax.tree.leaves(layer_depths(state))
  assert len(depths) == len(uses)
  in_order = [depths[index] for index in np.argsort(uses, kind="stable")]
  assert in_order == sorted(in_order)
  assert set(depths) == set(range(BLOCKS[name] + 1))


@pytest.mark.parametrize("name", ENCODERS)
def test_the_stem_is_at_depth_0_and_each_block_has_a_depth_of_its_own(name):
  depths = layer_depths(parameters(name)["encoder"])
  assert set(jax.tree.leaves(depths["stem"])) == {0}
  stages = depths["stages"].values() if "stages" in depths else [depths["blocks"]]
  blocks = [stage[key] for stage in stages for key in sorted(stage)]
  of_blocks = [set(jax.tree.leaves(block)) for block in blocks]
  assert of_blocks == [{depth} for depth in range(1, BLOCKS[name] + 1)]


def test_what_leads_to_a_stage_and_what_follows_it_count_to_the_stage():
  depths = layer_depths(parameters("panoswin_tiny")["encoder"])
  of_part = {
    name: [jax.tree.leaves(part)[0] for _, part in sorted(depths[name].items())]
    for name in ("merging", "norms")
  }
  assert of_part == {"merging": [3, 5, 12], "norms": [2, 4, 11, 13]}
  for name in ("embed", "embed_norm", "place"):
    assert set(jax.tree.leaves(depths[name])) == {0}


def test_a_part_that_no_encoder_has_is_refused():
  with pytest.raises(ValueError, match="head.kernel is no parameter of an encoder whose depth"):
    layer_depths({"stem": 0.0, "head": {"kernel": 0.0}})


@pytest.mark.parametrize("name", ENCODERS)
def test_the_rate_falls_from_block_to_block_towards_the_stem(name):
  params = parameters(name)
  factors = learning_rate_factors(params, 0.5, 0.8)
  assert jax.tree.structure(factors) == jax.tree.structure(params)
  for part in ("stem", "norms"):  # of the model, not of the encoder
    assert set(jax.tree.leaves(factors[part])) == {1.0}
  for factor, depth in zip(
    jax.tree.leaves(factors["encoder"]),
    jax.tree.leaves(layer_depths(params["encoder"])),
    strict=True,
  ):
    assert factor == pytest.approx(0.5 * 0.8 ** (BLOCKS[name] - depth))
  equal = learning_rate_factors(params, 0.5, 1.0)
  assert set(jax.tree.leaves(equal["encoder"])) == {0.5}


def test_factors_are_applied_to_what_an_update_adds_weight_decay_included(draw_parameters):
  @jax.jit
  def updates(params):
    gradients = jax.tree.map(jnp.cos, params)
    optimizers = [build_optimizer(1e-2, 0, 0.1, 0.99, 1.0, *rates) for rates in ((), (0.5, 0.8))]
    return [
      each.update(gradients, each.init(params), params, progress=0.0)[0] for each in optimizers
    ]

  plain, scaled = updates(nnx.state(draw_parameters(Model), nnx.Param))
  factors = learning_rate_factors(plain, 0.5, 0.8)
  jax.tree.map(
    lambda a, b, factor: np.testing.assert_allclose(b, factor * a, rtol=1e-5),
    *(plain, scaled, factors),
  )


NOT_DECAYED = {
  "sphere_small": {"bias", "scale"},
  "sphere_efficientnet_lite0": {"bias"},
  "sphere_resnet50": {"bias"},
  "panoswin_tiny": {"bias", "scale", "alpha", "beta"},
  "readout": {"bias", "coefficients", "log_blur"},
}


@pytest.mark.parametrize("name", NOT_DECAYED)
def test_weight_decay_shrinks_the_kernels_of_layers_and_nothing_else(name):
  if name == "readout":
    readout = nnx.eval_shape(lambda: BiasedReadout(FixationReadout(rngs=nnx.Rngs(0)), 2))
    params = nnx.state(readout, nnx.Param)
  else:
    params = parameters(name)["encoder"]
  names, decayed = {True: set(), False: set()}, is_kernel(params)
  assert jax.tree.structure(decayed) == jax.tree.structure(params)
  for (path, is_decayed), x in zip(
    jax.tree.leaves_with_path(decayed), jax.tree.leaves(params), strict=True
  ):
    names[is_decayed].add(jax.tree_util.keystr(path, simple=True, separator=".").split(".")[-2])
    assert x.ndim > 1 or not is_decayed  # a kernel has inputs and outputs
  assert names == {True: {"kernel"}, False: NOT_DECAYED[name]}


def test_what_is_no_kernel_keeps_its_value_without_a_gradient():
  params = {"kernel": jnp.ones((2, 3)), "alpha": jnp.ones((2, 3)), "bias": jnp.ones(3)}
  optimizer = build_optimizer(1e-2, 0, 0.1, 0.99, 1.0)
  nothing = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(nothing, optimizer.init(params), params, progress=0.0)
  assert {name for name, update in updates.items() if np.any(update)} == {"kernel"}


def test_the_state_of_the_optimizer_does_not_depend_on_the_rates():
  params = {"encoder": {"stem": jnp.ones((2, 2))}, "head": jnp.ones(3)}
  plain, scaled = (
    build_optimizer(1e-2, 0, 0.1, 0.99, 1.0, *rates).init(params) for rates in ((), (0.5, 0.8))
  )
  assert jax.tree.structure(plain) == jax.tree.structure(scaled)


def test_a_model_without_an_encoder_has_one_rate():
  params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(3)}
  assert jax.tree.leaves(learning_rate_factors(params, 0.5, 0.8)) == [1.0, 1.0]
