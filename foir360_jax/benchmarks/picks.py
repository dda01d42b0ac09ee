"""What the recurrent ranking module costs per pick: `python -m foir360_jax.benchmarks.picks`.

Ordering objects whose tokens are known, with and without the module, in turns in one process; and
all steps at once with given picks, as training does it, with the gradient.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.benchmarks.options import comma_separated
from foir360_jax.benchmarks.record import describe, environment, text_table, write_json
from foir360_jax.benchmarks.timing import Contestant, compile_program, measure, repeatedly
from foir360_jax.models import parameter_keys
from foir360_jax.models.rank_decoder import RankDecoder

CHANNELS = 64  # of the tokens, as PanoRank has them
_COLUMNS = {
  "objects": "d",
  "what": "",
  "min_ms": ".2f",
  "median_ms": ".2f",
  "us_per_pick": ".1f",
  "error": ".0e",
}


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the table, and writes it as JSON if asked to."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--objects", type=comma_separated(int), default=[16, 40, 128])
  parser.add_argument("--batch_size", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=15)
  parser.add_argument("--out", help="JSON file")
  options = parser.parse_args(argv)
  about = environment()
  print(describe(about), flush=True)
  rows = [
    row
    for count in options.objects
    for row in compare(count, options.batch_size, rounds=options.rounds)
  ]
  print(f"\n{text_table(rows, _COLUMNS)}")
  if options.out:
    write_json(options.out, {"environment": about, "batch_size": options.batch_size, "rows": rows})


def compare(num_objects: int, batch_size: int, *, rounds: int) -> list[dict[str, Any]]:
  """Times scores alone, scores and picks one after the other, and picks at once with a gradient.

  Args:
    num_objects: of each list.
    batch_size: number of lists.
    rounds: in which they take turns.

  Returns:
    A row for each: times in ms of a whole batch; microseconds of a batch's pick; and the largest
    difference of the logits one after the other and at once, relative to the largest.
  """
  build = functools.partial(RankDecoder, 8, CHANNELS, 12, context=False)
  graphdef, state = nnx.split(nnx.jit(lambda: build(rngs=parameter_keys(0)))())
  tokens = jax.random.normal(jax.random.key(0), (batch_size, num_objects, CHANNELS))
  where = jnp.ones(tokens.shape[:2], bool)

  def scores(state):
    return nnx.merge(graphdef, state).compare(tokens, where).scores

  def picks(state):
    decoder = nnx.merge(graphdef, state)
    return decoder.recurrent(decoder.compare(tokens, where).candidates(), where)

  def at_once(state, order):
    decoder = nnx.merge(graphdef, state)
    candidates = decoder.compare(tokens, where).candidates()
    return decoder.recurrent.forced(candidates, where, order, num_objects)[0]

  def likelihood(state, order):
    logits = jax.nn.log_softmax(at_once(state, order))
    return -jnp.take_along_axis(logits, order[..., None], axis=-1).mean()

  found = jax.jit(picks)(state)
  possible = found.logits > -1e8
  difference = jnp.where(possible, found.logits - jax.jit(at_once)(state, found.order), 0)
  error = float(jnp.abs(difference).max() / jnp.where(possible, jnp.abs(found.logits), 0).max())
  contestants = {
    "scores alone": _runner(scores, state),
    "scores and picks": _runner(picks, state),
    "training: picks at once, gradient": _runner(jax.grad(likelihood), state, found.order),
  }
  timings = measure([Contestant(*item) for item in contestants.items()], rounds=rounds)
  alone = timings["scores alone"].median_s
  rows = []
  for what, timing in timings.items():
    row = {"objects": num_objects, "what": what, "rounds": timing.rounds}
    rows.append(row | {"min_ms": 1e3 * timing.min_s, "median_ms": 1e3 * timing.median_s})
  rows[1] |= {"us_per_pick": 1e6 * (timings["scores and picks"].median_s - alone) / num_objects}
  rows[2] |= {"error": error}
  return rows


def _runner(function: Callable, *arguments: Any) -> Callable[[int], Any]:
  program = compile_program(jax.jit(function), *arguments)
  return repeatedly(program.execute, *arguments)


if __name__ == "__main__":
  main()
