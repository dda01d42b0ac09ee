"""What a run's folder says of its training, and how it is compared with what is given now."""

import pytest

from foir360_jax.train.settings import (
  Change,
  first_change,
  load_settings,
  save_settings,
  settings_file,
)

TRAINED = {"task": "ranking", "model": {"widths": [8, 16]}, "names": ["dog"]}


def test_settings_return_as_they_were_and_a_folder_without_a_run_has_none(tmp_path):
  assert load_settings(tmp_path / "run") is None
  save_settings(tmp_path / "run", TRAINED)
  assert load_settings(tmp_path / "run") == TRAINED


def test_a_broken_file_is_named(tmp_path):
  settings_file(tmp_path).write_text('{"task": "ran')
  with pytest.raises(ValueError, match="config.json: not JSON .*; write it again"):
    load_settings(tmp_path)


@pytest.mark.parametrize(
  ("given", "change"),
  [
    ({"model": {"widths": (8, 16)}}, None),  # a tuple is written as a list
    ({"model": {"widths": (8, 17)}}, Change("model.widths", [8, 16], [8, 17])),
    ({"task": "fixation", "names": ()}, Change("task", "ranking", "fixation")),  # the first one
    ({"names": ["cat"]}, Change("names", ["dog"], ["cat"])),
    ({"seed": 3, "model": {"layers": 2}, "loss": {"heat": 1.0}}, None),  # newer than the run
  ],
)
def test_the_first_field_that_differs_is_told(given, change):
  fields = []
  for name, value in given.items():
    fields += [f"{name}.{x}" for x in value] if isinstance(value, dict) else [name]
  assert first_change(TRAINED, given, fields) == change


def test_only_the_fields_in_question_are_compared():
  given = {"task": "ranking", "model": {"widths": (1,)}}
  assert first_change(TRAINED, given, ["task"]) is None
  assert first_change({}, given, ["task", "model.widths"]) is None  # no run at all
