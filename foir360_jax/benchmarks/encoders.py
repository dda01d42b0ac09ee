"""What each encoder costs: `python -m foir360_jax.benchmarks.encoders --height=512`.

One image to the maps at strides 4 to 16, with random parameters, forward alone and with the
gradient of all parameters; all encoders in turns in one process, each convolutional one with
kernels on the sphere from stride 16 on and with planar ones. Operations are as the compiler counts
them.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from foir360_jax.allocator import restart_with_huge_pages
from foir360_jax.benchmarks.record import describe, environment, text_table, write_json
from foir360_jax.benchmarks.timing import Contestant, Program, compile_program, measure, repeatedly
from foir360_jax.models import parameter_keys
from foir360_jax.models.encoders import ENCODERS, build_encoder
from foir360_jax.models.encoders.build import PANOSWIN
from foir360_jax.train.cost import StepCost

STRIDES = (4, 8, 16)
PLANAR = 64  # a stride that no encoder reaches
SPHERICAL = 16
_WIDTHS, _BLOCKS = (24, 48, 72, 96), (1, 1, 1, 1)  # of sphere_small as configured
COLUMNS = {
  "encoder": "",
  "kernels": "",
  "pass": "",
  "parameters_millions": ".1f",
  "gflop": ".1f",
  "memory_mib": ".0f",
  "min_ms": ".0f",
  "median_ms": ".0f",
  "images_per_second": ".2f",
}


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the table, and writes it as JSON if asked to."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--height", type=int, default=512, help="rows of the panorama")
  parser.add_argument("--rounds", type=int, default=7, help="in which the encoders take turns")
  parser.add_argument("--only", choices=ENCODERS, nargs="+", default=ENCODERS)
  parser.add_argument("--out", help="JSON file")
  options = parser.parse_args(argv)
  about = environment()
  print(describe(about), flush=True)
  rows = compare(options.only, options.height, rounds=options.rounds)
  print(f"\n{text_table(rows, COLUMNS)}")
  if options.out:
    write_json(options.out, {"environment": about, "height": options.height, "rows": rows})


def compare(names: Sequence[str], height: int, *, rounds: int) -> list[dict[str, Any]]:
  """Measures encoders side by side.

  Args:
    names: of `ENCODERS`.
    height: rows of the panorama.
    rounds: in which they take turns.

  Returns:
    A row for each encoder, kind of kernels and pass: parameters, operations and MiB of the pass
    (parameters and gradients included), times in ms, images per second of the median.
  """
  kinds = {
    (name, kernels): stride
    for name in names
    for kernels, stride in (("sphere", SPHERICAL), ("planar", PLANAR))
    if name != PANOSWIN or kernels == "planar"
  }
  rows, contestants = [], []
  for (name, kernels), stride in kinds.items():
    parameters, passes = _prepare(name, stride, height)
    for label, (program, run) in passes.items():
      cost = StepCost.of(program.execute)
      rows.append(
        {
          "encoder": name,
          "kernels": kernels if name != PANOSWIN else None,
          "pass": label,
          "parameters_millions": parameters / 1e6,
          "gflop": cost and cost.flops / 1e9,
          "memory_mib": cost and cost.memory_bytes / 2**20,
          "compile_s": program.compile_s,
        }
      )
      contestants.append(Contestant(f"{name} {kernels} {label}", run))
  timings = measure(contestants, rounds=rounds)
  for row, contestant in zip(rows, contestants, strict=True):
    timing = timings[contestant.name]
    row |= {"min_ms": 1e3 * timing.min_s, "median_ms": 1e3 * timing.median_s}
    row |= {"images_per_second": 1 / timing.median_s, "rounds": timing.rounds}
  return rows


def _prepare(
  name: str, sphere_from_stride: int, height: int
) -> tuple[int, dict[str, tuple[Program, Callable[[int], Any]]]]:
  """The number of parameters, and for each pass its program and the `run` of a contestant."""
  build = functools.partial(
    build_encoder,
    name,
    widths=_WIDTHS,
    blocks=_BLOCKS,
    sphere_from_stride=sphere_from_stride,
  )
  encoder = nnx.jit(lambda: build(rngs=parameter_keys(0)))()
  image = jax.random.uniform(jax.random.key(0), (1, height, 2 * height, 3), jnp.float32, 0, 255)
  graphdef, parameters, *rest = nnx.split(encoder, nnx.Param, ...)

  def maps(parameters, image):
    return nnx.merge(graphdef, parameters, *rest)(image, strides=STRIDES)

  def loss(parameters, image):
    return sum(jnp.mean(level**2) for level in maps(parameters, image).values())

  passes = {}
  for label, function in (("forward", maps), ("forward+backward", jax.grad(loss))):
    program = compile_program(function, parameters, image)
    run = repeatedly(functools.partial(program.execute, parameters, image))
    passes[label] = program, run
  return sum(x.size for x in jax.tree.leaves(parameters)), passes


if __name__ == "__main__":
  restart_with_huge_pages()  # as a training does
  main()
