"""The score command: equal in all formats, right by hand, and plain about what it cannot score."""

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
from PIL import Image

from foir360_jax.cli.command import main
from foir360_jax.evaluation.score import folders as folder_scores
from foir360_jax.evaluation.score import report as score
from foir360_jax.evaluation.score.folders import Source
from foir360_jax.files.json_file import without_nan
from foir360_jax.metrics import average_precision, crop_masks, mask_iou, match_masks, score_image
from foir360_jax.scenes import FORMATS, Scene, SceneError, SceneObject, open_scenes, write_scenes
from foir360_jax.scenes.scene import order_objects
from foir360_jax.sphere import pixel_areas

HEIGHT, WIDTH = 32, 64
BAND = 6  # rows an object has for itself, so that maps of ranks and ids hold all of it


def band_mask(index, left, width, height=BAND - 2, size=(HEIGHT, WIDTH)):
  """A rectangle in the band of an object, which may pass the seam."""
  mask = np.zeros(size, bool)
  mask[BAND * index + 1 : BAND * index + 1 + height, :width] = True
  return np.roll(mask, left, axis=1)


def make_scene(name, masks, values, picture=None):
  objects = [SceneObject.from_mask(index + 1, mask) for index, mask in enumerate(masks)]
  return Scene(name, picture, *masks[0].shape, order_objects(objects, values))


def draw_pair(rng, name, picture=None):
  """A scene and predictions for it, some shifted or too small, one object not found."""
  places = [(i, *rng.integers([0, 8], [WIDTH, 40])) for i in range(5)]
  found = rng.permutation(5)[: rng.integers(2, 6)]
  shifted = [(i, left + rng.integers(-6, 7), width) for i, left, width in places if i in found]
  truth = make_scene(name, [band_mask(*place) for place in places], rng.permutation(5), picture)
  guesses = [band_mask(*place, height=rng.integers(2, 5)) for place in shifted]
  return truth, make_scene(name, guesses, rng.permutation(len(guesses)), picture)


@pytest.fixture
def pairs(tmp_path):
  """Twenty scenes and predictions, with a picture each."""
  rng = np.random.default_rng()
  pictures = tmp_path / "pictures"
  pictures.mkdir()
  made = []
  for number in range(20):
    name = f"s{number:02}"
    picture = pictures / f"{name}.png"
    Image.fromarray(rng.integers(0, 256, [HEIGHT, WIDTH, 3], np.uint8)).save(picture)
    made.append(draw_pair(rng, name, picture))
  return made


def write(folder, scenes, format="scenes", **kwargs):
  write_scenes(folder, scenes, format=format, **kwargs)
  return folder


def write_both(tmp_path, pairs):
  truth, predictions = zip(*pairs, strict=True)
  return write(tmp_path / "gt", truth), write(tmp_path / "pred", predictions)


def report_of(gt, pred, **kwargs):
  return score.score_folders(Source(str(gt)), Source(str(pred)), num_resamples=20, **kwargs)


def run(capsys, *arguments):
  """Exit code, table and error lines of the command, run in this process."""
  code = main(["score", *map(str, arguments), "--workers=1", "--resamples=20"])
  captured = capsys.readouterr()
  return code, captured.out, captured.err.splitlines()


def assert_same(left, right):
  for report in (left, right):
    assert report["images_scored"]
  for name in ("metrics", "average_precision", "per_image"):
    np.testing.assert_equal(without_nan(left[name]), without_nan(right[name]))


@pytest.mark.parametrize("format", [*FORMATS, "rank files alone"])
def test_predictions_and_truth_score_the_same_in_every_format(format, pairs, tmp_path):
  gt, pred = write_both(tmp_path, pairs)
  expected = report_of(gt, pred)
  if format == "rank files alone":  # what prediction writes
    for folder in (gt, pred):
      shutil.rmtree(folder / "instances")
      shutil.rmtree(folder / "images")
    others = gt, pred
  else:
    truth, predictions = zip(*pairs, strict=True)
    others = write(tmp_path / "a", truth, format), write(tmp_path / "b", predictions, format)
  report = report_of(*others)
  used = report["truth"]["format"], report["predictions"]["format"]
  assert used == (("scenes",) * 2 if format == "rank files alone" else (format,) * 2)
  assert_same(report, expected)


def test_the_scores_are_those_of_whole_masks(pairs, tmp_path):
  gt, pred = write_both(tmp_path, pairs)
  report = report_of(gt, pred, weighted=True)
  matches = []
  for (truth, predicted), row in zip(pairs, report["per_image"], strict=True):
    expected = score_image(
      truth.masks(),
      truth.relevance(),
      predicted.masks(),
      predicted.relevance(),
      pixel_weights=pixel_areas(HEIGHT),
    )
    assert row["id"] == truth.id
    assert list(row["scores"]) == list(expected)
    for name, (value, status) in expected.items():
      assert row["scores"][name]["status"] == status
      np.testing.assert_allclose(row["scores"][name]["value"], value, rtol=1e-6, err_msg=name)
    iou = mask_iou(truth.masks(), predicted.masks())
    matches.append(match_masks(iou, [item.importance for item in predicted.objects]))
  expected = average_precision(matches)._asdict()
  assert {name: f["value"] for name, f in report["average_precision"].items()} == expected


def test_a_perfect_prediction_has_ones_and_no_error(pairs, tmp_path):
  gt, _ = write_both(tmp_path, pairs)
  report = report_of(gt, gt, weighted=True, iou_thresholds=[0.9])
  for name, mean in report["metrics"].items():
    value = 0 if name.startswith("mae") else 1
    np.testing.assert_allclose([mean["mean"], *mean["interval_95"]], value, atol=1e-12)
    assert mean["images_used"] == len(pairs)
  for figure in report["average_precision"].values():
    assert figure == {"value": 1.0, "interval_95": [1.0, 1.0]}


def test_a_case_by_hand(tmp_path):
  masks = [band_mask(index, 10 * index, 12) for index in range(3)]
  truth = [make_scene(name, masks, [3, 2, 1]) for name in ("half", "none")]
  truth.append(make_scene("one", masks[:1], [1]))
  # The two first objects are found and swapped, the third is not.
  predictions = [make_scene("half", masks[:2], [1, 2]), make_scene("one", masks[:1], [1])]
  gt, pred = write(tmp_path / "gt", truth), write(tmp_path / "pred", predictions)
  report = report_of(gt, pred, count_missing=True)
  rows = {row["id"]: row for row in report["per_image"]}
  values = {name: entry["value"] for name, entry in rows["half"]["scores"].items()}
  assert values["sa_sor_irsr"] == pytest.approx(0.5)  # correlation of (3, 2, 1) and (1, 2, 0)
  assert values["recall"] == values["pairwise"] == pytest.approx(2 / 3)
  assert values["kendall"] == pytest.approx(1 / 3)
  assert values["sor_assr"] == 0  # a rho of -1
  assert rows["none"]["scores"]["sa_sor_irsr"] == {"value": 0.0, "status": "used"}
  assert rows["one"]["scores"]["sa_sor_irsr"]["status"] == "skipped"
  mean = report["metrics"]["sa_sor_irsr"]
  assert mean["mean"] == pytest.approx(0.25)
  assert (mean["images_used"], mean["images_skipped"]) == (2, 1)
  assert report["metrics"]["sa_sor_seqrank"]["images_counted_zero"] == 2
  assert report["metrics"]["recall"]["mean"] == pytest.approx((2 / 3 + 0 + 1) / 3)
  # Three of seven objects, no false prediction: precision 1 at the 43 levels 0 ... 0.42.
  assert report["average_precision"]["ap"]["value"] == pytest.approx(43 / 101)
  assert report["average_precision"]["ar"]["value"] == pytest.approx(3 / 7)
  assert (report["objects"], report["predicted_objects"]) == (7, 3)


def test_missing_predictions_are_an_error_that_names_them(pairs, tmp_path, capsys):
  gt, pred = write_both(tmp_path, pairs)
  for name in ("s03", "s07"):
    for file in pred.glob(f"*/{name}.*"):
      file.unlink()
  code, table, errors = run(capsys, gt, pred)
  assert code == 2 and not table and len(errors) == 1
  assert "2 of 20 pictures have no prediction: s03, s07; " in errors[0]
  assert "--missing=empty" in errors[0]


def test_missing_predictions_count_as_empty_if_asked(pairs, tmp_path, capsys):
  gt, pred = write_both(tmp_path, pairs)
  for file in pred.glob("*/s03.*"):
    file.unlink()
  code, table, errors = run(capsys, gt, pred, "--missing=empty", f"--out={tmp_path / 'r.json'}")
  assert code == 0 and not errors
  assert "1 without a prediction, counted as empty: s03" in table
  report = json.loads((tmp_path / "r.json").read_text())
  row = next(row for row in report["per_image"] if row["id"] == "s03")
  assert row["predicted_objects"] == 0
  assert row["scores"]["recall"] == {"value": 0.0, "status": "used"}
  assert report["missing"] == ["s03"] and report["metrics"]["recall"]["images_used"] == 20


def test_predictions_of_other_pictures_are_listed_and_passed_over(pairs, tmp_path, capsys):
  gt, pred = write_both(tmp_path, pairs)
  few = write(tmp_path / "few", [truth for truth, _ in pairs[:18]])
  code, table, errors = run(capsys, few, pred)
  assert code == 0 and not errors
  assert "2 only among the predictions, passed over: s18, s19" in table
  code, table, errors = run(capsys, gt, few, "--missing=empty")
  assert "2 without a prediction, counted as empty: s18, s19" in table


def test_where_no_name_agrees_the_error_shows_both(pairs, tmp_path, capsys):
  gt, _ = write_both(tmp_path, pairs)
  other = write(tmp_path / "other", [dataclasses.replace(pairs[0][1], id="s00_ranked")])
  code, _, errors = run(capsys, gt, other)
  assert code == 2
  assert "s00, s01" in errors[0] and "10 more (only in predictions: s00_ranked)" in errors[0]


def test_a_split_is_scored_alone(pairs, tmp_path, capsys):
  truth, predictions = zip(*pairs, strict=True)
  ids = [scene.id for scene in truth]
  gt = write(tmp_path / "gt", truth, splits={"train": ids[:15], "test": ids[15:]})
  pred = write(tmp_path / "pred", predictions[14:])
  report = report_of(gt, pred, split="test")
  assert [row["id"] for row in report["per_image"]] == ids[15:]
  assert report["only_in_predictions"] == []  # s14 is of another split, not unknown
  code, _, errors = run(capsys, gt, pred, "--split=val")
  assert code == 2 and "has no split 'val'; it has test, train" in errors[0]


def test_bad_files_get_a_line_each_and_the_others_are_scored(pairs, tmp_path, capsys):
  gt, pred = write_both(tmp_path, pairs)
  cut_off = gt / "instances" / "s01.png"
  cut_off.write_bytes(cut_off.read_bytes()[:60])
  (gt / "ranks" / "s02.json").unlink()
  (pred / "ranks" / "s03.json").write_text("{")
  for file in pred.glob("*/s04.*"):
    file.unlink()
  large = [band_mask(0, 0, 9, size=(2 * HEIGHT, 2 * WIDTH))]
  write(tmp_path / "large", [make_scene("s04", large, [1])])
  shutil.rmtree(pred / "images")
  for part in ("instances", "ranks"):
    (file,) = (tmp_path / "large" / part).iterdir()
    shutil.copy(file, pred / part)
  out = tmp_path / "r.json"
  code, table, errors = run(capsys, gt, pred, f"--out={out}")
  assert code == 1
  assert len(errors) == 4
  for line, words in zip(
    errors,
    [
      ("gt/instances/s01.png", "copy"),
      ("gt", "s02", "have no rank"),
      ("pred/ranks/s03.json",),
      ("s04: the truth has 64 x 32 pixels, the prediction 128 x 64; resample",),
    ],
    strict=True,
  ):
    assert line.startswith("not scored: ") and all(word in line for word in words), line
  assert "16 of 20 images scored" in table
  assert "4 not scored: s01, s02, s03, s04" in table
  report = json.loads(out.read_text())
  assert [bad["id"] for bad in report["bad"]] == ["s01", "s02", "s03", "s04"]
  good = [pair for pair in pairs if pair[0].id not in ("s01", "s02", "s03", "s04")]
  assert_same(report, report_of(*write_both(tmp_path / "good", good)))
  code, again, errors = run(capsys, gt, pred, "--skip_bad")
  assert code == 0 and len(errors) == 4 and again == table


def test_where_nothing_can_be_scored_the_exit_code_says_so(pairs, tmp_path, capsys):
  gt, pred = write_both(tmp_path, pairs[:2])
  for file in (pred / "ranks").iterdir():
    file.write_text("{")
  code, table, errors = run(capsys, gt, pred, "--skip_bad")
  assert code == 1 and len(errors) == 2
  assert "0 of 2 images scored" in table


def test_processes_change_nothing(pairs, tmp_path, run_command, capsys):
  gt, pred = write_both(tmp_path, pairs)
  (pred / "ranks" / "s05.json").write_text("{")
  command = [gt, pred, "--weighted", "--iou_threshold=0.75"]
  code, table, errors = run(capsys, *command, f"--out={tmp_path / 'one.json'}")
  result = run_command(
    *("-m", "foir360_jax.evaluation.score", *command, "--workers=2", "--resamples=20"),
    f"--out={tmp_path / 'two.json'}",
  )
  assert (result.returncode, result.stdout, result.stderr.splitlines()) == (code, table, errors)
  assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def strict_object(**properties):
  return {
    "type": "object",
    "properties": properties,
    "required": list(properties),
    "additionalProperties": False,
  }


def list_of(items):
  return {"type": "array", "items": items}


def dictionary_of(values):
  return {"type": "object", "additionalProperties": values}


NUMBER, COUNT, TEXT = (
  {"type": ["number", "null"]},
  {"type": "integer", "minimum": 0},
  {"type": "string"},
)
INTERVAL = list_of(NUMBER) | {"minItems": 2, "maxItems": 2}
STATUS = {"enum": ["used", "skipped", "counted_zero", "undefined"]}
FORMAT = {"enum": list(FORMATS)}
SCHEMA = strict_object(
  truth=strict_object(path=TEXT, format=FORMAT, split={"type": ["string", "null"]}),
  predictions=strict_object(path=TEXT, format=FORMAT),
  images=COUNT,
  images_scored=COUNT,
  num_resamples=COUNT,
  objects=COUNT,
  predicted_objects=COUNT,
  bad=list_of(strict_object(id=TEXT, reason=TEXT)),
  missing=list_of(TEXT),
  only_in_predictions=list_of(TEXT),
  notes=list_of(TEXT),
  metrics=dictionary_of(
    strict_object(
      mean=NUMBER,
      images_used=COUNT,
      images_skipped=COUNT,
      images_undefined=COUNT,
      images_counted_zero=COUNT,
      interval_95=INTERVAL,
    )
  ),
  average_precision_by=dict(enum=["detection_confidence", "importance"]),
  average_precision=strict_object(
    **dict.fromkeys(
      ("ap", "ap_50", "ap_75", "ar"), strict_object(value=NUMBER, interval_95=INTERVAL)
    )
  ),
  per_image=list_of(
    strict_object(
      id=TEXT,
      objects=COUNT,
      predicted_objects=COUNT,
      notes=list_of(TEXT),
      scores=dictionary_of(strict_object(value=NUMBER, status=STATUS)),
    )
  ),
)


def refuse_constant(name):
  raise AssertionError(f"{name} is not JSON")


def test_the_report_follows_its_schema_and_the_table_says_the_same(pairs, tmp_path, capsys):
  lone = make_scene("lone", [band_mask(0, 3, 9)], [1], pairs[0][0].image_file)
  gt, pred = write_both(tmp_path, [*pairs, (lone, lone)])
  out = tmp_path / "new" / "r.json"
  code, table, _ = run(capsys, gt, pred, f"--out={out}")
  assert code == 0
  report = json.loads(out.read_text(), parse_constant=refuse_constant)
  jsonschema.validate(report, SCHEMA)
  lone_row = next(row for row in report["per_image"] if row["id"] == "lone")
  assert lone_row["scores"]["kendall"] == {"value": None, "status": "skipped"}
  lines = {
    line.split()[0]: line.replace("[", "").replace(",", "").replace("]", "").split()[1:]
    for line in table.splitlines()
  }
  for name, mean in report["metrics"].items():
    numbers = [float(word) for word in lines[name]]
    np.testing.assert_allclose(numbers[:3], [mean["mean"], *mean["interval_95"]], atol=6e-4)
    assert numbers[3:] == [mean[count] for count in score._COUNTS]
    assert sum(numbers[3:]) == report["images"] == 21
    assert mean["interval_95"][0] <= mean["mean"] <= mean["interval_95"][1]
    assert sum(row["scores"][name]["status"] == "used" for row in report["per_image"]) == numbers[3]
  for name, figure in report["average_precision"].items():
    numbers = [float(word) for word in lines[name]]
    np.testing.assert_allclose(numbers, [figure["value"], *figure["interval_95"]], atol=6e-4)


def test_a_mean_of_no_picture_is_null(tmp_path, capsys):
  lone = make_scene("lone", [band_mask(0, 3, 9)], [1])
  gt = write(tmp_path / "gt", [lone])
  code, table, _ = run(capsys, gt, gt, f"--out={tmp_path / 'r.json'}")
  assert code == 0
  report = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse_constant)
  assert report["metrics"]["kendall"]["mean"] is None
  assert report["metrics"]["kendall"]["interval_95"] == [None, None]
  (line,) = (line for line in table.splitlines() if line.startswith("kendall"))
  assert line.split() == ["kendall", "-", "0", "1", "0", "0"]


def test_pictures_without_objects_are_scored(tmp_path):
  empty = Scene("empty", None, HEIGHT, WIDTH, ())
  found = make_scene("empty", [band_mask(0, 3, 9)], [1])
  gt, pred = write(tmp_path / "gt", [empty], "coco"), write(tmp_path / "pred", [found], "coco")
  for sides in ((gt, pred), (pred, gt), (gt, gt)):
    report = report_of(*sides, weighted=True)
    assert report["images_scored"] == 1, report["bad"]
  painted = np.count_nonzero(band_mask(0, 3, 9)) / (HEIGHT * WIDTH)
  assert report_of(gt, pred)["metrics"]["mae_binary"]["mean"] == pytest.approx(painted)


def test_further_overlaps_add_rows(pairs, tmp_path):
  gt, pred = write_both(tmp_path, pairs)
  metrics = report_of(gt, pred, iou_thresholds=[0.5, 0.1, 0.8])["metrics"]
  assert metrics["sa_sor_irsr_at_0.5"] == metrics["sa_sor_irsr"]
  assert metrics["sa_sor_seqrank_at_0.5"] == metrics["sa_sor_seqrank"]
  assert metrics["recall_at_0.5"] == metrics["recall"]
  assert metrics["sa_sor_irsr_at_0.1"] == metrics["sa_sor_psr"]
  assert metrics["recall_at_0.8"]["mean"] < metrics["recall"]["mean"] < 1


def test_weights_need_a_panorama(tmp_path, capsys):
  scene = make_scene("flat", [band_mask(i, 0, 9, size=(30, 50)) for i in range(3)], [1, 2, 3])
  gt = write(tmp_path / "gt", [scene], "coco")
  assert run(capsys, gt, gt)[0] == 0
  code, _, errors = run(capsys, gt, gt, "--weighted")
  assert code == 1 and "flat: 50 x 30 is not 2:1" in errors[0]


def test_crowd_regions_without_a_rank_are_left_out_and_noted(pairs, tmp_path, capsys):
  truth, predicted = pairs[0]
  crowd = SceneObject.from_mask(99, np.ones([HEIGHT, WIDTH], bool), is_crowd=True)
  both = dataclasses.replace(truth, format="coco", objects=(*truth.objects, crowd))
  plain, crowded = write(tmp_path / "a", [truth], "coco"), write(tmp_path / "b", [both], "coco")
  pred = write(tmp_path / "pred", [predicted], "coco")
  expected, report = report_of(plain, pred), report_of(crowded, pred)
  np.testing.assert_equal(report["metrics"], expected["metrics"])
  (note,) = report["per_image"][0]["notes"]
  assert note.startswith("truth: regions marked iscrowd and without a rank are left out: 1;")
  assert "1 with notes, see the JSON: s00" in run(capsys, crowded, pred)[1]


def test_any_field_of_coco_can_be_the_order(pairs, tmp_path, capsys):
  truth, predictions = zip(*pairs, strict=True)
  gt, pred = write(tmp_path / "gt", truth), write(tmp_path / "pred", predictions, "coco")
  expected = report_of(gt, pred)
  (file,) = pred.rglob("*.json")
  content = json.loads(file.read_text())
  for annotation in content["annotations"]:
    annotation["points"] = 3.0 - annotation.pop("rank")
    annotation.pop("importance", None)
  file.write_text(json.dumps(content))
  code, _, _ = run(capsys, gt, pred, "--pred_rank_field=-points", f"--out={tmp_path / 'r.json'}")
  assert code == 0
  assert_same(json.loads((tmp_path / "r.json").read_text()), expected)


def confident(scene, values, name="detection_confidence"):
  """The scene, as it is read from rank files that tell a confidence."""
  objects = [
    dataclasses.replace(item, extra={name: float(value)})
    for item, value in zip(scene.objects, values, strict=True)
  ]
  return dataclasses.replace(scene, objects=tuple(objects), format="scenes")


def test_average_precision_goes_by_detection_confidence_where_all_predictions_tell_it(
  pairs, tmp_path, capsys
):
  rng = np.random.default_rng()
  truth, predictions = zip(*pairs, strict=True)
  values = [rng.random(len(scene.objects)).astype(np.float32) for scene in predictions]
  told = [confident(*pair) for pair in zip(predictions, values, strict=True)]
  gt, plain = write(tmp_path / "gt", truth), write(tmp_path / "plain", predictions)
  expected = average_precision(
    [
      match_masks(mask_iou(scene.masks(), found.masks()), value)
      for scene, found, value in zip(truth, predictions, values, strict=True)
    ]
  )._asdict()
  report = report_of(gt, write(tmp_path / "told", told))
  found = {name: figure["value"] for name, figure in report["average_precision"].items()}
  assert found == pytest.approx(expected)
  by_importance = report_of(gt, plain)
  for name in ("metrics", "per_image"):  # the order within a picture stays that of the ranks
    np.testing.assert_equal(without_nan(report[name]), without_nan(by_importance[name]))
  assert report["average_precision_by"] == "detection_confidence"
  assert by_importance["average_precision_by"] == "importance"
  # One picture that does not tell it, and all go by importance: two scales do not mix.
  mixed = report_of(gt, write(tmp_path / "mixed", [*told[:-1], predictions[-1]]))
  assert mixed["average_precision"] == by_importance["average_precision"]
  _, table, _ = run(capsys, gt, tmp_path / "told")
  assert "over all objects, by detection confidence" in table.splitlines()


def test_scores_of_coco_are_detection_confidences(pairs, tmp_path):
  truth, predictions = zip(*pairs, strict=True)
  values = [[1 - 0.1 * item.rank for item in scene.objects] for scene in predictions]
  told = [confident(*pair) for pair in zip(predictions, values, strict=True)]
  gt = write(tmp_path / "gt", truth)
  expected = report_of(gt, write(tmp_path / "told", told))
  assert_same(report_of(gt, write(tmp_path / "kept", told, "coco")), expected)  # it is written, too
  coco = write(tmp_path / "coco", predictions, "coco")
  (file,) = coco.rglob("*.json")
  content = json.loads(file.read_text())
  for annotation in content["annotations"]:
    annotation["score"] = 1 - 0.1 * annotation["rank"]
  file.write_text(json.dumps(content))
  report = report_of(gt, coco)
  assert report["average_precision_by"] == "detection_confidence"
  assert_same(report, expected)


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--iou_threshold=1.5", "give a number, from 0 to 1"),
    ("--iou_threshold=0", "give a number in (0, 1]"),
    ("--iou_threshold=nan", "give a number, from 0 to 1"),
    ("--workers=0", "--workers=0: give a whole number, 1 or more"),
    ("--out=report.txt", "ends in .json"),
    ("--gt_format=pascal", "pascal"),
  ],
)
def test_wrong_flags_are_named(flag, words, capsys):
  assert main(["score", "gt", "pred", flag]) == 2
  error = capsys.readouterr().err
  assert words in error and error.count("\n") == 1


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
  code, table, errors = run(capsys, tmp_path / "none", tmp_path)
  assert code == 2 and not table and len(errors) == 1
  assert errors[0].startswith("error: ") and "no such folder" in errors[0]


def test_a_report_that_cannot_be_written_costs_no_scores(pairs, tmp_path, capsys):
  gt, pred = write_both(tmp_path, pairs[:2])
  (tmp_path / "file").touch()
  code, table, errors = run(capsys, gt, pred, f"--out={tmp_path / 'file' / 'r.json'}")
  assert code == 2 and "2 of 2 images scored" in table
  assert len(errors) == 1 and "r.json: cannot be written" in errors[0]


def test_masks_are_cut_from_runs_as_from_pixels():
  rng = np.random.default_rng()
  masks = [rng.random((17, 34)) < density for density in (0.5, 0.1, 0.9)]
  masks += [band_mask(2, 55, 20), np.ones([HEIGHT, WIDTH], bool)]
  for row, column in ((0, 0), (-1, -1), (5, 0), (0, 9)):
    dot = np.zeros([7, 14], bool)
    dot[row, column] = True
    masks.append(dot)
  for mask in masks:
    with contextlib.suppress(IndexError):
      mask[3, :4] |= rng.random(4) < 0.5
    cut = folder_scores._cropped(make_scene("a", [mask], [1]))
    expected = crop_masks(mask[None])
    np.testing.assert_array_equal(cut.boxes, expected.boxes)
    np.testing.assert_array_equal(cut.crops[0], expected.crops[0])
    assert cut.size == expected.size and cut.areas == expected.areas


def test_unknown_scenes_are_refused_by_the_scorer(pairs, tmp_path):
  gt, pred = (open_scenes(folder) for folder in write_both(tmp_path, pairs[:1]))
  with pytest.raises(SceneError, match="has no scene 'x'"):
    folder_scores.PairScorer(gt, pred)("x")


@pytest.mark.parametrize("named", ["{}.png", "{}_count_4.png", "rank_maps/{}_count_3.png"])
def test_rank_maps_of_another_system_are_scored_as_they_lie_there(named, pairs, tmp_path):
  truth, predictions = zip(*pairs[:4], strict=True)
  gt = write(tmp_path / "gt", truth)
  write(tmp_path / "maps", predictions, "rank_map")
  expected = report_of(gt, tmp_path / "maps")
  for scene in predictions:
    file = tmp_path / "pred" / named.format(scene.id)
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / f"maps/rank_maps/{scene.id}.png", file)
  report = report_of(gt, tmp_path / "pred")
  assert report["predictions"]["format"] == "rank_map"
  assert_same(report, expected)


def test_two_maps_of_one_picture_are_a_line(pairs, tmp_path, capsys):
  truth = [scene for scene, _ in pairs[:2]]
  gt = write(tmp_path / "gt", truth)
  write(tmp_path / "maps", truth, "rank_map")
  (tmp_path / "pred").mkdir()
  for name in ("s00_count_3", "s00_count_4", "s01_count_5"):
    shutil.copy(tmp_path / f"maps/rank_maps/{name[:3]}.png", tmp_path / f"pred/{name}.png")
  code, table, errors = run(capsys, gt, tmp_path / "pred")
  assert code == 1 and "1 of 2 images scored" in table
  assert "s00_count_4.png: another map is of s00, too" in errors[0]


def test_colour_pictures_are_no_rank_maps(pairs, tmp_path, capsys):
  gt, _ = write_both(tmp_path, pairs[:2])
  code, _, errors = run(capsys, gt, tmp_path / "pictures")
  assert code == 2 and "no known format" in errors[0]


def test_a_list_of_results_is_named_and_the_way_in_works(pairs, tmp_path, capsys, monkeypatch):
  truth = [scene for scene, _ in pairs[:3]]
  gt = write(tmp_path / "gt", truth, "coco")
  content = json.loads((gt / "annotations.json").read_text())
  results = [
    {name: record[name] for name in ("image_id", "segmentation")} | {"score": 1 / record["rank"]}
    for record in content["annotations"]
  ]
  pred = tmp_path / "inference"
  pred.mkdir()
  (pred / "coco_instances_results.json").write_text(json.dumps(results))
  code, _, errors = run(capsys, gt, pred)
  assert (
    code == 2 and len(errors) == 1 and "is a list of results for COCO's evaluation" in errors[0]
  )
  program = re.search(r"python -c '(.*)'", errors[0])[1]
  shutil.copy(gt / "annotations.json", pred / "GT.json")
  monkeypatch.chdir(pred)
  subprocess.run([sys.executable, "-c", program], check=True)
  code, table, _ = run(capsys, gt, "pred.json", "--pred_rank_field=-score")
  assert code == 0 and re.search(r"sa_sor_irsr +1\.000", table)


def test_names_in_either_unicode_form_are_paired(pairs, tmp_path, capsys):
  composed, decomposed = "k\u00fcche", "ku\u0308che"
  truth = [dataclasses.replace(pairs[0][0], id=composed)]
  gt = write(tmp_path / "gt", truth)
  for format in FORMATS:
    pred = write(tmp_path / format, truth, format)
    for file in [*pred.rglob("*")]:
      if composed in file.name:
        file.rename(file.with_name(file.name.replace(composed, decomposed)))
      elif file.is_file() and file.suffix in (".json", ".txt"):
        content = file.read_text().replace(composed, decomposed)
        file.write_text(content.replace("k\\u00fcche", "ku\\u0308che"))
    code, table, errors = run(capsys, gt, pred)
    assert code == 0 and not errors and "1 of 1 images scored" in table, (format, errors)


def test_the_table_says_which_pictures_have_no_order(pairs, tmp_path, capsys):
  scene, predicted = pairs[0]
  one = make_scene("one", scene.masks()[:1], [1], scene.image_file)
  gt, pred = write(tmp_path / "gt", [scene, one]), write(tmp_path / "pred", [predicted, one])
  code, table, _ = run(capsys, gt, pred)
  assert code == 0
  (line,) = (line for line in table.splitlines() if line.startswith("1 with one true object"))
  assert "SeqRank's rule (sa_sor_seqrank" in line and line.endswith("leave them out: one")
  few = write(tmp_path / "few", [scene])
  assert "one true object" not in run(capsys, few, pred)[1]


def test_panoramas_a_row_off_2_to_1_are_weighted_as_well(tmp_path):
  masks = [band_mask(index, 10, 12, size=(HEIGHT - 1, WIDTH)) for index in range(3)]
  gt = write(tmp_path / "gt", [make_scene("a", masks, [3, 2, 1])])
  report = report_of(gt, gt, weighted=True)
  assert report["images_scored"] == 1 and not report["bad"]


def test_predictions_on_a_part_of_the_sphere_are_placed_as_its_picture(pairs, tmp_path):
  scene, predicted = pairs[0]
  gt, pred = tmp_path / "gt", write(tmp_path / "pred", [predicted], "rank_map")
  write(gt, [scene])
  shutil.rmtree(pred / "images")  # as other systems write them: maps alone
  expected = report_of(gt, pred)
  fields = {"FullPanoWidth": 2 * WIDTH, "FullPanoHeight": 2 * HEIGHT}
  fields |= {"CroppedAreaLeft": 5, "CroppedAreaTop": 20}
  xmp = " ".join(f'GPano:{name}Pixels="{value}"' for name, value in fields.items())
  picture = Image.open(gt / "images/s00.png")
  picture.save(gt / "images/s00.webp", lossless=True, xmp=xmp.encode())
  (gt / "images/s00.png").unlink()
  truth = open_scenes(gt).read("s00")
  assert (truth.height, truth.width) == (2 * HEIGHT, 2 * WIDTH)
  report = report_of(gt, pred)
  for name in ("sa_sor_irsr", "recall"):
    assert report["metrics"][name]["mean"] == pytest.approx(expected["metrics"][name]["mean"])
