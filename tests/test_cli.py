"""The command `foir360`: its words, its flags, its help, and what it hands on."""

import contextlib
import io
import os
import pathlib
import pty
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from foir360_jax.cli import command as module
from foir360_jax.cli import prepare, progress
from foir360_jax.cli.command import main
from foir360_jax.cli.commands import COMMANDS, FORMATS, MODES
from foir360_jax.cli.config_file import load_config
from foir360_jax.cli.flags import UsageError, parse_flags
from foir360_jax.files import find_panoramas, read_panorama, save_image, sole_writer
from foir360_jax.inference import Ranker
from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.models.pretrained import encoder as pretrained_encoder
from foir360_jax.paths import expand
from foir360_jax.saliency.readout_file import file_of_run
from foir360_jax.scenes import FORMATS as SCENE_FORMATS
from foir360_jax.scenes import open_scenes

ROOT = pathlib.Path(__file__).parents[1]
TINY = ["--config=configs/tiny.py", "--workdir=x"]
FOLDERS = ["--workdir=x", "--input=y", "--output=z"]


@pytest.fixture
def called(monkeypatch):
  """The commands that were called, each with its flags, in place of what they do."""
  calls = []

  def import_module(name):
    if name.endswith("config_file"):
      return types.SimpleNamespace(load_config=load_config)
    return types.SimpleNamespace(run=lambda flags: calls.append((name, flags)) or 0)

  monkeypatch.setattr(module, "importlib", types.SimpleNamespace(import_module=import_module))
  return calls


def parse(name, *tokens):
  return parse_flags(COMMANDS[name], tokens, COMMANDS.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen_and_tells_each_flag_and_an_example(name, capsys):
  assert main([name, "--help"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) <= 24 and max(map(len, lines)) <= 100
  assert lines[-1].startswith(f"Example: foir360 {name} ")
  for flag in COMMANDS[name].flags:
    shown = any(line.startswith(f"  --{flag.name}") for line in lines)
    assert shown == (flag.means is None), flag.name


def test_help_names_all_commands(capsys):
  for words in (["--help"], ["-h"], ["help"]):
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line[:3].strip()][0] == "foir360"
    assert [line.split()[0] for line in lines[2:12]] == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_understands_its_own_example(command):
  words = command.example.split()
  assert words[:2] == ["foir360", command.name]
  flags = parse_flags(command, words[2:], COMMANDS.values())
  assert all(getattr(flags, flag.name) is not None for flag in command.flags if flag.needed)


@pytest.mark.parametrize("mode", [*MODES, "weak_labels"])
def test_a_mode_calls_the_command_of_its_name(called, mode):
  words = [*TINY] if mode in ("train", "evaluate", "benchmark") else FOLDERS
  words = words[1:] if mode.startswith("weak") else words
  words = ["y", "--output=z"] if mode in ("rank", "segment") else words
  name = mode.replace("-", "_")
  for tokens in ([f"--mode={mode}", *words], ["--mode", mode, *words], [mode, *words]):
    assert main(tokens) == 0
  assert [call[0] for call in called] == [f"foir360_jax.cli.{name}"] * 3


def test_without_a_command_it_trains(called):
  assert main([*TINY, "--config.train.steps=7"]) == 0
  ((name, flags),) = called
  assert name == "foir360_jax.cli.train"
  assert flags.config.train.steps == 7 and flags.workdir == pathlib.Path("x")


def test_values_may_follow_their_flag_and_switches_are_turned_off_by_no():
  flags = parse("predict", "--workdir", "x", "--input", "y", "--output", "z", "--stop_margin", "-3")
  assert (flags.input, flags.stop_margin, flags.overwrite) == (pathlib.Path("y"), -3.0, False)
  for token in ("--overwrite", "--overwrite=true"):
    assert parse("predict", *FOLDERS, token).overwrite is True
  for token in ("--no-overwrite", "--nooverwrite", "--overwrite=false"):
    assert parse("predict", *FOLDERS, token).overwrite is False


def test_old_names_of_flags_still_work():
  flags = parse("predict", *FOLDERS, "--rank_masks", "--turns=4", "--skip_done")
  assert flags.rank_masks is True and flags.yaw_augmentation == 4
  assert parse("predict", *FOLDERS).rank_masks is False


def test_a_flag_may_take_several_values_or_be_repeated():
  flags = parse("compare-runs", "--a", "p", "q", "--b=r")
  assert (flags.a, flags.b) == ([pathlib.Path("p"), pathlib.Path("q")], [pathlib.Path("r")])
  flags = parse("score", "g", "--iou_threshold=0.1", "p", "--iou_threshold=0.8")
  assert flags.iou_threshold == [0.1, 0.8] and flags.pred == pathlib.Path("p")
  assert parse("score", "g", "p").iou_threshold == ()


@pytest.mark.parametrize(
  "words, message",
  [
    ([], "which command? one of rank, segment, prepare, "),
    (["predcit"], "no command 'predcit'; did you mean predict?"),
    (["fly"], "no command 'fly'; there are rank, segment, prepare"),
    (["--mode=fly"], "--mode=fly: give one of rank|segment|train|evaluate|predict"),
    (["--mode=predict"], "predict needs --workdir, --input, --output; foir360 predict --help"),
    (["--mode=train"], "train needs --config, --workdir"),
    (["train", "--mode=predict"], "--mode=predict contradicts the subcommand"),
    (["predict", *FOLDERS, "x"], "unexpected argument 'x'; flags are written --name=value"),
    (
      ["evaluate", *TINY, "--output=x"],
      "--output is for rank, segment, prepare, predict and weak-labels; leave",
    ),
    (["rank", "x"], "rank needs --output"),
    (["rank", "--output=x"], "rank needs PICTURES"),
    (["rank", "x", "--output=y", "--max_objects=0"], "--max_objects=0: give a whole number, 1 or"),
    (["weak-labels", *FOLDERS[1:], "--turns=2"], "--turns is for predict; leave it out"),
    (["predict", *FOLDERS, "--overwirte"], "unknown flag --overwirte; did you mean --overwrite?"),
    (["predict", *FOLDERS, "--over"], "unknown flag --over; foir360 predict --help lists its"),
    (["predict", *FOLDERS, "-overwrite"], "flags begin with two dashes; write --overwrite"),
    (["predict", *FOLDERS, "--overwrite=maybe"], "a switch; write --overwrite or --no-overwrite"),
    (["predict", *FOLDERS, "--confidence_threshold=2"], "=2: give a number, from 0 to 1"),
    (["predict", *FOLDERS, "--turns=0"], "--turns=0: give a whole number, 1 or more"),
    (["predict", *FOLDERS, "--output="], "--output=: is empty; give a path"),
    (["predict", *FOLDERS, "--verbosity=much"], "--verbosity=much: give a whole number"),
    (["score", "x"], "score needs PRED"),
    (["train", "--config"], "--config needs a value"),
    (["score", "x", "y", "--config.a=1"], "--config.a: score has no configuration"),
    (
      ["train", *TINY, "--config.model.witdhs=3"],
      "--config.model.witdhs: config.model has no field witdhs; did you mean widths?",
    ),
    (
      ["train", *TINY, "--config.modle.widths=3"],
      "--config.modle.widths: config has no field modle; did you mean model?",
    ),
    (
      ["train", *TINY, "--config.optimizer.lr=1"],
      "--config.optimizer.lr: config.optimizer has no field lr; it has ",
    ),
    (["train", *TINY, "--config.seed.a=1"], "config.seed has no fields of its own; set it as a"),
    (
      ["train", *TINY, "--config.model.surround=true"],
      "--config.model.surround is now --config.model.context",
    ),
    (
      ["predict", *FOLDERS, TINY[0], "--config.seed=1", "--config.evaluate.turns=2"],
      "--config.evaluate.turns is now --config.evaluate.yaw_augmentation",
    ),
    (["train", *TINY, "--config.train.steps=many"], "--config.train.steps=many: give a whole numb"),
    (["train", *TINY, "--config.model.remat=1.5"], "--config.model.remat=1.5: give true or false"),
    (["train", "--config=none.py", "--workdir=x"], "--config=none.py: no such file; give one of"),
    (["train", "--config=README.md", "--workdir=x"], "--config=README.md: line "),
    (["train", "--config=datasets/prepare.py", "--workdir=x"], "prepare.py: has no get_config()"),
    (["predict", *FOLDERS, "--config.seed=1"], "--config.seed needs --config=FILE"),
  ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(called, capsys, words, message):
  assert main(words) == 2
  printed = capsys.readouterr()
  assert message in printed.err and printed.err.startswith("error: ")
  assert printed.err.count("\n") == 1 and not printed.out and not called


@pytest.mark.parametrize(
  "words, message",
  [
    (["--rank_masks", "--stop_margin=0"], "--stop_margin says nothing to --rank_masks"),
    (["--skip_done", "--overwrite"], "contradict each other"),
  ],
)
def test_flags_of_predict_that_contradict_each_other_are_refused(capsys, words, message):
  assert main(["predict", *FOLDERS, *words]) == 2
  assert message in capsys.readouterr().err


def test_fields_of_the_configuration_are_set_with_their_types():
  overrides = parse(
    "train",
    *TINY,
    *("--config.train.steps", "5", "--config.model.remat", "--config.data.augment.yaw=false"),
    *("--no-config.model.context", "--config.model.widths=(8,8,8,8)", "--config.data.name=a/b"),
  ).overrides
  config = load_config("configs/tiny.py", overrides)
  assert (config.train.steps, config.model.remat, config.data.augment.yaw) == (5, True, False)
  assert not config.model.context and config.model.widths == (8, 8, 8, 8)
  assert config.data.name == "a/b"
  assert load_config("configs/tiny.py", []).train.steps != 5
  assert load_config(None, []) is None


def test_paths_on_the_command_line_may_begin_with_a_tilde(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  for command in COMMANDS.values():
    for flag in command.flags:
      if flag.value in ("RUN", "FOLDER", "OUT", "DIR", "SCENES", "PICTURES", "FILE.png"):
        assert flag.parse("~/x") == tmp_path / "x", flag.name
  assert parse("score", "~/g", "p", "--out=~/r.json").gt == tmp_path / "g"
  assert parse("score", "g", "p", "--out=~/r.json").out == tmp_path / "r.json"
  (tmp_path / "mine.py").write_text((ROOT / "configs/tiny.py").read_text())
  assert load_config("~/mine.py", []).task == "ranking"


def test_a_user_who_is_not_there_is_refused_and_no_folder_of_that_name_made(
  monkeypatch, tmp_path, capsys
):
  monkeypatch.chdir(tmp_path)
  for words in (
    ["prepare", "--data_dir=~nobody-here/data"],
    ["weak-labels", "--input=x", "--output=~nobody-here/out"],
    ["train", "--config=~nobody-here/a.py", "--workdir=x"],
    ["score", "~nobody-here/gt", "x"],
  ):
    assert main(words) == 2
    line = capsys.readouterr().err
    assert "~nobody-here is no user's folder; write ./~nobody-here for" in line
    assert line.count("\n") == 1
  for function in (open_scenes, read_panorama, Ranker.load, file_of_run, sole_writer_of):
    with pytest.raises(ValueError, match="~nobody-here is no user's folder"):
      function("~nobody-here/x")
  assert not list(tmp_path.iterdir())


def test_what_is_named_with_a_tilde_is_meant_by_a_dot_before_it(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.chdir(tmp_path)
  here = expand("./~root")
  assert here == expand(here) == tmp_path / "~root"
  save_image("./~a.png", np.zeros((32, 64, 3), np.uint8))
  for folder in (".", tmp_path):
    file = find_panoramas(folder).pictures["~a"]
    assert read_panorama(file).shape == (32, 64, 3)
  sole_writer_of(here)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["~a.png", "~root"]


def test_functions_that_take_paths_know_the_tilde_as_well(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  save_image("~/a/images/x.png", np.zeros((32, 64, 3), np.uint8))
  assert read_panorama("~/a/images/x.png").shape == (32, 64, 3)
  assert list(find_panoramas("~/a/images").pictures) == ["x"]
  save_image("~/a/instances/x.png", np.zeros((32, 64, 3), np.uint8))
  assert open_scenes("~/a").path == tmp_path / "a"
  sole_writer_of("~/b")
  assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def sole_writer_of(folder):
  with sole_writer(folder):
    pass


def test_what_is_not_utf8_in_a_name_is_shown_all_the_same(monkeypatch):
  shown = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
  monkeypatch.setattr(sys, "stdout", shown)
  monkeypatch.setattr(module, "main", lambda *_, **__: print(os.fsdecode(b"m\xfcll.jpg")) or 0)
  with pytest.raises(SystemExit):
    module.start()
  assert shown.buffer.getvalue() == rb"m\udcfcll.jpg" + b"\n"


def test_a_reader_that_has_enough_ends_the_command_without_a_word(monkeypatch, capfd):
  reader, writer = os.pipe()
  os.close(reader)
  monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(os.fdopen(writer, "wb")))
  monkeypatch.setattr(sys, "argv", ["foir360", "--help"])
  with pytest.raises(SystemExit) as exit:
    module.start()
  sys.stdout.close()  # as Python does at its end
  assert exit.value.code == 128 + signal.SIGPIPE and capfd.readouterr().err == ""


def test_what_the_system_says_of_a_file_names_it_and_a_cure(monkeypatch, capsys, tmp_path):
  (tmp_path / "file").touch()

  def fail(flags):
    (tmp_path / "file/x").mkdir()

  fake = types.SimpleNamespace(import_module=lambda name: types.SimpleNamespace(run=fail))
  monkeypatch.setattr(module, "importlib", fake)
  assert main(["score", "g", "p"]) == 2
  line = capsys.readouterr().err
  assert line.startswith(f"error: {tmp_path}/file/x: cannot be read or written (Not a directory);")


def test_a_file_of_weights_may_begin_with_a_tilde(monkeypatch, tmp_path):
  def refuse(path):
    raise ValueError(f"no weights in {path}")

  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setattr(pretrained_encoder, "load_efficientnet_lite0", refuse)
  encoder = object.__new__(EfficientNetLite0)
  with pytest.raises(ValueError, match=f"no weights in {tmp_path}/weights"):
    pretrained_encoder.load_encoder_weights(encoder, "~/weights")


def test_the_table_of_flags_knows_what_the_parts_know():
  assert FORMATS == tuple(SCENE_FORMATS)
  of_data_sets = {flag for flags in prepare.OPTIONS.values() for flag in flags}
  always = {"dataset", "data_dir", "file_format"}
  assert {flag.name for flag in COMMANDS["prepare"].flags} == of_data_sets | always


@pytest.mark.parametrize("error", [ValueError, OSError, FloatingPointError, UsageError])
def test_an_error_is_one_line_and_with_verbosity_a_traceback(monkeypatch, capsys, error):
  def fail(flags):
    raise error("x.png: is broken; mend it")

  fake = types.SimpleNamespace(import_module=lambda name: types.SimpleNamespace(run=fail))
  monkeypatch.setattr(module, "importlib", fake)
  assert main(["score", "g", "p"]) == 2
  assert capsys.readouterr().err.startswith("error: x.png: is broken; mend it")
  if error is not UsageError:
    with pytest.raises(error):
      main(["score", "g", "p", "--verbosity=1"])


def test_ctrl_c_has_its_exit_code(monkeypatch):
  def stop(flags):
    raise KeyboardInterrupt

  fake = types.SimpleNamespace(import_module=lambda name: types.SimpleNamespace(run=stop))
  monkeypatch.setattr(module, "importlib", fake)
  assert main(["score", "g", "p"]) == 128 + signal.SIGINT


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("config.model.surround = True", "config.model.surround is now config.model.context"),
    ("config.optimizer.learning_rat = 1.0", "no field learning_rat; did you mean learning_rate?"),
    ("config.optimizer.lr = 1.0", "there is no field lr; beside it are b2, "),
    ("config.modle.widths = 1", "there is no field modle; did you mean model?"),
    ("config.data.height = 'a'", "Could not override field 'height'"),
  ],
)
def test_a_field_that_a_file_sets_and_nobody_knows_is_one_line(
  called, tmp_path, capsys, line, message
):
  file = tmp_path / "own.py"
  file.write_text(
    "from foir360_jax.config import base_config\n"
    f"def get_config():\n  config = base_config()\n  {line}\n  return config\n"
  )
  assert main(["train", f"--config={file}", "--workdir=x"]) == 2
  printed = capsys.readouterr().err
  assert printed.startswith(f"error: --config={file}: ") and message in printed
  assert printed.count("\n") == 1 and not called


def test_a_fault_of_another_kind_in_a_configuration_is_not_called_an_unknown_field(tmp_path):
  file = tmp_path / "own.py"
  file.write_text("def get_config():\n  return {}['height']\n")
  with pytest.raises(KeyError, match="height"):
    load_config(str(file), [])


@pytest.mark.parametrize(
  ("words", "level"), [((), "3"), (("--verbosity=1",), None), (("score", "g", "p"), None)]
)
def test_the_alarm_on_slow_compilation_is_silent_unless_asked_for(
  called, monkeypatch, words, level
):
  monkeypatch.setattr(module, "restart_with_huge_pages", lambda: None)
  monkeypatch.setattr(module, "_set_logging", lambda verbosity: None)
  monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
  words = words if "score" in words else ["predict", *FOLDERS, *words]
  main(words, owns_process=True)
  assert os.environ.get("TF_CPP_MIN_LOG_LEVEL") == level
  monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
  main(words, owns_process=True)
  assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_only_a_process_of_its_own_that_computes_is_restarted(called, monkeypatch):
  monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")  # whose default it would set
  restarted = []
  monkeypatch.setattr(module, "restart_with_huge_pages", lambda: restarted.append(True))
  monkeypatch.setattr(module, "_set_logging", lambda verbosity: None)
  main(["predict", *FOLDERS])
  main(["score", "g", "p"], owns_process=True)
  main(["predict", "--help"], owns_process=True)
  assert not restarted
  main(["predict", *FOLDERS], owns_process=True)
  assert restarted
  assert {command.name for command in COMMANDS.values() if command.computes} == set(MODES)


def test_without_the_builders_prepare_says_where_they_are(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(prepare, "BUILDERS", tmp_path / "datasets")
  (tmp_path / "datasets").mkdir()  # of another package of this name
  assert main(["prepare", f"--data_dir={tmp_path}"]) == 2
  error = capsys.readouterr().err
  assert f"builders are not in {tmp_path / 'datasets'}: they come with the project's" in error


@pytest.mark.parametrize(
  "command",
  [
    ["-m", "foir360_jax.main", "score"],
    ["-m", "foir360_jax.evaluation.score"],
    [
      "-c",
      "import sys; sys.argv[0] = 'foir360'; from foir360_jax.cli.command import start; start()",
    ],
  ],
)
def test_all_doors_lead_to_the_same_program(run_command, command):
  words = ["score"] if command[0] == "-c" else []
  result = run_command(*command, *words, "none", "nothing")
  assert result.returncode == 2
  assert (
    result.stderr == "error: none: no such folder; give the folder with the annotations (--"
    "verbosity=1 shows where)\n"
  )


def test_module_commands_of_earlier_versions_are_aliases(run_command):
  result = run_command("-m", "foir360_jax.evaluation.compare_runs", "--a", "x", "--b", "y")
  assert result.returncode == 2 and result.stderr.startswith("error: x/metrics.json: missing")
  result = run_command("datasets/prepare.py", "--dataset=none")
  assert result.returncode == 2 and result.stderr.startswith("error: --dataset=none: no such data")


def test_the_console_script_is_the_command():
  text = (ROOT / "pyproject.toml").read_text()
  assert 'foir360 = "foir360_jax.cli.command:start"' in text and '"rich>=' in text


SCRIPT = """
import sys, time
from foir360_jax.cli.progress import progress_bar
with progress_bar("ranking") as show:
  for step in range(1, 4):
    if show: show(step, 4)
    print(f"a line with [brackets] and 1 number {'x' * 90}", flush=True)
    time.sleep(0.3)
print("shown" if show else "silent", flush=True)
"""


def run_in_terminal(stdout):
  """What the script draws on a terminal; `stdout` goes elsewhere where it is a file."""
  environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
  reader, terminal = pty.openpty()
  process = subprocess.Popen(
    [sys.executable, "-c", SCRIPT],
    stdout=stdout or terminal,
    stderr=terminal,
    env=environment,
    cwd=ROOT,
  )
  os.close(terminal)
  drawn = b""
  deadline = time.monotonic() + 60
  while time.monotonic() < deadline:
    with contextlib.suppress(OSError):  # raised at the end of the process
      if chunk := os.read(reader, 4096):
        drawn += chunk
        continue
    break
  os.close(reader)
  assert process.wait(60) == 0
  return drawn.decode()


def test_a_terminal_gets_a_bar_that_lines_do_not_break():
  drawn = run_in_terminal(None)
  assert "ranking" in drawn and "%" in drawn and "left" in drawn and "shown" in drawn
  assert drawn.count(f"a line with [brackets] and 1 number {'x' * 90}") == 3


def test_lines_that_go_into_a_file_are_not_taken_by_the_bar(tmp_path):
  with (tmp_path / "lines").open("w") as file:
    drawn = run_in_terminal(file)
  assert "ranking" in drawn and "brackets" not in drawn
  lines = (tmp_path / "lines").read_text().splitlines()
  assert len(lines) == 4 and lines[-1] == "shown"


def test_without_a_terminal_there_is_no_bar(capsys):
  with progress.progress_bar("ranking") as show:
    print("a line")
  assert show is None
  printed = capsys.readouterr()
  assert printed.out == "a line\n" and not printed.err
