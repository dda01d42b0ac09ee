"""Evaluation and prediction: what perfect and simple rankers score, and what is written."""

import copy
import functools
import importlib
import json

import cv2
import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from flax import nnx

from foir360_jax.cli.check import validate
from foir360_jax.data import open_source
from foir360_jax.data.transforms import resample
from foir360_jax.evaluation.baselines import TITLES, fit_linear, with_linear
from foir360_jax.evaluation.evaluate import CRITERIA, evaluate
from foir360_jax.evaluation.infer import (
  GroundTruthMeasures,
  GroundTruthScores,
  PredictedMasks,
  infer,
  measure_ground_truth,
)
from foir360_jax.evaluation.measures import MaskMeasures, measure_masks
from foir360_jax.evaluation.recall_by_place import recall_by_place
from foir360_jax.evaluation.report import table, write_report
from foir360_jax.evaluation.run import _numbers
from foir360_jax.files import PanoramaError
from foir360_jax.files.panorama_file import resize_columns, stretch
from foir360_jax.inference import Ranker
from foir360_jax.inference.decision import NEVER, Decision, choose
from foir360_jax.inference.predict import predict_folder
from foir360_jax.metrics import mask_iou
from foir360_jax.models import Order, PanoRank
from foir360_jax.models.cells import cell_masks
from foir360_jax.scenes import RANK_FILE_SCHEMA, read_rank_file, unpack_masks
from foir360_jax.scenes.packed_masks import pack_masks
from foir360_jax.sphere import solid_angle

evaluate_module = importlib.import_module("foir360_jax.evaluation.evaluate")
measure = jax.jit(measure_masks)
NUM_OBJECTS, NUM_QUERIES = 6, 8
THRESHOLDS = (0.05, 0.3)
OPTIONS = dict(thresholds=THRESHOLDS, stop_margins=(NEVER, 0.0), iou_threshold=0.5)


def draw_example(rng, count):
  """What a batch holds and what a compiled pass finds in it: the candidates are the true masks."""
  where = np.arange(NUM_OBJECTS) < count
  truth = np.where(where, rng.normal(size=NUM_OBJECTS), 0)
  relevance = np.where(where, truth + 0.3 * rng.normal(size=NUM_OBJECTS), 0)
  queries = np.pad(relevance, (0, NUM_QUERIES - NUM_OBJECTS))
  return {
    "where": where,
    "relevance": relevance.astype(np.float32),
    "true_importance": truth.astype(np.float32),
    "example_where": True,
    "index": 0,
    "log_area": np.where(where, relevance + rng.normal(size=NUM_OBJECTS), -7),
    "horizon": np.zeros(NUM_OBJECTS),
    "on_seam": np.arange(NUM_OBJECTS) == 1,
    "given": truth,
    "iou": np.eye(NUM_OBJECTS, NUM_QUERIES) * where[:, None],
    "confidence": np.pad(0.9 * where, (0, NUM_QUERIES - NUM_OBJECTS)),
    "importance": np.stack([queries, queries]),
    "stop_margin": np.ones((2, NUM_QUERIES)),
  }


def batch_of(examples):
  return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


@pytest.fixture
def examples():
  rng = np.random.default_rng(0)
  return [draw_example(rng, count) for count in (6, 5, 4, 6, 3, 6)]


@pytest.fixture
def run_oracle(monkeypatch):
  """`evaluate` on batches that bring the results of the compiled pass with them."""

  def pass_through(batch):
    area = np.pad(batch["log_area"], ((0, 0), (0, 2)), constant_values=-7)
    none, none_given = np.zeros(area.shape), np.zeros(batch["log_area"].shape)
    own = PredictedMasks(
      batch["iou"],
      batch["confidence"],
      batch["importance"],
      batch["stop_margin"],
      MaskMeasures(area, none, none),
    )
    given = GroundTruthScores(batch["given"], batch["given"])
    measures = MaskMeasures(batch["log_area"], batch["horizon"], none_given)
    return given, own, GroundTruthMeasures(measures, batch["on_seam"])

  monkeypatch.setattr(evaluate_module, "_compile", lambda *_: pass_through)
  return lambda validation, test, **more: evaluate(None, validation, test, **OPTIONS, **more)


def test_a_ranker_equal_to_the_truth_reaches_the_ceiling(examples, run_oracle):
  report, results = run_oracle([batch_of(examples)], [batch_of(examples)])
  given = report["ground_truth_masks"]
  assert given["model"] == given["ceiling"] == given["rank_head_alone"]
  assert given["gap_closed"] == 1
  assert given["area"]["mean"] < given["ceiling"]["mean"] < 1
  assert given["horizon"]["mean"] == 0  # all equal
  assert len(results) == report["images"] == 6


def test_a_ranker_by_area_closes_nothing_of_the_gap_and_a_worse_one_less(examples, run_oracle):
  for example in examples:
    example["given"] = example["log_area"]
  report, _ = run_oracle([batch_of(examples)], [batch_of(examples)])
  assert report["ground_truth_masks"]["gap_closed"] == 0
  for example in examples:
    example["given"] = -example["true_importance"]
  report, _ = run_oracle([batch_of(examples)], [batch_of(examples)])
  assert report["ground_truth_masks"]["gap_closed"] < -1


def test_perfect_masks_in_the_perfect_order_score_one(examples, run_oracle):
  report, _ = run_oracle([batch_of(examples)], [batch_of(examples)])
  own = report["predicted_masks"]
  assert own["model"]["mean"] == 1 and own["recall"] == 1
  assert own["ceiling"]["mean"] == report["ground_truth_masks"]["ceiling"]["mean"]
  assert own["objects_per_image"] == own["predictions_per_image"] == 5
  for example in examples:
    example["importance"] = -example["importance"]
  report, _ = run_oracle([batch_of(examples)], [batch_of(examples)])
  assert report["predicted_masks"]["model"]["mean"] == pytest.approx(-1)


def test_missed_objects_lower_recall_and_score(examples, run_oracle):
  for example in examples:
    example["confidence"][np.argmax(np.where(example["where"], example["relevance"], -9))] = 0
  report, _ = run_oracle([batch_of(examples)], [batch_of(examples)])
  expected = np.mean([1 - 1 / example["where"].sum() for example in examples])
  assert report["predicted_masks"]["recall"] == pytest.approx(expected)
  assert report["predicted_masks"]["model"]["mean"] < 0.7


def test_recall_is_told_by_place(examples, run_oracle):
  for example in examples:
    example["horizon"] = -np.deg2rad([0, 10, 40, 59, 61, 90])
    example["confidence"][[1, 5]] = 0
  report, _ = run_oracle([batch_of(examples)], [batch_of(examples)])
  places = report["predicted_masks"]["recall_by_place"]
  assert {name: (place["recall"], place["objects"]) for name, place in places.items()} == {
    "within_30_deg": (0.5, 12),
    "from_30_to_60_deg": (1.0, 11),
    "beyond_60_deg": (pytest.approx(4 / 7), 7),
    "on_seam": (0.0, 6),
  }
  low, high = places["beyond_60_deg"]["interval_95"]
  assert 0.5 <= low < 4 / 7 < high <= 1  # by picture: 1/2, 1/2, 1/2, 1


def test_a_place_without_objects_has_no_recall():
  places = recall_by_place([(np.array([True]), np.array([0.1]), np.array([False]))] * 3)
  assert places["within_30_deg"] == {"recall": 1.0, "interval_95": [1.0, 1.0], "objects": 3}
  assert places["on_seam"] == {"recall": None, "interval_95": None, "objects": 0}


def test_only_masks_on_both_sides_of_the_seam_are_cut_by_it():
  masks = np.zeros((2, 3, 8, 16), bool)
  masks[0, 0, 3, :2] = masks[0, 0, 4, -3:] = True
  masks[0, 1, 3, :2] = True
  masks[1, 1, :, 5:] = True
  masks[1, 2, 7] = True
  true = jax.jit(measure_ground_truth)(
    np.packbits(masks, axis=-1), np.zeros((2, 8, 16, 3), np.uint8)
  )
  np.testing.assert_array_equal(true.on_seam, [[True, False, False], [False, False, True]])


def test_the_threshold_is_chosen_on_validation_and_not_on_test(examples, run_oracle):
  rng = np.random.default_rng(1)
  validation = [draw_example(rng, 6) for _ in range(3)]
  for example in validation:  # right only among those above the higher threshold
    example["importance"][0] *= -1
  for example in examples:
    example["importance"][1] *= -1
  report, _ = run_oracle([batch_of(validation)], [batch_of(examples)])
  assert report["confidence_threshold"] == 0.3 and report["stop_margin"] == NEVER
  curves = report["validation_by_stop_margin_and_threshold"]["sa_sor"]
  curve = {"0.05": pytest.approx(-1), "0.3": pytest.approx(1)}
  assert curves == {"-100": curve, "0": curve}
  assert report["predicted_masks"]["model"]["mean"] == pytest.approx(-1)


@pytest.mark.parametrize(
  "choose_by, threshold, f1, sa_sor", [("sa_sor", 0.3, 10 / 11, 1), ("f1", 0.05, 1, -1)]
)
def test_the_decision_is_for_the_best_order_or_for_finding_all(
  run_oracle, choose_by, threshold, f1, sa_sor
):
  rng = np.random.default_rng(14)
  validation, test = ([draw_example(rng, 6) for _ in range(3)] for _ in range(2))
  for example in validation + test:
    # The least important object is doubtful, and with it the order is the wrong way round.
    example["confidence"][np.argmin(example["relevance"])] = 0.1
    example["importance"][0] *= -1
  report, results = run_oracle([batch_of(validation)], [batch_of(test)], choose_by=choose_by)
  assert (report["confidence_threshold"], report["chosen_by"]) == (threshold, choose_by)
  curves = report["validation_by_stop_margin_and_threshold"]
  assert curves["f1"]["0"] == {"0.05": 1, "0.3": pytest.approx(10 / 11)}
  assert curves["sa_sor"]["0"] == {"0.05": pytest.approx(-1), "0.3": pytest.approx(1)}
  assert report["predicted_masks"]["f1"] == pytest.approx(f1)
  assert report["predicted_masks"]["model"]["mean"] == pytest.approx(sa_sor)
  assert [result.scores["f1"].value for result in results] == pytest.approx([f1] * 3)
  assert f"chosen on validation by {dict(sa_sor='SA-SOR', f1='F1')[choose_by]})" in table(
    report | {"validation_split": "validation"}
  )


def test_what_the_configuration_allows_to_choose_by_is_what_there_is(tiny_config):
  for criterion in CRITERIA:
    tiny_config.evaluate.choose_by = criterion
    validate(tiny_config)
  tiny_config.evaluate.choose_by = "recall"
  with pytest.raises(ValueError, match="choose_by must be sa_sor or f1, not 'recall'"):
    validate(tiny_config)


def test_a_stop_before_false_objects_is_chosen_with_the_threshold(examples, run_oracle):
  rng = np.random.default_rng(11)
  validation = [draw_example(rng, 4) for _ in range(3)]
  for example in validation + examples:
    # A candidate that covers an object's place badly, is as confident as the others and ranked
    # first; the recurrent module would rather stop.
    example["confidence"][7], example["stop_margin"][:, 7] = 0.9, -1.0
    example["importance"][:, 7] = 9.0
    example["iou"][:, 7] = 0.6 * (np.arange(NUM_OBJECTS) == 3)
    example["iou"][3, 3] = 0.55
  report, _ = run_oracle([batch_of(validation)], [batch_of(examples)])
  assert report["stop_margin"] == 0.0
  assert report["predicted_masks"]["model"]["mean"] == 1  # without it the order is the true one
  counts = [example["where"].sum() for example in examples]
  assert report["predicted_masks"]["predictions_per_image"] == pytest.approx(np.mean(counts))


def test_of_all_pairs_the_best_is_chosen_and_nothing_where_nothing_counts():
  table = {(0, -1.0): 0.2, (1, -1.0): np.nan, (0, 0.0): 0.4, (1, 0.0): 0.4}
  level, margin, curves = choose((0.1, 0.3), (-1.0, 0.0), lambda *pair: table[pair])
  assert (level, margin) == (0, 0.0)
  assert curves["0"] == {"0.1": 0.4, "0.3": 0.4} and np.isnan(curves["-1"]["0.3"])
  assert choose((0.1,), (-1.0,), lambda *_: np.nan)[:2] == (0, -1.0)


def test_pictures_of_one_object_or_none_are_skipped_and_counted(run_oracle):
  rng = np.random.default_rng(2)
  examples = [draw_example(rng, count) for count in (6, 1, 0, 4)]
  report, results = run_oracle([batch_of(examples)], [batch_of(examples)])
  assert [len(result.relevance) for result in results] == [6, 1, 0, 4]
  for part in ("ground_truth_masks", "predicted_masks"):
    for name in ("model", "area", "horizon", "ceiling"):
      counts = report[part][name]
      assert (counts["images_used"], counts["images_skipped"]) == (2, 2), (part, name)
      assert counts["images_undefined"] == counts["images_counted_zero"] == 0


def test_fillers_of_the_last_batch_are_ignored(examples, run_oracle):
  plain, _ = run_oracle([batch_of(examples)], [batch_of(examples)])
  filler = draw_example(np.random.default_rng(3), 6) | {"example_where": False}
  filler["relevance"] = filler["relevance"] * np.nan
  split = [batch_of(examples[:4]), batch_of([*examples[4:], filler, filler])]
  report, results = run_oracle(split, split)
  assert report == plain and len(results) == 6


def test_a_split_in_which_nothing_counts_still_gives_a_report(
  run_oracle, tiny_ranker, prepared, tmp_path
):
  rng = np.random.default_rng(4)
  examples = [draw_example(rng, count) for count in (1, 0)]
  report, results = run_oracle([batch_of(examples)], [batch_of(examples)])
  report["validation_split"] = "validation"
  assert "share of the gap closed" in table(report)
  source = open_source("synthetic360/tests", str(prepared), "test")
  write_report(report, results, tmp_path, ranker=tiny_ranker, source=source, sheet_images=2)
  rows = [json.loads(line) for line in (tmp_path / "per_image.jsonl").read_text().splitlines()]
  assert [row["ground_truth_masks/model"] for row in rows] == [None, None]
  written = read_strictly(tmp_path / "metrics.json")
  assert written["ground_truth_masks"]["model"]["mean"] is None
  assert written["ground_truth_masks"]["gap_closed"] is None


def read_strictly(path):
  def refuse(constant):
    raise AssertionError(f"{constant} in {path}")

  return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def tiny_ranker(planar_model):
  return Ranker(planar_model, height=48, category_names=("disc", "box"), decision=Decision(0.3))


def like(ranker, **changes):
  """A ranker with other settings, which shares the compiled programs of this one."""
  other = copy.copy(ranker)
  vars(other).update(changes)
  return other


@pytest.fixture(scope="module")
def real(planar_model, draw_batch):
  """A report of the untrained model, its results and the batches behind them."""
  rng = np.random.default_rng(5)
  batches = [draw_batch(rng, counts) for counts in ((6, 4), (1, 0), (5, 2))]
  batches[2]["example_where"][1] = False
  return *evaluate(planar_model, batches, batches, **OPTIONS), batches


def test_the_report_of_an_untrained_model_counts_pictures_and_measures_true_masks(real):
  report, results, batches = real
  assert report["images"] == 5
  assert report["ground_truth_masks"]["model"]["images_used"] == 3
  assert report["ground_truth_masks"]["model"]["images_skipped"] == 2
  assert -1 <= report["predicted_masks"]["model"]["mean"] <= 1
  assert 0 < report["predicted_masks"]["predictions_per_image"] <= 8
  examples = [(batch, row) for batch in batches for row in np.flatnonzero(batch["example_where"])]
  for (batch, row), result in zip(examples, results, strict=True):
    real_objects = batch["where"][row]
    np.testing.assert_array_equal(result.relevance, batch["relevance"][row][real_objects])
    masks = unpack_masks(batch["masks"][row], 96)[real_objects]
    # In cells of the horizon, each of (pi / height)^2 sr.
    cells = np.array([solid_angle(mask) for mask in masks]) * (48 / np.pi) ** 2
    np.testing.assert_allclose(result.ground_truth["area"], np.log(cells + 1e-3), rtol=1e-3)
    assert result.iou.shape == (len(masks), 8)


def test_the_ranker_finds_the_objects_that_evaluation_counts(real, tiny_ranker):
  report, results, batches = real
  threshold = report["confidence_threshold"]
  decision = Decision(threshold, report["stop_margin"])
  batch, result = batches[0], results[0]
  ranked = like(tiny_ranker, decision=decision)(batch["image"][0])
  truth = unpack_masks(batch["masks"][0], 96)[batch["where"][0]]
  iou = mask_iou(truth, ranked.masks)
  level = THRESHOLDS.index(threshold)
  importance = result.importance[level]
  kept = np.flatnonzero(decision.keeps(result.confidence, result.stop_margin[level]))
  kept = kept[np.argsort(-importance[kept], kind="stable")]
  expected = result.iou[:, kept]
  assert iou.any()
  np.testing.assert_allclose(
    iou[:, iou.any(0)], expected[:, expected.any(0)], atol=1e-5, err_msg="IoU in order of rank"
  )


def test_the_distance_from_the_horizon_is_that_of_the_mean_latitude(draw_batch):
  batch = draw_batch(np.random.default_rng(6), (4,))
  masks = batch["masks"]
  horizon = measure(cell_masks(masks, 1), batch["image"]).horizon
  lat_rad = np.pi / 2 - (np.arange(48) + 0.5) * np.pi / 48
  for mask, found in zip(unpack_masks(masks[0], 96)[:4], horizon[0], strict=False):
    rows = np.nonzero(mask)[0]
    expected = -abs(np.average(lat_rad[rows], weights=np.cos(lat_rad[rows])))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def ring_contrast(image, mask):
  """By loops over pixels, which cross the seam and the poles."""
  height, width = mask.shape
  size = height // 32
  weights = np.cos((np.arange(height) - height / 2 + 0.5) * np.pi / height)
  ring = np.zeros_like(mask)
  for row, column in np.argwhere(~mask):
    for r in range(row - size, row + size + 1):
      beyond = r < 0 or r >= height
      r = min(-1 - r if r < 0 else r, 2 * height - 1 - r if r >= height else height - 1)
      columns = (column + np.arange(-size, size + 1) + beyond * width // 2) % width
      ring[row, column] |= mask[r, columns].any()

  def mean(pixels):
    where = np.argwhere(pixels)
    return np.average(image[pixels] / 255, axis=0, weights=weights[where[:, 0]])

  return np.linalg.norm(mean(mask) - mean(ring))


def test_contrast_is_that_of_the_mean_colours_of_a_mask_and_a_ring_around_it():
  rng = np.random.default_rng(15)
  image = rng.integers(0, 256, (1, 64, 128, 3), np.uint8)
  masks = np.zeros((1, 5, 64, 128), bool)
  masks[0, 0, 20:29, 50:70] = True
  masks[0, 1, 30:40, :5] = masks[0, 1, 28:40, -9:] = True  # cut by the seam
  masks[0, 2, :3, 10:100] = True  # near a pole
  masks[0, 3] = True  # no ring; the last one is empty
  found = measure(masks.reshape(1, 5, -1), image).contrast[0]
  expected = [ring_contrast(image[0], mask) for mask in masks[0, :3]]
  np.testing.assert_allclose(found, [*expected, 0, 0], atol=1e-5)


def test_contrast_of_large_pictures_is_measured_on_cells():
  image = np.full((1, 256, 512, 3), 51, np.uint8)
  masks = np.zeros((1, 1, 256, 512), bool)
  masks[0, 0, 100:140, 200:240] = True
  image[masks[:, 0]] = (255, 51, 51)
  contrast = measure(masks.reshape(1, 1, -1), image).contrast
  np.testing.assert_allclose(contrast, 0.8, atol=1e-5)


def test_a_linear_baseline_is_fitted_within_pictures_on_validation():
  rng = np.random.default_rng(16)
  pictures = []
  for count in (5, 0, 1, 8):
    scores = {name: rng.normal(size=count) for name in ("area", "horizon", "contrast")}
    relevance = 2 * scores["area"] - scores["horizon"] + 3 * scores["contrast"] + rng.normal()
    pictures.append((scores, relevance))
  coefficients = fit_linear(pictures)
  np.testing.assert_allclose(coefficients["area_horizon_contrast"], [2, -1, 3], rtol=1e-6)
  scores, relevance = pictures[-1]
  fitted = with_linear(scores, coefficients)
  assert fitted.keys() == TITLES.keys()
  np.testing.assert_allclose(np.diff(fitted["area_horizon_contrast"]), np.diff(relevance))
  assert np.isfinite(fitted["area_and_horizon"]).all()
  assert not fit_linear([])["area_and_horizon"].any()  # nothing to fit to


@pytest.fixture
def pictures(tmp_path):
  """A panorama of an odd size, one that is not 2:1, a broken one, and a text."""
  folder = tmp_path / "in"
  folder.mkdir()
  rng = np.random.default_rng(7)
  small = rng.integers(0, 256, (6, 12, 3), np.uint8)
  cv2.imwrite(str(folder / "good.png"), cv2.resize(small, (150, 75)))
  cv2.imwrite(str(folder / "flat.jpg"), cv2.resize(small, (150, 60)))
  (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:500])
  (folder / "notes.txt").write_text("not a picture")
  return folder


def test_a_folder_is_ranked_picture_by_picture_and_bad_ones_get_a_line(
  tiny_ranker, pictures, tmp_path
):
  lines, output = [], tmp_path / "out"
  assert len(predict_folder(tiny_ranker, pictures, output, say=lines.append).bad) == 2
  assert lines[0] == "passed over, as no pictures by their names: notes.txt"
  broken, flat, compiling, good = sorted(lines[2:-1])
  assert compiling.startswith("compiling the model: up to a few minutes on a CPU")
  assert broken.startswith("bad: ") and "broken.png" in broken
  assert flat.startswith("bad: ") and "flat.jpg: 150 x 60 pixels is not 2:1" in flat
  assert good.startswith("good.png: ") and "objects ->" in good
  written = sorted(str(f.relative_to(output)) for f in output.rglob("*") if f.is_file())
  assert written == [".lock", "overlays/good.png", "ranks/good.json", "settings.json"]

  ranks = read_strictly(output / "ranks/good.json")
  jsonschema.validate(ranks, RANK_FILE_SCHEMA)
  assert (ranks["image"], ranks["height"], ranks["width"]) == ("good.png", 75, 150)
  assert len(ranks["objects"]) > 1
  assert all(entry["detection_confidence"] > 0.3 for entry in ranks["objects"])
  assert [o["rank"] for o in ranks["objects"]] == sorted(o["rank"] for o in ranks["objects"])
  assert {o["category"] for o in ranks["objects"]} <= {"disc", "box", ""}


def test_results_are_only_replaced_when_asked(tiny_ranker, pictures, tmp_path):
  output, say = tmp_path / "out", lambda line: None
  old = output / "ranks/broken.json"  # even one that this run might not write
  old.parent.mkdir(parents=True)
  old.write_text("old")
  with pytest.raises(ValueError, match="nobody knows the settings of its 1 results .*--overwrite"):
    predict_folder(tiny_ranker, pictures, output, say=say)
  assert sorted(file.name for file in output.rglob("*.*")) == [".lock", "broken.json"]
  # That of another picture stays, and nobody knows its settings.
  one = pictures / "good.png"
  assert predict_folder(tiny_ranker, one, output, overwrite=True, say=say).ranked == 1
  before = (output / "ranks/good.json").read_text()
  assert old.read_text() == "old"
  with pytest.raises(ValueError, match="nobody knows the settings of its 2 results"):
    predict_folder(tiny_ranker, one, output, say=say)
  assert len(predict_folder(tiny_ranker, pictures, output, overwrite=True, say=say).bad) == 2
  assert (output / "ranks/good.json").read_text() == before and not old.exists()
  assert predict_folder(tiny_ranker, pictures, output, say=say).done_before == 1


def test_results_of_other_parameters_or_thresholds_are_refused(
  planar_model, tiny_ranker, pictures, tmp_path
):
  output, one, say = tmp_path / "out", pictures / "good.png", lambda line: None
  predict_folder(tiny_ranker, one, output, say=say)
  decision = tiny_ranker.decision._replace(stop_margin=-1.5)
  with pytest.raises(ValueError, match="settings.json: model.stop_margin was .*, now it is -1.5"):
    predict_folder(Ranker(planar_model, height=48, decision=decision), one, output, say=say)
  graphdef, state = nnx.split(planar_model)
  other = nnx.merge(graphdef, jax.tree.map(lambda x: x * 1.001, state))
  ranker = Ranker(other, height=48, decision=tiny_ranker.decision)
  with pytest.raises(ValueError, match="settings.json: model.parameters_sha256 was "):
    predict_folder(ranker, one, output, say=say)
  assert predict_folder(ranker, one, output, overwrite=True, say=say).ranked == 1


def test_thresholds_are_no_settings_of_masks_that_are_provided(tiny_model):
  first, second = (Ranker(tiny_model, height=48, decision=Decision(x)) for x in (0.1, 0.2))
  assert first.settings(rank_masks=True) == second.settings(rank_masks=True)
  assert first.settings() != second.settings()


def test_a_folder_without_pictures_is_refused(tiny_ranker, tmp_path):
  (tmp_path / "notes.txt").write_text("nothing here")
  with pytest.raises(PanoramaError, match="no picture in this folder"):
    predict_folder(tiny_ranker, tmp_path, tmp_path / "out")
  with pytest.raises(PanoramaError, match="no such file or folder"):
    predict_folder(tiny_ranker, tmp_path / "missing", tmp_path / "out")


def test_the_ranker_refuses_what_is_no_panorama(tiny_ranker):
  for panorama in (
    np.zeros((48, 96, 3), np.float32),
    np.zeros((48, 96), np.uint8),
    np.zeros((48, 96, 4), np.uint8),
    np.zeros((48, 90, 3), np.uint8),
  ):
    with pytest.raises(ValueError, match=r"panorama must be uint8 \[H, 2 H, 3\], not .*; "):
      tiny_ranker(panorama)


def test_the_ranker_returns_ranked_objects_of_the_size_of_the_panorama(tiny_ranker):
  panorama = np.random.default_rng(8).integers(0, 256, (75, 150, 3), np.uint8)
  ranked = tiny_ranker(panorama, image="a.png")
  assert ranked.masks.shape == (len(ranked), 75, 150) and len(ranked) > 1
  assert ranked.masks.any((1, 2)).all()
  assert ((ranked.importance > 0) & (ranked.importance < 1)).all()
  assert (np.diff(ranked.importance) <= 0).all() and ranked.ranks[0] == 1


def test_a_panorama_a_row_off_2_to_1_gets_results_of_its_size(tiny_ranker, tmp_path):
  panorama = np.random.default_rng(8).integers(0, 256, (75, 151, 3), np.uint8)
  ranked = tiny_ranker(panorama, image="a.png")
  stretched = tiny_ranker(stretch(panorama))
  assert ranked.masks.shape == (len(stretched), 75, 151) and ranked.masks.any((1, 2)).all()
  np.testing.assert_array_equal(resize_columns(ranked.masks, 150), stretched.masks)
  np.testing.assert_allclose(ranked.area_sr, stretched.area_sr, rtol=1e-6)
  ranked.save_json(tmp_path / "a.json")
  ranked.save_overlay(tmp_path / "a.png")
  assert read_rank_file(tmp_path / "a.json", panorama).masks.shape == ranked.masks.shape
  again = tiny_ranker.rank_masks(panorama, ranked.masks)
  assert again.masks.shape == ranked.masks.shape


def test_a_threshold_that_nothing_passes_gives_an_empty_ranking(tiny_ranker, tmp_path):
  ranked = like(tiny_ranker, decision=Decision(0.9999))(np.zeros((48, 96, 3), np.uint8))
  assert len(ranked) == 0 and ranked.masks.shape == (0, 48, 96)
  ranked.save_json(tmp_path / "empty.json")
  ranked.save_overlay(tmp_path / "empty.png")
  jsonschema.validate(read_strictly(tmp_path / "empty.json"), RANK_FILE_SCHEMA)


def test_a_folder_that_is_no_run_is_refused_by_the_ranker(tmp_path, tiny_config):
  with pytest.raises(ValueError, match="is no run: config.json is missing; give the --workdir"):
    Ranker.load(tmp_path / "nowhere")
  (tmp_path / "config.json").write_text(json.dumps(tiny_config.to_dict()))
  with pytest.raises(ValueError, match="no checkpoint"):
    Ranker.load(tmp_path)


def test_provided_masks_are_ranked_whatever_their_size_and_number(
  planar_model, tiny_ranker, draw_batch
):
  batch = draw_batch(np.random.default_rng(12), (5,))
  panorama = cv2.resize(batch["image"][0], (192, 96), interpolation=cv2.INTER_NEAREST)
  masks = unpack_masks(batch["masks"][0], 96)[:5].repeat(2, axis=1).repeat(2, axis=2)
  ranked = tiny_ranker.rank_masks(panorama, masks, ids=[7, 3, 9, 1, 4], image="a.png")
  assert sorted(ranked.ids.tolist()) == [1, 3, 4, 7, 9] and ranked.image == "a.png"
  assert ranked.masks.shape == (5, 96, 192)
  for mask, number in zip(ranked.masks, ranked.ids, strict=True):
    np.testing.assert_array_equal(mask, masks[[7, 3, 9, 1, 4].index(number)])
  covered = cell_masks(batch["masks"], planar_model.pixel_stride)
  graphdef, state = nnx.split(planar_model)
  rank = jax.jit(lambda state, *inputs: nnx.merge(graphdef, state).rank(*inputs))
  order = rank(state, batch["image"], covered, batch["where"])
  expected = np.sort(np.asarray(order.importance[0])[batch["where"][0]])[::-1]
  np.testing.assert_allclose(ranked.importance, expected, rtol=1e-3)
  permuted = tiny_ranker.rank_masks(panorama, masks[::-1], ids=[4, 1, 9, 3, 7])
  assert permuted.ids.tolist() == ranked.ids.tolist()
  assert ranked.detection_confidence is None
  many = np.concatenate([masks, masks, masks, masks])  # more than the fewest places

  def order(state, scene, packed, where, told):
    assert packed.shape[1] == where.shape[1] == told.shape[1] == 32
    return Order(np.where(where, 0.5, 0), None, None, np.zeros((*where.shape, 2)))

  assert len(like(tiny_ranker, _order=order).rank_masks(panorama, many)) == 20


def test_provided_masks_come_to_the_model_as_in_training(tiny_ranker):
  """From a picture of another size: the same pixels as the input pipeline makes, tiny ones too."""
  rng = np.random.default_rng()
  masks = np.zeros((4, 110, 220), bool)
  masks[0, 7:8, 30:31] = True  # less than half of any pixel
  for mask in masks[1:]:
    row, column = rng.integers(0, [80, 190])
    mask[row : row + 27, column : column + 25] = rng.random((27, 25)) < 0.7
  example = {"image": np.zeros((110, 220, 3), np.uint8), "masks": pack_masks(masks)}
  expected = resample(example, 48)["masks"]
  seen = []

  def order(state, scene, packed, where, told):
    seen.append(packed[0])
    nothing = np.zeros(where.shape)
    return Order(nothing, nothing, nothing, np.zeros((*where.shape, 2)))

  like(tiny_ranker, _order=order).rank_masks(example["image"], masks)
  np.testing.assert_array_equal(seen[0][:4], expected)
  assert not seen[0][4:].any() and seen[0][:4].any((1, 2)).all()


@pytest.mark.parametrize(
  "masks, message",
  [
    (np.zeros((2, 48, 96), np.uint8), "masks must be bool"),
    (np.zeros((2, 24, 48), bool), r"bool \[N, 48, 96\], as the panorama, not bool \[2, 24, 48\]"),
    (np.zeros((48, 96), bool), "masks must be bool"),
    (np.zeros((1, 48, 96), bool), "no pixel"),
  ],
)
def test_provided_masks_that_do_not_fit_are_refused(tiny_ranker, masks, message):
  with pytest.raises(ValueError, match=message):
    tiny_ranker.rank_masks(np.zeros((48, 96, 3), np.uint8), masks)


def test_categories_are_renumbered_to_those_of_the_model(draw_batch):
  batch = draw_batch(np.random.default_rng(17), (3, 2))
  batch["category"][:] = [[0, 1, 2, -1, -1, -1], [2, 0, -1, -1, -1, -1]]
  batches = evaluate_module._renumbered([batch], [5, -1, 3])
  told = [renumbered["category"].tolist() for renumbered in batches]
  assert told == [[[5, -1, 3, -1, -1, -1], [3, 5, -1, -1, -1, -1]]]
  assert _numbers(("cat", "box", "disc"), ("disc", "box")) == [-1, 1, 0]
  assert _numbers((), ("disc", "box")) is None
  assert next(iter(evaluate_module._renumbered([batch], None))) is batch


def test_the_model_is_conditioned_on_names_of_provided_masks_by_number(tiny_ranker, draw_batch):
  batch = draw_batch(np.random.default_rng(13), (3,))
  masks = unpack_masks(batch["masks"][0], 96)[:3]
  told = []

  def order(state, scene, packed, where, category):
    told.append(category[0, :4].tolist())
    nothing = np.zeros(where.shape)
    return Order(nothing, nothing, nothing, np.zeros((*where.shape, 2)))

  ranker = like(tiny_ranker, _order=order)
  ranked = ranker.rank_masks(batch["image"][0], masks, categories=["box", "", "cat"])
  ranker.rank_masks(batch["image"][0], masks)
  assert told == [[1, -1, -1, -1], [-1, -1, -1, -1]]
  assert sorted(ranked.categories) == ["", "box", "cat"]  # the names stay
  assert ranker.unknown_names(["box", "", "cat"]) == set()  # this one goes by looks anyway
  ranker._is_conditioned = True
  assert ranker.unknown_names(["box", "", "cat"]) == {"cat"}


def test_nothing_of_the_segmentation_is_computed_where_the_model_does_not_detect(
  planar_model, draw_batch, monkeypatch
):
  for part in ("segment", "decode", "candidates"):
    monkeypatch.setattr(PanoRank, part, None)  # whatever calls it fails
  batch = draw_batch(np.random.default_rng(18), (5, 2))
  graphdef, state = nnx.split(planar_model)
  run = functools.partial(infer, graphdef, yaw_augmentation=1, detects=False)
  ground_truth, predicted = jax.eval_shape(run, state, batch, jnp.asarray(THRESHOLDS))
  assert predicted is None and ground_truth.importance.shape == (2, 6)


def test_an_evaluation_without_predicted_masks_needs_none(examples, run_oracle, monkeypatch):
  complete = run_oracle([batch_of(examples)], [batch_of(examples)], detects=False)[0]
  passed = evaluate_module._compile()
  monkeypatch.setattr(
    evaluate_module,
    "_compile",
    lambda *_: lambda batch: (lambda given, _, measures: (given, None, measures))(*passed(batch)),
  )
  report, results = run_oracle([batch_of(examples)], [batch_of(examples)], detects=False)
  assert report == complete
  assert all(result.iou.shape == (len(result.relevance), 0) for result in results)


def test_a_model_that_ranks_provided_masks_alone_is_asked_for_nothing_else(
  examples, run_oracle, tiny_ranker, prepared, tmp_path, monkeypatch
):
  report, results = run_oracle([batch_of(examples)], [batch_of(examples)], detects=False)
  assert "predicted_masks" not in report and "confidence_threshold" not in report
  assert report["ground_truth_masks"]["model"]["mean"] > 0.5
  assert all(key.startswith("ground_truth_masks/") for result in results for key in result.scores)
  assert "the model does not detect objects" in table(report)
  source = open_source("synthetic360/tests", str(prepared), "test")
  ranker = like(tiny_ranker, category_names=source.category_names, detects=False)
  with pytest.raises(ValueError, match="ranks provided masks only: use rank_masks"):
    ranker(np.zeros((48, 96, 3), np.uint8))
  told, rank_masks = [], ranker.rank_masks
  monkeypatch.setattr(
    ranker, "rank_masks", lambda *a, **more: told.append(more["categories"]) or rank_masks(*a)
  )
  write_report(report, results, tmp_path, ranker=ranker, source=source, sheet_images=1)
  assert told == [[source.category_names[number] for number in source[0]["category"]]]
  assert (tmp_path / "evaluation.png").is_file()
