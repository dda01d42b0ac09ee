"""Report of an import: what became of each parameter of the model."""

from collections.abc import Iterator
from typing import NamedTuple

from flax import nnx


class Report(NamedTuple):
  """Names of parameters.

  Attributes:
    copied: taken over as they are, or with batch normalisation folded in.
    interpolated: brought to another size.
    new: left alone.
  """

  copied: tuple[str, ...]
  interpolated: tuple[str, ...] = ()
  new: tuple[str, ...] = ()

  def __str__(self) -> str:
    counts = f"{len(self.copied)} parameters copied, {len(self.interpolated)} interpolated"
    return f"{counts}, {len(self.new)} new" + (f": {', '.join(self.new)}" if self.new else "")


def named_parameters(model: nnx.Module) -> Iterator[tuple[str, nnx.Param]]:
  """All parameters of a model by their paths, joined by dots."""
  for path, parameter in nnx.iter_graph(model):
    if isinstance(parameter, nnx.Param):
      yield ".".join(map(str, path)), parameter
