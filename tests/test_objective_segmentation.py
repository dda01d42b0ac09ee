"""The terms of queries, against one prediction, scene and object after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from foir360_jax.models.query_decoder import Queries
from foir360_jax.objective.matching import matching_cost
from foir360_jax.objective.points import sample_masks, sample_masks_coarsely
from foir360_jax.objective.segmentation import segmentation_terms

HEIGHT, CHANNELS, CATEGORIES, TAUGHT, FOUND, SCENES = 8, 4, 5, 3, 6, 2


def draw(rng, num_predictions):
  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  group = (num_predictions, SCENES, TAUGHT + FOUND)
  queries = Queries(
    normal(SCENES, TAUGHT + FOUND, 7),
    normal(*group, CHANNELS),
    normal(*group),
    normal(*group, CATEGORIES),
  )
  pixels = normal(SCENES, HEIGHT, 2 * HEIGHT, CHANNELS)
  masks = jnp.asarray(rng.random((SCENES, TAUGHT, 2 * HEIGHT**2)) < 0.2, jnp.float32)
  seed = jnp.arange(SCENES, dtype=jnp.uint32)
  where = jnp.array([[True, True, True], [True, True, False]])
  category = jnp.array([[0, 4, -1], [2, 2, 1]])
  origin = jnp.asarray(rng.random((SCENES, TAUGHT, FOUND)) < 0.3)
  places = (look(pixels, masks, seed, 0) for look in (sample_masks, sample_masks_coarsely))
  return queries, *places, where, category, origin


def plain_terms(queries, measured, coarsely, where, category, origin):
  """Sums over scenes and objects: of the last prediction, plus the mean of those before."""
  sums = dict.fromkeys(("object", "mask_dice", "mask_entropy", "category"), 0.0)
  last = len(queries.object_logits) - 1
  recalled = 0

  def add(name, value, index):
    sums[name] += value if index == last else value / last

  for index in range(last + 1):
    places = measured if index == last else coarsely
    for scene in range(SCENES):
      pixels, masks, weights = places.pixels[scene], places.masks[scene], places.weights
      logits = np.asarray(queries.kernels[index, scene] @ pixels.T, np.float64)
      there = np.asarray(masks).max(-1) > 0
      real = np.flatnonzero(where[scene] & there)
      unknown = np.asarray(origin)[scene, np.asarray(where[scene]) & ~there].any(0)
      objects = np.asarray(queries.object_logits[index, scene, TAUGHT:], np.float64)
      cost = matching_cost(
        logits[None, TAUGHT:], objects[None], masks[None], (where[scene] & there)[None], weights
      )[0]
      rows, queries_of = linear_sum_assignment(np.asarray(cost)[real])
      wanted = np.zeros(FOUND)
      wanted[queries_of] = 1
      entropy = np.log1p(np.exp(objects)) - objects * wanted
      add("object", entropy[(wanted > 0) | ~unknown].sum(), index)
      for n, query in zip(real[rows], queries_of, strict=True):
        target, weight = np.asarray(masks[n], np.float64), np.asarray(weights, np.float64)
        for which in (n, TAUGHT + query):
          p = 1 / (1 + np.exp(-logits[which]))
          shared = 2 * (weight * p * target).sum() + 1
          dice = 1 - shared / ((weight * p).sum() + (weight * target).sum() + 1)
          add("mask_dice", dice, index)
          entropy = np.log1p(np.exp(logits[which])) - logits[which] * target
          add("mask_entropy", (weight * entropy).sum() / (2 * (weight * target).sum() + 5), index)
          if category[scene, n] >= 0:
            of_query = np.asarray(queries.category_logits[index, scene, which], np.float64)
            likelihood = of_query[category[scene, n]] - np.log(np.exp(of_query).sum())
            add("category", -likelihood, index)
        if index == last:
          shown, true = logits[TAUGHT + query] > 0, target >= 0.5
          recalled += (weight * (shown & true)).sum() >= 0.5 * (weight * (shown | true)).sum()
  return sums | {"recall": recalled}


@pytest.mark.parametrize("num_predictions", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_terms_are_those_of_loops(num_predictions, seed):
  drawn = draw(np.random.default_rng(seed), num_predictions)
  terms, match = jax.jit(segmentation_terms)(*drawn)
  for name, expected in plain_terms(*drawn).items():
    np.testing.assert_allclose(terms[name][0], expected, rtol=1e-4, err_msg=name)
  assert terms["object"][1] == 5
  assert terms["mask_dice"][1] == 2 * 5
  assert terms["category"][1] == 2 * 4
  assert match.iou[1, 2] == 0


def test_what_the_points_of_early_predictions_miss_is_still_asked_of_the_last():
  queries, measured, coarsely, *rest = draw(np.random.default_rng(2), 3)
  missed = coarsely._replace(masks=coarsely.masks.at[0, 1].set(0))
  terms, match = segmentation_terms(queries, measured, missed, *rest)
  assert terms["mask_dice"][1] == 2 * 5
  assert terms["recall"][1] == 5
  assert not match.unknown.any()
  for name, expected in plain_terms(queries, measured, missed, *rest).items():
    np.testing.assert_allclose(terms[name][0], expected, rtol=1e-4, err_msg=name)


def test_queries_of_an_object_that_no_point_hits_have_no_objectness_target():
  queries, measured, coarsely, *rest, origin = draw(np.random.default_rng(3), 1)
  missed = measured._replace(masks=measured.masks.at[0, 1].set(0))

  def terms(object_logits, origin):
    changed = queries._replace(object_logits=object_logits)
    return segmentation_terms(changed, missed, coarsely, *rest, origin)

  _, match = terms(queries.object_logits, origin)
  taken = np.asarray(match.query)[0, [0, 2]]
  free = np.setdiff1d(np.arange(FOUND), taken)[0]
  origin = jnp.zeros_like(origin).at[0, 1, jnp.array([free, taken[0]])].set(True)
  _, match = terms(queries.object_logits, origin)
  np.testing.assert_array_equal(np.flatnonzero(match.unknown), sorted([free, taken[0]]))
  gradient = jax.grad(lambda x: terms(x, origin)[0]["object"][0])(queries.object_logits)
  untaught = np.argwhere(np.asarray(gradient)[0, :, TAUGHT:] == 0)
  assert untaught.tolist() == [[0, free]]  # the taken one is an object's all the same
