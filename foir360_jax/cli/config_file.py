"""`--config=FILE` and `--config.FIELD=VALUE`: a configuration out of a file, with other values.

ml_collections checks the types. It reads flags of absl, here of a set of its own, so that nothing
of this process's command line or of an earlier call takes part.
"""

import re
import types
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader

from absl import flags
from ml_collections import ConfigDict, config_flags

from foir360_jax.cli.flags import UsageError
from foir360_jax.paths import expand


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
  except (AttributeError, KeyError, TypeError) as error:  # of a field that is not there
    raise UsageError(_unknown_field(overrides, error)) from None
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
  return module.get_config(*[text] if text else [])


def _plain(error: Exception) -> str:
  """A message of absl in one line, without Python's words for a value of the wrong type."""
  text = " ".join(str(error).split())
  text = re.sub("^flag (--)", r"\1", text)
  text = re.sub(r"\('Non-boolean argument to boolean flag', .*\)", "give true or false", text)
  text = re.sub(r"invalid literal for int\(\).*", "give a whole number", text)
  return re.sub(r"could not convert string to float.*", "give a number", text)


def _unknown_field(overrides: Sequence[str], error: Exception) -> str:
  """Names the unknown field; the message of ml_collections has a part of its name."""
  text = str(error.args[0]) if error.args else ""
  part = next(iter(re.findall(r"'(\w+)'", text)), "")
  meant = re.search(r'Did you mean "(\w+)"', text)
  names = [re.sub("^--(no)?", "", override).partition("=")[0] for override in overrides]
  name = next((name for name in names if part in name.split(".")), names[0] if names else "config")
  cure = f"did you mean {meant[1]}?" if meant else "see the file and what it starts from"
  return f"--{name}: the configuration has no such field; {cure}"
