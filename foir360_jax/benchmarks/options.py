"""Flags that take several values, with commas: a wrong value is one line, not a traceback."""

import argparse
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def comma_separated(parse: Callable[[str], T]) -> Callable[[str], list[T]]:
  """Returns the `type` of such a flag; `parse` raises ValueError for what is no value.

  >>> comma_separated(int)("1,2")
  [1, 2]
  """

  def read(text: str) -> list[T]:
    try:
      return [parse(part) for part in text.split(",")]
    except ValueError as error:
      raise argparse.ArgumentTypeError(str(error)) from None

  return read


def one_of(names: Iterable[str]) -> Callable[[str], str]:
  """Returns the parser of a name that must be among `names`."""
  known = tuple(names)

  def parse(text: str) -> str:
    if text not in known:
      raise ValueError(f"{text!r} is none of {', '.join(known)}")
    return text

  return parse
