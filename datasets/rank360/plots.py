"""The report's plots as inline SVG: bars and points, drawn with nothing but text.

Units are those of the SVG's view box: x to the right, y downwards.
"""

import html
from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 408, 14, 184
MAX_POINTS = 3000


def bar_plot(labels: Sequence[object], counts: Sequence[float], x_title: str, y_title: str) -> str:
  """Returns bars of `counts` above their labels; of many labels only some are written."""
  highest = max(counts, default=1) or 1
  axes, scale = _axes(x_title, y_title, highest + highest % 2)  # even, so that its half is whole
  step = (RIGHT - LEFT) / max(len(labels), 1)
  every = max(1, -(-len(labels) // 12))
  parts = [axes]
  for index, (label, count) in enumerate(zip(labels, counts, strict=True)):
    x, y = LEFT + index * step, scale(count)
    parts.append(
      f'<rect class="bar" x="{x + 0.1 * step:.1f}" y="{y:.1f}" width="{0.8 * step:.1f}"'
      f' height="{BOTTOM - y:.1f}"><title>{html.escape(str(label))}: {count:g}</title></rect>'
    )
    if index % every == 0:
      parts.append(_text(x + step / 2, BOTTOM + 14, str(label)))
  return _svg(parts)


def histogram(values: np.ndarray, edges: np.ndarray, x_title: str, y_title: str) -> str:
  """Returns bars that count the values between edges; each is labelled by its middle."""
  counts, _ = np.histogram(values, edges)
  middles = [f"{value:.2g}" for value in (edges[:-1] + edges[1:]) / 2]
  return bar_plot(middles, counts.tolist(), x_title, y_title)


def scatter_plot(
  x: np.ndarray, y: np.ndarray, x_ticks: Sequence[float], x_title: str, y_title: str
) -> str:
  """Returns points, y in [0, 1], with the mean of y in ten equally filled parts of x as a line.

  Args:
    x: [M]; the axis reaches from the first tick to the last.
    y: [M].
    x_ticks: positions to label, rising.
    x_title: what x is.
    y_title: what y is.
  """
  axes, scale = _axes(x_title, y_title, 1)
  first, last = x_ticks[0], x_ticks[-1]

  def place(value):
    return LEFT + (value - first) / (last - first) * (RIGHT - LEFT)

  parts = [axes, *(_text(place(tick), BOTTOM + 14, f"{tick:g}") for tick in x_ticks)]
  shown = np.random.default_rng(0).permutation(len(x))[:MAX_POINTS]
  parts += [
    f'<circle class="point" cx="{place(x[i]):.1f}" cy="{scale(y[i]):.1f}" r="2.2"/>' for i in shown
  ]
  order = np.argsort(x, kind="stable")
  groups = [group for group in np.array_split(order, min(10, len(order) // 5 or 1)) if len(group)]
  line = " ".join(f"{place(x[g].mean()):.1f},{scale(y[g].mean()):.1f}" for g in groups)
  parts.append(f'<polyline class="mean" points="{line}"/>')
  return _svg(parts)


def _axes(x_title: str, y_title: str, highest: float):
  """Returns the frame with three labelled levels of y, and the function from y to its place."""

  def scale(value):
    return BOTTOM - value / highest * (BOTTOM - TOP)

  parts = []
  for level in (0, highest / 2, highest):
    y = scale(level)
    parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}"/>')
    parts.append(_text(LEFT - 6, y + 4, f"{level:g}", "end"))
  parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 10, x_title, css="title"))
  middle = (TOP + BOTTOM) / 2
  turn = f' transform="rotate(-90 12 {middle})"'
  parts.append(_text(12, middle, y_title, css="title", extra=turn))
  return "".join(parts), scale


def _text(
  x: float, y: float, text: str, anchor: str = "middle", css: str = "tick", extra: str = ""
) -> str:
  return (
    f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>'
    f"{html.escape(text)}</text>"
  )


def _svg(parts: Sequence[str]) -> str:
  return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
