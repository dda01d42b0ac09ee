"""What groups of views are worth: by it `segment.views` chooses which views there are.

Rows are sets of groups: all, all but one, and those given by --sets. Views are those of `GROUPS`,
more than any plan has.

  python -m foir360_jax.segment.study.group_values COLLAGES --segmenter=package.module:Class \
    --confidence 0.25 0.1 --cache=CACHE --sets 90+flat 90+120+flat

To be run on what nothing is reported of, as `segment.study.collages`.
"""

import argparse
import sys
from collections.abc import Sequence

from foir360_jax.segment.study.frames import WAYS, Row, measure_rows, parse
from foir360_jax.segment.views import View, flat_views, perspective_view, side_of

RINGS: dict[str, tuple[float, tuple[tuple[int, float, float], ...]]] = {
  "90h": (90, ((6, 0, 0),)),
  "90r": (90, ((6, 40, 30), (6, -40, 30))),
  "55h": (55, ((12, 0, 0),)),
  "55r": (55, ((8, 38, 0), (8, -38, 0))),
  "120h": (120, ((4, 0, 45),)),
  "120p": (120, ((1, 90, 0), (1, -90, 0))),
  "100h": (100, ((4, 0, 0),)),
  "100r": (100, ((4, 50, 45), (4, -50, 45))),
  "35h": (35, ((16, 0, 0),)),
  "90p": (90, ((1, 90, 0), (1, -90, 0))),
}
"""Of each group: field of view in degrees; rings of (number, latitude, first longitude)."""
FLAT, FLAT_TURNED = "flat", "turned"
GROUPS = (*RINGS, FLAT, FLAT_TURNED)


def views_of(groups: Sequence[str], height: int) -> tuple[View, ...]:
  """The views of groups for a panorama of `height` rows.

  Raises:
    ValueError: there is no such group.
  """
  unknown = [group for group in groups if group not in GROUPS]
  if unknown:
    raise ValueError(f"{unknown[0]!r} is no group of views; there are {' '.join(GROUPS)}")
  views = []
  for group in groups:
    if group in RINGS:
      fov_deg, rings = RINGS[group]
      side = side_of(fov_deg, height)
      views += [
        perspective_view(first + index * 360 / number, lat, fov_deg, side)
        for number, lat, first in rings
        for index in range(number)
      ]
    else:
      views.append(flat_views()[group == FLAT_TURNED])
  return tuple(views)


def main() -> None:
  """Measures and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--sets", nargs="*", default=[], help="of groups, as 90h+90r+flat")
  parser.add_argument("--ways", nargs="+", default=list(WAYS[:2]), choices=WAYS)
  parser.add_argument("--without", action="store_true", help="also all groups but one, in turn")
  arguments = parse(parser)
  sets = [GROUPS, *(tuple(words.split("+")) for words in arguments.sets)]
  if arguments.without:
    sets += [tuple(group for group in GROUPS if group != left_out) for left_out in GROUPS]
  try:
    figures = measure_rows(
      arguments,
      lambda height: [
        Row(way, "+".join(groups), views_of(groups, height), confidence)
        for confidence in arguments.confidence
        for way in arguments.ways
        for groups in dict.fromkeys(sets)
      ],
    )
  except ValueError as error:
    sys.exit(f"error: {error}")
  print(figures["table"])


if __name__ == "__main__":
  main()
