"""Weak labels: ranks without annotators, by views, erasing in them, and a collector of local ranks.

`views` -> local scores -> `erase` the most important object, again and again -> `collect`;
`rank_objects` is all of it.
"""

from foir360_jax.weak_labels.collect import (
  COLLECTORS,
  Collected,
  Collector,
  borda,
  bradley_terry,
  mean_score,
  plackett_luce,
)
from foir360_jax.weak_labels.erase import FILLS, Fill, erase, grow
from foir360_jax.weak_labels.object_score import ObjectScore
from foir360_jax.weak_labels.program import Strategy
from foir360_jax.weak_labels.rank import WeakRanker, rank_objects
from foir360_jax.weak_labels.views import (
  ViewPlan,
  cell_areas,
  coverage_views,
  coverage_whole,
  pack_objects,
  plan_views,
  render_views,
  render_whole,
)

__all__ = [
  "COLLECTORS",
  "FILLS",
  "Collected",
  "Collector",
  "Fill",
  "ObjectScore",
  "Strategy",
  "ViewPlan",
  "WeakRanker",
  "borda",
  "bradley_terry",
  "cell_areas",
  "coverage_views",
  "coverage_whole",
  "erase",
  "grow",
  "mean_score",
  "pack_objects",
  "plackett_luce",
  "plan_views",
  "rank_objects",
  "render_views",
  "render_whole",
]
