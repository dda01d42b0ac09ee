"""Times the weak labels: images a second, the share of each step, and the same done plainly.

python -m foir360_jax.benchmarks.weak_labels [--saliency=spectral] [--out=FILE]

Panoramas of random textures with discs for objects. "plainly" is the same algorithm view by view
and object by object, with operations compiled one at a time, as a first implementation would be; it
ranks one panorama, since it takes long. What saliency takes is the difference to the same loop with
one that costs nothing. The error beside the speed is the largest difference of a
local measurement between the two.
"""

import argparse
import functools
import time
from typing import Any

import jax
import numpy as np

from foir360_jax.benchmarks.panoramas import random_panorama
from foir360_jax.benchmarks.record import describe, environment, text_table, write_json
from foir360_jax.benchmarks.timing import Contestant, measure, repeatedly
from foir360_jax.saliency import build_saliency, for_panoramas, for_parts
from foir360_jax.saliency.weights import separate_weights
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import (
  DEFAULT_STRATEGY,
  DescribedScene,
  Strategy,
  collect_ranks,
  local_ranks,
  plan_views,
  rank_scenes,
  tangent_pool,
  whole_pool,
)
from foir360_jax.weak_labels.rank import describe_scene
from foir360_jax.weak_labels.reference import rank_views_plainly

STEP_COLUMNS = {"step": "", "ms_an_image": ".1f", "share": ".2f"}
RACE_COLUMNS = {"method": "", "best_per_s": ".3f", "median_per_s": ".3f", "times_plain": ".1f"}


def main():
  """Measures and prints; see the module."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--saliency", default="learned", choices=("learned", "spectral"))
  parser.add_argument("--height", type=int, default=512)
  parser.add_argument("--objects", type=int, default=20)
  parser.add_argument("--batch_size", type=int, default=4)
  parser.add_argument("--views_at_once", type=int, default=DEFAULT_STRATEGY.views_at_once)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--plain", action=argparse.BooleanOptionalAction, default=True)
  parser.add_argument("--out", help="JSON file for all figures")
  arguments = parser.parse_args()
  strategy = DEFAULT_STRATEGY._replace(views_at_once=arguments.views_at_once)
  settings = vars(arguments) | strategy._asdict()
  report: dict[str, Any] = {"environment": environment(), "settings": settings}
  report |= time_method(
    arguments.saliency,
    strategy,
    height=arguments.height,
    num_objects=arguments.objects,
    batch_size=arguments.batch_size,
    rounds=arguments.rounds,
    plain=arguments.plain,
  )
  print(describe(report["environment"]))
  print(
    f"{arguments.height}x{2 * arguments.height}, {arguments.objects} objects, saliency"
    f" {arguments.saliency}, {report['evaluations_an_image']:.1f} views computed an image,"
    f" compiled in {report['compile_s']:.1f} s"
  )
  print(text_table(report["steps"], STEP_COLUMNS))
  print(text_table(report["race"], RACE_COLUMNS))
  if "largest_difference" in report:
    print(f"largest difference of a measurement: {report['largest_difference']:.1e}")
  if arguments.out:
    write_json(arguments.out, report)


def time_method(
  saliency_name: str,
  strategy: Strategy,
  *,
  height: int,
  num_objects: int,
  batch_size: int,
  rounds: int,
  plain: bool,
) -> dict[str, Any]:
  """The figures: `compile_s`, `evaluations_an_image`, `steps`, `race`, `largest_difference`."""
  rng = np.random.default_rng(0)
  pictures = [random_panorama(rng, height, num_objects) for _ in range(batch_size)]
  pictures = [(image, masks[masks.any((1, 2))]) for image, masks in pictures]
  scenes = jax.tree.map(
    lambda *x: np.stack(x), *(describe_scene(image, masks) for image, masks in pictures)
  )
  scenes = jax.device_put(scenes)
  score = ObjectScore.load(saliency_name)
  weights, rebuild = separate_weights(build_saliency(saliency_name))
  plan = plan_views(height)

  @jax.jit
  def whole_method(weights, scenes: DescribedScene):
    return rank_scenes(scenes, saliency=rebuild(weights), strategy=strategy, object_score=score)

  @jax.jit
  def views(scenes: DescribedScene):
    return tangent_pool(scenes, plan), whole_pool(scenes, plan)

  @jax.jit
  def local(weights, pools):
    return local_ranks(*pools, saliency=rebuild(weights), strategy=strategy, object_score=score)

  @jax.jit
  def collector(ranks, scenes: DescribedScene):
    return collect_ranks(ranks, scenes, object_score=score, collector=strategy.collector)

  @jax.jit
  def without_network(pools):
    return local_ranks(*pools, saliency=_redness, strategy=strategy, object_score=score)

  start = time.perf_counter()
  jax.block_until_ready(whole_method(weights, scenes))
  compile_s = time.perf_counter() - start
  pools = views(scenes)
  ranks = local(weights, pools)
  timings = measure(
    [
      Contestant("compiled", repeatedly(whole_method, weights, scenes)),
      Contestant("describe", lambda n: [describe_scene(*pictures[0]) for _ in range(n)]),
      Contestant("views", repeatedly(views, scenes)),
      Contestant("local", repeatedly(local, weights, pools)),
      Contestant("collector", repeatedly(collector, ranks, scenes)),
      Contestant("without_network", repeatedly(without_network, pools)),
    ],
    rounds=rounds,
  )
  seconds = {name: timing.min_s for name, timing in timings.items()}
  steps = {
    "measure and pack the objects (host)": seconds["describe"],
    "views and coverage": seconds["views"] / batch_size,
    "saliency": (seconds["local"] - seconds["without_network"]) / batch_size,
    "erase, measure, choose": seconds["without_network"] / batch_size,
    "collector": seconds["collector"] / batch_size,
  }
  total = sum(steps.values())
  report = {
    "compile_s": compile_s,
    "evaluations_an_image": int(ranks.evaluations) / batch_size,
    "steps": [
      {"step": name, "ms_an_image": 1e3 * value, "share": value / total}
      for name, value in steps.items()
    ],
  }
  compiled = timings["compiled"]
  race = {"compiled": (compiled.min_s / batch_size, compiled.median_s / batch_size)}
  if plain:
    first = jax.tree.map(lambda x: x[:1], scenes)
    elapsed, difference = _race_plainly(
      rebuild(weights), first, strategy, score, local, weights, views
    )
    race["plainly"] = (elapsed, elapsed)
    report["largest_difference"] = difference
  slowest = race["plainly"][0] if plain else None
  report["race"] = [
    {
      "method": name,
      "best_per_s": 1 / best,
      "median_per_s": 1 / median,
      "times_plain": slowest and slowest / best,
    }
    for name, (best, median) in race.items()
  ]
  return report


def _redness(views):
  """A saliency that costs nothing, and yet needs every picture: what is left is the loop around."""
  return 1.0 + views[..., 0]


def _race_plainly(saliency, scenes, strategy, score, local, weights, views):
  """Seconds for one panorama, and the largest difference to the compiled measurements."""
  expected = jax.device_get(local(weights, views(scenes)))
  with jax.disable_jit():  # operations are compiled one at a time
    plan = plan_views(scenes.panorama.shape[1])
    rank = functools.partial(
      rank_views_plainly,
      choose=score.erasing_score,
      fill=strategy.fill,
      grow_px=strategy.grow_px,
    )
    of_parts, of_whole = for_parts(saliency), for_panoramas(saliency)
    for model, pool in (
      (of_parts, tangent_pool(scenes, plan)),
      (of_whole, whole_pool(scenes, plan)),
    ):  # compiles each operation once
      rank(jax.tree.map(lambda x: x[:1], pool), saliency=model, max_erased=1)
    start = time.perf_counter()
    tangent = rank(tangent_pool(scenes, plan), saliency=of_parts, max_erased=strategy.max_erased)
    whole = rank(whole_pool(scenes, plan), saliency=of_whole, max_erased=strategy.max_erased_whole)
    elapsed = time.perf_counter() - start
  plain = jax.tree.map(lambda *x: np.concatenate(x), tangent.history, whole.history)
  differences = jax.tree.map(lambda a, b: np.abs(a[0] - b).max(), expected.history, plain)
  return elapsed, float(max(differences))


if __name__ == "__main__":
  main()
