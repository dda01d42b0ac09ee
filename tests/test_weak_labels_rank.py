"""The weakly supervised method as a whole, on small painted panoramas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foir360_jax.metrics import kendall_tau_b
from foir360_jax.sphere import pixel_directions
from foir360_jax.weak_labels import rank as rank_module
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.rank import WeakRanker, fitted_variant

HEIGHT = 64
LOCAL = (0.4, 0.0, -0.3, 0.0, 0.5, 0.1, 0.2, 0.1, 0.2, 0.1, -0.2, 0.0)
SCORE = ObjectScore((0.4, 0.0, 0.6, 0.2), LOCAL, LOCAL, (0.4, 0.0, -0.3, 0.0), 0.1, 2.0, 0.5, 0.0)
STRATEGY = Strategy(fill="mean", max_erased=2, max_erased_whole=2)


def vividness(views):
  """A saliency: how far a pixel is from grey."""
  return 1.0 + (views.max(-1) - views.min(-1)) / 8


def cap(lon_deg, lat_deg, radius_deg):
  lon, lat = np.radians(lon_deg), np.radians(lat_deg)
  centre = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
  return pixel_directions(HEIGHT) @ centre > np.cos(np.radians(radius_deg))


def scene():
  """An object at the pole, one across the seam, one larger than a view, and small ones."""
  caps = (
    *((180, 0, 14), (30, 88, 12), (0, -70, 62), (-60, 10, 7)),
    *((60, 25, 9), (100, -5, 5), (130, 5, 11), (-120, 35, 8)),
  )
  masks = np.array([cap(*c) for c in caps])
  masks[2] &= ~masks[[0, 1, 3, 4, 5, 6, 7]].any(0)
  panorama = np.full((HEIGHT, 2 * HEIGHT, 3), 110, np.uint8)
  for number, mask in enumerate(masks):
    panorama[mask] = (110 + 16 * number, 110, 110 - 8 * number)
  return panorama, masks


@pytest.fixture(scope="module")
def ranker():
  return WeakRanker(vividness, strategy=STRATEGY, object_score=SCORE)


@pytest.fixture(scope="module")
def ranked(ranker):
  return ranker(*scene())


def by_id(ranked, field="ranks"):
  return getattr(ranked, field)[np.argsort(ranked.ids)]


def test_every_object_gets_a_place_wherever_and_however_large_it_is(ranked):
  assert sorted(ranked.ranks) == list(range(1, 9))
  assert ((ranked.importance > 0) & (ranked.importance < 1)).all()
  assert ((ranked.agreement >= 0) & (ranked.agreement <= 1)).all()
  assert (ranked.agreement > 0.5).mean() > 0.5  # views mostly agree on so plain a scene


def test_permuted_ids_have_the_same_ranks(ranker, ranked):
  panorama, masks = scene()
  order = np.random.default_rng(0).permutation(len(masks))
  permuted = ranker(panorama, masks[order], ids=order + 1)
  np.testing.assert_array_equal(by_id(permuted), by_id(ranked))
  np.testing.assert_allclose(by_id(permuted, "importance"), by_id(ranked, "importance"), rtol=1e-5)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turn_by_the_spacing_of_the_views_changes_nothing(ranker, ranked, quarters):
  turn = quarters * HEIGHT // 2
  turned = ranker(*(np.roll(x, turn, axis) for x, axis in zip(scene(), (1, 2), strict=True)))
  np.testing.assert_array_equal(by_id(turned), by_id(ranked))
  # Perspective views are the same to the bit; on the whole panorama what fills the largest object
  # comes from beyond a quarter turn, where the margins end.
  np.testing.assert_allclose(by_id(turned, "importance"), by_id(ranked, "importance"), atol=5e-4)


@pytest.mark.parametrize("columns", [1, 5, 19, 43, 77, 101])
def test_any_turn_nearly_keeps_the_order(ranker, ranked, columns):
  turned = ranker(*(np.roll(x, columns, axis) for x, axis in zip(scene(), (1, 2), strict=True)))
  assert kendall_tau_b(-by_id(ranked), -by_id(turned)).value >= 0.9


def test_a_batch_has_the_results_of_its_panoramas_one_by_one(ranker, ranked):
  panorama, masks = scene()
  fewer = masks[:5]
  scenes = [rank_module.describe_scene(panorama, m) for m in (masks, fewer)]
  result = jax.device_get(ranker.rank(jax.tree.map(lambda *x: np.stack(x), *scenes)))
  together = rank_module.ranked_objects(result, 0, panorama, masks)
  np.testing.assert_allclose(together.importance, ranked.importance, rtol=1e-5)
  alone = ranker(panorama, fewer)
  second = rank_module.ranked_objects(result, 1, panorama, fewer)
  np.testing.assert_array_equal(second.ids, alone.ids)
  np.testing.assert_allclose(second.importance, alone.importance, rtol=1e-5)
  assert (result.importance[1, 5:] == 0).all() and (result.strength[1, 5:] == 0).all()


def test_weights_of_the_saliency_are_arguments_of_the_program():
  class Scaled:
    def __init__(self, scale):
      self.scale = scale

    def __call__(self, views):
      return vividness(views) ** self.scale

  jax.tree_util.register_pytree_node(Scaled, lambda s: ((s.scale,), None), lambda _, x: Scaled(*x))
  ranker = WeakRanker(Scaled(jnp.float32(1.0)), strategy=STRATEGY, object_score=SCORE)
  assert len(ranker._weights) == 1  # and not a constant of the program


def test_views_of_parts_get_the_form_of_the_model_that_is_for_them():
  asked = []

  class Watched:
    def __init__(self, name):
      self.name = name

    def __call__(self, views):
      asked.append((self.name, views.shape[1] == views.shape[2]))
      return vividness(views)

    def for_parts(self):
      return Watched("parts")

  WeakRanker(Watched("whole"), strategy=STRATEGY, object_score=SCORE)(*scene())
  assert set(asked) == {("parts", True), ("whole", False)}  # perspective views are square


def test_no_object_at_all_gives_an_empty_result(ranker):
  panorama, masks = scene()
  assert len(ranker(panorama, masks[:0])) == 0


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda p, m: (p[:, :-8], m), "panorama must be uint8"),
    (lambda p, m: (p.astype(np.float32), m), "panorama must be uint8"),
    (lambda p, m: (p, m[:, 1:]), "masks must be bool"),
    (lambda p, m: (p, m.astype(np.uint8)), "masks must be bool"),
    (lambda p, m: (p, np.concatenate([m, m[:1] & False])), "has no pixel"),
    (lambda p, m: (p, np.repeat(m, 17, 0)), "136 objects are more than 128"),
  ],
)
def test_unsuitable_input_is_refused_in_one_line(ranker, change, message):
  with pytest.raises(ValueError, match=message) as error:
    ranker(*change(*scene()))
  assert "\n" not in str(error.value)


def test_an_unknown_collector_is_refused():
  with pytest.raises(ValueError, match="collector must be one of bradley_terry"):
    WeakRanker(vividness, strategy=Strategy(collector="none"), object_score=SCORE)


@pytest.mark.parametrize(
  "change, variant",
  [
    ({}, "full"),
    ({"collector": "mean"}, "mean"),
    ({"max_erased": 0, "max_erased_whole": 0}, "without_erasing"),
    ({"max_erased": 0}, "full"),
    ({"tangent_views": False}, "without_views"),
    ({"tangent_views": False, "collector": "borda"}, "full"),
  ],
)
def test_a_strategy_has_the_coefficients_that_were_fitted_for_it(change, variant):
  strategy = Strategy(**change)
  assert fitted_variant(strategy) == variant
  ranker = WeakRanker("spectral", strategy=strategy)
  assert ranker.object_score == ObjectScore.load("spectral", variant)
