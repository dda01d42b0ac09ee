import jax
import numpy as np
import pytest

from foir360_jax.metrics import Score, ScoreAccumulator, bootstrap_interval

NAN = float("nan")
SCORES = [
  Score(0.5, "used"),
  Score(-1.0, "used"),
  Score(NAN, "skipped"),
  Score(0.0, "counted_zero"),
  Score(NAN, "undefined"),
  Score(0.25, "used"),
  Score(NAN, "skipped"),
]


def test_summary_has_the_mean_over_counted_images_and_all_numbers_of_images():
  assert ScoreAccumulator().add(*SCORES).summary() == {
    "mean": -0.0625,
    "images_used": 3,
    "images_skipped": 2,
    "images_undefined": 1,
    "images_counted_zero": 1,
  }


@pytest.mark.parametrize("cut", range(len(SCORES) + 1))
def test_merging_parts_gives_the_summary_of_the_whole(cut):
  parts = [ScoreAccumulator().add(*part) for part in (SCORES[:cut], SCORES[cut:])]
  whole = ScoreAccumulator().add(*SCORES)
  assert parts[0].merge(parts[1]) == parts[1].merge(parts[0]) == whole
  assert ScoreAccumulator().merge(*parts).summary() == whole.summary()


def test_accumulators_add_up_as_pytrees_of_arrays():
  parts = [ScoreAccumulator().add(score) for score in SCORES]
  stacked = jax.tree.map(lambda *values: np.array(values), *parts)
  total = jax.tree.map(lambda values: values.sum(), stacked)
  assert total.summary() == ScoreAccumulator().add(*SCORES).summary()


def test_adding_leaves_the_accumulator_as_it_was():
  accumulator = ScoreAccumulator()
  accumulator.add(*SCORES)
  assert accumulator == ScoreAccumulator()


def test_mean_of_no_counted_image_is_nan():
  summary = ScoreAccumulator().add(Score(NAN, "skipped")).summary()
  assert np.isnan(summary["mean"]) and summary["images_skipped"] == 1


def test_nan_in_a_used_score_is_not_hidden():
  assert np.isnan(ScoreAccumulator().add(Score(NAN, "used"), *SCORES).summary()["mean"])


def test_unknown_status_is_refused():
  with pytest.raises(ValueError, match="not 'lost'"):
    ScoreAccumulator().add(Score(1.0, "lost"))


def test_bootstrap_interval_has_the_width_that_the_normal_law_gives():
  values = np.random.default_rng(0).normal(0.3, 0.2, 400)
  low, high = bootstrap_interval([Score(value, "used") for value in values])
  error = 1.96 * values.std() / np.sqrt(values.size)
  np.testing.assert_allclose([low, high], [values.mean() - error, values.mean() + error], atol=2e-3)


def test_bootstrap_interval_is_seeded_and_leaves_out_what_the_mean_leaves_out():
  interval = bootstrap_interval(SCORES, seed=1)
  counted = [score for score in SCORES if not np.isnan(score.value)]
  assert interval == bootstrap_interval(counted, seed=1)
  assert interval[0] < ScoreAccumulator().add(*SCORES).summary()["mean"] < interval[1]
  assert bootstrap_interval([Score(v, "used") for v in range(9)], seed=1) != bootstrap_interval(
    [Score(v, "used") for v in range(9)], seed=2
  )


def test_bootstrap_interval_of_no_counted_image_is_nan():
  assert np.isnan(bootstrap_interval([Score(NAN, "skipped")])).all()


@pytest.mark.parametrize("number", [1, 7, 300_000])  # the last: more than a block of draws
def test_bootstrap_interval_equals_a_plain_loop(number):
  values = np.random.default_rng(number).normal(size=number)
  rng = np.random.default_rng(4)
  means = [rng.choice(values, number).mean() for _ in range(9)]
  interval = bootstrap_interval(
    [Score(value, "used") for value in values], confidence=0.8, num_resamples=9, seed=4
  )
  np.testing.assert_allclose(interval, np.percentile(means, [10, 90]), atol=1e-12)
