"""`--config=FILE` and `--config.FIELD=VALUE`: a configuration out of a file, with other values.

ml_collections checks the types. It reads flags of absl, here of a set of its own, so that nothing
of this process's command line or of an earlier call takes part.
"""

import re
import traceback
import types
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader

from absl import flags
from ml_collections import ConfigDict, config_flags

from foir360_jax.cli.flags import UsageError, similar
from foir360_jax.paths import expand
from foir360_jax.train.settings import RENAMED_FIELDS


def load_config(file: str | None, overrides: Sequence[str]) -> ConfigDict | None:
  """Returns the configuration of a file of `configs/`, with other values for some of its fields.

  Args:
    file: the file, whose `get_config()` is called; "FILE:TEXT" calls `get_config(TEXT)`; None:
      none is given.
    overrides: "--config.FIELD=VALUE" each; switches also without "=VALUE", or "--noconfig.FIELD".

  Raises:
    UsageError: there is no such file or field, or a value of another type; one line.
  """
  if file is None:
    if overrides:
      raise UsageError(f"{overrides[0].partition('=')[0]} needs --config=FILE, whose field it sets")
    return None
  config, values = _read(file), flags.FlagValues()
  arguments = ["foir360", *overrides]
  try:
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
    values(arguments)
  except flags.Error as error:
    raise UsageError(_plain(error)) from None
  except (AttributeError, KeyError, TypeError):  # of a field that is not there
    raise UsageError(_unknown_field(config, overrides)) from None
  return values.config


def _read(file: str) -> ConfigDict:
  """Calls the `get_config` of a file."""
  name, _, text = file.partition(":")
  try:
    path = expand(name)
  except ValueError as error:
    raise UsageError(f"--config={file}: {error}") from None
  if not path.is_file():
    raise UsageError(f"--config={file}: no such file; give one of configs/, as configs/tiny.py")
  loader = SourceFileLoader("config", str(path))
  module = types.ModuleType("config")
  try:
    loader.exec_module(module)
  except (SyntaxError, UnicodeDecodeError) as error:
    line = f"line {error.lineno} of it" if isinstance(error, SyntaxError) else "it"
    raise UsageError(f"--config={file}: {line} is no Python; give one of configs/") from None
  if not hasattr(module, "get_config"):
    raise UsageError(f"--config={file}: has no get_config(); give one of configs/, or add it")
  try:
    return module.get_config(*[text] if text else [])
  except (AttributeError, KeyError, TypeError) as error:
    if not _is_of_ml_collections(error):  # a fault of another kind in the file
      raise
    if isinstance(error, TypeError):
      raise UsageError(f"--config={file}: {' '.join(str(error).split())}") from None
    message = str(error).replace("\\n", "\n").replace("\\", "")
    # Of a field that is set: what it has; of one that is read: its name, and maybe another.
    found = re.match(r"""\W*(?:Key "(\w+)" does not exist|(\w+)'\W*(?:\n|$))""", message)
    if not found:
      raise
    raise UsageError(
      f"--config={file}: {_unknown_in_file(found[1] or found[2], message)}"
    ) from None


def _is_of_ml_collections(error: Exception) -> bool:
  """Whether a configuration refused something, and no dictionary of the file's own did."""
  frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
  return frames[-1].f_globals["__name__"].startswith("ml_collections")


def _unknown_in_file(field: str, message: str) -> str:
  """Names what may have been meant by a field that a file sets; ml_collections lists the others."""
  renamed = {old: new for old, new in RENAMED_FIELDS.items() if old.split(".")[-1] == field}
  if renamed:
    return "; ".join(f"config.{old} is now config.{new}" for old, new in renamed.items())
  fields = re.findall(r"'(\w+)': ", message)
  suggested = re.search(r'Did you mean "(\w+)"', message)
  close = suggested[1] if suggested else similar(field, fields)
  others = f"beside it are {', '.join(sorted(fields))}" if fields else "see config/ for all"
  return f"there is no field {field}; {f'did you mean {close}?' if close else others}"


def _plain(error: Exception) -> str:
  """A message of absl in one line, without Python's words for a value of the wrong type."""
  text = " ".join(str(error).split())
  text = re.sub("^flag (--)", r"\1", text)
  text = re.sub(r"\('Non-boolean argument to boolean flag', .*\)", "give true or false", text)
  text = re.sub(r"invalid literal for int\(\).*", "give a whole number", text)
  return re.sub(r"could not convert string to float.*", "give a number", text)


def _unknown_field(config: ConfigDict, overrides: Sequence[str]) -> str:
  """Names the first field that is not there, and those that may have been meant."""
  for override in overrides:
    name = re.sub("^--(no)?config[.]", "", override.partition("=")[0])
    if name in RENAMED_FIELDS:
      return f"--config.{name} is now --config.{RENAMED_FIELDS[name]}"
    section, *parents = config, "config"
    for part in name.split("."):
      if not isinstance(section, ConfigDict):
        return f"--config.{name}: {'.'.join(parents)} has no fields of its own; set it as a whole"
      if part not in section:
        close = similar(part, section)
        meant = f"did you mean {close}?" if close else f"it has {', '.join(sorted(section))}"
        return f"--config.{name}: {'.'.join(parents)} has no field {part}; {meant}"
      parents.append(part)
      section = section[part]
  return f"{overrides[0]}: cannot be set; see the file and what it starts from"
