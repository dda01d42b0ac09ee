import time

import numpy as np
import pytest

from foir360_jax.metrics import (
  PairedDifference,
  Score,
  ScoreAccumulator,
  bootstrap_interval,
  paired_bootstrap_interval,
)

NAN = float("nan")
LEFT_OUT = [Score(NAN, "skipped"), Score(NAN, "undefined")]


def used(values):
  return [Score(float(value), "used") for value in values]


def random_scores(rng, number):
  kinds = [*LEFT_OUT, Score(0.0, "counted_zero"), *used(rng.normal(size=5))]
  return [kinds[rng.integers(len(kinds))] for _ in range(number)]


def reference(scores_a, scores_b, groups, confidence, num_resamples, seed):
  """Draws groups one data set at a time, and takes both means of what was drawn."""
  members = {}
  for a, b, group in zip(scores_a, scores_b, groups, strict=True):
    if not {a.status, b.status} & {"skipped", "undefined"}:
      members.setdefault(group, []).append((a.value, b.value))
  names, differences = list(members), []
  rng = np.random.default_rng(seed)
  for _ in range(num_resamples):
    drawn = [
      pair for place in rng.integers(len(names), size=len(names)) for pair in members[names[place]]
    ]
    differences.append(np.mean([a for a, _ in drawn]) - np.mean([b for _, b in drawn]))
  pairs = [pair for group in members.values() for pair in group]
  mean = np.mean([a for a, _ in pairs]) - np.mean([b for _, b in pairs])
  tail = 50 * (1 - confidence)
  return (mean, *np.percentile(differences, [tail, 100 - tail]), len(pairs))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_groups", [None, 6])
def test_interval_equals_a_plain_loop_over_resampled_data_sets(seed, num_groups):
  rng = np.random.default_rng([seed, num_groups or 0])
  scores_a, scores_b = random_scores(rng, 40), random_scores(rng, 40)
  groups = None if num_groups is None else [f"video {g}" for g in rng.integers(num_groups, size=40)]
  settings = {"confidence": 0.9, "num_resamples": 60, "seed": seed}
  got = paired_bootstrap_interval(scores_a, scores_b, groups=groups, **settings)
  expected = reference(scores_a, scores_b, groups or range(40), **settings)
  assert 0 < got.count < 40 and got.low < got.mean < got.high
  np.testing.assert_allclose(got, expected, atol=1e-12)


def test_groups_of_different_size_are_drawn_whole_whatever_their_number_of_images_at_once():
  # More units than fit into one block of draws.
  rng = np.random.default_rng(5)
  scores_a, scores_b = used(rng.normal(size=3000)), used(rng.normal(size=3000))
  groups = rng.integers(2500, size=3000).tolist()
  got = paired_bootstrap_interval(scores_a, scores_b, groups=groups, num_resamples=250, seed=2)
  expected = reference(scores_a, scores_b, groups, 0.95, 250, 2)
  np.testing.assert_allclose(got, expected, atol=1e-12)


def simulate(seed, num_groups, size, shared):
  """Two rankers, b worse by 0.1, on images that share much of their difficulty within groups."""
  rng = np.random.default_rng(seed)
  groups = np.repeat(np.arange(num_groups), size)
  difficulty = rng.normal(size=groups.size)
  difference = 0.1 + shared * rng.normal(size=num_groups)[groups]
  difference = difference + 0.3 * rng.normal(size=groups.size)
  return used(difficulty + difference), used(difficulty), groups.tolist()


def coverage(grouped, num_groups, size, shared):
  inside = []
  for seed in range(200):
    a, b, groups = simulate(seed, num_groups, size, shared)
    result = paired_bootstrap_interval(a, b, groups=groups if grouped else None, num_resamples=400)
    inside.append(result.low <= 0.1 <= result.high)
  return np.mean(inside)


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
  # 200 data sets: the standard error of 0.95 is 0.015; percentile intervals are a little narrow.
  assert 0.90 <= coverage(False, 60, 1, 0.0) <= 0.99
  assert 0.90 <= coverage(True, 40, 5, 0.4) <= 0.99


def test_images_of_one_video_are_not_independent():
  assert coverage(False, 40, 5, 0.4) < 0.8


def test_pairing_sees_what_two_separate_intervals_do_not():
  a, b, _ = simulate(0, 200, 1, 0.0)
  result = paired_bootstrap_interval(a, b)
  assert result.low > 0
  assert bootstrap_interval(b)[1] > bootstrap_interval(a)[0]


def test_an_image_that_one_ranker_lacks_is_in_neither_mean():
  a = [*used([1.0, 2.0]), LEFT_OUT[0], Score(9.0, "used"), Score(0.0, "counted_zero")]
  b = [*used([0.5, 0.0, 7.0]), LEFT_OUT[1], Score(0.25, "used")]
  result = paired_bootstrap_interval(a, b)
  assert (result.mean, result.count) == (0.75, 3)
  both = [0, 1, 4]
  means = [ScoreAccumulator().add(*(s[i] for i in both)).summary()["mean"] for s in (a, b)]
  np.testing.assert_allclose(result.mean, means[0] - means[1])


def test_exchanging_the_rankers_turns_the_interval_round():
  a, b, groups = simulate(3, 12, 3, 0.1)
  one = paired_bootstrap_interval(a, b, groups=groups)
  other = paired_bootstrap_interval(b, a, groups=groups)
  np.testing.assert_allclose(other, [-one.mean, -one.high, -one.low, one.count], atol=1e-12)


def test_against_nothing_it_is_the_interval_of_the_mean():
  scores = used(np.random.default_rng(0).normal(size=50))
  result = paired_bootstrap_interval(scores, used(np.zeros(50)), seed=3)
  np.testing.assert_allclose(result[1:3], bootstrap_interval(scores, seed=3))


def test_against_nothing_groups_give_the_interval_of_the_mean_over_groups():
  rng = np.random.default_rng(1)
  scores, groups = random_scores(rng, 50), rng.integers(8, size=50).tolist()
  result = paired_bootstrap_interval(scores, used(np.zeros(50)), groups=groups, seed=3)
  np.testing.assert_allclose(result[1:3], bootstrap_interval(scores, groups=groups, seed=3))
  assert bootstrap_interval(scores, groups=groups) != bootstrap_interval(scores)


def test_a_seed_fixes_the_interval():
  a, b, groups = simulate(1, 12, 3, 0.1)
  first, again, other = (paired_bootstrap_interval(a, b, groups=groups, seed=s) for s in (1, 1, 2))
  assert first == again != other


def test_without_two_images_or_groups_there_is_no_interval():
  none = paired_bootstrap_interval(LEFT_OUT, used([1, 2]))
  assert np.isnan(none[:3]).all() and none.count == 0
  assert np.isnan(paired_bootstrap_interval([], [])[:3]).all()
  single = paired_bootstrap_interval(used([1, 2]), used([0, 0]), groups=["a", "a"])
  assert (single.mean, single.count) == (1.5, 2) and np.isnan(single[1:3]).all()
  assert np.isnan(bootstrap_interval(used([1, 2]), groups=["a", "a"])).all()
  assert np.isnan(bootstrap_interval(LEFT_OUT, groups=range(len(LEFT_OUT)))).all()
  with pytest.raises(ValueError, match="2 scores in 1 groups: give one an image each"):
    bootstrap_interval(used([1, 2]), groups=["a"])


def test_nan_in_a_used_score_is_not_hidden():
  result = paired_bootstrap_interval(used([NAN, 1, 2]), used([0, 0, 0]))
  assert isinstance(result, PairedDifference) and np.isnan(result[:3]).all()


def test_thousands_of_resamples_of_a_thousand_images_take_well_under_a_second():
  a, b, groups = simulate(0, 1000, 1, 0.0)
  start = time.process_time()
  paired_bootstrap_interval(a, b, groups=groups, num_resamples=5000)
  assert time.process_time() - start < 2  # measured: 0.1 s; the rest is for busy machines


def test_lists_of_different_lengths_and_impossible_settings_are_refused():
  with pytest.raises(ValueError, match="2 and 3 scores in 2 groups"):
    paired_bootstrap_interval(used([1, 2]), used([1, 2, 3]))
  with pytest.raises(ValueError, match="2 and 2 scores in 1 groups"):
    paired_bootstrap_interval(used([1, 2]), used([1, 2]), groups=["a"])
  for settings in ({"confidence": 95}, {"confidence": 0}, {"num_resamples": 0}):
    with pytest.raises(ValueError, match="confidence must be in"):
      paired_bootstrap_interval(used([1, 2]), used([1, 2]), **settings)
