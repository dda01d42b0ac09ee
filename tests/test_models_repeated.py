"""Loops over blocks and blocks computed again, beside the plain loop."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.models import parameter_keys
from foir360_jax.models.encoders import SphereEncoder, build_encoder
from foir360_jax.models.repeated import apply_blocks


class Block(nnx.Module):
  """x -> x + tanh(x · kernel) · sign, every stride-th row of it; a factor comes on top."""

  def __init__(self, seed, sign=1.0, stride=1, channels=(3, 3)):
    self.kernel = nnx.Param(0.5 * jax.random.normal(jax.random.key(seed), channels))
    self.sign = sign
    self.stride = stride

  def __call__(self, x, factor=1.0):
    y = jnp.tanh(x @ self.kernel[...]) * self.sign * factor
    return (x + y if x.shape == y.shape else y)[:: self.stride]


def in_order(kinds):
  """Blocks: P(lain), S(ubtracting), H(alving), W(idening) to 5 channels, w(ide)."""
  options = {
    "P": {},
    "S": {"sign": -1.0},
    "H": {"stride": 2},
    "W": {"channels": (3, 5)},
    "w": {"channels": (5, 5)},
  }
  return nnx.List(Block(seed, **options[kind]) for seed, kind in enumerate(kinds))


def primitives(function, *arguments):
  """How often each primitive is in a function's program, however deep."""
  counts = collections.Counter()

  def count(jaxpr):
    for equation in jaxpr.eqns:
      counts[equation.primitive.name] += 1
      for parameter in jax.tree.leaves(list(equation.params.values())):
        inner = getattr(parameter, "jaxpr", parameter)
        if hasattr(inner, "eqns"):
          count(inner)

  count(jax.make_jaxpr(function)(*arguments).jaxpr)
  return counts


# What is looped over, and how many blocks the program then has.
@pytest.mark.parametrize(
  ("kinds", "loops", "bodies"),
  [
    ("PPPP", 1, 1),
    ("PSPSPS", 1, 2),
    ("PSPSPSP", 1, 3),  # as PanoSwin's third stage
    ("PPSSS", 2, 2),
    ("SPPPSPS", 1, 5),
    ("PSH", 0, 3),
    ("HH", 0, 2),  # alike, but they do not keep the shape
    ("PWww", 1, 3),
    ("P", 0, 1),
  ],
)
@pytest.mark.parametrize("remat", [False, True])
def test_a_loop_gives_what_the_plain_loop_gives(kinds, loops, bodies, remat):
  blocks = in_order(kinds)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)
  factors = list(jnp.asarray(rng.uniform(0.5, 2, len(kinds)), jnp.float32))

  def plain(blocks, x, factors):
    for block, factor in zip(blocks, factors, strict=True):
      x = block(x, factor)
    return jnp.sum(x**2), x

  def looped(blocks, x, factors):
    x = apply_blocks(blocks, x, factors, remat=remat, scan=True)
    return jnp.sum(x**2), x

  graphdef, state = nnx.split(blocks)
  results = []
  for function in (plain, looped):

    def of_arrays(state, x, factors, function=function):
      return function(nnx.merge(graphdef, state), x, factors)

    results.append(
      jax.jit(jax.value_and_grad(of_arrays, argnums=(0, 1, 2), has_aux=True))(state, x, factors)
    )
  for expected, actual in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(actual, expected, atol=3e-5 * np.abs(expected).max())
  counts = primitives(lambda *arrays: of_arrays(*arrays), state, x, factors)
  assert (counts["scan"], counts["tanh"]) == (loops, bodies)


@pytest.mark.parametrize("scan", [False, True])
def test_nothing_is_kept_of_a_block_but_what_goes_in(scan):
  blocks = in_order("PPPP")
  graphdef, state = nnx.split(blocks)
  x = jnp.ones((64, 3))

  def kept(remat):
    def loss(state, x):
      return apply_blocks(nnx.merge(graphdef, state), x, remat=remat, scan=scan).sum()

    _, backward = jax.vjp(loss, state, x)
    return sum(leaf.size for leaf in jax.tree.leaves(backward) if leaf.size >= x.size)

  assert kept(remat=True) == 4 * x.size < kept(remat=False)


def test_each_block_has_its_own_input():
  with pytest.raises(ValueError, match="shorter"):
    apply_blocks(in_order("PP"), jnp.ones((2, 3)), [jnp.ones(())], remat=False)


# Blocks up to stride 16.
@pytest.mark.parametrize(
  ("name", "blocks"),
  [
    ("sphere_small", 6),
    ("sphere_efficientnet_lite0", 11),
    ("sphere_resnet50", 13),
    ("panoswin_tiny", 11),
  ],
)
def test_every_block_of_an_encoder_may_be_computed_again(name, blocks):
  def build():
    options = dict(widths=(8, 8, 16, 16), blocks=(0, 1, 1, 1), sphere_from_stride=64)
    return build_encoder(name, **options, remat=True, rngs=parameter_keys(0))

  graphdef, state = nnx.split(nnx.eval_shape(build))

  def run(state, image):
    return nnx.merge(graphdef, state)(image, strides=(4, 16))

  image = jax.ShapeDtypeStruct((1, 96, 192, 3), jnp.float32)
  counts = primitives(run, state, image)
  assert counts["remat2"] + counts["checkpoint"] == blocks


def test_the_small_encoder_loops_over_blocks_that_are_alike(draw_parameters):
  encoder = draw_parameters(
    lambda: SphereEncoder((4, 4, 8, 8), (2, 0, 3, 0), 4, remat=True, rngs=parameter_keys(0))
  )
  image = np.random.default_rng(0).uniform(0, 255, (1, 48, 96, 3)).astype(np.float32)
  assert primitives(lambda image: encoder(image), image)["remat2"] == 1 + 1 + 2 + 1
  looped = jax.jit(lambda image: encoder(image))(image)
  stages, encoder.stages = encoder.stages, nnx.List([nnx.List() for _ in range(4)])

  @jax.jit
  def plain(image):
    x, maps = encoder(image)[2], {}  # no blocks are left: what the stem gives
    for level, stage in enumerate(stages):
      for block in stage:
        x = block(x)
      maps[2 ** (level + 1)] = x
    return maps

  expected = plain(image)
  for stride, x in looped.items():
    np.testing.assert_allclose(x, expected[stride], atol=1e-5 * np.abs(x).max())
