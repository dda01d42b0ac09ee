"""The object score's fit, the method's variants, and the report on them, on made-up examples."""

import json

import numpy as np
import pytest

from foir360_jax.files.json_file import without_nan
from foir360_jax.weak_labels.local import History, LocalRanks
from foir360_jax.weak_labels.object_score import LOCAL_TERMS, ObjectScore
from foir360_jax.weak_labels.program import DescribedScene
from foir360_jax.weak_labels.study import fit_object_score as fitting
from foir360_jax.weak_labels.study import judge as report
from foir360_jax.weak_labels.study.examples import Example
from foir360_jax.weak_labels.study.fit import fit_object_score
from foir360_jax.weak_labels.study.variants import VARIANTS, strengths

NUM_VIEWS = 3


def draw_example(rng, name, *, count=7, look=0.0, habit=0.0):
  """Importance is the saliency that was not there in the bare scene, and a little size.

  Of the three channels of the appearance the first counts `look`; the last tells how far out in the
  photograph an object is, with some noise, and for that people have a habit of strength `habit`.
  """
  own = rng.normal(size=count)
  place = rng.normal(size=count)
  log_area = rng.uniform(-6, -2, count).astype(np.float32)

  def measured(values):
    noise = 0.2 * rng.normal(size=(NUM_VIEWS, count, 2))
    return (values[:, None] + noise).astype(np.float32)

  first = measured(own + place)
  history = History(first, first, measured(own + place), measured(place))
  visibility = np.where(rng.random((NUM_VIEWS, count)) < 0.7, 1.0, 0.4).astype(np.float32)
  visibility[-1] = 1
  order = np.argsort(np.argsort(-first[..., 0], axis=1), axis=1).astype(np.int32)
  none = np.zeros(0, np.uint8)
  scene = DescribedScene(
    none, none, np.exp(log_area), np.zeros(count, np.float32), np.ones(count, bool)
  )
  place = rng.uniform(-1, 1, (count, 2))
  distance = (place**2).sum(1)
  looks = rng.normal(size=(count, 3))
  looks[:, 2] = distance + 0.3 * looks[:, 2]
  appearance = np.broadcast_to(looks, (NUM_VIEWS, count, 3)).astype(np.float32)
  value = own + 0.2 * log_area + look * looks[:, 0] - habit * distance
  relevance = np.argsort(np.argsort(value)).astype(np.float32)
  local = LocalRanks(history, order, visibility, appearance, np.int32(3))
  pixels, saliency_sum = np.exp(log_area) / 12, np.exp(first[-1, :, 0])
  return Example(name, local, scene, relevance, pixels, saliency_sum, place)


@pytest.fixture(scope="module")
def parts():
  rng = np.random.default_rng(0)
  return tuple(
    {"made_up": [draw_example(rng, f"{part}_{n}") for n in range(40)]} for part in ("a", "b")
  )


@pytest.fixture(scope="module")
def scores(parts):
  names = ("full", "without_erasing", "without_collector", "without_views")
  return {name: fit_object_score(*parts, VARIANTS[name]) for name in names}


def agreement(parts, score, variant):
  examples = parts[1]["made_up"]
  signs = []
  of_all = strengths(examples, score, VARIANTS[variant])
  for example, strength in zip(examples, of_all, strict=True):
    better = example.relevance[:, None] > example.relevance
    signs.append((strength[:, None] > strength)[better].mean())
  return np.mean(signs)


def test_the_fit_finds_what_the_examples_were_made_by(parts, scores):
  local = dict(zip(LOCAL_TERMS, scores["full"].local_whole, strict=True))
  before = local["first_log_mean"] + local["first_log_peak"] + local["last_log_mean"]
  assert before > 1 and local["bare_log_mean"] + local["bare_log_peak"] < -1
  assert agreement(parts, scores["full"], "full") > 0.9


def test_a_variant_sees_no_more_than_it_may(parts, scores):
  # What was there before is only told apart from the place by the bare scene.
  full = agreement(parts, scores["full"], "full")
  assert agreement(parts, scores["without_erasing"], "without_erasing") < full - 0.05
  example = parts[1]["made_up"][0]
  blind = VARIANTS["without_erasing"].restrict(example.local)
  assert all(part is example.local.history.first for part in blind.history)
  alone = VARIANTS["without_views"].restrict(example.local)
  assert alone.visibility.shape == (1, 7)
  np.testing.assert_array_equal(alone.order, example.local.order[-1:])
  assert scores["without_views"].local_views == (0.0,) * len(LOCAL_TERMS)
  assert VARIANTS["without_appearance"].restrict(example.local).appearance.shape == (3, 7, 0)


def test_an_example_has_its_strengths_whatever_is_beside_it(scores):
  rng = np.random.default_rng(3)
  examples = [draw_example(rng, str(n), count=2 + n % 41) for n in range(45)]
  for name in ("full", "without_collector"):
    together = strengths(examples, scores[name], VARIANTS[name])
    for index in (0, 31, 32, 40, 44):
      (alone,) = strengths([examples[index]], scores[name], VARIANTS[name])
      assert alone.shape == examples[index].relevance.shape
      np.testing.assert_allclose(together[index], alone, rtol=1e-5, atol=1e-6)


def test_without_the_collector_the_view_that_sees_most_of_an_object_decides(parts, scores):
  example, score = parts[1]["made_up"][3], scores["without_collector"]
  local = np.asarray(
    score.local_score(
      np.log(example.scene.area),
      example.scene.elevation,
      example.local.history,
      example.local.appearance,
    )
  )
  best = example.local.visibility.argmax(0)
  expected = local[best, np.arange(len(best))]
  (value,) = strengths([example], score, VARIANTS["without_collector"])
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_appearance_counts_and_the_habit_of_looking_at_the_middle_does_not():
  rng = np.random.default_rng(1)
  parts = tuple(
    {"made_up": [draw_example(rng, f"{part}_{n}", look=1.0, habit=1.5) for n in range(80)]}
    for part in ("a", "b")
  )
  full = fit_object_score(*parts, VARIANTS["full"])
  for coefficients in (full.appearance_views, full.appearance_whole):
    looks, nothing, distance = coefficients
    # The last channel would be taken for the habit itself, were there no terms for the place.
    assert looks > 1 and abs(nothing) < 0.25 and abs(distance) < 0.25 * looks
  blind = fit_object_score(*parts, VARIANTS["without_appearance"])
  assert blind.appearance_views == blind.appearance_whole == ()
  assert agreement(parts, full, "full") > agreement(parts, blind, "without_appearance") + 0.03
  # In panoramas, which have no middle, nothing is fitted beside what is kept.
  example = parts[0]["made_up"][0]
  panorama = example._replace(place=np.zeros_like(example.place))
  fit_object_score({"a": [panorama]}, {"a": [panorama]}, VARIANTS["full"])


def test_local_scores_are_fitted_by_the_weights_of_sets_and_the_prior_to_all_alike():
  rng = np.random.default_rng(2)
  sets = {
    name: [draw_example(rng, f"{name}_{n}", look=look) for n in range(20)]
    for name, look in (("a", 2.0), ("b", -2.0))
  }
  variant = VARIANTS["full"]
  of_one = fit_object_score(sets, sets, variant, local_weights={"a": 0.3})
  of_both = fit_object_score(sets, sets, variant)
  alone = fit_object_score({"a": sets["a"]}, sets, variant)
  for field in ("local_views", "local_whole", "appearance_views", "appearance_whole"):
    assert getattr(of_one, field) == getattr(alone, field) != getattr(of_both, field)
  assert of_one.prior == of_both.prior != alone.prior
  looks = [
    fit_object_score(sets, sets, variant, local_weights=weights).appearance_whole[0]
    for weights in ({"a": 1.0}, {"b": 0.2, "a": 1.8}, {"a": 0.5, "b": 0.5}, {"b": 2.0})
  ]
  assert looks[0] > looks[1] + 0.1 and looks[1] > looks[2] + 0.1 and looks[2] > looks[3] + 0.1
  assert looks[2] == of_both.appearance_whole[0]


def test_an_appearance_that_coefficients_do_not_fit_is_refused(parts, scores):
  example = parts[0]["made_up"][0]
  known = np.log(example.scene.area), example.scene.elevation, example.local.history
  appearance = example.local.appearance
  with pytest.raises(ValueError, match=r"appearance of 3 channels .* gives 2; fit them anew"):
    scores["full"].local_score(*known, appearance[..., :2])
  without = scores["full"]._replace(appearance_views=(), appearance_whole=())
  expected = without.local_score(*known, appearance)
  np.testing.assert_array_equal(scores["full"].local_score(*known, appearance[..., :0]), expected)
  assert np.abs(scores["full"].local_score(*known, appearance) - expected).max() > 0


def test_importance_lies_in_the_unit_interval_and_follows_the_strength(parts, scores):
  score = scores["full"]
  assert score.slope > 0
  importance = np.asarray(score.importance(np.array([-3.0, 0.0, 4.0])))
  assert (np.diff(importance) > 0).all() and 0 < importance[0] and importance[-1] < 1


def test_coefficients_come_back_from_json(scores, tmp_path):
  score = scores["full"]
  assert ObjectScore.from_json(json.loads(json.dumps(score.to_json()))) == score
  path = tmp_path / "coefficients.json"
  path.write_text(json.dumps({"spectral": {"full": score.to_json()}}))
  assert ObjectScore.load("spectral", path=path) == score
  with pytest.raises(ValueError, match="lacks 'learned' for saliency 'learned'; fit it anew"):
    ObjectScore.load("learned", path=path)


@pytest.mark.parametrize("saliency", ["learned", "spectral"])
def test_coefficients_of_every_variant_are_committed(saliency):
  for variant in VARIANTS:
    score = ObjectScore.load(saliency, variant)
    assert score.slope > 0 and score.prior_weight > 0


def test_the_report_sets_the_method_beside_baselines_and_variants(parts, scores):
  examples = parts[1]["made_up"]
  all_scores = {name: scores.get(name, scores["full"]) for name in VARIANTS}
  figures = report.judge(examples, report.values_of(examples, all_scores))
  assert figures["pictures"] == 40 and figures["objects"] == 280
  rankers = figures["rankers"]
  assert set(rankers) == {*VARIANTS, *report.BASELINES, *report.OF_PHOTOGRAPHS}
  panoramas = [example._replace(place=np.zeros((7, 2))) for example in examples[:2]]
  without_middle = report.judge(panoramas, report.values_of(panoramas, all_scores))
  assert set(without_middle["rankers"]) == {*VARIANTS, *report.BASELINES}
  assert rankers["full"]["gain"]["mean"] == 0
  for name in ("area", "without_erasing", "saliency_sum"):
    gain = rankers[name]["gain"]
    difference = rankers["full"]["sa_sor"]["mean"] - rankers[name]["sa_sor"]["mean"]
    np.testing.assert_allclose(gain["mean"], difference, atol=1e-9)
    assert gain["interval_95"][0] > 0
  assert np.isnan(rankers["full"]["pairs_polar"]["mean"])  # nothing is near a pole
  json.dumps(without_nan(figures), allow_nan=False)
  lines = report.table("made_up", figures).splitlines()
  assert len(lines) == 2 + len(rankers)
  assert "| - |" in lines[2] and "nan" not in "".join(lines)


def test_pairs_of_a_subset_hold_at_least_one_of_its_objects(parts, scores):
  all_scores = {name: scores.get(name, scores["full"]) for name in VARIANTS}
  examples = parts[1]["made_up"]
  groups = ["one"] * 20 + ["two"] * 20
  figures = report.judge(examples, report.values_of(examples, all_scores), groups)
  assert figures["groups"] == 2
  # Of two groups, one drawn twice is the widest that an interval can be.
  agreement = [
    report.pairwise_agreement(example.relevance, example.pixels).value for example in examples
  ]
  extremes = sorted([np.mean(agreement[:20]), np.mean(agreement[20:])])
  interval = figures["rankers"]["area"]["pairs"]["interval_95"]
  np.testing.assert_allclose(interval, extremes, rtol=1e-9)
  small = figures["small_sr"]
  values = []
  for example in examples:
    area, relevance = example.pixels, example.relevance
    signs = [
      (np.sign(area[i] - area[j]) + 1) / 2
      for i in range(7)
      for j in range(7)
      if relevance[i] > relevance[j] and min(example.scene.area[[i, j]]) < small
    ]
    values += [np.mean(signs)] if signs else []
  expected = figures["rankers"]["area"]["pairs_small"]["mean"]
  np.testing.assert_allclose(expected, np.mean(values), rtol=1e-6)


def test_faces_are_judged_by_coefficients_that_were_not_fitted_to_them(parts, scores, monkeypatch):
  faces, panoramas = parts[0]["made_up"][:9], [parts[1]["made_up"][:2]] * 2
  fitted_to = []

  def fit(others, given):
    assert given is panoramas
    fitted_to.append({example.name for example in others})
    return {name: scores["full"] for name in VARIANTS}

  def judge(examples, values):
    assert sorted(example.name for example in examples) == sorted(e.name for e in faces)
    for name, variant in VARIANTS.items():
      for expected, value in zip(
        strengths(examples, scores["full"], variant), values[name], strict=True
      ):
        np.testing.assert_array_equal(value, expected)
    return report.judge(examples, values)

  monkeypatch.setattr(fitting, "fit_variants", fit)
  monkeypatch.setattr(fitting, "judge", judge)
  lines = fitting.cross_validate(faces, panoramas).splitlines()
  assert "9 pictures, 63 objects" in lines[0]
  left_out = [{example.name for example in faces} - names for names in fitted_to]
  assert len(left_out) == fitting.FIFTHS and all(left_out)
  assert sum(map(len, left_out)) == 9 == len(set.union(*left_out))
