"""The command `foir360`, also `python -m foir360_jax.main`: from its words to an exit code.

Exit codes: 0; 1 where some of the inputs could not be used and the others were; 2 where it did not
come to that, with one line that says why; 128 + the signal's number where it was stopped (Ctrl-C:
130). Nothing heavy is imported before it is known what to do.
"""

import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Sequence

from foir360_jax.allocator import restart_with_huge_pages
from foir360_jax.cli.commands import COMMANDS, MODES
from foir360_jax.cli.flags import Command, UsageError, help_text, parse_flags, similar

_WRONG = 2


def start() -> None:
  """Runs the command of this process, which ends with it.

  Names of files need not be UTF-8, and are shown all the same. Whoever reads the output may have
  enough before its end, as `| head`: the command then ends without a word, as others do.
  """
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")  # as that of errors is
  try:
    code = main(sys.argv[1:], owns_process=True)
    sys.stdout.flush()
  except BrokenPipeError:
    nowhere = os.open(os.devnull, os.O_WRONLY)  # Python flushes once more when it ends
    os.dup2(nowhere, sys.stdout.fileno())
    code = 128 + signal.SIGPIPE
  sys.exit(code)


def main(tokens: Sequence[str], *, owns_process: bool = False) -> int:
  """Runs a command.

  Args:
    tokens: the words behind the command's name.
    owns_process: whether the process is there for this alone: it may be restarted with other
      settings of the allocator, and libraries get their logging.

  Returns:
    The exit code.

  Raises:
    BrokenPipeError: nobody reads the output any more.
    SystemExit: a training was stopped by a signal; its state is saved.
  """
  try:
    command, rest = _split(tokens)
    if command is None or "--help" in rest or "-h" in rest:
      print(_overview() if command is None else help_text(command), end="")
      return 0
    flags = parse_flags(command, rest, COMMANDS.values())
  except UsageError as error:
    return _fail(error)
  debug = flags.verbosity is not None and flags.verbosity >= 1
  if owns_process and command.computes:
    if not debug:
      _silence_slow_compile_alarm()
    restart_with_huge_pages()
  try:
    if owns_process:
      _set_logging(flags.verbosity)
    if command.takes_config:
      load_config = importlib.import_module("foir360_jax.cli.config_file").load_config
      flags.config = load_config(flags.config, flags.overrides)
    return importlib.import_module(f"foir360_jax.cli.{command.module}").run(flags)
  except UsageError as error:
    return _fail(error)
  except BrokenPipeError:
    raise
  except (ValueError, FloatingPointError, OSError) as error:
    if debug:
      raise
    return _fail(f"{_line(error)} (--verbosity=1 shows where)")
  except KeyboardInterrupt:
    return 128 + signal.SIGINT


def _split(tokens: Sequence[str]) -> tuple[Command | None, list[str]]:
  """The command that is meant, None for help on all of them, and what follows it.

  Without a subcommand, `--mode` says which; without both it is `train`.
  """
  rest = list(tokens)
  if not rest:
    raise UsageError(f"which command? one of {', '.join(COMMANDS)}; foir360 --help explains")
  if rest[0] in ("help", "--help", "-h"):
    return None, []
  if not rest[0].startswith("-"):
    return _named(rest[0].replace("_", "-")), _without_mode(rest[1:])
  mode = "train"
  for index, token in enumerate(rest):
    if re.fullmatch("--?mode(=.*)?", token):
      _, equals, mode = token.partition("=")
      value = [] if equals else rest[index + 1 : index + 2]
      mode = (mode if equals else "".join(value)).replace("_", "-")
      del rest[index : index + 1 + len(value)]
      break
  else:
    if "--help" in rest or "-h" in rest:
      return None, []
  if mode not in MODES:
    raise UsageError(f"--mode={mode}: give one of {'|'.join(MODES)}, or a subcommand instead")
  return COMMANDS[mode], rest


def _named(name: str) -> Command:
  if name in COMMANDS:
    return COMMANDS[name]
  close = similar(name, COMMANDS)
  cure = f"did you mean {close}?" if close else f"there are {', '.join(COMMANDS)}"
  raise UsageError(f"no command {name!r}; {cure}")


def _without_mode(rest: list[str]) -> list[str]:
  mode = next((token for token in rest if re.fullmatch("--?mode(=.*)?", token)), None)
  if mode:
    raise UsageError(f"{mode} contradicts the subcommand, or repeats it; leave it out")
  return rest


def _overview() -> str:
  """Returns what `foir360 --help` prints."""
  names = "\n".join(f"  {command.name:14}{command.title}" for command in COMMANDS.values())
  return f"""\
foir360 COMMAND [flags]: ranks every object of a 360-degree panorama by importance.

{names}

`foir360 COMMAND --help` says what a command takes; flags are --name=value, switches --name and
--no-name. `python -m foir360_jax.main` is the same program; without a command it trains.
Exit codes: 0 done; 1 some inputs could not be used; 2 a wrong flag or input; 130 Ctrl-C.

Ranked objects of your photographs: foir360 rank PICTURES --output=OUT
A model of your own, from nothing:
  foir360 prepare --dataset=synthetic360/64x128 --data_dir=data --picture=data/panorama.png
  foir360 train --config=configs/tiny.py --workdir=runs/tiny
  foir360 predict --workdir=runs/tiny --input=data/panorama.png --output=OUT
"""


def _silence_slow_compile_alarm() -> None:
  """Leaves out XLA's alarms on slow compilation, which are no errors; a line of ours comes before.

  They have no switch of their own and are logged as errors. What goes wrong is an exception in
  Python, whatever XLA logs, and what ends the process is logged at any level. To be called before
  JAX is imported; a level that the user has set stays.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _set_logging(verbosity: int | None) -> None:
  """Sets up absl as `app.run` would: Orbax, TFDS and grain log through it and read its flags."""
  from absl import flags, logging

  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING if verbosity is None else verbosity)
  flags.FLAGS.mark_as_parsed()  # grain reads them


def _line(error: Exception) -> str:
  """Returns what an error says; of one that only the system tells, with the file and a cure."""
  if isinstance(error, OSError) and error.filename is not None and error.strerror:
    return (
      f"{error.filename}: cannot be read or written ({error.strerror}); give another path, or"
      " change its permissions"
    )
  return str(error)


def _fail(error: Exception | str) -> int:
  print(f"error: {error}", file=sys.stderr)
  return _WRONG
