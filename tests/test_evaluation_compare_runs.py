"""The comparison of two ways to train, several runs of each."""

import json

import numpy as np
import pytest

from foir360_jax.cli.command import main
from foir360_jax.evaluation.compare_runs import compare, table
from foir360_jax.metrics import Score, paired_bootstrap_interval

REPORT = {
  "data": "made/up",
  "split": "test",
  "validation_split": "validation",
  "height": 64,
  "yaw_augmentation": 1,
  "chosen_by": "sa_sor",
  "predicted_masks": {"iou_threshold": 0.5},
}


def write_run(folder, model, baselines, **changes):
  """An evaluated run: `model` [pictures], None where the metric leaves one out."""
  folder.mkdir(parents=True)
  rows = [
    {"index": index, "ground_truth_masks/model": score, "predicted_masks/model": 0.5, "recall": 1.0}
    | {f"ground_truth_masks/{name}": float(values[index]) for name, values in baselines.items()}
    for index, score in enumerate(model)
  ]
  report = REPORT | {"images": len(rows)} | changes
  (folder / "metrics.json").write_text(json.dumps(report, indent=2))
  (folder / "per_image.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return folder


@pytest.fixture(params=[0, 1])
def drawn(request, tmp_path):
  """Folders of three runs of a and two of b on nine pictures, with what they scored."""
  rng = np.random.default_rng(request.param)
  baselines = {"area": rng.random(9), "horizon": rng.random(9), "area_and_horizon": rng.random(9)}
  difficulty = rng.random(9)
  scores = {
    name: (difficulty + shift + 0.1 * rng.normal(size=(runs, 9))).tolist()
    for name, shift, runs in (("a", 0.0, 3), ("b", 0.3, 2))
  }
  for of_run in scores["a"] + scores["b"]:
    of_run[4] = None  # one object: skipped in every run
  scores["b"][1][7] = None  # and one in a single run
  folders = {
    name: [write_run(tmp_path / f"{name}{n}", row, baselines) for n, row in enumerate(rows)]
    for name, rows in scores.items()
  }
  return folders, scores, baselines


def test_means_deviations_gap_and_baselines_are_those_of_the_files(drawn):
  folders, scores, baselines = drawn
  report = compare(folders["a"], folders["b"])
  for name in "ab":
    means = [np.mean([value for value in row if value is not None]) for row in scores[name]]
    np.testing.assert_allclose(report[name]["means"], means)
    assert report[name]["mean"] == pytest.approx(sum(means) / len(means))
    squares = sum((mean - sum(means) / len(means)) ** 2 for mean in means)
    assert report[name]["deviation"] == pytest.approx((squares / (len(means) - 1)) ** 0.5)
    assert report[name]["runs"] == [str(folder) for folder in folders[name]]
  averaged = {"a": [], "b": []}
  for name, rows in scores.items():
    for picture in range(9):
      values = [row[picture] for row in rows]
      left_out = None in values
      averaged[name].append(
        Score(float("nan"), "skipped") if left_out else Score(sum(values) / len(values), "used")
      )
  gap = paired_bootstrap_interval(averaged["a"], averaged["b"])
  assert report["gap"]["mean"] == pytest.approx(gap.mean)
  np.testing.assert_allclose(report["gap"]["interval_95"], [gap.low, gap.high])
  assert report["gap"]["images"] == gap.count == 7
  assert report["gap"]["interval_95"][1] < 0  # b is better on nearly every picture
  assert set(report["baselines"]) == set(baselines)
  for name, values in baselines.items():
    assert report["baselines"][name]["mean"] == pytest.approx(values.mean())
    low, high = report["baselines"][name]["interval_95"]
    assert low < values.mean() < high
  swapped = compare(folders["b"], folders["a"])
  assert swapped["gap"]["mean"] == pytest.approx(-report["gap"]["mean"])


def test_the_command_prints_the_table_and_writes_the_figures(drawn, tmp_path, capsys):
  folders, _, _ = drawn
  a, b = (list(map(str, folders[name])) for name in "ab")
  assert main(["compare-runs", "--a", *a, "--b", *b, f"--out={tmp_path / 'new/c.json'}"]) == 0
  printed = capsys.readouterr().out
  report = compare(folders["a"], folders["b"])
  assert printed.strip() == table(report)
  assert f"{report['gap']['mean']:+.3f}" in printed and "by area, horizon; fitted" in printed
  assert json.loads((tmp_path / "new/c.json").read_text()) == report


def test_one_run_each_has_no_deviation(drawn, tmp_path, capsys):
  folders, _, _ = drawn
  command = ["compare-runs", "--a", str(folders["a"][0]), "--b", str(folders["b"][0])]
  assert main([*command, f"--out={tmp_path / 'c.json'}"]) == 0
  assert json.loads((tmp_path / "c.json").read_text())["a"]["deviation"] is None
  printed = capsys.readouterr().out.splitlines()
  assert f"a: {folders['a'][0]}" in printed
  line = next(line for line in printed if line.startswith("a  "))
  assert line.split()[2] == "-"


@pytest.mark.parametrize(
  "changes, reason",
  [
    ({"data": "made/other"}, "data: 'made/other', not 'made/up' as there"),
    ({"split": "test[:50%]"}, "split: 'test"),
    ({"validation_split": "train"}, "validation_split: 'train'"),
    ({"height": 128}, "height: 128, not 64"),
    ({"yaw_augmentation": 2}, "yaw_augmentation: 2, not 1"),
    ({"predicted_masks": {"iou_threshold": 0.7}}, "iou_threshold: 0.7, not 0.5"),
  ],
)
def test_runs_evaluated_on_other_data_are_refused(tmp_path, capsys, changes, reason):
  baselines = {"area": np.linspace(0, 1, 4)}
  a = write_run(tmp_path / "a", [0.1, 0.2, 0.3, 0.4], baselines)
  b = write_run(tmp_path / "b", [0.1, 0.2, 0.3, 0.4], baselines, **changes)
  assert main(["compare-runs", "--a", str(a), "--b", str(b)]) == 2
  error = capsys.readouterr().err
  assert reason in error and error.count("\n") == 1 and str(b) in error


def test_thresholds_chosen_otherwise_matter_to_predicted_masks_alone(tmp_path):
  a = write_run(tmp_path / "a", [0.1, 0.2, 0.3, 0.4], {})
  b = write_run(tmp_path / "b", [0.1, 0.2, 0.3, 0.4], {}, chosen_by="f1")
  with pytest.raises(ValueError, match="chosen_by: 'f1', not 'sa_sor' as there"):
    compare([a], [b], key="predicted_masks/model")
  assert compare([a], [b])["gap"]["mean"] == 0


def test_other_pictures_of_the_same_name_are_refused(tmp_path):
  a = write_run(tmp_path / "a", [0.1, 0.2, 0.3, 0.4], {"area": np.linspace(0, 1, 4)})
  b = write_run(tmp_path / "b", [0.1, 0.2, 0.3, 0.4], {"area": np.linspace(0, 0.9, 4)})
  with pytest.raises(ValueError, match="ground_truth_masks/area differs"):
    compare([a], [b])
  c = write_run(tmp_path / "c", [0.1, 0.2, 0.3], {"area": np.linspace(0, 1, 3)})
  with pytest.raises(ValueError, match="images: 3, not 4"):
    compare([a], [c])


def test_runs_that_cannot_be_used_are_named_with_the_cure(tmp_path):
  baselines = {"area": np.linspace(0, 1, 4)}
  a = write_run(tmp_path / "a", [0.1, 0.2, 0.3, 0.4], baselines)
  b = write_run(tmp_path / "b", [0.1, 0.2, 0.3, 0.4], baselines)
  with pytest.raises(ValueError, match="a: is named twice"):
    compare([a], [b, tmp_path / "b/../a"])
  with pytest.raises(
    ValueError, match="no score 'ground_truth_masks/luck'; it has ground_truth_masks/model"
  ):
    compare([a], [b], key="ground_truth_masks/luck")
  lines = (b / "per_image.jsonl").read_text().splitlines()
  (b / "per_image.jsonl").write_text("\n".join(lines[:-1]))
  with pytest.raises(ValueError, match="b: metrics.json and per_image.jsonl differ"):
    compare([a], [b])
  (b / "per_image.jsonl").write_text("{")
  with pytest.raises(ValueError, match="b/per_image.jsonl: is broken .*evaluate the run again"):
    compare([a], [b])
  (b / "per_image.jsonl").unlink()
  with pytest.raises(ValueError, match="b/per_image.jsonl: missing; evaluate the run"):
    compare([a], [b])
