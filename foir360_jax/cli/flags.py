"""What a subcommand takes: its flags as a table, parsed and explained in the same way everywhere.

One style: `--snake_case=value` (or `--snake_case value`), switches `--flag` and `--no-flag`, no
abbreviations. A wrong flag is one line that names it and the cure. Imports nothing but the
standard library, for `foir360 --help` comes at once.
"""

import argparse
import difflib
import pathlib
import re
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from foir360_jax.paths import expand

_INDENT = 28  # columns of a help text in which the names of the flags stand


class UsageError(Exception):
  """A wrong command line; one line names the flag and the cure."""


class Flag(NamedTuple):
  """One flag.

  Attributes:
    name: as it is written, without the dashes.
    value: what stands for its value in the help, as "FILE"; "" for a switch.
    help: half a line.
    parse: from the text to the value; raises ValueError, whose message follows "--name=text: ".
    default: its value where it is not given.
    needed: whether it must be given.
    nargs: "+" takes several values after one flag, "append" a value each time it is given.
    means: of an old name, kept for one release and shown nowhere: the new one ("" for none).
  """

  name: str
  value: str = ""
  help: str = ""
  parse: Callable[[str], Any] = str
  default: Any = None
  needed: bool = False
  nargs: str = ""
  means: str | None = None


class Command(NamedTuple):
  """A subcommand.

  Attributes:
    name: as it is written; its module is `cli.NAME`, with underscores.
    title: what it does, in half a line.
    text: lines that say what goes in and what comes out.
    example: a command that works.
    flags: what it takes.
    arguments: the names of what stands without a flag, as ("GT", "PRED"); paths.
    takes_config: whether `--config.FIELD=VALUE` may be given.
    computes: whether the process is to get its memory as `allocator` says.
  """

  name: str
  title: str
  text: str
  example: str
  flags: tuple[Flag, ...]
  arguments: tuple[str, ...] = ()
  takes_config: bool = False
  computes: bool = False

  @property
  def module(self) -> str:
    """The name of its module in `foir360_jax.cli`."""
    return self.name.replace("-", "_")

  def find(self, name: str) -> Flag | None:
    """Its flag of a name, or None."""
    return next((flag for flag in self.flags if flag.name == name), None)


VERBOSITY = Flag("verbosity", "N", "1: an error shows where it arose; 0: libraries tell more", int)


def switch(name: str, help: str = "", *, means: str | None = None) -> Flag:
  """A flag without a value, off if it is not given."""
  return Flag(name, help=help, default=False, means=means)


def path(text: str) -> pathlib.Path:
  """A path on the command line, see `paths.expand`.

  >>> path("runs/tiny"), path("~").is_absolute()
  (PosixPath('runs/tiny'), True)
  """
  if not text:
    raise ValueError("is empty; give a path")
  return expand(text)


def one_of(*names: str) -> Callable[[str], str]:
  """A parser of a name of a list."""

  def parse(text: str) -> str:
    if text not in names:
      raise ValueError(f"no such choice; give one of {', '.join(names)}")
    return text

  return parse


def number(kind: type[int] | type[float], low: float, high: float | None = None) -> Callable:
  """A parser of a number from `low` to `high`, both included; None: without an upper bound."""

  def parse(text: str) -> int | float:
    try:
      value = kind(text)
    except ValueError:
      value = None
    if value is None or not low <= value or (high is not None and value > high):
      whole = "a whole number" if kind is int else "a number"
      bound = f"{low:g} or more" if high is None else f"from {low:g} to {high:g}"
      raise ValueError(f"give {whole}, {bound}")
    return value

  return parse


def parse_flags(
  command: Command, tokens: Sequence[str], others: Iterable[Command] = ()
) -> types.SimpleNamespace:
  """Reads the flags of a command.

  Args:
    command: the command.
    tokens: what follows its name on the command line.
    others: all commands, to tell whose a misplaced flag is.

  Returns:
    The value of each flag by its name; `given`, the names of those that were given; `overrides`,
    the `--config.FIELD=VALUE` as they were written; the arguments by their names in lower case.

  Raises:
    UsageError: a flag is unknown, misplaced, malformed or missing.
  """
  tokens, overrides = _without_overrides(tokens)
  if overrides and not command.takes_config:
    raise UsageError(f"{overrides[0].partition('=')[0]}: {command.name} has no configuration")
  for token in tokens:
    _check_known(token, command, others)
  parser = _Parser(
    command.name, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
  )
  for name in command.arguments:
    parser.add_argument(name.lower(), metavar=name, type=_refusing(name, path))
  for flag in (*command.flags, VERBOSITY):
    _add(parser, flag)
  found, surplus = parser.parse_known_args([_switch(token, command) for token in tokens])
  if surplus:
    raise UsageError(f"unexpected argument {surplus[0]!r}; flags are written --name=value")
  given = vars(found)
  missing = [flag for flag in command.flags if flag.needed and flag.name not in given]
  if missing:
    parser.refuse(", ".join(f"--{flag.name}" for flag in missing))
  defaults = {flag.name: flag.default for flag in (*command.flags, VERBOSITY)}
  return types.SimpleNamespace(**defaults | given, given=frozenset(given), overrides=overrides)


def help_text(command: Command) -> str:
  """Returns what `foir360 COMMAND --help` prints: it fits a screen."""
  needed = [f"--{flag.name}={flag.value}" for flag in command.flags if flag.needed and flag.value]
  usage = " ".join(["foir360", command.name, *command.arguments, *needed])
  lines = [f"{usage} [flags]", "", *command.text.splitlines(), ""]
  for flag in (*command.flags, VERBOSITY):
    if flag.means is None:
      written = f"--{flag.name}" + (f"={flag.value}" if flag.value else "")
      lines.append(f"  {written:{_INDENT - 2}}{flag.help}".rstrip())
  if command.takes_config:
    lines.append(f"  {'--config.FIELD=VALUE':{_INDENT - 2}}in place of a value of the file")
  return "\n".join([*lines, "", f"Example: {command.example}"]) + "\n"


def similar(name: str, known: Iterable[str]) -> str:
  """Returns the known name that one may have been meant for, or ""."""
  return next(iter(difflib.get_close_matches(name, list(known), 1, 0.75)), "")


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    """Reports in one line, without the usage."""
    if message.startswith("the following arguments are required: "):
      self.refuse(message.partition(": ")[2])
    message = re.sub(r"^argument (--[\w-]+): expected .*argument", r"\1 needs a value", message)
    raise UsageError(re.sub(r"^argument ", "", message))

  def refuse(self, missing: str) -> NoReturn:
    """Reports what the command needs."""
    raise UsageError(f"{self.prog} needs {missing}; foir360 {self.prog} --help explains")


class _Append(argparse.Action):
  """Collects values; the default takes no part in it."""

  def __call__(self, parser, namespace, values, option_string=None):
    setattr(namespace, self.dest, [*getattr(namespace, self.dest, []), values])


def _add(parser: argparse.ArgumentParser, flag: Flag) -> None:
  options: dict[str, Any] = {"dest": flag.means or flag.name}
  if not flag.value:
    parser.add_argument(f"--{flag.name}", action="store_const", const=True, **options)
    parser.add_argument(f"--no-{flag.name}", action="store_const", const=False, **options)
    return

  parse = _refusing(f"--{flag.name}", flag.parse)
  if flag.nargs == "append":
    options["action"] = _Append
  elif flag.nargs:
    options["nargs"] = flag.nargs
  parser.add_argument(f"--{flag.name}", type=parse, **options)


def _refusing(name: str, parse: Callable[[str], Any]) -> Callable[[str], Any]:
  """Returns a parser whose errors are those of the command line, and name what they are of."""

  def parse_named(text: str) -> Any:
    try:
      return parse(text)
    except ValueError as error:
      reason = "give a whole number" if parse is int else error
      raise UsageError(f"{name}={text}: {reason}") from None

  return parse_named


def _without_overrides(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
  """Takes `--config.FIELD` out of a command line, each with its value behind `=`."""
  rest, overrides = [], []
  waiting = list(tokens)
  while waiting:
    token = waiting.pop(0)
    if not re.match(r"--(no-?)?config\.", token):
      rest.append(token)
      continue
    negative = token.startswith("--no")
    if "=" not in token and not negative and waiting and not waiting[0].startswith("--"):
      token += "=" + waiting.pop(0)
    overrides.append(token.replace("--no-config.", "--noconfig.", 1))
  return rest, overrides


def _check_known(token: str, command: Command, others: Iterable[Command]) -> None:
  """Raises UsageError with the cure for a flag that the command does not have."""
  if not token.startswith("-") or re.fullmatch(r"-[\d.].*", token):
    return
  name = token.lstrip("-").partition("=")[0]
  plain = re.sub("^no-", "", name)
  known = {flag.name for flag in (*command.flags, VERBOSITY)}
  switch = _switch_of(name, command)
  if token.startswith("--") and (name in known or switch):
    return
  if not token.startswith("--") and name in known:
    raise UsageError(f"{token}: flags begin with two dashes; write -{token}")
  owners = [other.name for other in others if other.find(plain)]
  if owners:
    whose = " and ".join(filter(None, (", ".join(owners[:-1]), owners[-1])))
    raise UsageError(f"--{name} is for {whose}; leave it out")
  shown = [flag.name for flag in command.flags if flag.means is None]
  close = similar(plain.replace("-", "_"), shown)
  cure = f"did you mean --{close}?" if close else f"foir360 {command.name} --help lists its flags"
  raise UsageError(f"unknown flag {token.partition('=')[0]}; {cure}")


def _switch_of(name: str, command: Command) -> str:
  """The switch that `no-NAME`, or `noNAME` as absl writes it, turns off; "" if there is none."""
  off = re.sub("^no-?", "", name)
  flag = command.find(off) if name != off else None
  return off if flag and not flag.value else ""


def _switch(token: str, command: Command) -> str:
  """Writes a switch as the parser knows it: also `--flag=true` and absl's `--noflag`."""
  if not token.startswith("--"):
    return token
  name, _, value = token[2:].partition("=")
  flag = command.find(name)
  if flag is None and (off := _switch_of(name, command)):
    return f"--no-{off}"
  if flag and not flag.value and value:
    if value.lower() not in ("true", "false"):
      raise UsageError(f"{token}: a switch; write --{name} or --no-{name}")
    return f"--{name}" if value.lower() == "true" else f"--no-{name}"
  return token
