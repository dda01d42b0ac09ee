import json

import numpy as np
import pytest

from foir360_jax.train.logging import MetricsLog, progress_line, summarize


def rows(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_terms_are_divided_by_their_counts_over_the_whole_window():
  generator = np.random.default_rng(0)
  sums, counts = generator.normal(size=5), generator.integers(0, 4, 5)
  losses = generator.normal(size=5)
  window = [
    {
      "loss": np.float32(loss),
      "gradient_norm": np.float32(1.0),
      "parameter_norm": np.float32(2.0),
      "terms": {"dice": (np.float32(total), np.float32(count)), "none": (0.0, 0.0)},
    }
    for loss, total, count in zip(losses, sums, counts, strict=True)
  ]
  row = summarize(window)
  assert row["loss"] == pytest.approx(losses.mean())
  assert row["terms/dice"] == pytest.approx(sums.sum() / counts.sum())
  assert "terms/none" not in row


def test_the_progress_line_names_the_weighted_terms_and_never_a_negative_time():
  row = {"loss": 0.5, "terms/dice": 0.25, "terms/other": 1.0, "images_per_second": 2.0}
  line = progress_line(7, 7, row, ["dice"], seconds_left=-3.0)
  assert line == "step 7/7  loss 0.5  dice 0.25  2.0 images/s  0:00:00 left"


def test_rows_are_readable_while_the_run_goes_on(tmp_path):
  with MetricsLog(tmp_path, 0) as log:
    log.write(1, {"loss": 2.0})
    assert rows(tmp_path) == [{"step": 1, "loss": 2.0}]
  assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_resumed_log_holds_each_step_once(tmp_path):
  with MetricsLog(tmp_path, 0) as log:
    for step in (2, 4, 6):
      log.write(step, {"loss": 1.0})
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 8, "lo')  # killed while writing
  with MetricsLog(tmp_path, 4) as log:
    for step in (6, 8):
      log.write(step, {"loss": 0.5})
  assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
    (2, 1.0),
    (4, 1.0),
    (6, 0.5),
    (8, 0.5),
  ]
