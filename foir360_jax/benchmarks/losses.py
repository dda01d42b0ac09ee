"""The ranking losses against rax: `python -m foir360_jax.benchmarks.losses`.

Value and gradient in one program, on padded lists: lengths from half to full, and one empty list.
Prints a table and the goals; `--out=FILE` writes the figures as JSON. Lists are [B, N].
"""

import argparse
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from foir360_jax import losses
from foir360_jax.benchmarks.cases import relative_error
from foir360_jax.benchmarks.goals import GOAL_COLUMNS, QUADRATIC_LOSSES, loss_goals
from foir360_jax.benchmarks.options import comma_separated, one_of
from foir360_jax.benchmarks.record import describe, environment, text_table, write_json
from foir360_jax.benchmarks.timing import Contestant, Timing, compile_program, measure, repeatedly

Loss = Callable[..., jax.Array]
SHAPES = ((64, 128), (16, 1024))
COLUMNS = {
  "loss": "",
  "shape": "",
  "min_ms": ".3f",
  "median_ms": ".3f",
  "rax_min_ms": ".3f",
  "rax_median_ms": ".3f",
  "speedup": ".2f",
  "value_error": ".0e",
  "gradient_error": ".0e",
  "temporary_mib": ".2f",
  "rax_temporary_mib": ".2f",
  "memory_ratio": ".0f",
  "compile_s": ".2f",
  "rax_compile_s": ".2f",
}
OURS = {
  "softmax": losses.softmax_loss,
  "listmle": losses.listmle_loss,
  "plackett_luce": losses.plackett_luce_loss,
  "approx_ndcg": losses.approx_ndcg_loss,
  "lambdarank": losses.lambdarank_loss,
  "pairwise_logistic": losses.pairwise_logistic_loss,
  "pairwise_hinge": losses.pairwise_hinge_loss,
}
_TOTAL_ORDER = ("listmle", "plackett_luce")  # these treat ties differently from rax, on purpose
# A loss in O(N) takes less time than to start a program. Within a training step nothing is started,
# so one program computes it for this many batches.
_BATCHES = 32


def rax_losses() -> dict[str, Loss]:
  """The losses of rax by our names; none, and a line that says so, where it is not installed.

  Without ties, the likelihood of Plackett-Luce is ListMLE's. LambdaRank is divided by the width of
  the lists, with which rax multiplies it. `rax.approx_t12n` does not run on current JAX: the metric
  is given its approximate ranks as that function would do.
  """
  try:
    import rax
  except ImportError:
    print("rax is not installed: without a comparison (see the extra bench)")
    return {}

  def lambdarank(scores, labels, **options):
    weight = functools.partial(rax.dcg_lambdaweight, normalize=True)
    loss = rax.pairwise_logistic_loss(scores, labels, lambdaweight_fn=weight, **options)
    return loss / scores.shape[-1]

  def approx_ndcg(scores, labels, **options):
    return -rax.ndcg_metric(scores, labels, rank_fn=rax.utils.approx_ranks, **options)

  return {
    "softmax": rax.softmax_loss,
    "listmle": rax.listmle_loss,
    "plackett_luce": rax.listmle_loss,
    "approx_ndcg": approx_ndcg,
    "lambdarank": lambdarank,
    "pairwise_logistic": rax.pairwise_logistic_loss,
    "pairwise_hinge": rax.pairwise_hinge_loss,
  }


def random_lists(
  batch_size: int, num_objects: int, *, ties: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Scores, labels and `where`; labels are grades from 0 to 4, or without ties between 0 and 4."""
  rng = np.random.default_rng(0)
  lengths = rng.integers(num_objects // 2, num_objects + 1, batch_size)
  lengths[-1] = 0
  scores = rng.normal(size=(batch_size, num_objects))
  labels: np.ndarray
  if ties:
    labels = rng.integers(0, 5, scores.shape)
  else:
    labels = (
      4 * rng.permuted(np.tile(np.arange(num_objects), (batch_size, 1)), axis=1) / num_objects
    )
  where = np.arange(num_objects) < lengths[:, None]
  return jnp.asarray(scores, jnp.float32), jnp.asarray(labels, jnp.float32), jnp.asarray(where)


def race(
  name: str,
  shape: tuple[int, int],
  theirs: Loss | None,
  *,
  rounds: int,
  budget_s: float = math.inf,
) -> dict[str, Any]:
  """Measures our loss, and rax's where there is one, on random lists of a shape [B, N].

  Returns:
    A row: times in ms, `speedup` = rax's best time over ours, relative errors against rax, memory
    of temporaries and results in MiB, `memory_ratio` = rax's over ours. Without rax the figures
    that need it are None.
  """
  lists = random_lists(*shape, ties=name not in _TOTAL_ORDER)
  contestants = {"ours": OURS[name]} | ({"rax": theirs} if theirs else {})
  functions = {key: _value_and_gradient(loss) for key, loss in contestants.items()}
  programs = {key: compile_program(function, *lists) for key, function in functions.items()}
  arguments: Sequence[jax.Array]
  if name in QUADRATIC_LOSSES:
    batches, arguments, timed = 1, lists, programs
  else:
    batches, arguments = _BATCHES, [jnp.stack([array] * _BATCHES) for array in lists]
    timed = {key: compile_program(_over_batches(f), *arguments) for key, f in functions.items()}
  timings = measure(
    [Contestant(key, repeatedly(program.execute, *arguments)) for key, program in timed.items()],
    rounds=rounds,
    budget_s=budget_s,
  )
  timings = {
    key: Timing(timing.min_s / batches, timing.median_s / batches, timing.rounds)
    for key, timing in timings.items()
  }
  row = {"loss": name, "shape": "x".join(map(str, shape))} | _figures(programs, timings, "ours", "")
  if not theirs:
    return row | {"speedup": None, "memory_ratio": None}
  row |= _figures(programs, timings, "rax", "rax_")
  (value, gradient), exact = (
    jax.device_get(programs[key].execute(*lists)) for key in ("ours", "rax")
  )
  of_ours, of_rax = (programs[key].temporary_bytes for key in ("ours", "rax"))
  return row | {
    "speedup": timings["rax"].min_s / timings["ours"].min_s,
    "memory_ratio": of_rax / of_ours if of_rax and of_ours else None,
    "value_error": relative_error(value, exact[0]),
    "gradient_error": relative_error(gradient, exact[1]),
  }


def _figures(programs: Mapping, timings: Mapping, key: str, prefix: str) -> dict[str, Any]:
  program, timing = programs[key], timings[key]
  temporary = program.temporary_bytes
  figures = {
    "min_ms": 1e3 * timing.min_s,
    "median_ms": 1e3 * timing.median_s,
    "compile_s": program.compile_s,
    "temporary_mib": temporary and temporary / 2**20,
  }
  return {prefix + name: value for name, value in figures.items()}


def _value_and_gradient(loss: Loss) -> Callable[..., Any]:
  # Summed, because rax takes the mean over pairs where we take it over lists.
  def total(scores, labels, where):
    return loss(scores, labels, where=where, reduce_fn=jnp.sum)

  return jax.value_and_grad(total)


def _over_batches(function: Callable[..., Any]) -> Callable[..., Any]:
  return lambda *batches: jax.lax.map(lambda batch: function(*batch), batches)


def _parse_shape(text: str) -> tuple[int, int]:
  numbers = text.split("x")
  if len(numbers) != 2 or not all(number.isdecimal() and int(number) for number in numbers):
    raise ValueError(f"{text!r} is no shape of lists; write it like 16x1024")
  return int(numbers[0]), int(numbers[1])


def main(argv: Sequence[str] | None = None) -> None:
  """The command."""
  parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
  parser.add_argument("--shapes", type=comma_separated(_parse_shape), default=SHAPES)
  names = comma_separated(one_of(OURS))
  parser.add_argument("--only", type=names, default=OURS, help="losses, with commas")
  parser.add_argument("--rounds", type=int, default=30)
  parser.add_argument("--budget_s", type=float, default=20.0, help="seconds for each row")
  parser.add_argument("--out", help="JSON file")
  options = parser.parse_args(argv)
  about = environment()
  print(describe(about), flush=True)
  theirs, rows = rax_losses(), []
  for shape in options.shapes:
    for name in options.only:
      limits = dict(rounds=options.rounds, budget_s=options.budget_s)
      rows.append(race(name, shape, theirs.get(name), **limits))
  goals = loss_goals(rows)
  print(f"\n{text_table(rows, COLUMNS)}\n\n{text_table(goals, GOAL_COLUMNS)}")
  if options.out:
    write_json(options.out, {"environment": about, "rows": rows, "goals": goals})


if __name__ == "__main__":
  main()
